"""Grouping at its heaviest: ten values to a key, keys in no order, no work besides."""

from collections.abc import Iterator

from scripts.benchmark.work import MapReduce, Table
from scripts.benchmark.workloads.base import Input, MapReduceWorkload

PAIRS_PER_KEY = 10
ITEM_PAIRS = 50_000

# Knuth's multiplier: consecutive numbers land far apart.
SPREAD = 2654435761

Part = tuple[int, int, int]
"""The first number, how many, and how many keys there are."""


def pairs(_number: int, part: Part) -> Iterator[tuple[str, int]]:
    first, count, keys = part
    for number in range(first, first + count):
        yield f"key-{number * SPREAD % keys}", number


def total(_key: str, values: list[int]) -> int:
    return sum(values)


def parts(size: int) -> dict[int, Part]:
    """Cut so many pairs into items."""
    keys = max(1, size // PAIRS_PER_KEY)
    starts = range(0, size, ITEM_PAIRS)
    return {
        number: (start, min(ITEM_PAIRS, size - start), keys) for number, start in enumerate(starts)
    }


class Measured(MapReduceWorkload):
    about = "Group generated pairs by string keys, ten to a key, and add their values."
    unit = "thousand pairs"
    full = 20_000
    quick = 1_000
    least = 100

    def work(self, given: Input) -> MapReduce:
        return MapReduce(Table(parts(given.size * 1_000)), pairs, total)
