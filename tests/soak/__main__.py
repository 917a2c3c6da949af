"""Real processes, real kills, for longer than the tests take.

``--runs N``: N jobs; in each the serving peer, which has workers, gets SIGKILL at a time drawn
uniformly over the job's length. ``--chain N``: one long job during which N servers in turn are
killed, each replaced by a new peer. Checked in every run: the result equals the sequential one, it
came once, no finished task was executed again, nothing is left behind. Reported: the time from the
kill to the first task that the new server gave and that was finished.

``--hog MINUTES``: no faults at all, but a grid at full load whose server and another owner hold
their interpreter's lock for two seconds again and again (``tests/witness``). Checked: nobody takes
anybody for dead. Reported: the term, the jobs done, and the longest silence that was judged.

``--takeover N``: N grids of ten peers whose server, without slots, is killed at half of a job
(``tests/soak/takeover.py``).

``--idle N``: N idle peers, whose server is killed three times (``tests/soak/idle.py``).
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from grid.job import Job
from peers import Peer, Transaction
from tests.live.harness import Process, Site, until
from tests.live.jobs import answer, gated_job, slowly, total
from tests.soak import takeover
from tests.soak.idle import idle
from tests.witness.witness import Witness, complaints

ITEMS = 300
SLOTS = 2
IDLE_KILLS = 3
JOB_SECONDS = 1.0
"""About what the job takes with all peers: kills are drawn over it and a bit beyond."""


@dataclass
class Outcome:
    """One kill: ``seconds`` to recovery, None if the job was over before any was needed."""

    seconds: float | None
    again: int
    right: bool
    delivered: int


@contextmanager
def site() -> Iterator[Site]:
    """A host for one run; complains of everything left behind."""
    with (
        tempfile.TemporaryDirectory(prefix="peergrid-soak-") as folder,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        made = Site(Path(folder), monkeypatch)
        try:
            yield made
        finally:
            made.close()


class Watched:
    """A submitted job whose deliveries are counted."""

    def __init__(self, peer: Peer, items: int, gates: list[Path] | None = None) -> None:
        """``gates``, if any, are files that let an equal part of the items go each."""
        self.items = items
        self.delivered = 0
        if gates:
            job = gated_job(gates, items // len(gates), self._count)
        else:
            job = Job(list(range(items)), slowly, reducefn=total, resultfn=self._count)
        self.txn: Transaction = peer.submit(job)

    def _count(self, _results: object) -> None:
        self.delivered += 1

    def recovered_after(self, term: int, killed_at: float) -> float | None:
        """Wait until a task of a later term's server is finished, or the job is."""

        def ran() -> bool:
            now = self.txn.progress
            return (now.term > term and now.tasks_this_term > 0) or self.txn.done()

        until("a task of the new server", ran)
        now = self.txn.progress
        return time.monotonic() - killed_at if now.tasks_this_term and now.term > term else None

    def outcome(self, seconds: float | None) -> Outcome:
        right = self.txn.result(120) == answer(self.items)
        until("the delivery", lambda: self.delivered)
        return Outcome(seconds, self.txn.progress.executed_again, right, self.delivered)


def kill_once(rng: random.Random) -> Outcome:
    """One job, one kill."""
    with site() as here:
        here.start("one", slots=SLOTS)
        here.start("two", slots=SLOTS)
        watched = Watched(here.here("owner"), ITEMS)
        time.sleep(rng.uniform(0.0, 1.1 * JOB_SECONDS))
        term = watched.txn.progress.term or 1
        here.named("one").kill()
        seconds = watched.recovered_after(term, time.monotonic())
        return watched.outcome(seconds)


def kill_in_turn(count: int, rng: random.Random) -> list[Outcome]:
    """One job, many servers. Each kill opens a gate, so that there is work however long a new peer
    takes to start."""
    with site() as here:
        living: list[Process] = [here.start(slots=SLOTS) for _ in range(3)]
        owner = here.here("owner", serves=False)
        gates = [here.folder / f"gate{number}" for number in range(count + 1)]
        watched = Watched(owner, ITEMS * len(gates), gates)
        gates[0].touch()
        times: list[float | None] = []
        for gate in gates[1:]:
            until("progress", lambda: watched.txn.progress.tasks_this_term > 3)
            time.sleep(rng.uniform(0.0, 0.3))
            name = owner.status().server
            victim = next(process for process in living if process.name == name)
            living.remove(victim)
            term = watched.txn.progress.term
            gate.touch()
            victim.kill()
            times.append(watched.recovered_after(term, time.monotonic()))
            living.append(here.start(slots=SLOTS))
        last = watched.outcome(None)
        return [Outcome(s, last.again, last.right, last.delivered) for s in times]


def take_over_once() -> takeover.Takeover:
    with site() as here:
        return takeover.take_over(here)


def report(outcomes: list[Outcome]) -> bool:
    """Print the distribution; tell whether all was right."""
    times = sorted(1000 * o.seconds for o in outcomes if o.seconds is not None)
    if times:
        p95, p99 = (times[min(len(times) - 1, round(q * len(times)))] for q in (0.95, 0.99))
        print(
            f"recovery in ms: median {statistics.median(times):.0f}, p95 {p95:.0f}, p99 {p99:.0f}, "
            f"min {times[0]:.0f}, max {times[-1]:.0f} ({len(times)} of {len(outcomes)} kills; in "
            "the others the job was over before a task was needed)"
        )
    wrong = sum(not o.right for o in outcomes)
    doubled = sum(o.delivered != 1 for o in outcomes)
    again = sum(o.again for o in outcomes)
    print(f"wrong results {wrong}, not delivered once {doubled}, finished tasks again {again}")
    return not (wrong or doubled or again)


def hog(minutes: float) -> bool:
    """Full load and held locks for so long; tell whether nobody minded."""
    with tempfile.TemporaryDirectory(prefix="peergrid-soak-") as folder:
        witness = Witness(Path(folder))
        try:
            while witness.age < 60 * minutes:
                time.sleep(1.0)
                if complaints(witness.account()):
                    break
            account = witness.account()
        finally:
            witness.close()
    print(account)
    wrong = complaints(account)
    print(*(f"WRONG: {line}" for line in wrong), sep="\n")
    return not wrong and account.jobs > 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, help="jobs with one kill each")
    parser.add_argument("--chain", type=int, default=0, help="kills of servers during one job")
    parser.add_argument("--hog", type=float, default=0, metavar="MINUTES", help="of no faults")
    parser.add_argument("--takeover", type=int, default=0, metavar="N", help="grids of ten peers")
    parser.add_argument("--idle", type=int, default=0, metavar="N", help="peers that come back")
    parser.add_argument("--seed", type=int, default=1, help="of the kill times")
    args = parser.parse_args()
    if not (args.runs or args.chain or args.hog or args.takeover or args.idle):
        args.runs = 20
    rng = random.Random(args.seed)
    good = True
    if args.runs:
        print(f"{args.runs} jobs on 3 peers, the server killed at any time")
        good &= report([kill_once(rng) for _ in range(args.runs)])
    if args.chain:
        print(f"one job, {args.chain} servers killed in turn")
        good &= report(kill_in_turn(args.chain, rng))
    if args.hog:
        print(f"{args.hog:g} minutes at full load, interpreters held, no faults")
        good &= hog(args.hog)
    if args.takeover:
        print(f"{args.takeover} grids of ten peers, the server killed at half of a job")
        good &= takeover.report([take_over_once() for _ in range(args.takeover)])
    if args.idle:
        print(f"{args.idle} idle peers, the server killed {IDLE_KILLS} times")
        with site() as here:
            good &= idle(here, args.idle, IDLE_KILLS)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
