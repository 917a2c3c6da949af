"""Jobs that stop at a place of the test's choosing until a file exists."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grid.job import Job

ITEMS = 64
HELD_KEY = 40
"""The one item, or key of a reduce, that waits: all others go on, so there is finished work."""

VALUE_BYTES = 32 * 1024
"""So that the reduces are many."""


def reached(gate: Path) -> Path:
    """The file that says that somebody waits at this gate."""
    return gate.with_name(f"{gate.name}-reached")


def wait_at(gate: Path) -> None:
    """Wait until the gate is open, and tell that somebody does."""
    reached(gate).touch()
    while not gate.exists():
        time.sleep(0.005)


def held_job(
    phase: str, gate: Path, resultfn: Callable[[Any, Any], None], source: object = None
) -> Job:
    """A job with every phase. ``phase`` is the one in which it waits, empty for none; ``source``
    is a datasource of the test's own. The answer is ``held_answer()``."""

    def mapfn(key: int, value: int) -> Iterator[tuple[int, bytes]]:
        if phase == "mapping" and key == HELD_KEY:
            wait_at(gate)
        yield key, bytes([value]) * VALUE_BYTES

    def reducefn(key: int, values: list[bytes]) -> int:
        if phase == "reducing" and key == HELD_KEY:
            wait_at(gate)
        return sum(len(value) * value[0] for value in values)

    def finishfn(key: int, value: int) -> int:
        if phase == "finishing" and key == HELD_KEY:
            wait_at(gate)
        return value + 1

    items = list(range(ITEMS)) if source is None else source
    return Job(items, mapfn, reducefn=reducefn, finishfn=finishfn, resultfn=resultfn)


def held_answer() -> dict[int, int]:
    return {key: key * VALUE_BYTES + 1 for key in range(ITEMS)}
