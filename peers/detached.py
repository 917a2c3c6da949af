"""Detached transactions at a keeper: put on disk, seen through, and told to who asks.

Who submits one gives the frozen job and every item's value to some peers that stay, its *keepers*
(``peers/handing.py``); each puts it in its host's journal (``peers/journal.py``) and owns it on the
grid like any owner. When it ends, each keeper puts the end in the journal before it acknowledges;
so any peer hears of the end, by the transaction's id, only when it is kept. A keeper that dies is
succeeded by another peer of its host, at once or whenever one starts there; one that stays away, by
a peer of another host, which fetches a copy from the keepers that are left.

What a keeper tells its grid is decided in ``grid/keeping.py``. What the journal cannot give makes
this peer no owner any more, and is said; the other keepers go on. Does not open keys, values or
code.
"""

import logging
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import ValidationError, msgpack, structs

from grid import effects as fx
from grid import events as ev
from grid.errors import NotKept, ProtocolError
from grid.keeping import KEPT, Entry, Keeper
from grid.messages import Failure, FetchKept, Keep, PeerRef, Remembered, Riding
from peers.bulk import Blob, NotHere, Unreachable
from peers.handing import WHOLE
from peers.journal import RESULTS, Journal, count_items, in_use
from peers.keys import own_key_path
from peers.records import Head, Records
from peers.store import Store
from peers.wall_clock import time_of_day

log = logging.getLogger(__name__)

Fetch = Callable[[PeerRef, FetchKept, int], Sequence[bytes]]
"""Fetches so many blobs from a keeper. Raises ``NotHere`` or ``Unreachable``."""


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
    thread. ``post`` tells the client core, ``fetch`` asks other keepers; ``patience`` is how long
    to wait, after a start, for other hosts that may hold finished work; ``keeps`` is false for
    visitors."""

    def __init__(
        self,
        folder: Path,
        peer: str,
        key: bytes,
        records: Records,
        store: Store,
        post: Callable[[ev.ClientEvent], None],
        fetch: Fetch,
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
        self._fetch = fetch
        self._keeps = keeps
        self._keeper = Keeper(patience)
        self._lock = threading.Lock()
        self._opened: Journal | None = None
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

    def _tell(self, events: Sequence[ev.ClientEvent]) -> None:
        for event in events:
            self._post(event)

    # -- taking in -----------------------------------------------------------------------

    def serve(self, request: Keep | FetchKept, body: bytes) -> Sequence[Blob]:
        """Put a part on disk, or give one to another keeper (``peers.bulk_server.Keeper``)."""
        if not self._keeps:
            raise NotHere("a visitor keeps nothing")
        try:
            if isinstance(request, FetchKept):
                return self._give(request)
            return self._keep(request, body)
        except NotKept as error:
            record = request.record if isinstance(request, FetchKept) else request.meta.record
            log.warning("cannot keep detached %s: %s", record, error)
            raise NotHere(str(error)) from error

    def _keep(self, request: Keep, body: bytes) -> Sequence[Blob]:
        if request.meta.keeping is None:
            raise NotHere("it is not detached")
        record = request.meta.record
        match request.part:
            case "head":
                Head.decode(body)
                whole = self._journal().begin(Entry(request.meta, request.deadline), body)
                return [WHOLE] if whole else []
            case "items":
                self._journal().add_items(record, request.first, request.count, body)
            case "whole":
                self._take(self._journal().complete(record))
            case "withdrawn":
                self._journal().discard(record)
        return []

    def _take(self, found: Entry | Remembered) -> None:
        """See a transaction through, or say that it has ended."""
        riding = self._prepared(found) if isinstance(found, Entry) else Riding()
        self._tell(self._keeper.took(found, time_of_day(), riding))

    def _prepared(self, entry: Entry) -> Riding:
        """Have the data port give what the journal keeps; return what rides in messages."""
        record = entry.meta.record
        if not self._keeper.owns(record):
            journal = self._journal()
            head = Head.decode(journal.head(record))
            kept = _Kept(record, entry.meta.items, head, journal, self._damaged)
            self._records.keep(record, kept)
        return self._records.riding(record)

    def _damaged(self, record: str, error: NotKept) -> None:
        """Be no owner any more of what cannot be read."""
        if self._keeper.lost(record):
            self._records.forget(record)
            self._post(ev.CancelRequested(f"{KEPT}{record}", all=False))
            self._journal().set_aside(record, str(error))

    # -- in the place of a keeper that is gone -------------------------------------------

    def _give(self, request: FetchKept) -> Sequence[Blob]:
        """Give another keeper what is kept here."""
        if not request.head:
            return [self._journal().chunk(request.record, request.first)]
        entry, head = self._journal().entry(request.record)
        return [msgpack.encode(entry), head]

    def keep_too(self, effect: fx.AdoptRecord) -> None:
        """Keep a copy of what one of these keepers has."""
        record = effect.meta.record
        reasons: list[str] = []
        for keeper in effect.owners:
            try:
                self._take(self._copied(keeper, record))
                log.info("keeps a copy of detached %s, which %s keeps", record, keeper.name)
                return
            except (NotHere, Unreachable, NotKept, ProtocolError, ValidationError) as error:
                reasons.append(f"{keeper.name}: {error}")
        reason = "; ".join(reasons)
        log.warning("cannot keep a copy of detached %s: %s", record, reason)
        self._post(ev.RecordNotAdopted(effect.txn, reason))

    def _copied(self, keeper: PeerRef, record: str) -> Entry | Remembered:
        encoded, head = self._fetch(keeper, FetchKept(record, head=True), 2)
        Head.decode(head)
        entry = msgpack.decode(encoded, type=Entry)
        if entry.meta.record != record or entry.meta.keeping is None:
            raise NotHere(f"it gave another entry, {entry.meta.record[:8]}")
        journal = self._journal()
        if journal.begin(entry, head):
            return journal.complete(record)
        first = 0
        while first < entry.meta.items:
            (chunk,) = self._fetch(keeper, FetchKept(record, first=first), 1)
            count = count_items(chunk)
            if not 0 < count <= entry.meta.items - first:
                raise NotHere(f"it gave {count} items from {first} on, of {entry.meta.items}")
            journal.add_items(record, first, count, chunk)
            first += count
        return journal.complete(record)

    # -- seeing it through ---------------------------------------------------------------

    def revive(self) -> None:
        """Look after the journal: own what is open and nobody of this host keeps, announce ends."""
        if not self._keeps or self._closed or not in_use(self.folder):
            return
        try:
            opened, ended = self._journal().look()
            for entry in opened:
                log.info("goes on with detached %s", entry.meta.record)
            owned = [(entry, self._prepared(entry)) for entry in opened]
        except NotKept as error:
            self._warn(error)
            return
        self._tell(self._keeper.revived(owned, ended, time_of_day()))

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
        self._keeper.lost(effect.record)
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


def with_key(failure: Failure, key: str) -> Failure:
    """Return a failure that says which item it was."""
    return structs.replace(failure, key=key, message=f"{failure.message}, key {key}")
