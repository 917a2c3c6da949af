"""``grid drain``: have peers leave well, as before their host is restarted, and say how they did.

The server passes the wish on to the peer, which ends what it runs and has others take over what
they need. Who asked is told how it went by the server that let it go; if that server itself was
drained, or died, the next one knows only that the peer is gone.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

import msgspec
from rich.filesize import decimal

from grid.errors import GridError, Misuse
from grid.messages import Drained, MemberStatus
from grid.settings import Settings
from grid.suggest import did_you_mean
from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.waiting import spinning

if TYPE_CHECKING:
    from peers.peer import Peer

GRACE_SECONDS = 10.0
"""Longer than it takes to end a process, or to find the next server."""

ID_SHOWN = 8

_DESCRIPTION = """\
Have peers that `grid up` started leave well: each is given nothing more, ends the tasks
it runs, lets other peers take over the outputs they need, and goes. Nothing that it has
finished is done again. Say which by name, or by the beginning of the id:

  grid drain                         which peers there are
  grid drain node2-4711
  grid drain node2-4711 node2-4712 --timeout 300

SIGTERM does the same to a peer. The exit status is 1 if one of them had not the time to
do all that, or did not leave; or if no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "drain", run, _DESCRIPTION)
    parser.add_argument(
        "which", metavar="NAME|PEER-ID", nargs="*", help="as `grid status` shows it"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=Settings.drain_seconds,
        help="how long each may take before it goes anyway (default: %(default)g)",
    )
    parser.add_argument("--all", action="store_true", help=argparse.SUPPRESS)
    add_json_option(parser, "one JSON object for each peer, in a list")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask them all, then wait for each."""
    if args.all:
        raise Misuse("with all peers gone nobody keeps the work; `grid down` ends the whole grid")
    if not 0 <= args.timeout < 1e9:
        raise Misuse(f"--timeout {args.timeout:g} is no time; give seconds, such as 60")
    with visit(args) as peer:
        members = [member for member in ask(peer).members if not member.visitor]
        if not args.which:
            raise Misuse(f"say which of {_listed(members)} shall leave")
        found = [find(which, members) for which in args.which]
        chosen = list({member.peer: member for member in found}.values())
        asked = [(member, peer.ask_drain(member.peer, args.timeout)) for member in chosen]
        deadline = time.monotonic() + args.timeout + GRACE_SECONDS
        with spinning(f"{', '.join(member.name for member in chosen)} leaving"):
            outcomes = [(member, _outcome(peer, member, told, deadline)) for member, told in asked]
    if args.json:
        print_json([_as_dict(member, drained) for member, drained in outcomes])
    else:
        for member, drained in outcomes:
            print(f"{member.name} {_told(drained)}", file=sys.stdout if drained else sys.stderr)
    good = (drained is not None and drained.well >= drained.known for _, drained in outcomes)
    return 0 if all(good) else 1


def find(which: str, members: Sequence[MemberStatus]) -> MemberStatus:
    """Return the peer of that name, else of that beginning of an id.

    Raises ``GridError`` if there is none, ``Misuse`` if there are several.
    """
    named = [member for member in members if member.name == which]
    found = named or [member for member in members if which and member.peer.startswith(which)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Misuse(f"{which!r} may be any of {_listed(found)}; write more of the id")
    hint = did_you_mean(which, [member.name for member in members])
    raise GridError(f"no peer is called {which!r}{hint or f'; there are {_listed(members)}'}")


def _listed(members: Sequence[MemberStatus]) -> str:
    return ", ".join(f"{member.name} ({member.peer[:ID_SHOWN]})" for member in members)


def _outcome(
    peer: "Peer", member: MemberStatus, told: "Future[Drained]", deadline: float
) -> Drained | None:
    """Wait until it has left; None if it did not."""
    try:
        return told.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        gone = all(other.peer != member.peer for other in ask(peer).members)
        return Drained(member.peer) if gone else None


def _told(drained: Drained | None) -> str:
    if drained is None:
        return "did not leave: only peers that `grid up` started do, and scripts that wait for it"
    if not drained.known:
        return "has left; the server that could say how has left too"
    tasks = f"{drained.finished} {'task' if drained.finished == 1 else 'tasks'} finished"
    facts = f"{tasks}, {drained.handed_back} handed back, {decimal(drained.passed_on)} passed on"
    haste = "" if drained.well else ", in haste: some finished work may have to be done again"
    return f"has left: {facts}{haste}"


def _as_dict(member: MemberStatus, drained: Drained | None) -> dict[str, Any]:
    facts = msgspec.to_builtins(drained) if drained is not None else {}
    facts.pop("type", None)
    return {"name": member.name, "peer": member.peer, "left": drained is not None, **facts}
