"""A total order: records go to 256 ranges of values, and each range is sorted."""

from collections.abc import Iterator

from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import MapReduce, Table, digest_of
from scripts.benchmark.workloads.base import Input, Outcome, Workload

ITEM_RECORDS = 50_000
RANGES = 256
BITS = 32

# Multiplying by an odd number permutes the numbers below a power of two.
SPREAD = 2654435761


def to_ranges(_number: int, part: tuple[int, int]) -> Iterator[tuple[int, str]]:
    first, count = part
    for number in range(first, first + count):
        value = number * SPREAD % (1 << BITS)
        yield value * RANGES >> BITS, f"{value:08x}-{number}"


def in_order(_range: int, records: list[str]) -> list[str]:
    return sorted(records)


class Measured(Workload):
    about = (
        "Sort records of text, 8 to 17 letters each, by range partitioning into 256 ranges, each "
        "of which is read as it comes."
    )
    unit = "thousand records"
    full = 10_000
    quick = 500
    least = 20

    def run(self, engine: Engine, given: Input) -> Outcome:
        starts = range(0, given.size * 1_000, ITEM_RECORDS)
        items = {
            number: (start, min(ITEM_RECORDS, given.size * 1_000 - start))
            for number, start in enumerate(starts)
        }
        # The order is the answer: that of the records in each range, and that of the ranges. Each
        # is read as it comes, as it would be written to a file; nobody keeps ten million records.
        ranges = engine.mapreduce(MapReduce(Table(items), to_ranges, in_order))
        told = {number: digest_of(records) for number, records in ranges}
        return Outcome(digest_of(told[number] for number in sorted(told)))
