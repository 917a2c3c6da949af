"""Arithmetic in chunks of NumPy: pi from random points. The work is all in the items."""

from scripts.benchmark.work import MapReduce, Table
from scripts.benchmark.workloads.base import Input, MapReduceWorkload

CHUNK = 1_000_000


def points(number: int, count: int) -> list[tuple[str, int]]:
    import numpy  # where it runs: nothing else of the benchmark needs it

    source = numpy.random.default_rng(number)
    x, y = source.random(count), source.random(count)
    return [("inside", int(numpy.count_nonzero(x * x + y * y < 1.0)))]


def total(_key: str, counts: list[int]) -> int:
    return sum(counts)


class Measured(MapReduceWorkload):
    about = "Pi from random points, in chunks of a million."
    unit = "million points"
    full = 1_000
    quick = 60
    least = 2

    def work(self, given: Input) -> MapReduce:
        return MapReduce(Table(dict.fromkeys(range(given.size), CHUNK)), points, total)
