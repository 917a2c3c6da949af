"""What a worker does with each kind of task: map, reduce, finish, call.

The meaning is ``grid.mapreduce``, the same that ``Job.run()`` follows. Here is what a worker adds:
opening items one at a time, reading files that items name, noting which item it is on, spilling
when memory grows, reading inputs in stretches that fit into memory, merging them there or on disk
(``peers.worker_merge``), and writing results in chunks that can be opened without holding up
whoever opens them.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

from grid.functions import Functions
from grid.mapreduce import (
    Columns,
    Grouper,
    Pair,
    UserFault,
    finish,
    merged,
    reduce_partition,
)
from grid.messages import RIDING_BYTES_MAX, Output
from grid.pickling import show
from grid.settings import PARTITIONS_MAX
from peers.chunks import (
    decode_pairs,
    encode_columns,
    encode_in_pieces,
    encode_pairs,
    open_groups,
)
from peers.files import Changed, Reference
from peers.segment import Segment, SegmentCorrupt, SegmentMissing, SegmentPart
from peers.segment_writer import Sealed, SegmentWriter
from peers.shipping import ModuleUnavailable
from peers.worker_channel import (
    CallTask,
    FinishTask,
    MapTask,
    ReduceTask,
    Task,
    whole_output,
)
from peers.worker_memory import Memory
from peers.worker_merge import Merger, Spool
from peers.worker_page import Page

CHUNK_WEIGHT_MAX = 50_000
"""Results in a chunk, counting large ones for more: it opens in a few milliseconds."""

ITEMS_UNWATCHED = 32
"""Small items mapped, or batches of pairs of a large one, between two looks at the memory of the
process."""

MAP_BYTES_MAX = 256 << 20
"""What a map holds at most before it writes it out, however much memory there is: a run on disk
costs no more for being smaller."""

STRETCH_BYTES_MAX = 64 << 20
"""Read at once of a reduce's inputs: many partitions that are small, each input opened once."""

LOOKS = 64
"""Bytes between two looks while merging, as a part of the memory: values in memory take up to some
twenty times what they take as bytes."""

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
    memory: Memory
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
    limits = bench.memory.limits
    return SegmentWriter(bench.folder, output, partitions, limits.sealed_bytes_max)


# ------------------------------------------------------------------ map


def _map(task: MapTask, bench: Bench) -> Sealed:
    with ExitStack() as open_writers:
        mapping = _Mapping(task, bench, open_writers)
        grouper = mapping.grouper
        grouper.add_items(mapping.items())
        if task.whole and not mapping.spilled:
            return _reduce_whole(grouper, task, bench)
        mapping.drain()
        return mapping.writer.seal(tuple(grouper.skipped))


class _Mapping:
    """A map's grouper, which is drained into its writer whenever memory wants it."""

    def __init__(self, task: MapTask, bench: Bench, open_writers: ExitStack) -> None:
        self.grouper = Grouper(bench.functions, skip=task.skip, on_many=self._count)
        self.spilled = False
        self._task = task
        self._bench = bench
        self._open_writers = open_writers
        self._watch = bench.memory.watch(MAP_BYTES_MAX)
        self._values_max = bench.memory.limits.values_max
        self._unwatched = 0

    @cached_property
    def writer(self) -> SegmentWriter:
        """What is written to, opened when it is first needed."""
        writer = _writer(self._task.output, self._task.partitions, self._bench)
        return self._open_writers.enter_context(writer)

    def items(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield the items to be mapped as (index, key, value), reading files here or asking for
        what is not the same here; spill in between if much is held."""
        task, bench, grouper = self._task, self._bench, self.grouper
        items = _opened(task.items)
        start = task.output.start
        given = _ask_for_strangers(items, start, bench)
        page = bench.page.cell
        items.reverse()
        for index in range(start, start + len(items)):
            key, value = items.pop()  # a value is let go as soon as it is mapped
            page[0] = index
            if isinstance(value, Reference):
                try:
                    value = given.pop(index) if index in given else _read(value, index, key, bench)
                except UserFault:
                    if not task.skip:
                        raise
                    grouper.skipped.append(index)
                    continue
            yield index, key, value
            self._unwatched += 1
            if (
                self._unwatched >= ITEMS_UNWATCHED
                or grouper.size >= self._values_max
                or (type(value) in _SIZED and len(value) >= LARGE_VALUE)
            ):
                self._look()

    def drain(self) -> None:
        """Write out all that is held."""
        largest = self._bench.memory.limits.chunk_bytes_max
        for partition, chunk in self.grouper.drain(self._task.partitions):
            for data in _encoded(chunk, largest):
                self.writer.add(partition, data)

    def _count(self) -> None:
        """A batch of pairs of a large item is held."""
        self._unwatched += 1
        if self._unwatched >= ITEMS_UNWATCHED or self.grouper.size >= self._values_max:
            self._look()

    def _look(self) -> None:
        held = self.grouper.size
        self._unwatched = 0
        if self._watch.full(held):
            self.drain()
            self.writer.spill()
            self.spilled = True
            self._watch.made_room(held)


def _encoded(chunk: Columns, largest: int) -> Iterator[bytes]:
    """Encode a chunk; in several if it would take much memory to open."""
    data = encode_columns(chunk)
    if len(data) <= largest:
        yield data
        return
    for _, piece in encode_in_pieces(merged(chunk).items(), largest):
        yield piece


def _reduce_whole(grouper: Grouper, task: MapTask, bench: Bench) -> Sealed:
    """Reduce what is in memory: it is all there is. A small job is one task then, not two."""
    with _writer(whole_output(task), task.partitions, bench) as writer:
        for partition, chunk in grouper.drain(task.partitions):
            copied = merged(_opened_chunk(encode_columns(chunk)))  # as by way of a segment
            _write(writer, partition, reduce_partition(bench.functions, copied))
        return writer.seal(content_bytes_max=RIDING_BYTES_MAX)


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


# ------------------------------------------------------------------ reduce, finish, call


def _reduce(task: ReduceTask, bench: Bench) -> Sealed:
    first, stop = task.output.start, task.output.stop
    parts = _parts(task.inputs, first, stop)
    sizes = [0] * (stop - first)
    for part in parts:
        for partition, size in part.sizes():
            sizes[partition - first] += size
    fitting = min(bench.memory.limits.sealed_bytes_max, STRETCH_BYTES_MAX)
    with _writer(task.output, task.partitions, bench) as writer:
        for begin, end in _stretches(sizes, fitting):
            for partition, chunks in _partitions(parts, first + begin, first + end):
                bench.page.item = partition
                _reduce_one(partition, chunks, writer, bench)
        return writer.seal()


def _reduce_one(
    partition: int, chunks: Iterator[bytes], writer: SegmentWriter, bench: Bench
) -> None:
    """Merge the chunks of one partition and reduce it."""
    limits = bench.memory.limits
    unwatched = 0
    spool = Spool(bench.folder, limits.piece_bytes)
    with Merger(bench.functions, bench.memory.watch(), spool) as merger:
        for chunk in chunks:
            merger.add(_opened_chunk(chunk))
            unwatched += len(chunk)
            if unwatched * LOOKS >= limits.memory_bytes:
                unwatched = 0
                merger.look()
        merger.settle()
        _write(writer, partition, reduce_partition(bench.functions, merger))


def _opened_chunk(chunk: bytes) -> Columns:
    """Open a chunk. Its values are opened later, one by one; its keys are now."""
    try:
        return open_groups(chunk)
    except Exception as error:
        raise UserFault("unpickling of the keys", "", error) from error


def _finish(task: FinishTask, bench: Bench) -> Sealed:
    parts = _parts(task.inputs, 0, PARTITIONS_MAX)
    with _writer(task.output, 1, bench) as writer:
        _write(writer, 0, finish(bench.functions, _results(parts)))
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


def _results(parts: list[SegmentPart]) -> Iterator[Pair]:
    """Yield all results in ``parts``, in their order."""
    for position in range(len(parts)):
        for _, chunk in _walk(parts, position, 0, PARTITIONS_MAX):
            keys, values = decode_pairs(chunk)
            yield from zip(keys, values, strict=True)


def _stretches(sizes: list[int], fitting: int) -> Iterator[tuple[int, int]]:
    """Cut partitions of these sizes into runs of neighbours that fit, or are one partition."""
    first, total = 0, 0
    for number, size in enumerate(sizes):
        if number > first and total + size > fitting:
            yield first, number
            first, total = number, 0
        total += size
    if first < len(sizes):
        yield first, len(sizes)


def _parts(inputs: tuple[str, ...], first: int, stop: int) -> list[SegmentPart]:
    """Open partitions ``first..stop`` of all inputs, before the work. Raises ``InputsLost`` with
    all that cannot be opened."""
    parts: list[SegmentPart] = []
    lost: dict[int, str] = {}
    for position, path in enumerate(inputs):
        try:
            with Segment(path) as segment:
                parts.append(segment.part(first, stop))
        except (SegmentMissing, SegmentCorrupt) as error:
            lost[position] = str(error)
    if lost:
        raise InputsLost(tuple(lost), next(iter(lost.values())))
    return parts


def _partitions(
    parts: list[SegmentPart], first: int, stop: int
) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield each partition that has any with its chunks, in the order of ``parts``. Several are
    read at once, as they fit; a single one is read as it is walked."""
    if stop - first == 1:
        alone = (chunk for n in range(len(parts)) for _, chunk in _walk(parts, n, first, stop))
        for chunk in alone:  # if there is any
            yield first, chain((chunk,), alone)
        return
    gathered: dict[int, list[bytes]] = {}
    for position in range(len(parts)):
        for partition, chunk in _walk(parts, position, first, stop):
            gathered.setdefault(partition, []).append(chunk)
    for partition in sorted(gathered):
        yield partition, iter(gathered.pop(partition))


def _walk(
    parts: list[SegmentPart], position: int, first: int, stop: int
) -> Iterator[tuple[int, bytes]]:
    """Yield the chunks that one of the inputs has of partitions ``first..stop``."""
    try:
        yield from parts[position].walk(first, stop)
    except (SegmentMissing, SegmentCorrupt) as error:
        raise InputsLost((position,), str(error)) from error
