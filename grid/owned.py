"""What an owner keeps of each of its transactions, and how it is found: by id, record and time.

Looking costs the same however many transactions are open.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from grid.messages import (
    NOTHING_RIDING,
    Failure,
    FromClient,
    Kind,
    LedgerEntry,
    Progress,
    RecordMeta,
    Remembered,
    Riding,
)
from grid.ranges import Tiling, is_aligned

State = Literal["pending", "fetching", "resolved"]


class Ledger:
    """Which range was given to, or is held by, whom; so that a new server repeats nothing (P4)."""

    def __init__(self, meta: RecordMeta) -> None:
        extents: dict[Kind, int] = {
            "map": meta.items,
            "reduce": meta.partitions,
            "finish": 1,
            "call": 1,
        }
        self._entries: dict[tuple[Kind, int, int, str], LedgerEntry] = {}
        self._finished: dict[Kind, Tiling[bool]] = {k: Tiling(n, False) for k, n in extents.items()}
        self._peers: dict[str, None] = {}
        self.again = 0

    def note(self, progress: Progress) -> None:
        """Take in the news. Ranges given although they were finished once are counted."""
        for entry in progress.freed:
            self._entries.pop(self._key(entry), None)
        for entry in progress.entries:
            finished = self._finished[entry.kind]
            if not is_aligned(entry.start, entry.stop, finished.n):
                continue  # of no server that runs this record
            if entry.kind == "call":
                pass  # every member runs the same call once: no range is shared
            elif entry.held:
                finished.put(entry.start, entry.stop, True)
            elif not self._is_retold(entry):
                done = any(done for _, _, done in finished.inside(entry.start, entry.stop))
                self.again += done
            self._entries[self._key(entry)] = entry
            self._peers[entry.peer] = None

    def _is_retold(self, entry: LedgerEntry) -> bool:
        """Whether it was given before, and is told once more because an owner is new."""
        known = self._entries.get(self._key(entry))
        return known is not None and not known.held

    @staticmethod
    def _key(entry: LedgerEntry) -> tuple[Kind, int, int, str]:
        return (entry.kind, entry.start, entry.stop, entry.peer)

    def entries(self) -> tuple[LedgerEntry, ...]:
        return tuple(self._entries.values())

    def peers(self) -> tuple[str, ...]:
        """Everyone who works or worked on it, in the order first heard of."""
        return tuple(self._peers)


class Owned(Struct):
    txn: str
    meta: RecordMeta
    name: str
    fingerprint: dict[str, str]
    fresh: bool
    ledger: Ledger
    deadline: float | None
    riding: Riding = NOTHING_RIDING
    asked: bool = False
    """Only the finished result of the name is wanted: nothing is owned."""
    wait: bool = False
    certain: bool = False
    """There is such a transaction, even while no server knows of it."""
    asks: int = 0
    fetches: int = 0
    state: State = "pending"
    accepted: bool = False
    found: RecordMeta | None = None
    """The finished record of our name, by others, whose result is being fetched."""
    again_at: float | None = None
    awaiting_run: bool = False
    skipped: tuple[int, ...] = ()
    parting: FromClient | None = None
    """The acknowledgement or cancel that is repeated until ``Ended``."""

    @property
    def kept(self) -> bool:
        """Whether we are a keeper of it: it is detached."""
        return self.meta.keeping is not None

    def end(self, skipped: tuple[int, ...] = (), failure: Failure | None = None) -> Remembered:
        """The end of a detached transaction, without its holdings."""
        assert self.meta.keeping is not None
        seconds = self.meta.keeping.seconds
        return Remembered("", {}, self.meta, (), seconds, skipped, failure)


class OwnedTable:
    """All transactions of one owner."""

    def __init__(self) -> None:
        self._by_txn: dict[str, Owned] = {}
        self._by_record: dict[str, dict[str, Owned]] = {}
        self._timed: dict[str, Owned] = {}
        """Those for which a time was set, and a few for which none is any more."""
        self._soonest: float | None = None

    def __getitem__(self, txn: str) -> Owned:
        return self._by_txn[txn]

    def get(self, txn: str) -> Owned | None:
        return self._by_txn.get(txn)

    def values(self) -> Iterable[Owned]:
        """All, in the order they were added."""
        return self._by_txn.values()

    def of_record(self, record: str) -> Iterable[Owned]:
        """Those that run, or want, this record."""
        return self._by_record.get(record, {}).values()

    def add(self, owned: Owned) -> None:
        self._by_txn[owned.txn] = owned
        self._by_record.setdefault(owned.meta.record, {})[owned.txn] = owned
        if owned.deadline is not None:
            self._note(owned, owned.deadline)

    def remove(self, txn: str) -> None:
        """Forget it; an unknown one is forgotten already."""
        owned = self._by_txn.pop(txn, None)
        if owned is not None:
            self._unlist(owned)
            self._timed.pop(txn, None)

    def rename(self, owned: Owned, meta: RecordMeta) -> None:
        """It runs another record from now on."""
        self._unlist(owned)
        owned.meta = meta
        self._by_record.setdefault(meta.record, {})[owned.txn] = owned

    # -- time --------------------------------------------------------------------------

    def wake(self, owned: Owned, at: float) -> None:
        """Have it submitted again at that time."""
        owned.again_at = at
        self._note(owned, at)

    def deadline(self) -> float | None:
        """No later than when ``due`` has something to tell."""
        return self._soonest

    def due(self, now: float) -> list[Owned]:
        """Those of which a time has come; it is not told again, unless set again."""
        if self._soonest is None or now < self._soonest:
            return []
        self._timed = {txn: owned for txn, owned in self._timed.items() if _times(owned)}
        coming = (at for owned in self._timed.values() for at in _times(owned) if at > now)
        self._soonest = min(coming, default=None)
        return [owned for owned in self._timed.values() if min(_times(owned)) <= now]

    def _note(self, owned: Owned, at: float) -> None:
        self._timed[owned.txn] = owned
        self._soonest = at if self._soonest is None else min(at, self._soonest)

    def _unlist(self, owned: Owned) -> None:
        listed = self._by_record[owned.meta.record]
        del listed[owned.txn]
        if not listed:
            del self._by_record[owned.meta.record]


def _times(owned: Owned) -> list[float]:
    """When something is to be done about it."""
    if owned.state == "resolved":
        return []
    return [at for at in (owned.deadline, owned.again_at) if at is not None]
