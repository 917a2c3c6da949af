"""Ten jobs in a row, each over the results of the one before."""

from functools import partial

from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import Digest, MapReduce, Table
from scripts.benchmark.workloads.base import Input, MapReduceWorkload, Outcome

JOBS = 10

# Knuth's multiplier: keys move around from job to job.
SPREAD = 2654435761
LARGEST = 1_000_003


def step(count: int, key: int, value: int) -> list[tuple[int, int]]:
    return [(key * SPREAD % count, value + 1), (key // 2, 1)]


def total(_key: int, values: list[int]) -> int:
    return sum(values) % LARGEST


class Measured(MapReduceWorkload):
    about = "Ten jobs, each with an item for every result of the one before, and two pairs an item."
    unit = "items"
    full = 50_000
    quick = 2_000
    least = 100

    def work(self, given: Input) -> MapReduce:
        return self._over(dict.fromkeys(range(given.size), 1), given.size)

    def run(self, engine: Engine, given: Input) -> Outcome:
        results = dict(engine.mapreduce(self.work(given)))
        for _ in range(JOBS - 1):
            results = dict(engine.mapreduce(self._over(results, given.size)))
        return Outcome(str(Digest().add(results.items())))

    def _over(self, items: dict[int, int], size: int) -> MapReduce:
        return MapReduce(Table(items), partial(step, size), total)
