"""The server's transactions: records that are run, by whom they are owned, how far they are.

A record is run once, however many owners it has. Names make several submissions one record; the
first accepted submission of a name fixes it. The registry holds counts, ranges and names of
segments: its size grows with tasks and peers, never with data (P7).
"""

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct, field

from grid.batches import BatchSizer
from grid.messages import (
    NOTHING_RIDING,
    Failure,
    Holding,
    Kind,
    LedgerEntry,
    Output,
    PeerRef,
    RecordMeta,
    Riding,
    Source,
)
from grid.plan import Plan, Tile, aligned_size
from grid.run_queue import RunQueue

REDUCE_BYTES = 8 << 20
"""What a reduce task should read at most: large against a message, small against memory."""

REDUCE_BYTES_MIN = 128 << 10
"""Smaller reduces than this cost more in messages than they gain in balance."""

REDUCES_PER_SLOT = 3

TOMBSTONES_MAX = 4096
"""Ended records that are remembered, so that whoever missed the end can be told to drop them."""

State = Literal["running", "finished", "failed"]

Find = Callable[[str], PeerRef | None]
"""Where the data of a peer can be fetched, if it is here."""


class Owner(Struct):
    """One owner of a transaction: its peer, its own transaction id, whether it has the result."""

    peer: str
    txn: str
    told: bool = False
    acknowledged: bool = False
    found: bool = False
    """It found the finished record of its name, whose code it has not."""


class Transaction(Struct):
    """One record being run. ``plans`` are its phases in order (none for ``everywhere``)."""

    meta: RecordMeta
    number: int
    name: str
    fingerprint: dict[str, str]
    task_seconds: float
    state: State = "running"
    failure: Failure | None = None
    owners: dict[tuple[str, str], Owner] = field(default_factory=dict)
    plans: dict[Kind, Plan] = field(default_factory=dict)
    sizers: dict[Kind, BatchSizer] = field(default_factory=dict)
    calls: dict[str, Holding | None] = field(default_factory=dict)
    calls_given: dict[str, str] = field(default_factory=dict)
    call_deaths: dict[str, int] = field(default_factory=dict)
    call_pauses: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    unable: dict[str, str] = field(default_factory=dict)
    unfed: dict[str, None] = field(default_factory=dict)
    """Peers that handed a task back because they could not reach its inputs, and have finished
    none since: others may reach them."""
    no_room_since: float | None = None
    """When a task was first handed back for want of room on a disk, and none was finished since."""
    waiting: dict[str, float] = field(default_factory=dict)
    """Peers that are to report what they have of it, and until when."""
    expected: list[LedgerEntry] = field(default_factory=list)
    """What they, or others that have reported since, are thought to have."""
    entries: list[LedgerEntry] = field(default_factory=list)
    freed: list[LedgerEntry] = field(default_factory=list)
    touched: dict[str, "Transaction"] = field(default_factory=dict)
    """Where it is noted when it may have come to deserve another place in the queue, ..."""
    told_of: dict[str, "Transaction"] = field(default_factory=dict)
    """... and where, when there is news of it for its listeners."""
    ran: int = 0
    known_at: float = 0.0
    """Since when this server knows of it."""
    resumed: bool = False
    """An earlier server had accepted it."""
    skipped: tuple[int, ...] = ()
    riding: Riding = NOTHING_RIDING
    brought: tuple[Output, bytes] | None = None
    """An output that came along with the word that it is sealed: it may be all of the result."""
    head_given: dict[str, None] = field(default_factory=dict)
    """The peers to whom the record's head has been sent along."""
    reduce_size: int = 0
    ownerless_until: float | None = None
    retained_until: float | None = None
    ended: float = 0.0
    """When, by the clock of those who keep it on disk."""
    keepers: dict[str, None] = field(default_factory=dict)
    """The members that have the end of a detached transaction on disk."""
    askers: dict[tuple[str, str], None] = field(default_factory=dict)
    """Who waits for its end without owning it: peers, and their own transaction ids."""

    def __post_init__(self) -> None:
        meta = self.meta
        if meta.shape == "everywhere":
            return
        extents: dict[Kind, int] = {
            "map": meta.items,
            "reduce": meta.partitions if meta.items else 0,
        }
        if meta.finish:
            extents["finish"] = 1
        for kind, n in extents.items():
            self.plans[kind] = Plan(kind, n)
            self.sizers[kind] = BatchSizer(self.task_seconds)

    @property
    def detached(self) -> bool:
        return self.meta.keeping is not None

    def listeners(self) -> tuple[str, ...]:
        """The peers that want to hear how it goes, each once or as often as it owns it."""
        return (*(owner.peer for owner in self.owners.values()), *(p for p, _ in self.askers))

    # -- how far -----------------------------------------------------------------------

    def phase(self) -> Kind | None:
        """The phase to work on: the one after the last that is done, so that what a finished phase
        has read may be lost without harm. None when there is nothing left to run."""
        after: Kind | None = None
        for kind in reversed(self.plans):
            if self.plans[kind].done:
                break
            after = kind
        return after

    @property
    def complete(self) -> bool:
        if self.meta.shape == "everywhere":
            return all(holding is not None for holding in self.calls.values())
        return self.phase() is None

    @property
    def active(self) -> int:
        attempts = len(self.calls_given)
        for plan in self.plans.values():
            attempts += plan.active
        return attempts

    def results(self) -> list[tuple[Holding, tuple[str, ...]]]:
        """The final outputs in order, each with the peers that hold it."""
        if self.meta.shape == "everywhere":
            return [(held, (peer,)) for peer, held in self.calls.items() if held is not None]
        last = list(self.plans.values())[-1]
        return [
            (tile.holding, tuple(tile.holders))
            for tile in last.outputs()
            if tile.holding is not None
        ]

    def note_skipped(self) -> None:
        """Keep what the maps have skipped, now that they are all done."""
        maps = self.plans.get("map")
        if maps is not None and maps.done:
            held = [tile.holding for tile in maps.outputs() if tile.holding is not None]
            self.skipped = tuple(index for holding in held for index in holding.skipped)

    # -- cutting -----------------------------------------------------------------------

    def next_tile(self, kind: Kind, now: float, slots: int) -> Tile | None:
        """Cut the next task of a phase, if one is free now."""
        plan = self.plans[kind]
        tile = plan.next_free(now)
        if tile is None:
            return None
        if kind == "map":
            left = plan.n - plan.done_count
            return plan.cut(tile, self.sizers[kind].size(left, slots))
        if kind == "reduce":
            return plan.cut(tile, self._reduce_size(plan, slots))
        return tile

    def _reduce_size(self, plan: Plan, slots: int) -> int:
        """Neighbouring small partitions are coalesced; the size is fixed when reducing begins."""
        if not self.reduce_size:
            total = sum(sum(row) for row in self.sizes.values())
            by_size = -(-total // REDUCE_BYTES)
            by_slots = min(REDUCES_PER_SLOT * max(1, slots), -(-total // REDUCE_BYTES_MIN))
            self.reduce_size = aligned_size(plan.n, max(1, by_size, by_slots))
        return self.reduce_size

    def note_sizes(self, holder: str, sizes: tuple[int, ...]) -> None:
        """Add map output by partition to what a holder has; sums only, never a table a segment."""
        row = self.sizes.setdefault(holder, [0] * self.meta.partitions)
        for partition, size in enumerate(sizes[: len(row)]):
            row[partition] += size

    def sources(self, kind: Kind, find: Find) -> tuple[Source, ...] | None:
        """Name the exact inputs of a reduce or finish; None unless they tile the whole."""
        if kind == "map":
            return ()
        plan = self.plans["map" if kind == "reduce" else "reduce"]
        if not plan.done:
            return None
        by_holder: dict[PeerRef, list[Output]] = {}
        for tile in plan.outputs():
            refs = (find(peer) for peer in tile.holders)
            holder = next((ref for ref in refs if ref is not None), None)
            if holder is None or tile.holding is None:
                return None
            by_holder.setdefault(holder, []).append(tile.holding.output)
        return tuple(Source(holder, tuple(outputs)) for holder, outputs in by_holder.items())

    def riding_for(self, peer: str, kind: Kind) -> Riding:
        """What rides with a task: the head for a peer that has not had it, a single item."""
        head = b"" if peer in self.head_given else self.riding.head
        self.head_given[peer] = None
        return Riding(head, self.riding.items if kind == "map" else b"")

    # -- the ledger's news -------------------------------------------------------------

    def news(self, kind: Kind, start: int, stop: int, peer: str, *, held: bool) -> None:
        self.entries.append(LedgerEntry(kind, start, stop, peer, held))
        self.mark()

    def unsay(self, kind: Kind, start: int, stop: int, peer: str) -> None:
        self.freed.append(LedgerEntry(kind, start, stop, peer, False))
        self.mark()

    def mark(self) -> None:
        """There is news of it; who runs what of it may have changed, too."""
        self.told_of[self.meta.record] = self
        self.touch()

    def touch(self) -> None:
        """Whether it runs, or how much of it, may have changed."""
        self.touched[self.meta.record] = self


class Registry:
    """All transactions that this server knows, by record and by name."""

    def __init__(self, task_seconds: float) -> None:
        self._task_seconds = task_seconds
        self._records: dict[str, Transaction] = {}
        self._names: dict[str, str] = {}
        self._ended: dict[str, None] = {}
        self._cancelled: dict[str, None] = {}
        self._count = 0
        self._told_of: dict[str, Transaction] = {}
        self.everywhere: dict[str, Transaction] = {}
        """Those that call something on every member."""
        self.queue = RunQueue()

    def __iter__(self) -> Iterator[Transaction]:
        return iter(self._records.values())

    def get(self, record: str) -> Transaction | None:
        return self._records.get(record)

    def news(self) -> list[Transaction]:
        """Those of which there is news, the oldest first."""
        return sorted(self._told_of.values(), key=lambda txn: txn.number)

    def named(self, name: str) -> Transaction | None:
        """The transaction that this name stands for now."""
        return self._records.get(self._names.get(name, ""))

    def accept(
        self, meta: RecordMeta, name: str, fingerprint: dict[str, str], now: float = 0.0
    ) -> Transaction:
        """Take up a record, under a name or none."""
        self._count += 1
        txn = Transaction(meta, self._count, name, fingerprint, self._task_seconds)
        txn.known_at = now
        txn.touched, txn.told_of = self.queue.touched, self._told_of
        self._records[meta.record] = txn
        if meta.shape == "everywhere":
            self.everywhere[meta.record] = txn
        if name:
            self._names[name] = meta.record
        self._ended.pop(meta.record, None)
        return txn

    def end(self, record: str) -> None:
        """Forget a transaction; remember that it ended."""
        self.forget(record)
        self.bury(record)

    def forget(self, record: str) -> None:
        """Forget a transaction, as if it had never been submitted here."""
        txn = self._records.pop(record, None)
        if txn is None:
            return
        self.queue.remove(txn)
        self.queue.touched.pop(record, None)
        self._told_of.pop(record, None)
        self.everywhere.pop(record, None)
        if self._names.get(txn.name) == record:
            del self._names[txn.name]

    def bury(self, record: str) -> None:
        """Remember that a record ended, also one this server never ran."""
        _note(self._ended, record)

    def cancel(self, record: str) -> None:
        """Remember that one owner has cancelled this record for everyone."""
        _note(self._cancelled, record)

    def cancelled(self, record: str) -> bool:
        return record in self._cancelled

    def ended(self, record: str) -> bool:
        return record in self._ended


def _note(tombstones: dict[str, None], record: str) -> None:
    """Remember one more, the latest ones only."""
    tombstones[record] = None
    while len(tombstones) > TOMBSTONES_MAX:
        del tombstones[next(iter(tombstones))]
