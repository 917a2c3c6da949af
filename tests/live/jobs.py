"""Functions of jobs for live tests: light, so that workers import them quickly."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grid.job import Job


def pairs_of(key: int, value: int) -> Iterator[tuple[str, int]]:
    """Two pairs an item, with keys that meet others."""
    yield f"by 7: {value % 7}", key
    yield f"by 3: {value % 3}", value


def slowly(key: int, value: int) -> Iterator[tuple[str, int]]:
    """As ``pairs_of``, in about 10 ms."""
    time.sleep(0.01)
    return pairs_of(key, value)


def total(_key: Any, values: list[int]) -> int:
    return sum(values)


def bulky(key: int, value: int) -> Iterator[tuple[int, bytes]]:
    """32 kB an item, so that the reduces are many."""
    time.sleep(0.005)
    yield value, bytes([key % 251]) * 32768


def slow_length(_key: Any, values: list[bytes]) -> int:
    time.sleep(0.01)
    return sum(len(value) * value[0] for value in values)


def totals(groups: Iterable[tuple[Any, list[int]]]) -> Iterator[tuple[Any, int]]:
    for key, values in groups:
        yield key, sum(values)


def forever(_key: Any, _value: Any) -> Iterator[tuple[int, int]]:
    while True:
        pass


def begin_and_never_end(_key: Any, begun: str) -> Iterator[tuple[int, int]]:
    """As ``forever``, once it has said that it runs."""
    Path(begun).touch()
    return forever(_key, begun)


def behind_gate(key: int, item: tuple[int, str]) -> Iterator[tuple[str, int]]:
    """As ``pairs_of``, once a file exists: so a test decides how far a job gets."""
    value, gate = item
    time.sleep(0.005)
    while not Path(gate).exists():
        time.sleep(0.005)
    return pairs_of(key, value)


def leave_a_trace(key: int, folder: str) -> Iterator[tuple[str, int]]:
    """One file for each time an item is mapped, in about 10 ms."""
    Path(folder, f"{key}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(0.01)
    yield "items", 1


GATE = "gate"


def trace_slowly(key: int, folder: str) -> Iterator[tuple[str, int]]:
    """Leave a trace, in about 30 ms; at once when there is a gate in the folder."""
    path = Path(folder, f"{key}-{os.getpid()}-{time.monotonic_ns()}")
    if not Path(folder, GATE).exists():
        time.sleep(0.03)
    path.touch()
    yield "items", 1


def trace_at_gate(key: int, folder: str) -> Iterator[tuple[str, int]]:
    """Leave a trace, then wait until there is a gate in the folder."""
    yield from leave_a_trace(key, folder)
    while not Path(folder, GATE).exists():
        time.sleep(0.01)


def trace_to_gate(key: int, item: tuple[str, bool]) -> Iterator[tuple[str, int]]:
    """As ``leave_a_trace``; an item that is held waits until there is a gate in the folder."""
    folder, held = item
    while held and not Path(folder, GATE).exists():
        time.sleep(0.005)
    return leave_a_trace(key, folder)


def slow_job(items: int = 200) -> Job:
    """About 10 ms an item, then a quick reduce."""
    return Job(list(range(items)), slowly, reducefn=total)


def answer(items: int = 200) -> dict[Any, Any]:
    """The sequential answer of ``slow_job``, computed without its pauses."""
    return Job(list(range(items)), pairs_of, reducefn=total).run()


def to_gate(key: int, item: tuple[int, str]) -> Iterator[tuple[str, int]]:
    """As ``slowly``; an item that has a gate waits there."""
    value, gate = item
    while gate and not Path(gate).exists():
        time.sleep(0.005)
    return slowly(key, value)


def job_to_gate(gate: Path, items: int = 200) -> Job:
    """A ``slow_job`` whose last item waits at a gate: it is not over before the test says so, also
    where the test is slower than the job. Its answer is that of ``slow_job``."""
    gates = [""] * (items - 1) + [str(gate)]
    return Job(list(enumerate(gates)), to_gate, reducefn=total)


def reducing_job(items: int = 200) -> Job:
    """A job that spends most of its time in several reduces."""
    return Job(list(range(items)), bulky, reducefn=slow_length)


PHASE = 64
"""Items behind one gate."""


def gated_job(gates: list[Path], each: int = PHASE, resultfn: Any = None) -> Job:
    """So many items behind each gate. Its answer is ``answer(each * len(gates))``."""
    items = [(number, str(gates[number // each])) for number in range(each * len(gates))]
    return Job(items, behind_gate, reducefn=total, resultfn=resultfn)
