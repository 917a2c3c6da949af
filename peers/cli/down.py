"""``grid down``: end every peer that ``grid up`` started, and say how many other peers remain."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.waiting import spinning

if TYPE_CHECKING:
    from peers.peer import Peer

STILL_SECONDS = 5.0
"""A roster that did not change for so long has settled: leaving takes a fraction of it, save on a
busy machine. Only who has scripts in the grid waits for it."""

NOBODY_SECONDS = 2.5
"""If no server has answered for so long, nobody was left to take over."""

DOWN_SECONDS = 30.0
POLL_SECONDS = 0.1

_DESCRIPTION = """\
End every peer of the grid that `grid up` started, on all its hosts. Scripts of yours
that hold a Peer go on; how many remain is said. (A script may heed it too, by
`peer.wait_until_down()`.)

  grid down
  grid down --json               {"left": 3, "remaining": 0}

What was running for others goes on if peers remain. The exit status is 1 if no grid
answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "down", run, _DESCRIPTION)
    add_json_option(parser, "one JSON object")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, then watch until nobody leaves any more."""
    with visit(args) as peer:
        before = _peers(peer) or set()
        peer.shut_grid_down()
        with spinning("peers are leaving"):
            remaining = _settled(peer, before)
    left = len(before - remaining)
    if args.json:
        print_json({"left": left, "remaining": len(remaining)})
        return 0
    print(f"{left} {'peer' if left == 1 else 'peers'} left, {_remain(len(remaining))}")
    return 0


def _remain(count: int) -> str:
    if not count:
        return "none remains"
    return f"{count} {'remains' if count == 1 else 'remain'} (not started by `grid up`)"


def _settled(peer: "Peer", before: set[str]) -> set[str]:
    """Return who is still there once nobody has left for a while."""
    remaining = before
    now = time.monotonic()
    still_until, last = now + STILL_SECONDS, now + DOWN_SECONDS
    while remaining and time.monotonic() < min(still_until, last):
        found = _peers(peer)
        if found is None:
            return set()
        if found != remaining:
            remaining = found
            still_until = time.monotonic() + STILL_SECONDS
        time.sleep(POLL_SECONDS)
    return remaining


def _peers(peer: "Peer") -> set[str] | None:
    """The ids of all peers that are no visitors; None if no server answers any more."""
    try:
        members = peer.status(NOBODY_SECONDS).members
    except TimeoutError:
        return None
    return {member.peer for member in members if not member.visitor}
