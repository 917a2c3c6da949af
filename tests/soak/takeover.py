"""Ten peers on this host lose their server in the middle of a job, again and again.

Each run is a grid of its own: a server without slots and nine peers with one slot each, which run a
job twice, the second time with the server killed at half. Reported: the time from the loss until
the first task that the new server gave began to run, as the grid itself measured it; from the kill
until such a task was finished, as seen from outside; and how much longer the job took than without
a kill. Checked: right, delivered once, nothing executed again.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from peers import Job, Transaction
from tests.live.harness import Process, Site, until

WORKERS = 9
ITEM_SECONDS = 0.004
JOB_SECONDS = 3.0
ITEMS = round(WORKERS * JOB_SECONDS / ITEM_SECONDS)
READY_SECONDS = 2.0
"""Members have made ready for the next server when the grid has been calm for so long."""


@dataclass
class Takeover:
    """One run. The first task of the new server began to run after ``begun_seconds`` and was
    finished after ``done_seconds``."""

    calm_seconds: float
    killed_seconds: float
    begun_seconds: float
    done_seconds: float
    again: int
    right: bool


def briefly(key: int, value: int) -> Iterator[tuple[int, int]]:
    time.sleep(ITEM_SECONDS)
    yield key % 7, value


def total(_key: int, values: list[int]) -> int:
    return sum(values)


def take_over(site: Site) -> Takeover:
    """One grid, one job undisturbed, the same with its server killed at half."""
    server = site.start("server", slots=0)
    for number in range(WORKERS):
        site.begin(f"worker{number}")
    owner = site.here("owner", serves=False)
    until("all are there", lambda: len(owner.status().members) == WORKERS + 2)
    job = Job(range(ITEMS), briefly, reducefn=total)
    right = {rest: sum(range(rest, ITEMS, 7)) for rest in range(7)}
    owner.submit(Job(range(20 * WORKERS), briefly)).result(60)  # workers have begun, code is there
    time.sleep(READY_SECONDS)
    began = time.monotonic()
    calm_right = owner.submit(job).result(60) == right
    calm = time.monotonic() - began
    began = time.monotonic()
    txn = owner.submit(job)
    until("half of it", lambda: txn.progress.maps_done >= ITEMS // 2)
    seconds = _kill(server, txn)
    killed_right = txn.result(60) == right
    killed = time.monotonic() - began
    again = txn.progress.executed_again
    begun = owner.status().failovers[-1].task_seconds
    assert begun is not None, "a task of the new server ran, and that was not noted"
    return Takeover(calm, killed, begun, seconds, again, calm_right and killed_right)


def _kill(server: Process, txn: Transaction) -> float:
    term = txn.progress.term
    killed_at = time.monotonic()
    server.kill()
    while not (txn.progress.term > term and txn.progress.tasks_this_term):
        time.sleep(0.0005)
        assert time.monotonic() < killed_at + 30, "no task of a new server"
    return time.monotonic() - killed_at


def report(runs: list[Takeover]) -> bool:
    """Print the distributions; tell whether all was right."""
    _distribution("loss to first task begun", [run.begun_seconds for run in runs])
    _distribution("kill to first task finished", [run.done_seconds for run in runs])
    ratios = sorted(run.killed_seconds / run.calm_seconds for run in runs)
    print(
        f"job with its server killed, against undisturbed: median {statistics.median(ratios):.3f}, "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
    )
    wrong = sum(not run.right for run in runs)
    again = sum(run.again for run in runs)
    print(f"wrong results {wrong}, finished tasks again {again}")
    return not (wrong or again)


def _distribution(what: str, seconds: list[float]) -> None:
    times = sorted(1000 * each for each in seconds)
    p90, p99 = (times[min(len(times) - 1, round(q * len(times)))] for q in (0.9, 0.99))
    print(
        f"{what}, in ms: median {statistics.median(times):.0f}, p90 {p90:.0f}, p99 {p99:.0f}, "
        f"max {times[-1]:.0f} ({len(times)} kills)"
    )
