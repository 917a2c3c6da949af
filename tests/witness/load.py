"""What the witness grid's workers do: full load, and data enough that it has to move."""

import time
from collections.abc import Iterator
from typing import Any

from grid.job import Job

BLOB_BYTES = 256 * 1024
ITEMS = 6
SECONDS = (2.0, 5.0)
"""The shortest and longest item: longer than tasks that are given ahead, and on average about as
long as the server's interpreter is held, so that few slots are idle while it cannot give tasks."""


def burn(key: int, seconds: float) -> Iterator[tuple[tuple[str, int], Any]]:
    """Keep a core busy for so long, by the clock on the wall: with every core in use elsewhere an
    item does less, but does not take longer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    yield ("seconds", key % 4), seconds
    yield ("blob", key), bytes([key % 251]) * BLOB_BYTES


def gather(key: tuple[str, int], values: list[Any]) -> Any:
    """Seconds are added; blobs stay, so that results are large."""
    return sum(values) if key[0] == "seconds" else values[0]


def load(number: int) -> Job:
    """One job: the items differ in length, and no two jobs are alike."""
    least, most = SECONDS
    steps = [(number + 5 * key) % ITEMS / (ITEMS - 1) for key in range(ITEMS)]
    return Job([least + (most - least) * step for step in steps], burn, reducefn=gather)


def right(job: Job, results: dict[Any, Any]) -> bool:
    """Whether this is what the job gives, computed without burning anything."""
    expected: dict[Any, Any] = {}
    for key in range(ITEMS):
        expected[("blob", key)] = bytes([key % 251]) * BLOB_BYTES
    for rest in range(4):  # as one sum, in datasource order: newer Pythons round a sum only once
        expected[("seconds", rest)] = sum(job.datasource[key] for key in range(rest, ITEMS, 4))
    return results == expected
