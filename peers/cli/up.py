"""``grid up``: a peer that stays until it is told to leave.

It leaves well. On SIGTERM and ``grid drain`` it ends its tasks and has others take over what they
need, for which it has a minute; on SIGINT, SIGHUP and ``grid down`` it has a moment for that. The
same signal a second time ends it at once, which costs the grid nothing but the silence: that is
what failover is for.
"""

import argparse
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

import peers
from peers.cli.options import (
    PEER_SETTINGS,
    add_command,
    add_grid_options,
    add_peer_options,
    given,
)
from peers.cli.printing import add_json_option, print_json_line

if TYPE_CHECKING:
    from peers.peer import Peer

POLL_SECONDS = 0.2
"""How often a change of role is looked for; cheap, and quick enough for a person."""

_DESCRIPTION = """\
Run a peer that stays: it joins the grid, or serves if there is none, and runs tasks.

Start it in as many terminals or on as many hosts as you like, each time with the same
settings. None of them is special: any may be killed.

  grid up
  grid up --slots 2 --name small
  grid up --hosts node1,node2 --key-file grid.key     # the same on node1 and node2

It says on stdout what it is, and when that changes. On SIGTERM and `grid drain` it ends
the tasks it runs, for up to a minute, lets others take over the outputs they need, and
leaves. Ctrl-C, SIGHUP and `grid down` give it two seconds for that; a second Ctrl-C ends
it at once. The exit status is 0.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "up", run, _DESCRIPTION)
    add_json_option(parser, "each event as a line of JSON")
    add_peer_options(parser)
    parser.add_argument(
        "--no-chaos", action="store_true", help="do not let `grid chaos` harm this peer"
    )
    add_grid_options(parser)


class Farewell:
    """Notes the first signal to leave, and lets the second of its kind do what it always does."""

    def __init__(self) -> None:
        self.asked = ""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.asked = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)


def run(args: argparse.Namespace) -> int:
    """Stay until a signal or ``grid down``."""
    farewell = Farewell()

    def say(event: str, text: str, **facts: Any) -> None:
        if args.json:
            print_json_line({"event": event, "peer": peer.name, **facts})
        else:
            print(f"{peer.name} {text}", flush=True)

    with peers.Peer(**given(args, *PEER_SETTINGS), chaos=not args.no_chaos) as peer:
        serving = peer.serving
        text, facts = _introduction(peer)
        say("up", text, **facts)
        while not farewell.asked and not peer.wait_until_down(POLL_SECONDS):
            if peer.serving != serving:
                serving = peer.serving
                say("serves" if serving else "follows", f"serves {'now' if serving else 'no more'}")
        drains = farewell.asked == "SIGTERM" or peer.drain_seconds is not None
        why = farewell.asked or ("`grid drain`" if drains else "the grid goes down")
        say("leaves", f"leaves: {why}", why=why)
        if drains and not peer.drain(peer.drain_seconds):
            say("left", "had not the time to pass on all that others need", well=False)
    return 0


def _introduction(peer: "Peer") -> tuple[str, dict[str, Any]]:
    """What a peer is when it has begun, in words and as facts."""
    try:
        status = peer.status()
    except TimeoutError:  # the server died this moment: another will be found
        return "is up", {}
    slots = next((m.slots for m in status.members if m.peer == peer.id), 0)
    role = "serves" if status.serving else f"follows {status.server}"
    alone = "; alone, though other hosts are named" if status.alone else ""
    tasks = f"{slots} {'slot' if slots == 1 else 'slots'}"
    facts = {
        "serving": status.serving,
        "server": status.server,
        "address": status.address,
        "term": status.term,
        "slots": slots,
        "alone": status.alone,
    }
    return f"{role} at {status.address}, term {status.term}, {tasks}{alone}", facts
