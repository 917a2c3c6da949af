"""Detached transactions at those who keep them: what becomes of what is on disk, who keeps what.

Who submits one gives everything to its *keepers*, which put it in the journals of their hosts. What
a journal holds of one transaction is an *entry*::

    "" ──head──> arriving ──every item is there──> open ──its end is on disk──> ended ──time──> gone
                     │                               │                            │
                     └──a day, or withdrawn──> gone  └──nobody kept it alive──> gone
    and any of them, where it cannot be read, ──> aside

Here is decided: who is asked to keep one (``choose``), who is given what and counts
(``hand_over``), what a part that arrives does to an entry (``arrival``, ``wanting``), what of a
journal is over and what is to be taken over (``survey``), and what a peer says to its grid of what
it has on disk (``Keeper``). Journals only perform that: ``peers/journal.py`` in SQLite, the
simulator on disks of its own. That an end is on disk before anybody hears of it is decided in
``grid/ownership.py`` and ``grid/submissions.py``; that a keeper which stays away is replaced, in
``grid/copies.py``.

Times here are of the clock on the wall of one host: nothing else outlives its processes.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct, structs

from grid.events import ClientEvent, EstateAdopted, SubmitRequested
from grid.messages import NOTHING_RIDING, Held, PeerRef, RecordMeta, Remembered, Riding

EntryState = Literal["", "arriving", "open", "ended", "aside"]

KEPT = "kept:"
"""What the keepers' own transactions are called, before the id."""

ARRIVING_SECONDS = 86400.0
"""An entry that did not become whole in this time never will."""

TOUCH_SECONDS = 3600.0
"""At most this long between two looks at the journal, in which entries are noted to be alive."""

TOUCHES = 4
"""So many looks at least within the time that an end is kept: one that is late does no harm."""

DEADLINE_SECONDS_MIN = 0.001


class Entry(Struct, frozen=True, array_like=True):
    """A detached transaction as it was submitted. ``deadline`` is a time, or 0."""

    meta: RecordMeta
    deadline: float = 0.0


# ------------------------------------------------------------------------------ one entry


def arrival(state: EntryState) -> Literal["anew", "joins", "whole"]:
    """What the head of an entry does to a journal: it begins the entry anew; or joins one that is
    arriving; or finds all of it there, by another peer of this host."""
    if state in ("", "aside"):
        return "anew"
    return "joins" if state == "arriving" else "whole"


def takes_items(state: EntryState) -> bool:
    """Whether items belong to an entry in this state: what is whole is never changed."""
    return state == "arriving"


def wanting(state: EntryState, items: int, there: int) -> str:
    """Say why an entry may not be seen through yet, or nothing. ``there`` items are on disk."""
    if state not in ("arriving", "open"):
        return "there is no entry"
    return "" if items == there else f"only {there} of {items} items came"


def discards(state: EntryState) -> bool:
    """Whether a submitter that withdraws takes the entry with it: only before it was whole."""
    return state == "arriving"


def takes_end(state: EntryState) -> bool:
    """Whether an end goes into an entry: the first does, and where there is no entry."""
    return state != "ended"


def ends_anew(state: EntryState) -> bool:
    """Whether an end takes the place of all that is there of an entry. Only what is open was found
    whole: what still arrives was read by nobody, and may have been left damaged by the dead."""
    return state not in ("open", "ended")


def ended_at(end: Remembered, now: float) -> tuple[Remembered, float]:
    """An end as it goes to disk, and from when on its time counts, by the clock of this host.

    The first to keep it gives it its time. A copy that comes later has as much left as it had
    elsewhere, however the clocks of the two hosts differ.
    """
    assert end.meta.keeping is not None
    since = now - (end.meta.keeping.seconds - end.seconds_left)
    return (end if end.ended else structs.replace(end, ended=now)), since


def still_kept(end: Remembered, touched: float, now: float) -> Remembered:
    """An end read from disk, with the time that is left of it."""
    assert end.meta.keeping is not None
    left = touched + end.meta.keeping.seconds - now
    return structs.replace(end, seconds_left=min(end.meta.keeping.seconds, max(0.0, left)))


# ------------------------------------------------------------------------------ one journal


class Row(Struct, frozen=True):
    """What a journal knows of an entry without reading it whole. ``touched``: when it was last
    noted to be alive, or from when on its end's time counts. ``seconds``: how long its end is kept,
    None if that cannot be read. ``kept``: by a peer of this host that lives."""

    record: str
    state: EntryState
    touched: float
    seconds: float | None
    kept: bool


class Survey(Struct, frozen=True):
    """What one who looks at its host's journal has to do: remove what is ``over`` (of these,
    ``unended`` are told), and keep from now on what nobody keeps."""

    over: tuple[str, ...]
    unended: tuple[str, ...]
    unkept: tuple[str, ...]


def survey(rows: Iterable[Row], now: float) -> Survey:
    """Look through a journal. An open entry that nobody has kept alive for as long as its end would
    be kept may have ended elsewhere, and been forgotten: it is not revived."""
    rows = list(rows)
    over = [row for row in rows if _is_over(row, now)]
    gone = {row.record for row in over}
    left = [row for row in rows if row.record not in gone and not row.kept]
    return Survey(
        over=tuple(row.record for row in over),
        unended=tuple(row.record for row in over if row.state == "open"),
        unkept=tuple(row.record for row in left if row.state in ("open", "ended")),
    )


def _is_over(row: Row, now: float) -> bool:
    age = now - row.touched
    match row.state:
        case "arriving":
            return age > ARRIVING_SECONDS
        case "open":
            return row.seconds is not None and age > row.seconds and not row.kept
        case "ended":
            return row.seconds is not None and age > row.seconds
        case _:
            return False


# ------------------------------------------------------------------------------ a keeper


class Keeper:
    """What one peer keeps, as it tells its grid. ``patience`` is how long to wait, after a start,
    for other hosts that may hold finished work or know of an end."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._owned: dict[str, None] = {}

    def owns(self, record: str) -> bool:
        """Whether this peer sees it through."""
        return record in self._owned

    def took(
        self, found: Entry | Remembered, now: float, riding: Riding = NOTHING_RIDING
    ) -> list[ClientEvent]:
        """All of an entry is on disk here: see it through, or say that it has ended."""
        if isinstance(found, Remembered):
            return _announced([found])
        return self._own(found, now, riding, 0.0)

    def revived(
        self, opened: Sequence[tuple[Entry, Riding]], ended: Sequence[Remembered], now: float
    ) -> list[ClientEvent]:
        """Nobody else of this host keeps these any more. Whoever holds work of an open one, or has
        its end, is given time to come, after a start; ends are said at once."""
        patience, self._patience = self._patience, 0.0
        events = _announced(ended)
        for entry, riding in opened:
            events += self._own(entry, now, riding, patience)
        return events

    def _own(
        self, entry: Entry, now: float, riding: Riding, after_seconds: float
    ) -> list[ClientEvent]:
        record = entry.meta.record
        if record in self._owned:
            return []
        self._owned[record] = None
        left = max(DEADLINE_SECONDS_MIN, entry.deadline - now) if entry.deadline else None
        return [
            SubmitRequested(
                txn=f"{KEPT}{record}",
                meta=entry.meta,
                name="",
                fingerprint={},
                fresh=False,
                deadline_seconds=left,
                riding=riding,
                after_seconds=after_seconds,
            )
        ]

    def lost(self, record: str) -> bool:
        """What is on disk cannot be read, or its end is there: see it through no more. Tell whether
        this peer did."""
        return self._owned.pop(record, "") is None


def _announced(ended: Sequence[Remembered]) -> list[ClientEvent]:
    if not ended:
        return []
    held = [Held(end.meta.record, end.holdings, (), end) for end in ended]
    return [EstateAdopted("", tuple(held))]


def look_seconds(metas: Iterable[RecordMeta]) -> float:
    """How often to look at the journal, for those who keep these: entries are noted to be alive,
    and what is over goes."""
    seconds = [meta.keeping.seconds for meta in metas if meta.keeping is not None]
    return min([TOUCH_SECONDS, *(s / TOUCHES for s in seconds)])


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


Answer = Literal["failed", "done", "whole"]
"""What a keeper says to a part: that it, or the way to it, failed; that it is on disk; that all of
the entry is there already."""


class Part(Struct, frozen=True):
    """What to say to one keeper (``grid.messages.Keep``)."""

    keeper: PeerRef
    part: Literal["head", "items", "whole", "withdrawn"]
    first: int = 0
    count: int = 0


class HandedOver(Struct, frozen=True):
    """Who has said that all of it is on disk. ``uncertain``: others may have it too."""

    kept: tuple[PeerRef, ...]
    uncertain: bool


def hand_over(
    keepers: Sequence[PeerRef], counts: Iterator[int]
) -> Generator[Part, Answer, HandedOver]:
    """Say what is to be given to whom; be sent each answer. ``counts`` are the items of each chunk.

    The head, every item and ``whole`` go to one peer of each host, as the peers of a host share a
    journal; then the others join theirs. Who fails at anything is left out, and counts no more.
    What ``counts`` raises is raised again, when those who have begun have heard of it.
    """
    firsts: dict[str, PeerRef] = {}
    for ref in keepers:
        firsts.setdefault(ref.host, ref)
    asked = yield from _to_all(list(firsts.values()), "head")
    try:
        first = 0
        for count in counts if asked else ():
            asked = yield from _to_all(asked, "items", first, count)
            first += count
    except GeneratorExit:
        raise
    except BaseException:
        yield from _to_all(asked, "withdrawn")
        raise
    kept = yield from _to_all(asked, "whole")
    uncertain = len(kept) < len(asked)  # the answer may have been lost, not the part
    hosts = [ref.host for ref in kept]
    for ref in keepers:
        if ref.host in hosts and ref is not firsts[ref.host]:
            kept += yield from _joining(ref)
    return HandedOver(tuple(kept), uncertain)


def _to_all(
    asked: list[PeerRef],
    part: Literal["head", "items", "whole", "withdrawn"],
    first: int = 0,
    count: int = 0,
) -> Generator[Part, Answer, list[PeerRef]]:
    """Say one thing to all of these; return who did not fail."""
    left: list[PeerRef] = []
    for ref in asked:
        if (yield Part(ref, part, first, count)) != "failed":
            left.append(ref)  # noqa: PERF401 - a comprehension cannot yield
    return left


def _joining(ref: PeerRef) -> Generator[Part, Answer, list[PeerRef]]:
    """Have one keep what is in the journal of its host already."""
    if (yield Part(ref, "head")) != "whole":
        return []
    return [ref] if (yield Part(ref, "whole")) != "failed" else []
