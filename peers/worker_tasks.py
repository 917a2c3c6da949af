"""What a worker does with each kind of task: map, reduce, finish, call.

The meaning is ``grid.mapreduce``, the same that ``Job.run()`` follows. Here is what a worker adds:
opening items one at a time, reading files that items name, noting which item it is on, spilling
when memory grows, reading inputs in stretches that fit into memory, and writing results in chunks
that can be opened without holding up whoever opens them.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from grid.functions import Functions
from grid.mapreduce import Grouper, Pair, UserFault, finish, merge, reduce_partition
from grid.messages import RIDING_BYTES_MAX, Output
from grid.pickling import show
from peers.chunks import decode_groups, decode_pairs, encode_groups, encode_pairs
from peers.files import Changed, Reference
from peers.process_control import resident_bytes
from peers.segment import Segment, SegmentCorrupt, SegmentMissing, read_partitions
from peers.segment_writer import Sealed, SegmentWriter
from peers.shipping import ModuleUnavailable
from peers.worker_channel import (
    CallTask,
    FinishTask,
    Limits,
    MapTask,
    ReduceTask,
    Task,
    whole_output,
)
from peers.worker_page import Page

CHUNK_WEIGHT_MAX = 50_000
"""Results in a chunk, counting large ones for more: it opens in a few milliseconds."""

ITEMS_UNWATCHED = 32
"""Small items mapped between two looks at the memory of the process."""

LARGE_VALUE = 32 << 10
"""After an item of this length the memory is looked at at once."""

_SIZED = frozenset({str, bytes, list, tuple, dict})


class InputsLost(BaseException):
    """Inputs are gone or damaged; ``missing`` are their positions.

    Not an ``Exception``, so that user code which is reading them through an iterator does not
    catch it by mistake.
    """

    def __init__(self, missing: tuple[int, ...], detail: str) -> None:
        super().__init__(missing, detail)
        self.missing = missing
        self.detail = detail


@dataclass(frozen=True)
class Bench:
    """What a task has at hand: the job's functions, where to write, and whom to ask.

    ``need`` asks the peer for the values of these items and waits for them.
    """

    functions: Functions
    folder: str
    limits: Limits
    page: Page
    need: Callable[[tuple[int, ...]], list[Any]]


def perform(task: Task, bench: Bench) -> Sealed:
    """Do ``task`` and seal its output.

    Raises ``UserFault``, ``NotPicklable``, ``ModuleUnavailable``, ``InputsLost``, ``SpoolFull``
    and ``OSError`` (the spool cannot be written).
    """
    match task:
        case MapTask():
            return _map(task, bench)
        case ReduceTask():
            return _reduce(task, bench)
        case FinishTask():
            return _finish(task, bench)
        case CallTask():
            return _call(task, bench)


def as_call(function: Callable[[], Any]) -> Functions:
    """Return the functions of a job whose only task is to call ``function()``."""
    return Functions(mapfn=partial(_ignoring_item, function))


def _ignoring_item(function: Callable[[], Any], _key: Any, _value: Any) -> Any:
    return function()


def _writer(output: Output, partitions: int, bench: Bench) -> SegmentWriter:
    return SegmentWriter(bench.folder, output, partitions, bench.limits.sealed_bytes_max)


# ------------------------------------------------------------------ map


def _map(task: MapTask, bench: Bench) -> Sealed:
    grouper = Grouper(bench.functions, skip=task.skip)
    memory = _Memory(bench.limits)
    with ExitStack() as open_writers:
        writer: SegmentWriter | None = None
        for index, key, value in _values(task, bench, grouper.skipped):
            grouper.add_item(index, key, value)
            if memory.wants_room(grouper.size, value):
                writer = writer or open_writers.enter_context(
                    _writer(task.output, task.partitions, bench)
                )
                _spill(grouper, writer, task.partitions)
                writer.spill()
                memory.made_room()
        if writer is None and task.whole:
            return _reduce_whole(grouper, task, bench)
        writer = writer or open_writers.enter_context(_writer(task.output, task.partitions, bench))
        _spill(grouper, writer, task.partitions)
        return writer.seal(tuple(grouper.skipped))


def _reduce_whole(grouper: Grouper, task: MapTask, bench: Bench) -> Sealed:
    """Reduce what is in memory: it is all there is. A small job is one task then, not two."""
    with _writer(whole_output(task), task.partitions, bench) as writer:
        for partition, groups in grouper.drain(task.partitions):
            copied = decode_groups(encode_groups(groups))  # as by way of a segment
            _write(writer, partition, reduce_partition(bench.functions, merge([copied])))
        return writer.seal(content_bytes_max=RIDING_BYTES_MAX)


def _spill(grouper: Grouper, writer: SegmentWriter, partitions: int) -> None:
    for partition, groups in grouper.drain(partitions):
        writer.add(partition, encode_groups(groups))


def _values(task: MapTask, bench: Bench, skipped: list[int]) -> Iterator[tuple[int, Any, Any]]:
    """Yield (index, key, value), reading files here or asking for what is not the same here."""
    items = _opened(task.items)
    start = task.output.start
    given = _ask_for_strangers(items, start, bench)
    for position in range(len(items)):
        key, value = items[position]
        items[position] = None  # a value is let go as soon as it is mapped
        index = start + position
        bench.page.item = index
        if index in given:
            value = given.pop(index)
        elif isinstance(value, Reference):
            try:
                value = _read(value, index, key, bench)
            except UserFault:
                if not task.skip:
                    raise
                skipped.append(index)
                continue
        yield index, key, value


def _opened(pickled: bytes) -> list[Any]:
    try:
        items: list[Any] = pickle.loads(pickled)
    except (ImportError, AttributeError) as error:
        raise ModuleUnavailable(getattr(error, "name", None) or "", str(error)) from error
    except Exception as error:
        raise UserFault("unpickling of the items", "", error) from error
    return items


def _ask_for_strangers(items: list[Any], start: int, bench: Bench) -> dict[int, Any]:
    """Ask at once for all values whose files are not the same here; return them by index."""
    strangers = tuple(
        start + position
        for position, (_, value) in enumerate(items)
        if isinstance(value, Reference) and not value.matches()
    )
    if not strangers:
        return {}
    return dict(zip(strangers, bench.need(strangers), strict=True))


def _read(reference: Reference, index: int, key: Any, bench: Bench) -> Any:
    try:
        return reference.read()
    except (Changed, OSError):
        return bench.need((index,))[0]  # the owner has it, or can say what is wrong
    except Exception as error:
        raise UserFault("datasource", show(key), error, index) from error


class _Memory:
    """Tells when a map holds so much that it should be written out."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._before = resident_bytes()
        self._unwatched = 0

    def wants_room(self, pairs: int, value: Any) -> bool:
        """Say so, after an item that left the grouper holding ``pairs``."""
        if pairs >= self._limits.pairs_max:
            return True
        self._unwatched += 1
        large = type(value) in _SIZED and len(value) >= LARGE_VALUE
        if self._unwatched < ITEMS_UNWATCHED and not large:
            return False
        self._unwatched = 0
        return resident_bytes() - self._before > self._limits.growth_bytes_max

    def made_room(self) -> None:
        """Count from here: a process rarely gives back to the system all that it let go."""
        self._before = resident_bytes()


# ------------------------------------------------------------------ reduce, finish, call


def _reduce(task: ReduceTask, bench: Bench) -> Sealed:
    output = task.output
    fitting = bench.limits.sealed_bytes_max
    with _writer(output, task.partitions, bench) as writer:
        for first, stop in _stretches(task.inputs, output.start, output.stop, fitting):
            chunks = _gather(task.inputs, first, stop)
            for partition in sorted(chunks):
                bench.page.item = partition
                groups = merge(map(decode_groups, chunks.pop(partition)))
                _write(writer, partition, reduce_partition(bench.functions, groups))
        return writer.seal()


def _finish(task: FinishTask, bench: Bench) -> Sealed:
    _bytes_in(task.inputs, 0, 1)  # tells of all lost inputs at once, before the work
    with _writer(task.output, 1, bench) as writer:
        _write(writer, 0, finish(bench.functions, _results(task.inputs)))
        return writer.seal(content_bytes_max=RIDING_BYTES_MAX)


def _call(task: CallTask, bench: Bench) -> Sealed:
    function = bench.functions.mapfn
    assert function is not None, "a call is made by as_call"
    try:
        value = function(None, None)
    except Exception as error:
        raise UserFault("the called function", "", error) from error
    with _writer(task.output, 1, bench) as writer:
        _write(writer, 0, [(0, value)])
        return writer.seal()


def _write(writer: SegmentWriter, partition: int, pairs: Iterable[Pair]) -> None:
    """Write results in chunks of bounded weight."""
    keys: list[Any] = []
    values: list[Any] = []
    weight = 0
    for key, value in pairs:
        keys.append(key)
        values.append(value)
        weight += 1 + len(value) // 8 if type(value) in _SIZED else 1
        if weight >= CHUNK_WEIGHT_MAX:
            writer.add(partition, encode_pairs(keys, values))
            keys, values, weight = [], [], 0
    if keys:
        writer.add(partition, encode_pairs(keys, values))


def _results(inputs: tuple[str, ...]) -> Iterator[Pair]:
    """Yield all results in ``inputs``, in their order."""
    for position, path in enumerate(inputs):
        for _, chunks in _whole(path, position):
            for chunk in chunks:
                keys, values = decode_pairs(chunk)
                yield from zip(keys, values, strict=True)


def _whole(path: str, position: int) -> list[tuple[int, list[bytes]]]:
    try:
        with Segment(path) as segment:
            return segment.read(0, segment.header.partitions)
    except (SegmentMissing, SegmentCorrupt) as error:
        raise InputsLost((position,), str(error)) from error


def _stretches(
    inputs: tuple[str, ...], first: int, stop: int, fitting: int
) -> Iterator[tuple[int, int]]:
    """Halve ``first..stop`` until the bytes of each stretch fit, or it is one partition."""
    if _bytes_in(inputs, first, stop) > fitting and stop - first > 1:
        middle = (first + stop) // 2
        yield from _stretches(inputs, first, middle, fitting)
        yield from _stretches(inputs, middle, stop, fitting)
    else:
        yield first, stop


def _bytes_in(inputs: tuple[str, ...], first: int, stop: int) -> int:
    """Return how much there is to read. Raises ``InputsLost`` with all that cannot be opened."""
    total = 0
    lost: dict[int, str] = {}
    for position, path in enumerate(inputs):
        try:
            with Segment(path) as segment:
                total += segment.bytes_in(first, stop)
        except (SegmentMissing, SegmentCorrupt) as error:
            lost[position] = str(error)
    if lost:
        raise InputsLost(tuple(lost), next(iter(lost.values())))
    return total


def _gather(inputs: tuple[str, ...], first: int, stop: int) -> dict[int, list[bytes]]:
    """Return the chunks of each partition, in the order of ``inputs``."""
    gathered: dict[int, list[bytes]] = {}
    for position, path in enumerate(inputs):
        try:
            found = read_partitions(path, first, stop)
        except (SegmentMissing, SegmentCorrupt) as error:
            raise InputsLost((position,), str(error)) from error
        for partition, chunks in found:
            gathered.setdefault(partition, []).extend(chunks)
    return gathered
