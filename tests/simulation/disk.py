"""The disk of a simulated host: its journal, which outlives processes as long as it is not lost.

What becomes of an entry is decided by ``grid.keeping``, as it is for real journals; here is only
what SQLite would remember. Every write is whole or not at all, as a transaction of a database is;
but a disk may be full, be lost, or lose the last thing that was written when the power fails.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grid import keeping
from grid.keeping import Entry, EntryState, Row
from grid.messages import Output, RecordMeta, Remembered

if TYPE_CHECKING:
    from tests.simulation.world import Content


class Unkept(Exception):
    """The disk does not take or give this."""


@dataclass
class Page:
    """One entry. ``written`` numbers the writes of the disk; ``alive_at`` is when a living process
    last kept it, as the simulator sees it and the journal does not."""

    entry: Entry
    state: EntryState
    touched: float
    written: int
    alive_at: float
    items: dict[int, int] = field(default_factory=dict)
    end: Remembered | None = None
    results: dict[Output, "Content"] = field(default_factory=dict)
    keepers: dict[str, None] = field(default_factory=dict)
    torn: bool = False

    @property
    def whole(self) -> bool:
        """Whether a transaction can be seen through, or its end be told, with this alone."""
        return self.state in ("open", "ended") and not self.torn


@dataclass
class Disk:
    """One host's journal. ``fast`` is by how much its clock is."""

    fast: float = 0.0
    full: bool = False
    pages: dict[str, Page] = field(default_factory=dict)
    writes: int = 0

    def lose(self) -> None:
        """Everything on it is gone."""
        self.pages.clear()

    def tear(self) -> str:
        """What was written last cannot be read. Return which entry that was, if any."""
        last = max(self.pages.values(), key=lambda page: page.written, default=None)
        if last is None:
            return ""
        last.torn = True
        return last.entry.meta.record

    def _write(self, page: Page) -> None:
        if self.full:
            raise Unkept("no space is left")
        self.writes += 1
        page.written = self.writes

    def _page(self, record: str) -> Page:
        if record not in self.pages:
            raise Unkept(f"there is no entry {record}")
        return self.pages[record]

    def _state(self, record: str) -> EntryState:
        return self.pages[record].state if record in self.pages else ""

    # -- what a journal does -------------------------------------------------------------

    def begin(self, entry: Entry, peer: str, now: float) -> bool:
        record = entry.meta.record
        arrived = keeping.arrival(self._state(record))
        if arrived == "anew":
            page = Page(entry, "arriving", now + self.fast, 0, now)
            self._write(page)
            self.pages[record] = page
        if arrived != "whole":
            self._keep(record, peer, now)
        return arrived == "whole"

    def add_items(self, record: str, first: int, count: int) -> None:
        page = self._page(record)
        if not keeping.takes_items(page.state):
            raise Unkept(f"{record} awaits no items")
        self._write(page)
        page.items[first] = count

    def complete(self, record: str, peer: str, now: float) -> Entry | Remembered:
        page = self._page(record)
        if page.end is not None:
            self._keep(record, peer, now)
            return page.end
        there = sum(page.items.values())
        if lacks := keeping.wanting(page.state, page.entry.meta.items, there):
            raise Unkept(lacks)
        self._write(page)
        page.state = "open"
        self._keep(record, peer, now)
        return page.entry

    def discard(self, record: str, peer: str) -> None:
        self._page(record).keepers.pop(peer, None)
        if keeping.discards(self._state(record)):
            del self.pages[record]

    def finish(
        self, end: Remembered, results: Mapping[Output, "Content"], peer: str, now: float
    ) -> Remembered:
        record = end.meta.record
        end, since = keeping.ended_at(end, now + self.fast)
        if keeping.takes_end(self._state(record)):
            anew = keeping.ends_anew(self._state(record))
            page = Page(Entry(end.meta), "", 0.0, 0, now) if anew else self.pages[record]
            self._write(page)
            page.state, page.end, page.touched = "ended", end, since
            page.results = dict(results)
            page.items.clear()
            self.pages[record] = page
        self._keep(record, peer, now)
        found = self.pages[record].end
        assert found is not None
        return found

    def look(
        self, peer: str, living: Iterable[str], now: float
    ) -> tuple[list[Entry], list[Remembered], list[Page], list[str]]:
        """Return what is open, and the ends, of what nobody kept; what was over; what was torn."""
        alive = list(living)
        for record in [r for r, page in self.pages.items() if peer in page.keepers]:
            self._keep(record, peer, now)
        for page in self.pages.values():
            page.keepers = {keeper: None for keeper in page.keepers if keeper in alive}
        found = keeping.survey(map(_row, self.pages.values()), now + self.fast)
        over = [self.pages.pop(record) for record in found.over]
        opened: list[Entry] = []
        ended: list[Remembered] = []
        torn: list[str] = []
        for record in found.unkept:
            page = self.pages[record]
            if page.torn:
                page.state = "aside"
                torn.append(record)
                continue
            self._keep(record, peer, now)
            if page.end is None:
                opened.append(page.entry)
            else:
                ended.append(keeping.still_kept(page.end, page.touched, now + self.fast))
        return opened, ended, over, torn

    def _keep(self, record: str, peer: str, now: float) -> None:
        page = self.pages[record]
        page.keepers[peer] = None
        page.alive_at = now
        if page.state == "open":
            page.touched = now + self.fast

    def found(self, output: Output) -> "Content | None":
        """A segment of a result, as any peer of this host finds it."""
        page = self.pages.get(output.record)
        return page.results.get(output) if page is not None and not page.torn else None


def _row(page: Page) -> Row:
    meta: RecordMeta = page.entry.meta
    assert meta.keeping is not None
    kept = bool(page.keepers)
    return Row(meta.record, page.state, page.touched, meta.keeping.seconds, kept)
