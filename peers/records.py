"""The records that this peer owns: what others may ask of them.

A record is frozen when it is submitted: its code, its key list, its options. The server is told
counts; keys, values and code are given to the peers that run its tasks, on threads that may block.
Values are read from the datasource when a task needs them, one thread at a time for each record,
since a user's ``__getitem__`` need not expect more.
"""

import hashlib
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cloudpickle
from msgspec import Struct, msgpack, structs

from grid.errors import NotPicklable, ProtocolError
from grid.job import Job
from grid.messages import RIDING_BYTES_MAX, Output, Riding
from grid.pickling import show
from peers.bulk import Blob, NotHere
from peers.segment import SegmentCorrupt, SegmentMissing, SegmentSlice
from peers.shipping import Code, pickle_value
from peers.store import Store
from peers.worker_failures import raised, unpicklable


class Head(Struct, frozen=True, array_like=True):
    """What a peer must know to run a record's tasks: its encoded ``Code``, into how many
    partitions keys are divided, whether failing items are skipped."""

    code: bytes
    partitions: int
    skip: bool

    def encode(self) -> bytes:
        return msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> "Head":
        """Return the head that was encoded. Raises ``ProtocolError`` for anything else."""
        try:
            return msgpack.decode(data, type=Head)
        except ValueError as error:  # msgspec's own, and text that is not UTF-8
            raise ProtocolError(f"the head of a record makes no sense: {error}") from error


@dataclass
class OwnedRecord:
    """One record, frozen. ``keys`` in datasource order; ``value`` reads the datasource, ``plain``
    says that this costs nothing and cannot fail."""

    head: Head
    keys: list[Any]
    value: Callable[[Any], Any]
    reference: Callable[[Any], Any] | None
    shipped: tuple[str, ...]
    plain: bool
    lock: threading.Lock = field(default_factory=threading.Lock)


class KeptRecord(Protocol):
    """A record whose items are on this peer's disk, pickled by another."""

    @property
    def head(self) -> Head: ...

    def pairs(self, indices: Sequence[int]) -> bytes:
        """The pickled list of these (key, value). Raises ``NotHere``."""
        ...


def own(job: Job, head: Head, keys: list[Any]) -> OwnedRecord:
    """Freeze a job's record around its datasource."""
    shipped = Code.decode(head.code).shipped
    return OwnedRecord(
        head=head,
        keys=keys,
        value=job.value,
        reference=getattr(job.datasource, "reference", None),
        shipped=shipped,
        plain=type(job.datasource) in (dict, list, tuple, range),
    )


def digest(head: Head, keys: list[Any], nonce: str) -> str:
    """Name a record. The nonce keeps two submissions of the same job apart: the values of its
    datasource may have changed in between."""
    summary = hashlib.sha256(head.encode())
    summary.update(f"{len(keys)} {nonce}".encode())
    return summary.hexdigest()[:32]


class Records:
    """All records this peer owns, and the segments it holds: what its data port gives."""

    def __init__(self, store: Store, peer_name: str) -> None:
        self._store = store
        self._peer_name = peer_name
        self._records: dict[str, OwnedRecord] = {}
        self._kept: dict[str, KeptRecord] = {}

    def keep(self, record: str, kept: KeptRecord) -> None:
        self._kept[record] = kept

    def add(self, record: str, owned: OwnedRecord) -> None:
        self._records[record] = owned

    def get(self, record: str) -> OwnedRecord | None:
        return self._records.get(record)

    def forget(self, record: str) -> None:
        self._records.pop(record, None)
        self._kept.pop(record, None)

    def riding(self, record: str) -> Riding:
        """What of a record is small enough to ride in messages. A value is read here only where
        that is no more than looking into a list or dict."""
        owned = self._records.get(record)
        head = (owned or self._kept[record]).head.encode()
        if len(head) > RIDING_BYTES_MAX:
            return Riding()
        if owned is None or len(owned.keys) != 1 or not owned.plain:
            return Riding(head)
        try:
            items = bytes(self.items(record, (0,), resolve=False)[0])
        except NotHere:
            return Riding(head)  # what is wrong with it is told when a task needs it
        return Riding(head, items if len(items) <= RIDING_BYTES_MAX else b"")

    def _owned(self, record: str) -> OwnedRecord:
        owned = self._records.get(record)
        if owned is None:
            raise NotHere(f"{self._peer_name} does not own record {record[:8]}")
        return owned

    # -- what the data port gives (``peers.bulk_server.Provider``) -----------------------

    def record(self, record: str, keys: bool) -> Sequence[bytes]:
        """The head of a record; with ``keys`` also its pickled key list."""
        kept = self._kept.get(record)
        if kept is not None and not keys:
            return [kept.head.encode()]
        owned = self._owned(record)
        head = owned.head.encode()
        return [head, cloudpickle.dumps(owned.keys)] if keys else [head]

    def items(self, record: str, indices: Sequence[int], resolve: bool) -> Sequence[bytes]:
        """One blob: the pickled list of ``(key, value or Reference)``; with ``resolve`` the
        pickled list of the values themselves."""
        kept = self._kept.get(record)
        if kept is not None:
            return [kept.pairs(indices)]
        owned = self._owned(record)
        if isinstance(indices, range):
            keys = owned.keys[indices.start : indices.stop]
        else:
            keys = [owned.keys[index] for index in indices if index < len(owned.keys)]
        if len(keys) < len(indices):
            raise NotHere(f"record {record[:8]} has only {len(owned.keys)} items")
        with owned.lock:
            values = self._values(owned, keys, resolve)
        things = values if resolve else list(zip(keys, values, strict=True))
        return [self._pickled(owned, keys, things)]

    def _values(self, owned: OwnedRecord, keys: list[Any], resolve: bool) -> list[Any]:
        read = owned.value if owned.reference is None or resolve else owned.reference
        values: list[Any] = []
        try:
            for key in keys:
                values.append(read(key))  # noqa: PERF401 - extend swallows StopIteration
        except BaseException as error:  # also SystemExit: it must not end a thread of ours
            failure = raised(error, "the datasource", show(keys[len(values)]))
            failure = structs.replace(failure, peer=self._peer_name)
            raise NotHere("the datasource raised", failure=failure) from error
        return values

    @staticmethod
    def _pickled(owned: OwnedRecord, keys: list[Any], things: list[Any]) -> bytes:
        """Pickle all at once, which is fast; if that fails, find out which one it was."""
        try:
            return pickle_value(things, "the values of keys", keys, owned.shipped)
        except NotPicklable as all_of_them:
            for key, thing in zip(keys, things, strict=True):
                try:
                    pickle_value(thing, "the value of key", key, owned.shipped)
                except NotPicklable as error:
                    failure = unpicklable(error, "the datasource", show(key))
                    raise NotHere(failure.message, failure=failure) from error
            failure = unpicklable(all_of_them, "the datasource")
            raise NotHere(failure.message, failure=failure) from None

    def segments(self, outputs: tuple[Output, ...], first: int, stop: int) -> Sequence[Blob]:
        """For each of these outputs, partitions ``first..stop`` as a segment of their own."""
        blobs: list[Blob] = []
        missing: list[Output] = []
        for output in outputs:
            path = self._store.path_of(output)
            try:
                if path is None:
                    raise SegmentMissing(f"{output} is not here")
                blobs.append(SegmentSlice(path, first, stop))
            except (SegmentMissing, SegmentCorrupt):
                missing.append(output)
        if missing:
            raise NotHere(
                f"{self._peer_name} does not have {len(missing)} of the segments", tuple(missing)
            )
        return blobs


def load_keys(blob: bytes) -> list[Any]:
    """Read a key list that another owner gave: this process is its owner too now."""
    keys = pickle.loads(blob)
    assert isinstance(keys, list)
    return keys
