"""What a peer keeps: its sealed outputs, by record, until told to drop them.

A holding is announced on every rejoin, so a new server knows what is finished without having seen
it happen (P4). Nothing is dropped because a server does not know it: unclaimed records go only
after a long time without any claim, which is this peer's own clock and nobody's order.
"""

from itertools import zip_longest

from msgspec import Struct, field, structs

from grid.messages import Held, Holding, Kind, Output, RecordMeta, Remembered


class _Kept(Struct):
    claimed_at: float
    holdings: dict[Output, Holding] = field(default_factory=dict)
    sizes: dict[Output, tuple[int, ...]] = field(default_factory=dict)
    remembered: Remembered | None = None
    forget_at: float | None = None


def summed(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Add sizes by partition; what a row lacks counts as zeros. (What others gave may be of any
    length.)"""
    return tuple(map(sum, zip_longest(*rows, fillvalue=0)))


class Holdings:
    """The records of which this peer holds outputs."""

    def __init__(self, orphan_seconds: float) -> None:
        self._orphan_seconds = orphan_seconds
        self._records: dict[str, _Kept] = {}

    def add(self, holding: Holding, sizes: tuple[int, ...], now: float) -> None:
        """Keep one more segment."""
        kept = self._records.setdefault(holding.output.record, _Kept(now))
        kept.holdings[holding.output] = holding
        if sizes:
            kept.sizes[holding.output] = sizes

    def add_held(self, held: Held, now: float) -> None:
        """Keep all of an adopted estate's record. Its sizes are known only as a sum."""
        for number, holding in enumerate(held.holdings):
            self.add(holding, held.sizes if number == 0 else (), now)
        if held.remembered is not None:
            self.remember(held.remembered, now)

    def __contains__(self, output: Output) -> bool:
        kept = self._records.get(output.record)
        return kept is not None and output in kept.holdings

    def drop(self, record: str, kinds: tuple[Kind, ...]) -> bool:
        """Forget a record, or only its outputs of these kinds. Tell whether there was any. An end
        that is on disk stays for its own time, with its result: a server that had not heard of it
        may have had the rest dropped."""
        kept = self._records.get(record)
        if kept is None:
            return False
        end = kept.remembered
        if not kinds and end is not None and end.meta.keeping is not None:
            kept.holdings = {holding.output: holding for holding in end.holdings}
            kept.sizes.clear()
            return True
        if not kinds:
            del self._records[record]
            return True
        gone = [output for output in kept.holdings if output.kind in kinds]
        for output in gone:
            del kept.holdings[output]
            kept.sizes.pop(output, None)
        if not kept.holdings and kept.remembered is None:
            del self._records[record]
        return bool(gone)

    def remember(self, remembered: Remembered, now: float) -> None:
        """Keep the end of a named or detached transaction for latecomers, for its time."""
        kept = self._records.get(remembered.meta.record)
        if kept is None and remembered.meta.keeping is not None:
            kept = self._records[remembered.meta.record] = _Kept(now)  # it may have no outputs
        if kept is not None:
            kept.remembered = remembered
            kept.forget_at = now + remembered.seconds_left

    def held(self, now: float) -> tuple[Held, ...]:
        """Everything, as announced on joining."""
        return tuple(self._held_of(record, now) for record in self._records)

    def _held_of(self, record: str, now: float) -> Held:
        kept = self._records[record]
        remembered = kept.remembered
        if remembered is not None and kept.forget_at is not None:
            left = max(0.0, kept.forget_at - now)
            remembered = structs.replace(remembered, seconds_left=left)
        sizes = summed(list(kept.sizes.values()))
        return Held(record, tuple(kept.holdings.values()), sizes, remembered)

    def kept(self) -> list[RecordMeta]:
        """The detached transactions whose ends are on disk here."""
        ends = [kept.remembered for kept in self._records.values() if kept.remembered is not None]
        return [end.meta for end in ends if end.meta.keeping is not None]

    def records(self) -> tuple[str, ...]:
        return tuple(self._records)

    def claimed(self, records: tuple[str, ...], now: float) -> None:
        """The server said that these are needed."""
        for record in records:
            kept = self._records.get(record)
            if kept is not None:
                kept.claimed_at = now

    def expired(self, now: float) -> list[str]:
        """Drop and name the records that nobody claimed for long, or whose retention ended."""
        unclaimed = now - self._orphan_seconds
        gone = [
            record
            for record, kept in self._records.items()
            if (now > kept.forget_at if kept.forget_at is not None else kept.claimed_at < unclaimed)
        ]
        for record in gone:
            del self._records[record]
        return gone
