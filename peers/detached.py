"""Detached transactions: handed to their keepers, seen through by them, and told to who asks.

Who submits one gives the frozen job and every item's value to some peers that stay, its *keepers*;
each puts it in its host's journal (``peers/journal.py``) and owns it on the grid like any owner.
When it ends, each keeper puts the end in the journal before it acknowledges; so any peer hears of
the end, by the transaction's id, only when it is kept. A keeper that dies is succeeded by another
peer of its host, at once or whenever one starts there.

Promises: ``hand_over`` returns when at least one keeper has everything on disk, and raises with
nothing left running when none has; memory is bounded by a chunk and the largest item. What the
journal cannot give makes this peer no owner any more, and is said; the other keepers go on.
Does not open keys, values or code, but for what the submitter itself pickles.
"""

import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from grid import effects as fx
from grid import events as ev
from grid.errors import Misuse, NotKept
from grid.job import Job
from grid.messages import Failure, Held, Keep, PeerRef, RecordMeta, Remembered
from grid.pickling import show
from peers.bulk import Blob, NotHere, Unreachable
from peers.journal import (
    ITEM_BYTES_MAX,
    RESULTS,
    Entry,
    Item,
    Journal,
    encode_items,
    in_use,
    time_of_day,
)
from peers.keys import own_key_path
from peers.records import Head, Records
from peers.shipping import pickle_value
from peers.store import Store

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
"""Large against a sync of the disk, small against memory."""

CHUNK_ITEMS = 4096

TOUCH_SECONDS = 3600.0
"""How often a long job's entry is noted to be alive: often against any time it is kept."""

KEPT = "kept:"
"""What the keepers' own transactions are called, before the id."""

WHOLE = b"whole"

Give = Callable[[Keep, bytes], Sequence[Blob]]
"""Gives a part to one keeper. Raises ``NotHere`` or ``Unreachable``."""


def default_root() -> Path:
    """Return where journals are kept unless ``GRID_JOURNAL`` says otherwise: beside the key."""
    return own_key_path().parent / "journal"


class _Frozen:
    """Unpickles as what its bytes unpickle as; so pickles are put together without opening them."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return pickle.loads, (self._pickled,)


@dataclass
class _Kept:
    """An entry of the journal, as the data port gives it (``peers.records.KeptRecord``)."""

    record: str
    items: int
    head: Head
    journal: Journal
    damaged: Callable[[str, NotKept], None]

    def pairs(self, indices: Sequence[int]) -> bytes:
        """The pickled list of these (key, value)."""
        if any(index >= self.items for index in indices):
            raise NotHere(f"record {self.record[:8]} has only {self.items} items")
        try:
            if isinstance(indices, range):
                items = self.journal.items(self.record, indices.start, indices.stop)
            else:
                items = [self.journal.items(self.record, i, i + 1)[0] for i in indices]
        except NotKept as error:
            self.damaged(self.record, error)
            raise NotHere(str(error)) from error
        return pickle.dumps([_Frozen(item.pair) for item in items])


class Detached:
    """What one peer keeps of detached transactions. Methods block, and may be called from any
    thread. ``post`` tells the client core; ``patience`` is how long to wait, after a start, for
    other hosts that may hold finished work; ``keeps`` is false for visitors."""

    def __init__(
        self,
        folder: Path,
        peer: str,
        key: bytes,
        records: Records,
        store: Store,
        post: Callable[[ev.ClientEvent], None],
        *,
        keeps: bool,
        patience: float,
    ) -> None:
        self.folder = folder
        self.results = folder / RESULTS
        self._peer = peer
        self._key = key
        self._records = records
        self._store = store
        self._post = post
        self._keeps = keeps
        self._patience = patience
        self._lock = threading.Lock()
        self._opened: Journal | None = None
        self._owned: dict[str, None] = {}
        self._touched_at = time.monotonic()
        self._closed = False
        self._warned = ""

    def _journal(self) -> Journal:
        with self._lock:
            if self._closed:
                raise NotKept("this peer is closing")
            if self._opened is None:
                self._opened = Journal(self.folder, self._peer, self._key)
            return self._opened

    def close(self) -> None:
        """Let go of everything kept: it goes on with the other keepers, or with who starts next."""
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def abandon(self) -> None:
        """In a forked child: what was opened is the parent's."""
        if self._opened is not None:
            self._opened.abandon()

    def any_open(self) -> bool:
        """Whether this host's journal has work to resume; also when it cannot tell."""
        if not in_use(self.folder):
            return False
        try:
            return self._journal().any_open()
        except NotKept as error:
            self._warn(error)
            return True

    def _warn(self, error: NotKept) -> None:
        """Say what is wrong with the journal, once."""
        if str(error) != self._warned:
            self._warned = str(error)
            log.warning("detached transactions cannot be resumed: %s", error)

    # -- being a keeper ------------------------------------------------------------------

    def keep(self, request: Keep, body: bytes) -> Sequence[Blob]:
        """Put a part on disk, as another peer or this one asks (``peers.bulk_server.Keeper``)."""
        if not self._keeps or request.meta.keeping is None:
            raise NotHere("a visitor keeps nothing")
        record = request.meta.record
        try:
            journal = self._journal()
            match request.part:
                case "head":
                    Head.decode(body)
                    whole = journal.begin(Entry(request.meta, request.deadline), body)
                    return [WHOLE] if whole else []
                case "items":
                    journal.add_items(record, request.first, request.count, body)
                case "whole":
                    self._take(journal.complete(record))
                case "withdrawn":
                    journal.discard(record)
        except NotKept as error:
            log.warning("cannot keep detached %s: %s", record, error)
            raise NotHere(str(error)) from error
        return []

    def _take(self, found: Entry | Remembered) -> None:
        """See a transaction through, or keep its end."""
        if isinstance(found, Remembered):
            self._post(ev.EstateAdopted("", (_held(found),)))
        else:
            self._own(found, 0.0)

    def _own(self, entry: Entry, after_seconds: float) -> None:
        """Own what the journal keeps, on the grid."""
        record = entry.meta.record
        journal = self._journal()
        if record in self._owned:
            return
        self._owned[record] = None
        head = Head.decode(journal.head(record))
        self._records.keep(record, _Kept(record, entry.meta.items, head, journal, self._damaged))
        left = max(0.001, entry.deadline - time_of_day()) if entry.deadline else None
        self._post(
            ev.SubmitRequested(
                txn=f"{KEPT}{record}",
                meta=entry.meta,
                name="",
                fingerprint={},
                fresh=False,
                deadline_seconds=left,
                riding=self._records.riding(record),
                after_seconds=after_seconds,
            )
        )

    def _damaged(self, record: str, error: NotKept) -> None:
        """Be no owner any more of what cannot be read."""
        if self._owned.pop(record, "") is None:
            self._records.forget(record)
            self._post(ev.CancelRequested(f"{KEPT}{record}", all=False))
            self._journal().set_aside(record, str(error))

    def revive(self) -> None:
        """Take over what no living peer of this host keeps: own what is open, announce the ends."""
        if not self._keeps or self._closed or not in_use(self.folder):
            return
        patience, self._patience = self._patience, 0.0
        try:
            opened, ended = self._journal().adopt()
            for entry in opened:
                log.info("goes on with detached %s", entry.meta.record)
                self._own(entry, patience)
        except NotKept as error:
            self._warn(error)
            return
        if ended:
            self._post(ev.EstateAdopted("", tuple(map(_held, ended))))

    def keep_end(self, effect: fx.FetchResult) -> Remembered | None:
        """Put the end of a transaction on disk; its segments are in the store. Return it, with its
        time. Raises ``NotKept``."""
        end = effect.keep
        if end is None:
            return None
        paths = [self._store.path_of(holding.output) for holding in end.holdings]
        found = [path for path in paths if path is not None]
        if len(found) < len(paths):
            raise NotKept(f"some of the result of {effect.record} is gone from this peer's spool")
        if end.failure is not None:
            end = structs.replace(end, failure=self._named(effect.record, end.failure))
        kept = self._journal().finish(end, found)
        self._owned.pop(effect.record, None)
        self._records.forget(effect.record)
        return kept

    def _named(self, record: str, failure: Failure) -> Failure:
        """Name the key of the item that a worker died on; who saw it die knew its number."""
        if failure.key or failure.item < 0:
            return failure
        try:
            (item,) = self._journal().items(record, failure.item, failure.item + 1)
        except NotKept:
            return failure
        return with_key(failure, item.key)

    def note_progress(self) -> bool:
        """Whether it is time to call ``touch``. Does not block."""
        due = bool(self._owned) and time.monotonic() - self._touched_at > TOUCH_SECONDS
        if due:
            self._touched_at = time.monotonic()
        return due

    def touch(self) -> None:
        """Note in the journal that what is kept here is alive."""
        self._journal().touch()


def _held(end: Remembered) -> Held:
    """An end as its keeper announces it."""
    return Held(end.meta.record, end.holdings, (), end)


def with_key(failure: Failure, key: str) -> Failure:
    """Return a failure that says which item it was."""
    return structs.replace(failure, key=key, message=f"{failure.message}, key {key}")


# ------------------------------------------------------------------------------ submitting


def choose(me: PeerRef | None, others: Sequence[PeerRef], copies: int) -> list[PeerRef]:
    """Choose keepers: this peer if it stays, then the others, on as many hosts as there are."""
    found = {ref.peer: ref for ref in ([me] if me is not None else []) + list(others)}
    seen: dict[str, int] = {}
    order: list[tuple[int, PeerRef]] = []
    for ref in found.values():
        order.append((seen.get(ref.host, 0), ref))
        seen[ref.host] = seen.get(ref.host, 0) + 1
    return [ref for _, ref in sorted(order, key=lambda ranked: ranked[0])[:copies]]


def chunks(job: Job, keys: Sequence[object], shipped: Sequence[str]) -> Iterator[list[Item]]:
    """Read and pickle all items, a bounded piece at a time. Raises what the datasource raises,
    ``NotPicklable``, or ``Misuse`` for an item that is too large."""
    chunk: list[Item] = []
    size = 0
    for key in keys:
        pair = pickle_value((key, job.value(key)), "the value of key", key, shipped)
        if len(pair) > ITEM_BYTES_MAX:
            raise Misuse(
                f"the value of key {show(key)} has {len(pair)} bytes, a detached job takes at most "
                f"{ITEM_BYTES_MAX} an item: submit it undetached, or in smaller items"
            )
        if chunk and (size + len(pair) > CHUNK_BYTES or len(chunk) == CHUNK_ITEMS):
            yield chunk
            chunk, size = [], 0
        chunk.append(Item(show(key), pair))
        size += len(pair)
    if chunk:
        yield chunk


class Handing:
    """Hands one transaction to its keepers. Those that fail are left out, with their reasons."""

    def __init__(self, meta: RecordMeta, deadline: float, head: bytes) -> None:
        self._meta = meta
        self._deadline = deadline
        self._head = head
        self.reasons: list[str] = []

    def run(
        self, keepers: Sequence[tuple[PeerRef, Give]], items: Iterator[list[Item]]
    ) -> list[str]:
        """Return the names of those who have it. Raises ``NotKept``, or what ``items`` raises."""
        first_of_host = dict(reversed([(ref.host, (ref, give)) for ref, give in keepers]))
        firsts = [pair for pair in keepers if first_of_host[pair[0].host] == pair]
        begun = [pair for pair in firsts if self._said(*pair, "head", self._head) is not None]
        try:
            had = self._give_items(begun, items)
        except BaseException:
            for pair in begun:
                self._said(*pair, "withdrawn")
            raise
        had = [pair for pair in had if self._said(*pair, "whole") is not None]
        # The others share a journal with one of these: they need not be given anything.
        hosts = [ref.host for ref, _ in had]
        rest = [pair for pair in keepers if pair not in firsts and pair[0].host in hosts]
        had += [pair for pair in rest if self._joins(*pair)]
        if not had:
            raise NotKept(
                f"nobody could keep the detached job, and nothing runs: {'; '.join(self.reasons)}"
            )
        return [ref.name for ref, _ in had]

    def _give_items(
        self, keepers: list[tuple[PeerRef, Give]], items: Iterator[list[Item]]
    ) -> list[tuple[PeerRef, Give]]:
        first = 0
        for chunk in items if keepers else ():
            body, count = encode_items(chunk), len(chunk)
            keepers = [
                pair
                for pair in keepers
                if self._said(*pair, "items", body, first=first, count=count) is not None
            ]
            first += count
        return keepers

    def _joins(self, ref: PeerRef, give: Give) -> bool:
        whole = self._said(ref, give, "head", self._head) == [WHOLE]
        return whole and self._said(ref, give, "whole") is not None

    def _said(
        self, ref: PeerRef, give: Give, part: str, body: bytes = b"", **where: int
    ) -> list[Blob] | None:
        """Say one thing to one keeper; None if it failed, and is to be left out."""
        request = Keep(
            self._meta,
            part,  # type: ignore[arg-type]
            size=len(body),
            deadline=self._deadline,
            **where,
        )
        try:
            return list(give(request, body))
        except (NotHere, Unreachable) as error:
            self.reasons.append(f"{ref.name}: {error}")
            return None
