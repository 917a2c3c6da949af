"""User code that raises, in some of the simulated grids: on an item, a partition, in the finish or
in a call; for good, or so many times, so that ``retries`` may be enough.

Drawn apart from everything else, so that grids in which nothing raises are what they were. Each
failure names its record: whoever hears of one must have wanted that record, and it must have raised
more often than it may.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from grid.messages import Assign, Failure, Kind, RecordMeta

SHARE = 1 / 6
"""Of the grids have user code that raises; none of those that once found something else."""

FLAWED = 0.6
"""Of the records of such a grid."""

SHARED = 0.5
"""Of these are submitted by another owner, too, under one name."""

SHARED_SECONDS = 0.3
"""Within which that happens: some while it runs, some when it has failed."""

STRUCK = 0.5
"""Of the failures are followed by a misfortune at once, while owners are told and acknowledge."""

STRIKE_SECONDS = 0.006
"""Longer than it takes, all being well, until they have acknowledged."""

Strike = Callable[[str, float], None]


@dataclass(frozen=True)
class Flaw:
    """Where a record's code raises (``at`` is an item or a partition), how often, and how often
    it may. The first ``spared`` times it goes well: if it has to run again, it raises."""

    kind: Kind
    at: int
    times: float
    retries: int
    spared: int = 0


def none_strikes(record: str, seconds: float) -> None:
    """What follows a failure where nothing is drawn."""


class Flaws:
    """Which records raise in one grid, and how often they have."""

    def __init__(self) -> None:
        self._rng: random.Random | None = None
        self._flaws: dict[str, Flaw] = {}
        self._met: Counter[str] = Counter()
        self._raised: Counter[str] = Counter()
        self._strike: Strike = none_strikes

    def draw(self, seed: int, share: float, strike: Strike) -> None:
        """Decide whether anything raises here. ``strike`` lets something befall the grid, or the
        owners of a record, after so many seconds: it is called when that has raised too often."""
        rng = random.Random(f"raises {seed} 3138")
        if rng.random() < share:
            self._rng = rng
            self._strike = strike

    def afflict(self, meta: RecordMeta) -> RecordMeta:
        """Draw what the code of a new record does, and how often it is retried."""
        if self._rng is None or self._rng.random() >= FLAWED:
            return meta
        flaw = _drawn(self._rng, meta)
        if flaw is None:
            return meta
        self._flaws[meta.record] = flaw
        return structs.replace(meta, retries=flaw.retries)

    def shared(self, record: str) -> float | None:
        """After how many seconds another owner wants the same, if one does."""
        if self._rng is None or record not in self._flaws or self._rng.random() >= SHARED:
            return None
        return self._rng.uniform(0, SHARED_SECONDS)

    # -- what happens ------------------------------------------------------------------

    def failure(self, assign: Assign, *, whole: bool) -> Failure | None:
        """What user code raises in this task, of which it is the last act. A ``whole`` one maps and
        reduces everything."""
        record = assign.record
        flaw = self._flaws.get(record)
        if flaw is None or self._raised[record] >= flaw.times or not _meets(flaw, assign, whole):
            return None
        self._met[record] += 1
        if self._met[record] <= flaw.spared:
            return None
        self._raised[record] += 1
        if self._raised[record] == flaw.retries + 1:
            self._may_strike(record)
        item = flaw.at if flaw.kind == "map" else -1
        return Failure("raised", f"{record} raises in {flaw.kind} {flaw.at}", record, item=item)

    def _may_strike(self, record: str) -> None:
        assert self._rng is not None
        if self._rng.random() < STRUCK:
            self._strike(record, self._rng.uniform(0, STRIKE_SECONDS))

    # -- what is right -----------------------------------------------------------------

    def ends(self, record: str) -> tuple[str, ...]:
        """How a record may end, when nobody withdraws. Where it raises more often than it may, but
        not for good, a new server that counts from nothing may see it through."""
        flaw = self._flaws.get(record)
        if flaw is None or flaw.times <= flaw.retries:
            return ("delivered",)
        for_good = flaw.times == math.inf and not flaw.spared
        return ("raised",) if for_good else ("delivered", "raised")

    def has_raised(self, record: str) -> bool:
        return bool(self._raised[record])

    def may_have_failed(self, record: str) -> bool:
        """Whether it has raised so often that a server may have given it up."""
        flaw = self._flaws.get(record)
        return flaw is not None and self._raised[record] > flaw.retries


def _drawn(rng: random.Random, meta: RecordMeta) -> Flaw | None:
    """A flaw that this record's tasks can meet, if there is any. Calls are not retried."""
    if meta.shape == "everywhere":
        return Flaw("call", 0, math.inf, 0)
    kinds: list[Kind] = ["map", "map", "reduce"] if meta.items else []
    if meta.finish:
        kinds.append("finish")
    if not kinds:
        return None
    kind = rng.choice(kinds)
    extent = {"map": meta.items, "reduce": meta.partitions}.get(kind, 1)
    retries = rng.choice((0, 0, 1, 2, 5))
    few = [*range(1, retries + 1), retries + 1]
    times = math.inf if rng.random() < 0.6 else rng.choice(few)
    spared = rng.choice((0, 0, 0, 0, 1, 2))
    return Flaw(kind, rng.randrange(extent), times, retries, spared)


def _meets(flaw: Flaw, assign: Assign, whole: bool) -> bool:
    """Whether a task comes upon a flaw."""
    if whole and flaw.kind == "reduce":
        return True
    return assign.kind == flaw.kind and assign.start <= flaw.at < assign.stop
