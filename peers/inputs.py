"""Getting a task's code and inputs at hand, before it takes a slot.

Code comes from an owner once a record, items from an owner for each map task, unless they are
so small that they rode along with the order. Segments are read in
place where their holder shares this host, and fetched where it does not. All of it blocks, so it
runs on the data threads; what comes of it is a worker's task, or a reason.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grid.errors import ProtocolError
from grid.messages import (
    Assign,
    Failure,
    FetchItems,
    FetchRecord,
    FetchSegments,
    Output,
    PeerRef,
    Source,
)
from grid.pickling import plain
from peers.bulk import BulkClient, NotHere, Unreachable
from peers.records import Head, Records
from peers.segment import SegmentCorrupt
from peers.store import Store
from peers.worker_channel import CallTask, FinishTask, MapTask, ReduceTask, Task

FETCH_SECONDS = 30.0
"""How long a holder may take for the next piece: a slow datasource is read meanwhile."""


REASON_MAX = 2_000
"""Reasons of several holders, together."""


class InputsAbsent(Exception):
    """A task cannot be prepared. ``missing`` are outputs gone for good, ``failure`` is set when it
    is the user's fault."""

    def __init__(
        self, reason: str, missing: tuple[Output, ...] = (), failure: Failure | None = None
    ) -> None:
        super().__init__(reason, missing, failure)
        self.reason = plain(reason, REASON_MAX)
        self.missing = missing
        self.failure = failure


@dataclass(frozen=True)
class Ready:
    """A prepared task: its record's head, what it reads (paths in order, or pickled items), and
    the fetched files to remove afterwards."""

    head: Head
    items: bytes
    paths: tuple[str, ...]
    outputs: tuple[Output, ...]
    fetched: tuple[Path, ...]

    def task(self, assign: Assign, output: Output) -> Task:
        """Return what a worker is told."""
        match assign.kind:
            case "map":
                head = self.head
                whole = assign.whole and not head.skip  # the server counts what maps skip
                return MapTask(
                    assign.attempt, output, head.partitions, self.items, head.skip, whole
                )
            case "reduce":
                return ReduceTask(assign.attempt, output, self.head.partitions, self.paths)
            case "finish":
                return FinishTask(assign.attempt, output, self.paths)
            case "call":
                return CallTask(assign.attempt, output)


class Inputs:
    """Prepares tasks. Called from several threads; methods may block, but for ``at_hand``."""

    def __init__(self, me: PeerRef, records: Records, store: Store, bulk: BulkClient) -> None:
        self._me = me
        self._records = records
        self._store = store
        self._bulk = bulk
        self._heads: dict[str, Head] = {}
        self._lock = threading.Lock()

    def at_hand(self, assign: Assign) -> Ready | None:
        """Return a task of which everything has come along, or nothing. Does not block."""
        riding = assign.riding
        if not riding.items or not (riding.head or assign.record in self._heads):
            return None
        try:
            return self.prepare(assign)
        except InputsAbsent:
            return None  # whoever may block finds the same, and tells it

    def prepare(self, assign: Assign) -> Ready:
        """Get everything a task needs. Raises ``InputsAbsent``."""
        head = self._head(assign)
        if assign.kind == "map":
            indices = range(assign.start, assign.stop)
            items = assign.riding.items or self.items(assign, indices, resolve=False)
            return Ready(head, items, (), (), ())
        found, fetched = self._segments(assign)
        ordered = sorted(found, key=lambda pair: pair[0].start)
        return Ready(
            head,
            b"",
            tuple(str(path) for _, path in ordered),
            tuple(output for output, _ in ordered),
            tuple(fetched),
        )

    def forget(self, record: str) -> None:
        """The record has ended."""
        self._heads.pop(record, None)

    # -- from owners -------------------------------------------------------------------

    def _head(self, assign: Assign) -> Head:
        head = self._heads.get(assign.record)
        if head is None and assign.riding.head:
            head = self._heads[assign.record] = _opened(assign.riding.head)
        if head is None:
            with self._lock:  # one thread asks, the others wait for its answer
                head = self._heads.get(assign.record)
                if head is None:
                    blob = self._from_owner(assign, FetchRecord(assign.record, keys=False))
                    head = self._heads[assign.record] = _opened(blob)
        return head

    def items(self, assign: Assign, indices: Sequence[int], *, resolve: bool) -> bytes:
        """Return pickled items of a map task, see ``Records.items``."""
        whole = len(indices) == assign.stop - assign.start and not resolve
        request = FetchItems(
            record=assign.record,
            indices=() if whole else tuple(indices),
            start=assign.start if whole else 0,
            stop=assign.stop if whole else 0,
            resolve=resolve,
        )
        return self._from_owner(assign, request)

    def _from_owner(self, assign: Assign, request: FetchRecord | FetchItems) -> bytes:
        """Ask the owners in turn, this peer first if it is one."""
        owners = sorted(assign.owners, key=lambda ref: ref.peer != self._me.peer)
        reasons: list[str] = []
        for owner in owners:
            try:
                return self._ask(owner, request)
            except NotHere as absent:
                if absent.failure is not None:
                    raise InputsAbsent(absent.reason, failure=absent.failure) from absent
                reasons.append(absent.reason)
            except Unreachable as error:
                reasons.append(str(error))
        raise InputsAbsent("; ".join(reasons) or "no owner is there to give items")

    def _ask(self, owner: PeerRef, request: FetchRecord | FetchItems) -> bytes:
        if owner.peer != self._me.peer:
            return self._bulk.fetch(owner, request, FETCH_SECONDS, count=1)[0]
        if isinstance(request, FetchRecord):
            return bytes(self._records.record(request.record, request.keys)[0])
        indices = request.indices or range(request.start, request.stop)
        return bytes(self._records.items(request.record, indices, request.resolve)[0])

    # -- from holders ------------------------------------------------------------------

    def _segments(self, assign: Assign) -> tuple[list[tuple[Output, Path]], list[Path]]:
        """Find or fetch all inputs; return where they are, and which files were fetched."""
        found: list[tuple[Output, Path]] = []
        fetched: list[Path] = []
        for source in assign.sources:
            away: list[Output] = []
            for output in source.outputs:
                path = self._here(source.holder, output)
                if path is None:
                    away.append(output)
                else:
                    found.append((output, path))
            if away:
                for output, path in self._fetch(assign, source, tuple(away)):
                    found.append((output, path))
                    fetched.append(path)
        return found, fetched

    def _here(self, holder: PeerRef, output: Output) -> Path | None:
        """Where a segment is on this host, if its holder is or was of this host."""
        if holder.host == self._me.host:
            return self._store.path_in(holder.peer, output)
        return self._store.path_of(output)

    def _fetch(
        self, assign: Assign, source: Source, outputs: tuple[Output, ...]
    ) -> list[tuple[Output, Path]]:
        first, stop = (assign.start, assign.stop) if assign.kind == "reduce" else (0, 1 << 30)
        if source.holder.peer == self._me.peer:
            raise InputsAbsent("segments are gone from this peer's own spool", outputs)
        request = FetchSegments(outputs, first, stop)
        try:
            return fetch_segments(self._bulk, self._store, source.holder, request)
        except NotHere as absent:
            raise InputsAbsent(absent.reason, absent.missing) from absent
        except Unreachable as error:
            raise InputsAbsent(str(error)) from error


def fetch_segments(
    bulk: BulkClient, store: Store, holder: PeerRef, request: FetchSegments
) -> list[tuple[Output, Path]]:
    """Bring segments, or slices of them, into the own store, by way of the disk alone.

    Raises ``NotHere``, also naming one that came damaged, ``Unreachable``, ``SpoolFull`` and
    ``OSError``.
    """
    outputs = request.outputs
    incoming = [store.incoming(output) for output in outputs]
    taken: list[tuple[Output, Path]] = []
    try:
        bulk.fetch(holder, request, FETCH_SECONDS, len(outputs), into=incoming)
        for output, path in zip(outputs, incoming, strict=True):
            try:
                taken.append((output, store.take(output, path)))
            except SegmentCorrupt as error:
                raise NotHere(f"from {holder.name}: {error}", (output,)) from error
    finally:
        for path in incoming:
            path.unlink(missing_ok=True)
    return taken


def _opened(head: bytes) -> Head:
    try:
        return Head.decode(head)
    except ProtocolError as error:
        raise InputsAbsent(str(error)) from error
