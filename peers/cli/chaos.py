"""``grid chaos``: kill, freeze and cut off peers of a running grid, and tell what it cost.

Faults go as a request through the server to the peer that is to suffer, which performs it on
itself (``peers/chaos.py``), and only if it allows that. Meanwhile jobs with known answers run
(``peers/cli/probing.py``). How long the loss of a server lasted is what the grid itself measured.

Promises: nothing is done to a grid before its name was said and the question was answered; no peer
is killed that would leave fewer than ``--keep``; the next fault waits until the grid is over the
last one. Peers in other hosts' or programs' processes that were killed are not started again.
"""

import argparse
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from grid.errors import CannotJoin, GridError, Misuse
from grid.messages import Failover, Fault, MemberStatus
from peers.cli.options import add_command, add_grid_options, ask, grid_flags, visit
from peers.cli.printing import add_json_option, print_json_line
from peers.cli.probing import NOTHING, Findings, Probe
from peers.cli.status import failover_line, show_seconds
from peers.cli.tables import make_console, make_table

if TYPE_CHECKING:
    from peers.peer import Peer, PeerStatus

FAULTS = ("kill", "freeze", "cut", "kill-peer", "freeze-peer", "cut-peer")
"""The first three befall the server, the others a peer that does not serve."""

EVERY_SECONDS = 10.0
FAULT_SECONDS = 6.0
"""Around this long a peer is frozen or cut off: some of these times are shorter than it takes to
be given up as silent, most are longer."""

KEEP = 2

RECOVERY_SECONDS = 60.0
"""A grid that is not whole by then, a fault being over, will not be."""

HAPPEN_SECONDS = 10.0
"""A peer that is still there so long after it was to be killed was never told."""

POLL_SECONDS = 0.1
STATUS_SECONDS = 2.0

_DESCRIPTION = """\
Prove it yourself: kill, freeze and cut off peers of the grid NAME, and see what it costs.
(A grid that was given no name is named `grid`.) It asks before it begins.

  grid chaos grid                                  every 10 s, until Ctrl-C
  grid chaos grid --times 20 --restart --yes       and starts local peers again
  grid chaos grid --faults kill,freeze --seed 7    the same faults again

  kill, freeze, cut                 the server's process is killed; is frozen; the server
                                    neither dials nor answers, as if its cable were pulled
  kill-peer, freeze-peer, cut-peer  the same for a peer that does not serve

Only peers that allow it suffer: those of `grid up`, unless started with --no-chaos, and
no program's own Peer unless it was made with chaos=True. All user code that a killed peer
runs is killed with it, and done again elsewhere.

Meanwhile jobs run whose answers are known. For each fault it is said how long it took
until another server was there and until the first task ran under it, as the grid itself
measured (from the loss; of a silent server, from when it was last heard); how many
finished tasks had to be executed again (none because a server died; some if a peer goes
and takes with it what it alone had); and what of the results was lost, doubled or wrong.

The exit status is 0 only if nothing was lost, doubled or wrong, and the grid was whole
again after every fault. Ctrl-C ends it early, with its summary.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "chaos", run, _DESCRIPTION)
    parser.add_argument("named", metavar="NAME", help="the grid's name, so that no other is meant")
    parser.add_argument("--yes", action="store_true", help="do not ask before it begins")
    parser.add_argument(
        "--every", type=float, default=EVERY_SECONDS, metavar="SECONDS", help="at most so often"
    )
    parser.add_argument("--times", type=int, metavar="N", help="so many faults, then end")
    parser.add_argument(
        "--for", type=float, dest="seconds", metavar="SECONDS", help="end after so long"
    )
    parser.add_argument(
        "--faults",
        default=",".join(FAULTS),
        metavar="A,B,...",
        help="which are drawn from, a repeated one more often (all)",
    )
    parser.add_argument(
        "--lasting",
        type=float,
        default=FAULT_SECONDS,
        metavar="SECONDS",
        help="how long peers are frozen or cut off: drawn from half of it to half as much again",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="draw the same faults again")
    parser.add_argument(
        "--keep", type=int, default=KEEP, metavar="N", help=f"kill no more if N are left ({KEEP})"
    )
    parser.add_argument(
        "--restart", action="store_true", help="start `grid up` for each that was killed here"
    )
    add_json_option(parser, "a line of JSON for each fault and for the summary")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, break things until the end, sum up."""
    faults = _checked(args)
    args.grid = args.named
    with visit(args) as peer:
        status = ask(peer)
        victims = [m for m in status.members if m.chaos]
        if not victims:
            raise GridError(
                f"no peer of the grid {args.named!r} allows it: `grid up` peers do unless started "
                "with --no-chaos, and programs that say Peer(chaos=True)"
            )
        if not args.yes:
            _confirm(args.named, victims)
        seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
        chaos = Chaos(args, peer, faults, random.Random(seed))
        with _reporter(args.json) as report:
            why = chaos.run(report)
        _sum_up(chaos, seed, why, as_json=args.json)
    return 0 if chaos.good else 1


def _checked(args: argparse.Namespace) -> list[str]:
    """Return the faults to draw from. Raises ``Misuse``."""
    if args.grid not in (None, args.named):
        raise Misuse(f"both {args.named!r} and --grid {args.grid!r} name a grid: say one")
    faults = [text.strip() for text in args.faults.split(",") if text.strip()]
    unknown = [fault for fault in faults if fault not in FAULTS]
    if unknown or not faults:
        raise Misuse(f"--faults {args.faults}: choose from {', '.join(FAULTS)}")
    for name in ("every", "lasting", "times", "seconds", "keep"):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float("inf"):
            raise Misuse(f"--{'for' if name == 'seconds' else name} {value}: use 0 or more")
    return faults


def _confirm(name: str, victims: list[MemberStatus]) -> None:
    """Ask a person; nobody else can answer. Raises ``Misuse``."""
    if not sys.stdin.isatty():
        raise Misuse(
            f"this would kill, freeze and cut off peers of the grid {name!r}; --yes says so where "
            "nobody can be asked"
        )
    names = ", ".join(sorted(member.name for member in victims))
    print(f"Kill, freeze and cut off peers of the grid {name!r}: {names}?", file=sys.stderr)
    print("Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("yes", "y"):
        raise GridError("nothing was done")


# ------------------------------------------------------------------------------ faults


@dataclass(frozen=True)
class Plan:
    """One fault: what happens to whom, for how long."""

    fault: str
    victim: MemberStatus
    seconds: float

    @property
    def kind(self) -> Fault:
        kind = self.fault.removesuffix("-peer")
        assert kind in ("kill", "freeze", "cut")
        return kind  # type: ignore[return-value]


@dataclass
class Outcome:
    """What came of a fault. ``failovers`` are the grid's own measurements since; ``whole`` is
    when everything was as it should be again, in seconds, or None if it never was."""

    plan: Plan
    failovers: dict[int, Failover] = field(default_factory=dict)
    whole: float | None = None
    happened: bool = True
    found: Findings = NOTHING

    @property
    def good(self) -> bool:
        return self.whole is not None and self.found.good

    def as_json(self) -> dict[str, Any]:
        return {
            "event": "fault",
            "fault": self.plan.fault,
            "peer": self.plan.victim.name,
            "seconds": round(self.plan.seconds, 3),
            "happened": self.happened,
            "failovers": [
                {"how": f.how, "server_seconds": f.server_seconds, "task_seconds": f.task_seconds}
                for f in self.failovers.values()
            ],
            "whole_seconds": self.whole,
            **counts(self.found),
        }


def counts(found: Findings) -> dict[str, Any]:
    """What was found, for scripts."""
    return {
        "executed_again": found.again,
        "lost": found.lost,
        "doubled": found.doubled,
        "wrong": found.wrong,
        "reasons": list(found.reasons),
    }


def draw(
    status: "PeerStatus", faults: list[str], keep: int, lasting: float, rng: random.Random
) -> Plan | None:
    """Draw a fault that can be done to this grid now; None if none can."""
    peers = [member for member in status.members if not member.visitor]
    possible: dict[str, list[MemberStatus]] = {}
    for fault in faults:
        serving = not fault.endswith("-peer")
        found = [member for member in peers if member.chaos and member.serving == serving]
        if found and (not fault.startswith("kill") or len(peers) > keep) and len(peers) > 1:
            possible[fault] = found
    if not possible:
        return None
    fault = rng.choice([fault for fault in faults if fault in possible])
    victim = rng.choice(possible[fault])
    seconds = 0.0 if fault.startswith("kill") else lasting * rng.uniform(0.5, 1.5)
    return Plan(fault, victim, seconds)


class Chaos:
    """One run: faults, one after the other, and what came of them."""

    def __init__(
        self, args: argparse.Namespace, peer: "Peer", faults: list[str], rng: random.Random
    ) -> None:
        self._args = args
        self._peer = peer
        self._faults = faults
        self._deck = list(faults)
        self._rng = rng
        self._probe = Probe(peer)
        self._restarted: dict[str, int] = {}
        self.outcomes: list[Outcome] = []
        self.peers_left = 0

    @property
    def found(self) -> Findings:
        """What was found on the whole."""
        return self._probe.findings

    @property
    def good(self) -> bool:
        return self.found.good and all(outcome.good for outcome in self.outcomes)

    def run(self, report: Callable[[Outcome], None]) -> str:
        """Go on until the end; return why it ended."""
        self._probe.start()
        why = ""
        try:
            self._wait_for_jobs(2)
            began = time.monotonic()
            while not (why := self._is_over(began)):
                status = self._status()
                plan = None if status is None else self._draw(status)
                if status is None or plan is None:
                    why = "no server answers" if status is None else self._nothing_left(status)
                    break
                self._befall(plan, status, report)
        except KeyboardInterrupt as interrupt:
            if type(interrupt) is not KeyboardInterrupt:
                raise
            why = "interrupted"
        except BaseException:
            self._probe.abandon()
            raise
        self._probe.end()
        self._count_peers()
        return why

    def _is_over(self, began: float) -> str:
        times, seconds = self._args.times, self._args.seconds
        if times is not None and len(self.outcomes) >= times:
            return "all faults are done"
        if seconds is not None and time.monotonic() - began >= seconds:
            return "the time is up"
        if self.outcomes and self.outcomes[-1].whole is None:
            return "the grid is not whole again"
        return ""

    def _draw(self, status: "PeerStatus") -> Plan | None:
        """Every fault comes once before any comes again, as far as it can be done."""
        args = self._args
        for faults in (self._deck, self._faults):
            plan = draw(status, faults, args.keep, args.lasting, self._rng)
            if plan is not None:
                self._deck = list(faults)
                self._deck.remove(plan.fault)
                return plan
        return None

    def _nothing_left(self, status: "PeerStatus") -> str:
        peers = sum(not member.visitor for member in status.members)
        why = f"none of the faults can be done: {peers} peers are left, --keep {self._args.keep}"
        if not self.outcomes:
            raise GridError(f"{why}; and only peers that allow it suffer")
        return why

    # -- one fault -----------------------------------------------------------------------

    def _befall(self, plan: Plan, status: "PeerStatus", report: Callable[[Outcome], None]) -> None:
        before, began = self._probe.findings, time.monotonic()
        outcome = Outcome(plan)
        self.outcomes.append(outcome)
        self._peer.ask_fault(plan.victim.peer, plan.kind, plan.seconds)
        try:
            self._watch(outcome, status, began)
            outcome.found = self._probe.findings - before
        finally:
            report(outcome)
        time.sleep(max(0.0, began + self._args.every - time.monotonic()))

    def _watch(self, outcome: Outcome, before: "PeerStatus", began: float) -> None:
        """Follow the grid until it is over the fault, or too late."""
        known = {failover.term for failover in before.failovers}
        restarted = False
        give_up = began + outcome.plan.seconds + RECOVERY_SECONDS
        jobs = 0
        while (now := time.monotonic()) < give_up:
            status = self._status()
            if status is not None:
                for failover in status.failovers:
                    if failover.term not in known:
                        outcome.failovers[failover.term] = failover
                gone = all(m.peer != outcome.plan.victim.peer for m in status.members)
                if gone and outcome.plan.kind == "kill" and not restarted:
                    restarted = True
                    self._restart(outcome.plan.victim, status)
                if now - began >= outcome.plan.seconds and self._is_whole(outcome, status):
                    jobs = jobs or self._probe.jobs_submitted + 1
                    if self._probe.findings.jobs >= jobs:  # one that began after it was whole
                        outcome.whole = now - began
                        return
                elif self._never_happened(outcome, status, now - began):
                    outcome.happened, outcome.whole = False, 0.0
                    return
            time.sleep(POLL_SECONDS)

    def _is_whole(self, outcome: Outcome, status: "PeerStatus") -> bool:
        """Whether who should be there is, and tasks run again."""
        plan = outcome.plan
        there = any(member.peer == plan.victim.peer for member in status.members)
        timed = all(f.task_seconds is not None for f in outcome.failovers.values())
        if plan.kind != "kill":
            return there and timed
        lost_server = plan.victim.serving
        back = self._are_back(status)
        return not there and timed and back and bool(outcome.failovers or not lost_server)

    def _are_back(self, status: "PeerStatus") -> bool:
        """Whether those started in place of killed ones have joined, or ended."""
        names = {member.name for member in status.members}
        return all(name in names or _has_ended(pid) for name, pid in self._restarted.items())

    def _never_happened(self, outcome: Outcome, status: "PeerStatus", seconds: float) -> bool:
        """Whether the one to be killed was never told: its server died first, say."""
        there = any(member.peer == outcome.plan.victim.peer for member in status.members)
        return outcome.plan.kind == "kill" and there and seconds > HAPPEN_SECONDS

    def _restart(self, victim: MemberStatus, status: "PeerStatus") -> None:
        """Start one of the same name and slots in place of one that ran on this host."""
        mine = next((m.host for m in status.members if m.peer == self._peer.id), "")
        if not self._args.restart or victim.host != mine:
            return
        command = [sys.executable, "-m", "peers", "up", "--slots", str(victim.slots)]
        command += [*grid_flags(self._args), "--name", victim.name]
        self._restarted[victim.name] = _start(command)

    # -- the grid ------------------------------------------------------------------------

    def _status(self) -> "PeerStatus | None":
        """Ask the server, if there is one in time."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            try:
                return self._peer.status(STATUS_SECONDS)
            except TimeoutError:
                continue
        return None

    def _wait_for_jobs(self, count: int) -> None:
        """See that the grid works before anything is done to it. Raises ``CannotJoin``."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        while self._probe.findings.jobs < count:
            if time.monotonic() > deadline:
                raise CannotJoin("no job ends on this grid: has any peer slots? See `grid status`")
            time.sleep(POLL_SECONDS)

    def _count_peers(self) -> None:
        status = self._status()
        members = status.members if status is not None else ()
        self.peers_left = sum(not member.visitor for member in members)


def _start(command: list[str]) -> int:
    """Start a process that stays when this one has ended; return its id."""
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=nowhere, setsid=True)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # that was told before
        return True


# ------------------------------------------------------------------------------ telling


_HEADINGS = ("fault", "what", "whom", "lost", "next server", "first task", "again", "result")


def row(number: int, outcome: Outcome) -> tuple[str, ...]:
    """One line of the table."""
    plan, failovers = outcome.plan, list(outcome.failovers.values())
    tasks = [f.task_seconds for f in failovers if f.task_seconds is not None]
    lasting = f" {plan.seconds:.1f} s" if plan.seconds else ""
    return (
        str(number),
        f"{plan.fault}{lasting}",
        escape(plan.victim.name),
        ", ".join(f.how for f in failovers) or "-",
        ", ".join(show_seconds(f.server_seconds) for f in failovers) or "-",
        ", ".join(show_seconds(seconds) for seconds in tasks) or "-",
        str(outcome.found.again),
        verdict(outcome),
    )


def sentence(number: int, outcome: Outcome) -> str:
    """The same where there is no table."""
    plan = outcome.plan
    lasting = f" for {plan.seconds:.1f} s" if plan.seconds else ""
    said = [f"{number}. {plan.fault} {plan.victim.name}{lasting}"]
    said += [failover_line(failover) for failover in outcome.failovers.values()]
    said.append(f"{outcome.found.again} finished tasks executed again")
    return "; ".join([*said, verdict(outcome)])


def verdict(outcome: Outcome) -> str:
    """What came of the results, in words."""
    if not outcome.happened:
        return "did not happen"
    if outcome.whole is None:
        return "NOT WHOLE AGAIN"
    return bad(outcome.found) or f"all right, whole after {show_seconds(outcome.whole)}"


def bad(found: Findings) -> str:
    """What is wrong with the results, or nothing."""
    numbers = (found.lost, "LOST"), (found.doubled, "DOUBLED"), (found.wrong, "WRONG")
    return ", ".join(f"{count} {what}" for count, what in numbers if count)


@contextmanager
def _reporter(as_json: bool) -> Iterator[Callable[[Outcome], None]]:
    """Tell of each fault when it is over: in a table that grows on a terminal, else in lines."""
    console = make_console()
    if as_json:
        yield lambda outcome: print_json_line(outcome.as_json())
    elif console.is_terminal:
        table = make_table(*_HEADINGS)
        with Live(table, console=console, auto_refresh=False) as live:

            def add_row(outcome: Outcome) -> None:
                table.add_row(*row(len(table.rows) + 1, outcome))
                live.refresh()

            yield add_row
    else:
        numbers = itertools.count(1)
        yield lambda outcome: print(sentence(next(numbers), outcome), flush=True)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median, the 99th of a hundred and the longest; by nearest rank."""
    ranked = sorted(seconds)

    def at(share: float) -> float:
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    return {"p50": at(0.5), "p99": at(0.99), "max": ranked[-1]}


def failover_times(outcomes: list[Outcome]) -> dict[str, dict[str, float]]:
    """What losses of servers took: closed and silent ones apart, as they differ by seconds."""
    times: dict[str, list[float]] = {}
    for outcome in outcomes:
        for failover in outcome.failovers.values():
            times.setdefault(f"{failover.how}, next server", []).append(failover.server_seconds)
            if failover.task_seconds is not None:
                times.setdefault(f"{failover.how}, first task", []).append(failover.task_seconds)
    return {what: percentiles(found) for what, found in sorted(times.items())}


def _sum_up(chaos: Chaos, seed: int, why: str, *, as_json: bool) -> None:
    found, times = chaos.found, failover_times(chaos.outcomes)
    if as_json:
        print_json_line(
            {
                "event": "summary",
                "faults": len(chaos.outcomes),
                "jobs": found.jobs,
                "seed": seed,
                "why": why,
                "times": times,
                **counts(found),
                "peers_left": chaos.peers_left,
                "good": chaos.good,
            }
        )
        return
    console = make_console()
    console.print(_times_table(times))
    console.print(
        f"{len(chaos.outcomes)} faults, {found.jobs} jobs: "
        f"{bad(found) or 'nothing lost, doubled or wrong'}; {found.again} finished tasks executed "
        f"again; {chaos.peers_left} peers left. It ended here: {why}. (--seed {seed})",
        markup=False,
    )
    for reason in found.reasons:
        console.print(reason, markup=False)


def _times_table(times: dict[str, dict[str, float]]) -> Table:
    table = make_table("server lost", "p50", "p99", "max")
    for what, found in times.items():
        table.add_row(what, *(show_seconds(found[rank]) for rank in ("p50", "p99", "max")))
    return table
