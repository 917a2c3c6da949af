"""A process that shuffles more than it may hold, and checks every result as it streams by.

Records are made from their numbers, so no input lies anywhere, and what belongs to a key follows
from the key by arithmetic: the oracle takes no memory either. A reduce walks its values twice, and
says whether they came in order. Prints one line of JSON: the seconds it took, and what was wrong.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from peers import Job, Peer
from scripts.benchmark.workloads.group import ITEM_PAIRS, PAIRS_PER_KEY, SPREAD, Part, parts

NUMBER_BYTES = 8
RECORD_BYTES = 96
"""Of a value; with its key and what a pickle adds it is about a hundred."""

SHUFFLED_BYTES = 100

ONE = "the one"
"""The key that half of the records have, where one is enormous."""

Summary = tuple[int, int, int, bool]
"""How many values, the sum of their numbers, their bytes, whether they were in order."""


class Shuffle(NamedTuple):
    """So many megabytes, under such a limit (in MB too)."""

    megabytes: int
    limit: int
    partitions: int
    one_key: bool

    @property
    def records(self) -> int:
        return self.megabytes * 1_000_000 // SHUFFLED_BYTES

    @property
    def keys(self) -> int:
        return max(1, self.records // PAIRS_PER_KEY)


QUICK = (Shuffle(200, 120, 256, False), Shuffle(200, 120, 2, False), Shuffle(200, 120, 256, True))
FULL = (
    *(Shuffle(1_000, 160, 256, False), Shuffle(1_000, 160, 2, False)),
    *(Shuffle(1_000, 160, 256, True), Shuffle(10_000, 1_000, 256, False)),
)


def records(one_key: bool, _number: int, part: Part) -> Iterator[tuple[str, bytes]]:
    first, count, keys = part
    for number in range(first, first + count):
        key = ONE if one_key and number % 2 else f"key-{number * SPREAD % keys}"
        yield key, number.to_bytes(NUMBER_BYTES, "big") * (RECORD_BYTES // NUMBER_BYTES)


def summary(_key: str, values: Sequence[bytes]) -> Summary:
    numbers = 0
    last, ordered = -1, True
    for value in values:
        number = int.from_bytes(value[:NUMBER_BYTES], "big")
        ordered = ordered and number > last
        numbers += number
        last = number
    return len(values), numbers, sum(map(len, values)), ordered


def expected(shuffle: Shuffle, key: str) -> Summary:
    """What the records of this key come to, by arithmetic alone."""
    if key == ONE:
        first, step = 1, 2
    else:
        residue = int(key.removeprefix("key-"))
        first, step = residue * pow(SPREAD, -1, shuffle.keys) % shuffle.keys, shuffle.keys
        if shuffle.one_key:  # even numbers only
            first, step = _even(first, step)
    count = max(0, -(-(shuffle.records - first) // step))
    numbers = count * first + step * (count * (count - 1) // 2)
    return count, numbers, count * RECORD_BYTES, True


def _even(first: int, step: int) -> tuple[int, int]:
    """The even numbers of ``first``, ``first + step``, ... ; an odd step meets every second."""
    if step % 2:
        return (first if first % 2 == 0 else first + step), 2 * step
    return first, step


def wrong(shuffle: Shuffle, results: Iterable[tuple[str, Summary]]) -> str:
    """Check all results; say what is wrong, or nothing."""
    total = 0
    for key, found in results:
        if tuple(found) != expected(shuffle, key):
            return f"{key}: {found}, should be {expected(shuffle, key)}"
        total += found[0]
    return "" if total == shuffle.records else f"{total} records of {shuffle.records}"


def job_of(shuffle: Shuffle) -> Job:
    items: dict[int, Any] = {
        number: (first, count, shuffle.keys)
        for number, (first, count, _) in parts(shuffle.records).items()
    }
    assert len(items) == -(-shuffle.records // ITEM_PAIRS)
    mapfn = partial(records, shuffle.one_key)
    return Job(items, mapfn, reducefn=summary, partitions=shuffle.partitions)


def main() -> None:
    """Do it."""
    megabytes, limit, partitions, one_key = map(int, sys.argv[1:])
    shuffle = Shuffle(megabytes, limit, partitions, bool(one_key))
    with Peer(slots=2, memory_limit=limit * 1_000_000) as peer:
        began = time.perf_counter()
        fault = wrong(shuffle, peer.submit(job_of(shuffle)).items())
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "wrong": fault}))


if __name__ == "__main__":
    main()
