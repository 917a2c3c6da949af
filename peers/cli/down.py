"""``grid down``: end every peer that ``grid up`` started, and say how many other peers remain."""

import argparse
import socket
import time
from typing import TYPE_CHECKING, Any

from grid.messages import MemberStatus
from peers.addresses import is_loopback
from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.waiting import spinning

if TYPE_CHECKING:
    from peers.peer import Peer

STILL_SECONDS = 2.5
"""A roster that did not change for so long, and in which nobody leaves, has settled: to begin to
leave takes a fraction of it, save on a busy machine. Only who has scripts in the grid waits."""

NOBODY_SECONDS = 2.5
"""If no server has answered for so long, nobody was left to take over. On one host it is known
sooner: nobody is left behind the doors that the peers had."""

KNOCK_SECONDS = 0.3

DOWN_SECONDS = 30.0
POLL_SECONDS = 0.1

Members = dict[str, MemberStatus]

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
        before = _peers(peer, NOBODY_SECONDS) or {}
        peer.shut_grid_down()
        with spinning("peers are leaving"):
            remaining = _settled(peer, before)
    left = len(before.keys() - remaining.keys())
    if args.json:
        print_json({"left": left, "remaining": len(remaining)})
        return 0
    print(f"{left} {'peer' if left == 1 else 'peers'} left, {_remain(len(remaining))}")
    return 0


def _remain(count: int) -> str:
    if not count:
        return "none remains"
    return f"{count} {'remains' if count == 1 else 'remain'} (not started by `grid up`)"


def _settled(peer: "Peer", before: Members) -> Members:
    """Return who is still there once nobody has left for a while."""
    remaining = before
    now = time.monotonic()
    last, changed, answered = now + DOWN_SECONDS, now, now
    while remaining and time.monotonic() < last:
        found = _peers(peer, KNOCK_SECONDS)
        now = time.monotonic()
        if found is None:
            if now > answered + NOBODY_SECONDS or not any(map(may_be_there, remaining.values())):
                return {}
            continue
        answered = now
        leaving = any(member.leaving for member in found.values())
        if leaving or found.keys() != remaining.keys():
            changed = now
        remaining = found
        if now > changed + STILL_SECONDS:
            break
        time.sleep(POLL_SECONDS)
    return remaining


def may_be_there(member: MemberStatus) -> bool:
    """Whether a peer may still run. Only this host itself says for certain that nobody listens:
    between hosts a firewall may have said so."""
    if member.data is None or not is_loopback(member.data.host):
        return True
    try:
        socket.create_connection((member.data.host, member.data.port), KNOCK_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def _peers(peer: "Peer", timeout: float) -> Members | None:
    """All peers that are no visitors, by their ids; None if no server answers."""
    try:
        members = peer.status(timeout).members
    except TimeoutError:
        return None
    return {member.peer: member for member in members if not member.visitor}
