"""Work that does not divide evenly: a key with half of the pairs, an item that takes long."""

from collections.abc import Iterator

from scripts.benchmark.work import MapReduce, Table
from scripts.benchmark.workloads.base import Input, MapReduceWorkload

ITEM_PAIRS = 10_000
KEYS = 1_000
SLOWER = 50
STEPS = 50_000
"""What every item computes besides; a few milliseconds."""


def pairs(_number: int, part: tuple[int, int, int]) -> Iterator[tuple[str, int]]:
    first, count, slower = part
    state = first
    for _ in range(STEPS * slower):
        state = (state * 69069 + 1) & 0xFFFFFFFF
    for number in range(first, first + count):
        yield ("half" if number % 2 else f"key-{number // 2 % KEYS}"), number
    yield "state", state


def total(_key: str, values: list[int]) -> int:
    return sum(values)


class Measured(MapReduceWorkload):
    about = (
        "Pairs of which half have one key; and one item, three quarters into the input, takes 50 "
        "times as long as each other."
    )
    unit = "thousand pairs"
    full = 4_000
    quick = 400
    least = 20

    def work(self, given: Input) -> MapReduce:
        count = max(1, given.size * 1_000 // ITEM_PAIRS)
        items = {
            number: (number * ITEM_PAIRS, ITEM_PAIRS, SLOWER if number == count * 3 // 4 else 1)
            for number in range(count)
        }
        return MapReduce(Table(items), pairs, total)
