"""``grid down``: end every peer that ``grid up`` started, and say how many other peers remain."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from peers.cli.options import add_command, add_grid_options, visit

if TYPE_CHECKING:
    from peers.peer import Peer

STILL_SECONDS = 1.5
"""A roster that did not change for so long has settled: leaving takes a fraction of it."""

DOWN_SECONDS = 15.0
POLL_SECONDS = 0.1

_DESCRIPTION = """\
End every peer of the grid that `grid up` started. Scripts of yours that hold a Peer
go on; how many remain is said. The exit status is 1 if no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "down", run, "end all `grid up` peers", _DESCRIPTION)
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, then watch until nobody leaves any more."""
    with visit(args) as peer:
        before = _peers(peer) or set()
        peer.shut_grid_down()
        remaining = _settled(peer, before)
    left = len(before - remaining)
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
        members = peer.status(STILL_SECONDS).members
    except TimeoutError:
        return None
    return {member.peer for member in members if not member.visitor}
