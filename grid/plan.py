"""Which ranges of one phase are free, awaited, given or done.

A plan tiles ``0..n`` (items, partitions, or 1 for a finish) with aligned ranges::

    free ──give──> given ──credit──> done          credit: a sealed output of the range is held
     ^  ^            │                │
     │  └──release───┘                │            release: the attempt ended without output
     ├──settle── awaited              │            awaited: an owner's ledger says that a peer has
     └───────────lose─────────────────┘                     it; that peer has not reported yet

Any server may have cut the outputs that are credited: aligned ranges nest or are disjoint, so one
that covers several tiles replaces them, and one inside a free tile splits it (P3, P4).
"""

import heapq

from msgspec import Struct, field

from grid.messages import Holding, Kind, Output
from grid.ranges import Tiling, cut_around, is_aligned, level_of


class Tile(Struct):
    """What is known of one range. Sets are dicts for their order."""

    start: int
    stop: int
    waiting: dict[str, None] = field(default_factory=dict)
    attempts: dict[str, str] = field(default_factory=dict)
    holding: Holding | None = None
    holders: dict[str, None] = field(default_factory=dict)
    deaths: int = 0
    errors: int = 0
    not_before: float = 0.0
    overlooked: bool = False
    """An output of a part of it did not count, because all of it was under way."""
    given_at: float = 0.0

    @property
    def free(self) -> bool:
        return self.holding is None and not self.attempts and not self.waiting

    @property
    def done(self) -> bool:
        return self.holding is not None

    def part(self, start: int, stop: int) -> "Tile":
        """Return a piece of a tile that nobody has been given."""
        return Tile(start, stop, waiting=dict(self.waiting), not_before=self.not_before)


class Needless(Struct, frozen=True):
    """An attempt whose range has been finished by another."""

    attempt: str
    peer: str
    start: int
    stop: int


class Plan:
    """The tiles of one phase of one transaction."""

    def __init__(self, kind: Kind, n: int) -> None:
        self.kind = kind
        self.n = n
        self.done_count = 0
        self._tiling: Tiling[Tile] = Tiling(n, Tile(0, n))
        self._free: list[int] = [0] if n else []
        self._tile_of: dict[str, Tile] = {}
        self._waiting: dict[str, dict[int, None]] = {}

    # -- questions ---------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.done_count == self.n

    @property
    def active(self) -> int:
        """Attempts under way."""
        return len(self._tile_of)

    def has(self, start: int, stop: int) -> bool:
        """Whether this is a range that any server of this plan could have cut."""
        return is_aligned(start, stop, self.n)

    def given(self) -> list[Tile]:
        """The tiles under way, in the order given."""
        return list({id(tile): tile for tile in self._tile_of.values()}.values())

    def outputs(self) -> list[Tile]:
        """All tiles in order; of a plan that is done, these hold the whole output."""
        return [tile for _, _, tile in self._tiling]

    def next_free(self, now: float) -> Tile | None:
        """Return the first free tile whose time has come."""
        later: list[int] = []
        found: Tile | None = None
        while self._free:
            start = self._free[0]
            begin, _, tile = self._tiling.at(start)
            if begin != start or not tile.free:
                heapq.heappop(self._free)  # cut, given or credited since it was put here
            elif tile.not_before > now:
                later.append(heapq.heappop(self._free))
            else:
                found = tile
                break
        for start in later:
            heapq.heappush(self._free, start)
        return found

    # -- cutting and giving ------------------------------------------------------------

    def cut(self, tile: Tile, size: int) -> Tile:
        """Cut a free tile's first aligned piece of at most ``size``; return it."""
        if tile.stop - tile.start <= size:
            return tile
        stop = tile.start + (1 << (max(1, size).bit_length() - 1))
        return self._split(tile, tile.start, min(stop, tile.stop))

    def _split(self, tile: Tile, start: int, stop: int) -> Tile:
        for begin, end in cut_around(tile.start, tile.stop, (start, stop)):
            self._put(tile.part(begin, end))
        return self._tiling.at(start)[2]

    def _put(self, tile: Tile) -> None:
        self._tiling.put(tile.start, tile.stop, tile)
        for peer in tile.waiting:
            self._waiting.setdefault(peer, {})[tile.start] = None
        if tile.free:
            heapq.heappush(self._free, tile.start)

    def give(self, tile: Tile, attempt: str, peer: str, now: float) -> None:
        tile.attempts[attempt] = peer
        tile.given_at = now
        self._tile_of[attempt] = tile

    def reclaim(self, start: int, stop: int, attempt: str, peer: str, now: float) -> bool:
        """Take up an attempt that an earlier server gave; False if its range is not to be had."""
        begin, end, tile = self._tiling.at(start)
        if tile.done:
            return False
        if end < stop:
            inside = [inner for _, _, inner in self._tiling.inside(start, stop)]
            if any(inner.done or inner.attempts for inner in inside):
                return False
            for inner in inside:
                self._withdraw(inner)
            tile = Tile(start, stop)
            self._tiling.put(start, stop, tile)
        elif (begin, end) != (start, stop):
            if tile.attempts:
                return False
            tile = self._split(tile, start, stop)
        self.give(tile, attempt, peer, now)
        return True

    def attempts(self) -> dict[str, Tile]:
        """All attempts under way, with their tiles."""
        return self._tile_of

    def release(self, attempt: str) -> Tile | None:
        """An attempt ended without output; its tile is free again unless another has it."""
        tile = self._tile_of.pop(attempt, None)
        if tile is None:
            return None
        del tile.attempts[attempt]
        self._freed(tile)
        return tile

    def _freed(self, tile: Tile) -> None:
        if tile.free:
            heapq.heappush(self._free, tile.start)

    def isolate(self, tile: Tile, item: int) -> Tile:
        """Make one item of a free tile a tile of its own, which keeps the count of deaths; its
        neighbours start afresh."""
        if tile.stop - tile.start == 1 or not tile.start <= item < tile.stop or not tile.free:
            return tile
        alone = self._split(tile, item, item + 1)
        alone.deaths = tile.deaths
        return alone

    # -- outputs -----------------------------------------------------------------------

    def credit(self, holding: Holding, holder: str) -> tuple[bool, list[Needless]]:
        """Count a sealed output that ``holder`` keeps.

        Return whether it is news, and the attempts it makes needless.
        """
        start, stop = holding.output.start, holding.output.stop
        begin, end, tile = self._tiling.at(start)
        if end >= stop:
            if tile.holding is not None:
                if tile.holding.output == holding.output:
                    tile.holders[holder] = None
                return False, []
            if (begin, end) != (start, stop):
                if tile.attempts:
                    tile.overlooked = True
                    return False, []  # more than this is under way already
                tile = self._split(tile, start, stop)
            needless = self._withdraw(tile)
        else:
            inside = [inner for _, _, inner in self._tiling.inside(start, stop)]
            if all(inner.done for inner in inside):
                return False, []
            needless = [attempt for inner in inside for attempt in self._withdraw(inner)]
            self.done_count -= sum(inner.stop - inner.start for inner in inside if inner.done)
            tile = Tile(start, stop)
            self._tiling.put(start, stop, tile)
        tile.holding = holding
        tile.holders = {holder: None}
        self.done_count += stop - start
        return True, needless

    def _withdraw(self, tile: Tile) -> list[Needless]:
        """Expect nothing of a tile any more; return the attempts that work on it."""
        needless = [Needless(a, peer, tile.start, tile.stop) for a, peer in tile.attempts.items()]
        for attempt in tile.attempts:
            del self._tile_of[attempt]
        tile.attempts.clear()
        for peer in tile.waiting:
            self._waiting.get(peer, {}).pop(tile.start, None)
        tile.waiting.clear()
        return needless

    def holders(self, output: Output) -> tuple[str, ...]:
        """Who keeps an output that counts."""
        tile = self._tiling.at(output.start)[2]
        counts = tile.holding is not None and tile.holding.output == output
        return tuple(tile.holders) if counts else ()

    def lose(self, output: Output, holder: str | None) -> Tile | None:
        """A holder (or, with None, everyone) no longer has an output. Return the tile if nobody
        else has it: it is free."""
        tile = self._tiling.at(output.start)[2]
        if tile.holding is None or tile.holding.output != output:
            return None
        if holder is None:
            tile.holders.clear()
        tile.holders.pop(holder or "", None)
        if tile.holders:
            return None
        tile.holding = None
        self.done_count -= tile.stop - tile.start
        self._freed(tile)
        return tile

    # -- waiting for reports -----------------------------------------------------------

    def expect(self, start: int, stop: int, peer: str) -> bool:
        """Hold a range back until ``peer`` has reported. False if there is nothing to hold."""
        begin, end, tile = self._tiling.at(start)
        if tile.done or tile.attempts:
            return False
        if end >= stop:
            if (begin, end) != (start, stop):
                tile = self._split(tile, start, stop)
            self._await(tile, peer)
            return True
        held = [t for _, _, t in self._tiling.inside(start, stop) if not t.done and not t.attempts]
        for inner in held:
            self._await(inner, peer)
        return bool(held)

    def awaits(self, start: int, stop: int, peer: str) -> bool:
        """Whether any of a range is held back until ``peer`` has reported."""
        return any(peer in tile.waiting for _, _, tile in self._tiling.inside(start, stop))

    def _await(self, tile: Tile, peer: str) -> None:
        tile.waiting[peer] = None
        self._waiting.setdefault(peer, {})[tile.start] = None

    def settle(self, peer: str) -> None:
        """``peer`` has reported, or never will: what still waited for it alone is free."""
        for start in self._waiting.pop(peer, {}):
            begin, _, tile = self._tiling.at(start)
            if begin == start and peer in tile.waiting:
                del tile.waiting[peer]
                self._freed(tile)


def aligned_size(n: int, pieces: int) -> int:
    """Return the power of two that cuts ``0..n`` into about ``pieces`` tiles, at least one item."""
    return 1 << max(0, level_of(0, n) - max(1, pieces).bit_length() + 1) if n else 1
