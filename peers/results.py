"""Results at their owner: fetched as bytes, opened when the user wants them.

``fetch`` brings the final segments into this peer's own store. ``keep`` then sets them apart from
what the grid may drop, under names of the transaction's own; ``Results`` opens them, one chunk at
a time, and removes them when they are read or no longer wanted.
"""

import os
import threading
import weakref
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from grid import mapreduce
from grid.errors import GridError
from grid.messages import FetchSegments, Holding, Output, PeerRef
from peers.bulk import BulkClient, NotHere, Unreachable
from peers.chunks import Pairs, decode_pairs
from peers.collector import paused_collector
from peers.inputs import InputsAbsent, fetch_segments
from peers.segment import Segment, SegmentCorrupt, SegmentMissing, parse
from peers.store import Store

ALL_PARTITIONS = 1 << 30

HELD_BYTES_MAX = 64 << 20
"""What of a result is taken into memory when its peer closes; more is kept open where it is."""

Held = list[bytes] | Segment
"""The chunks of a segment, or it opened."""


class Fetcher:
    """Brings final segments into the own store. May block; called on the data threads."""

    def __init__(self, me: PeerRef, store: Store, bulk: BulkClient) -> None:
        self._me = me
        self._store = store
        self._bulk = bulk

    def fetch(self, holdings: tuple[tuple[Holding, PeerRef], ...]) -> None:
        """Get all of them. Raises ``InputsAbsent`` naming all that are gone."""
        missing: list[Output] = []
        reasons: list[str] = []
        for holding, holder in holdings:
            try:
                self._get(holding.output, holder)
            except (NotHere, SegmentMissing, SegmentCorrupt, Unreachable) as error:
                missing.append(holding.output)
                reasons.append(str(error))
        if missing:
            raise InputsAbsent("; ".join(reasons[:3]), tuple(missing))

    def _get(self, output: Output, holder: PeerRef) -> None:
        if self._store.path_of(output) is not None:
            return
        if holder.host == self._me.host:
            path = self._store.path_in(holder.peer, output)
            if path is None:
                raise SegmentMissing(f"{output} is not on this host any more")
            self._store.link(output, path)
            return
        request = FetchSegments((output,), 0, ALL_PARTITIONS)
        fetch_segments(self._bulk, self._store, holder, request)


def keep(store: Store, txn: str, outputs: tuple[Output, ...]) -> "Results":
    """Set the segments of a result apart, so that they outlive their being dropped."""
    paths: list[Path] = []
    for number, output in enumerate(outputs):
        source = store.path_of(output)
        if source is None:
            raise GridError(f"the result of {txn} is gone from {store.folder}")
        path = store.folder / f"result-{txn}-{number}"
        os.link(source, path)
        paths.append(path)
    return Results(tuple(paths))


def _remove(paths: tuple[Path, ...], process: int) -> None:
    if os.getpid() != process:
        return  # a forked child has a copy of the object, not of the files
    for path in paths:
        path.unlink(missing_ok=True)


def riding(content: bytes) -> "Results":
    """Return a small result that came in a message, as one segment. Raises ``SegmentCorrupt``."""
    return Results((), [_chunks_in(parse(content)[1])])


class Results:
    """The bytes of one result, in order; removed when this object is no longer used. They are in
    the segments at ``paths``, or ``held`` in memory: the chunks of each segment."""

    def __init__(self, paths: tuple[Path, ...], held: list[list[bytes]] | None = None) -> None:
        self._paths = paths
        self._held: list[Held] | None = None if held is None else [*held]
        self._count = len(paths) if held is None else len(held)
        self._holding = threading.Lock()
        self._finalizer = weakref.finalize(self, _remove, paths, os.getpid())
        self._finalizer.atexit = False  # then closing its peer clears everything, in its order

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Stream the results, one chunk in memory at a time."""
        return chain.from_iterable(map(self._pairs_of, range(self._count)))

    def as_dict(self) -> dict[Any, Any]:
        """Return all results. Raises ``BadJob`` if two have one key."""
        results: dict[Any, Any] = {}
        count = 0
        for number in range(self._count):
            for chunk in self._chunks_of(number):
                results.update(zip(chunk.keys, chunk.values, strict=True))
                count += len(chunk.keys)
        # Chunk by chunk is several times faster than pair by pair, which can say what is wrong.
        return results if len(results) == count else mapreduce.assemble(self.pairs())

    def segments(self) -> Iterator[list[tuple[Any, Any]]]:
        """Stream the results of each segment apart."""
        for number in range(self._count):
            yield list(self._pairs_of(number))

    def hold(self) -> None:
        """The folder is about to go: take what is small into memory, as bytes, and keep what is
        large open, so that it stays where it is for as long as this object."""
        with self._holding:
            if self._held is None:
                self._held = []
                room = HELD_BYTES_MAX
                for path in self._paths:
                    held, room = _hold(path, room)
                    self._held.append(held)
                opened = [held for held in self._held if isinstance(held, Segment)]
                weakref.finalize(self, _close, opened).atexit = False
        self._finalizer()

    def close(self) -> None:
        """Remove the files."""
        self._finalizer()

    def _chunks_of(self, number: int) -> Iterator[Pairs]:
        with self._holding:
            if self._held is None:
                chunks = _walk(Segment(self._paths[number]), last=True)
            else:
                held = self._held[number]
                chunks = iter(held) if isinstance(held, list) else _walk(held, last=False)
        return map(_opened, chunks)

    def _pairs_of(self, number: int) -> Iterator[tuple[Any, Any]]:
        chunks = self._chunks_of(number)
        return chain.from_iterable(zip(*chunk, strict=True) for chunk in chunks)


def _hold(path: Path, room: int) -> tuple[Held, int]:
    """Take a segment into memory if there is room, else open it. Return it, and the room left."""
    segment = Segment(path)
    size = segment.header.holding.bytes
    if size > room:
        return segment, room
    return list(_walk(segment, last=True)), room - size


def _walk(segment: Segment, *, last: bool) -> Iterator[bytes]:
    """Yield all chunks, a few in memory at a time; after the ``last`` walk close the segment."""
    try:
        for _, chunk in segment.walk(0, ALL_PARTITIONS):
            yield chunk
    finally:
        if last:
            segment.close()


def _opened(chunk: bytes) -> Pairs:
    with paused_collector():
        return decode_pairs(chunk)


def _close(segments: list[Segment]) -> None:
    for segment in segments:
        segment.close()


def _chunks_in(partitions: list[tuple[int, list[bytes]]]) -> list[bytes]:
    return [chunk for _, chunks in partitions for chunk in chunks]
