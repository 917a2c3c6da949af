"""Merging the chunks of one partition within a worker's memory, and on disk beyond it.

Groups are merged in a dict for as long as they fit. When they do not (``Watch``), room is made, by
the first of these that lets go of half of the values:

1. ``combinefn``, if there is one, makes one value of the values of each key;
2. keys with very many values have them moved to files (``StoredOnDisk``), and theirs that come
   later go there at once: so one enormous key takes no memory, and no sorting;
3. all groups are written out, divided by another hash of their keys into ``WAYS`` parts, and the
   merging goes on with an empty dict. At the end each part is merged by itself, in the same way.

Each key carries the number of its first appearance. The parts come out in the order of these
numbers, and so they can be merged into what a dict would have held: **the order of keys and values
does not depend on the memory there was**.

Files have no name: they are gone with the worker, however it dies. They are written before anything
is told of the groups, so a full disk is met in our code and not in a user's function. A full disk
is ``SpoolFull``. A key's hash decides only where its group is written, never the answer.
"""

import heapq
import itertools
import os
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, overload

from grid.functions import Functions
from grid.mapreduce import Chunk, Columns, UserFault, combine, merge
from grid.pickling import Frozen, StoredValues, joined, show, thaw
from peers.chunks import decode_groups, encode_in_pieces, open_groups
from peers.segment import UNSEALED
from peers.segment_writer import spool_full
from peers.worker_memory import Watch

WAYS = 16
"""Parts of a partition that is divided: few enough to read all at once, a piece of each."""

DEPTH_MAX = 8
"""Divided so often, keys still together have one hash: to divide them again would not help."""

_ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: mixes the bits of a hash
_MASK = (1 << 64) - 1

Entry = tuple[int, Any, Frozen]
"""The number of a key's first appearance, the key, and its values."""


class Spool(NamedTuple):
    """Where a task writes what does not fit, and in pieces of what size."""

    folder: str
    piece_bytes: int


class Merger:
    """Merges the chunks of a partition, given in datasource order.

    ``add`` them all, ``settle``, then walk ``items``. Use it as a context manager: files go with
    it. Stored values are for as long as it is open.
    """

    def __init__(self, functions: Functions, watch: Watch, spool: Spool, depth: int = 0) -> None:
        self._functions = functions
        self._watch = watch
        self._spool = spool
        self._depth = depth
        self._groups: Chunk = {}
        self._held = 0
        self._firsts: dict[Any, int] = {}
        self._next = 0
        self._parts: dict[int, _Run] = {}
        self._settled: list[_Run] = []
        self._stored: list[Entry] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for run in chain(self._parts.values(), self._settled):
            run.close()

    def add(self, chunk: Columns) -> None:
        """Add a chunk, which is used up. ``look`` must be called now and then."""
        self._held += len(chunk.values)
        merge(self._groups, chunk)

    def look(self) -> None:
        """See whether too much is held, and make room. Raises ``SpoolFull``, ``UserFault``."""
        if self._watch.full(self._held):
            self._make_room()

    def settle(self) -> None:
        """All chunks were added: do all the writing there is to do."""
        if not self._parts:
            return
        self._divide()
        for number in sorted(self._parts):
            self._settle_part(self._parts.pop(number))
        self._stored += self._entries_held()
        self._stored.sort(key=itemgetter(0))
        self._groups = {}

    def items(self) -> Iterable[tuple[Any, Frozen]]:
        """Return the merged groups, keys in the order of their first appearance."""
        if not self._settled:
            return self._groups.items()
        return ((key, values) for _, key, values in self._entries())

    def _entries(self) -> Iterator[Entry]:
        if not self._settled:
            return self._entries_held()
        sources = [run.entries() for run in self._settled]
        return heapq.merge(*sources, self._stored, key=itemgetter(0))

    def _entries_held(self) -> Iterator[Entry]:
        firsts = self._firsts
        return ((firsts[key], key, values) for key, values in self._groups.items())

    # -- making room -------------------------------------------------------------------

    def _make_room(self) -> None:
        before = self._held
        if self._functions.combinefn is not None:
            combine(self._functions, self._groups)
            self._count()
        if 2 * self._held > before and not self._parts:
            self._store_many()
        if 2 * self._held > before and self._depth < DEPTH_MAX:
            self._divide()
        self._watch.made_room(before)

    def _count(self) -> None:
        held = self._groups.values()
        self._held = sum(len(values) for values in held if not isinstance(values, StoredValues))

    def _store_many(self) -> None:
        """Move the values of the few keys that have most of them to files. Only before anything
        was divided: afterwards a key may have values in two places."""
        many = [
            (key, values)
            for key, values in self._groups.items()
            if len(values) * WAYS >= self._held and not isinstance(values, StoredValues)
        ]
        if 2 * sum(len(values) for _, values in many) < self._held:
            return
        for key, values in many:
            stored = self._groups[key] = StoredOnDisk(self._spool, key)
            stored.append_frozen(values)
        self._count()

    def _divide(self) -> None:
        """Write all groups out but those that are stored."""
        kept: Chunk = {}
        parts: dict[int, tuple[list[int], Chunk]] = {}
        for key, values in self._groups.items():
            first = self._first(key)
            if isinstance(values, StoredValues):
                kept[key] = values
                continue
            firsts, groups = parts.setdefault(_way(key, self._depth), ([], {}))
            firsts.append(first)
            groups[key] = values
        self._groups, self._held = kept, 0
        self._firsts = {key: self._firsts[key] for key in kept}
        for number, (firsts, groups) in parts.items():
            if number not in self._parts:
                self._parts[number] = _Run(self._spool)
            self._parts[number].write(zip(firsts, groups, groups.values(), strict=True))

    def _first(self, key: Any) -> int:
        first = self._firsts.setdefault(key, self._next)
        self._next += first == self._next
        return first

    def _settle_part(self, part: "_Run") -> None:
        """Merge one part by itself and write it as one run, in the order of first appearance."""
        with Merger(self._functions, self._watch, self._spool, self._depth + 1) as merger:
            for firsts, chunk in part.chunks():
                merger._add_part(firsts, chunk)
                merger.look()
            part.close()
            merger.settle()
            run = _Run(self._spool)
            self._settled.append(run)
            run.write(self._without_stored(merger._entries()))

    def _add_part(self, firsts: Iterable[int], chunk: Columns) -> None:
        for key, first in zip(chunk.keys, firsts, strict=True):
            self._firsts.setdefault(key, first)
        self.add(chunk)

    def _without_stored(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if isinstance(entry[2], StoredValues):
                self._stored.append(entry)
            else:
                yield entry


def _way(key: Any, depth: int) -> int:
    mixed = ((hash(key) + depth) * _ODD) & _MASK
    mixed ^= mixed >> 29
    return (mixed * _ODD & _MASK) >> 60


class _Run:
    """Groups in a file without a name, with the numbers of their first appearance."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._file = _Unnamed(spool)
        self._pieces: list[tuple[int, int]] = []

    def write(self, entries: Iterable[Entry]) -> None:
        """Add these groups."""
        firsts: dict[Any, int] = {}

        def groups() -> Iterator[tuple[Any, Frozen]]:
            for first, key, values in entries:
                firsts[key] = first
                yield key, values

        for keys, data in encode_in_pieces(groups(), self._spool.piece_bytes):
            numbers = array("Q", [firsts[key] for key in keys]).tobytes()
            last = keys[-1]
            for key in keys:
                if key is not last:  # more values of the last may be in the next piece
                    del firsts[key]
            self._pieces.append((len(numbers), len(data)))
            self._file.append(numbers + data)

    def chunks(self) -> "Iterator[tuple[array[int], Columns]]":
        """Yield what was written: chunks, each with the numbers of its keys."""
        offset = 0
        for numbers_bytes, data_bytes in self._pieces:
            both = self._file.read(offset, numbers_bytes + data_bytes)
            offset += len(both)
            firsts = array("Q")
            firsts.frombytes(both[:numbers_bytes])
            yield firsts, open_groups(both[numbers_bytes:])

    def entries(self) -> Iterator[Entry]:
        """Yield the groups one by one; values that were spread over pieces are put together."""
        last: Entry | None = None
        for firsts, columns in self.chunks():
            chunk: Chunk = {}
            merge(chunk, columns)
            for first, (key, values) in zip(firsts, chunk.items(), strict=True):
                if last is not None and last[0] == first:
                    last = (first, last[1], joined(last[2], values))
                    continue
                if last is not None:
                    yield last
                last = (first, key, values)
        if last is not None:
            yield last

    def close(self) -> None:
        self._file.close()


class StoredOnDisk(StoredValues):
    """The values of a key that has very many, in a file without a name.

    A sequence like a list that cannot be changed: it can be walked again and again, has a length,
    and can be indexed and sliced. Pickled, it is a list. Lasts as long as the task.
    """

    def __init__(self, spool: Spool, key: Any) -> None:
        self._spool = spool
        self._key = key
        self._file = _Unnamed(spool)
        self._starts: list[int] = []
        self._pieces: list[tuple[int, int]] = []
        self._stored = 0
        self._tail: Frozen = []
        self._room = 1

    def append_frozen(self, values: Frozen) -> None:
        """Add these at the end. Raises ``SpoolFull``."""
        self._tail = joined(self._tail, values) if self._tail else values
        if len(self._tail) >= self._room:
            self._write_tail()

    def _write_tail(self) -> None:
        """Write in pieces what came last; so many values are then kept until they are a piece."""
        for _, data in encode_in_pieces([(None, self._tail)], self._spool.piece_bytes):
            (part,) = decode_groups(data).values()
            self._starts.append(self._stored)
            self._pieces.append((self._file.append(data), len(data)))
            self._stored += len(part)
            self._room = len(part)
        self._tail = []

    def _piece(self, number: int) -> list[Any]:
        offset, length = self._pieces[number]
        (values,) = decode_groups(self._file.read(offset, length)).values()
        return self._opened(values)

    def _opened(self, values: Frozen) -> list[Any]:
        try:
            return list(thaw(values))
        except Exception as error:
            raise UserFault("unpickling of a value", show(self._key), error) from error

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self._pieces)):
            yield from self._piece(number)
        yield from self._opened(self._tail)

    def __len__(self) -> int:
        return self._stored + len(self._tail)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError("list index out of range")
        if place >= self._stored:
            return self._opened(self._tail)[place - self._stored]
        number = bisect_right(self._starts, place) - 1
        return self._piece(number)[place - self._starts[number]]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | StoredOnDisk):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"<{len(self)} values on disk>"

    def __getattr__(self, name: str) -> Any:
        if name in dir(list) and not name.startswith("_"):
            raise AttributeError(
                f"the {len(self)} values of key {show(self._key)} do not fit into memory, so they "
                f"are no list and have no {name}(): walk them, or use sorted(values) or "
                "list(values) if you know that they fit"
            )
        raise AttributeError(name)


_numbers = itertools.count(1)


class _Unnamed:
    """A file that has no name, and so nothing that could be left behind."""

    def __init__(self, spool: Spool) -> None:
        self._folder = spool.folder
        name = Path(spool.folder, f"merged-{os.getpid()}-{next(_numbers)}{UNSEALED}")
        try:
            self._fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            name.unlink()
        except OSError as error:
            raise self._failed(error) from error
        self._end = 0
        self.close = weakref.finalize(self, os.close, self._fd)

    def append(self, data: bytes) -> int:
        """Write at the end; return where it begins. Raises ``SpoolFull``."""
        start, left = self._end, memoryview(data)
        while left:
            try:
                written = os.pwrite(self._fd, left, self._end)
            except OSError as error:
                raise self._failed(error) from error
            self._end += written
            left = left[written:]
        return start

    def read(self, offset: int, length: int) -> bytes:
        """Return what was written there."""
        parts: list[bytes] = []
        while length:
            parts.append(os.pread(self._fd, length, offset))
            offset, length = offset + len(parts[-1]), length - len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _failed(self, error: OSError) -> Exception:
        return spool_full(Path(self._folder, "values that are merged"), error) or error
