"""``grid top``: the grid as it is now, live, in a terminal.

The process that shows it is a visitor: it neither serves nor works, follows whoever serves, and
goes on showing what it knew while a server is sought. Where stdout is no terminal, or one that
cannot be drawn on, one frame is printed, and that is all.
"""

import argparse
import time
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.live import Live

from grid.errors import CannotJoin, Misuse
from peers.cli.keyboard import Keyboard, keyboard
from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.tables import make_console
from peers.cli.top_view import View, frame
from peers.wall_clock import time_of_day

if TYPE_CHECKING:
    from peers.peer import Peer
    from peers.snapshot import Snapshot
    from peers.watching import Watch

INTERVAL_SECONDS = 1.0
INTERVAL_SECONDS_MIN = 0.1

ANSWER_SECONDS = 0.2
"""So long may a look keep keys waiting; an answer takes milliseconds."""

ONCE_SECONDS = 5.0
"""How long the first frame waits for a server: longer than a failover."""

VITALS_SECONDS = 1.5
"""How long it then waits for peers to say how they do: they do so with a heartbeat."""

LINES_WITHOUT_TERMINAL = 1000

_DESCRIPTION = """\
Show the grid live: who serves, with its term, and how long the latest losses of a server
lasted (until the next one served, and until its first task ran); the peers, with busy
slots, load of their host, memory of all their processes, and bytes of data received and
sent; the transactions, with how far and how fast their phase goes, what is left of it,
and how long they have taken.

  grid top
  grid top --interval 0.2
  grid top | cat              # not a terminal: one frame, and that is all
  grid top --json | jq '.peers[].memory'

Keys: up and down (or k and j) select a transaction, enter shows why it failed or who
runs it, escape selects none, c cancels it for everyone (it asks first), s and t sort
peers and transactions by something else, q quits.

When the server dies this says so, and goes on: it is a visitor, and serves nobody. The
exit status is 1 if no grid answers in the beginning.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "top", run, _DESCRIPTION)
    parser.add_argument(
        "--interval",
        type=float,
        default=INTERVAL_SECONDS,
        metavar="SECONDS",
        help=f"between two looks ({INTERVAL_SECONDS:g})",
    )
    add_json_option(parser, "one snapshot as a JSON object")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look, show, and do what keys say."""
    if not INTERVAL_SECONDS_MIN <= args.interval < float("inf"):
        raise Misuse(f"--interval {args.interval:g}: give at least {INTERVAL_SECONDS_MIN:g} s")
    console = make_console()
    with visit(args) as peer:
        if args.json:
            print_json(msgspec.to_builtins(once(peer.watch())))
        elif not console.is_interactive:
            size = (console.width, LINES_WITHOUT_TERMINAL)
            console.print(frame(once(peer.watch()), View(), time_of_day(), *size))
        else:
            _live(peer, console, args.interval)
    return 0


def once(watch: "Watch") -> "Snapshot":
    """One whole snapshot, with how its peers do if they say so in time."""
    snapshot = watch.look(ONCE_SECONDS)
    if not snapshot.server:
        raise CannotJoin(f"no server answered within {ONCE_SECONDS:g} s")
    deadline = time.monotonic() + VITALS_SECONDS
    while any(peer.busy is None and peer.slots for peer in snapshot.peers):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
        snapshot = watch.look(ANSWER_SECONDS)
    return snapshot


def _live(peer: "Peer", console: Console, interval: float) -> None:
    """Show frame after frame, until a key says that it is enough."""
    watch, view = peer.watch(), View()
    snapshot = watch.look(ONCE_SECONDS)
    with keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        looked_at = time.monotonic()
        while True:
            width, height = console.size
            drawn = frame(snapshot, view, time_of_day(), width, height, keys=True)
            live.update(drawn, refresh=True)
            if not _press(keys, looked_at + interval, snapshot, view, peer):
                return
            if time.monotonic() >= looked_at + interval:
                looked_at = time.monotonic()
                snapshot = watch.look(ANSWER_SECONDS)


def _press(keys: Keyboard, until: float, snapshot: "Snapshot", view: View, peer: "Peer") -> bool:
    """Wait for a key until the next look; do what it says. False if that is to end."""
    for key in keys.wait(until - time.monotonic()):
        order, _, record = view.press(key, snapshot).partition(" ")
        if order == "quit":
            return False
        if order == "cancel":
            peer.end(record)
    return True
