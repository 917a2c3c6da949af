"""Power-of-two aligned ranges, and tilings made of them.

A range ``start..stop`` of ``0..n`` is *aligned* when it is ``i * 2**k .. (i + 1) * 2**k`` cut off
at ``n``. Any two aligned ranges nest or are disjoint, whichever server cut them; so the work of
an old server and the cuts of a new one always fit together. A ``Tiling`` covers ``0..n`` with
disjoint aligned tiles at all times: splitting and merging are the only changes.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def level_of(start: int, stop: int) -> int:
    """Return the smallest k with ``2**k >= stop - start``."""
    return (stop - start - 1).bit_length()


def is_aligned(start: int, stop: int, n: int) -> bool:
    """Tell whether ``start..stop`` is an aligned range of ``0..n``."""
    if not 0 <= start < stop <= n:
        return False
    size = 1 << level_of(start, stop)
    return start % size == 0 and (stop - start == size or stop == n)


def halves(start: int, stop: int) -> tuple[int, int, int]:
    """Return ``(start, middle, stop)``: where an aligned range of two or more splits in two."""
    return start, start + (1 << (level_of(start, stop) - 1)), stop


def cut_around(start: int, stop: int, inner: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the aligned pieces, in order, that split ``start..stop`` so that ``inner`` is one."""
    if (start, stop) == inner:
        yield inner
        return
    low, middle, high = halves(start, stop)
    if inner[0] < middle:
        yield from cut_around(low, middle, inner)
        yield middle, high
    else:
        yield low, middle
        yield from cut_around(middle, high, inner)


class Tiling(Generic[T]):
    """``0..n`` covered by disjoint aligned tiles, each with a value. Ranges given must be aligned.

    Look-ups cost one step per level, walks one step per tile.
    """

    def __init__(self, n: int, value: T) -> None:
        self.n = n
        self._tiles: dict[int, tuple[int, T]] = {0: (n, value)} if n else {}

    def __len__(self) -> int:
        return len(self._tiles)

    def __iter__(self) -> Iterator[tuple[int, int, T]]:
        """Walk all tiles in order as ``(start, stop, value)``."""
        return self.inside(0, self.n)

    def at(self, start: int) -> tuple[int, int, T]:
        """Return the tile that contains ``start``."""
        for level in range(self.n.bit_length() + 1):
            begin = start >> level << level
            tile = self._tiles.get(begin)
            if tile is not None and start < tile[0]:
                return begin, *tile
        raise IndexError(f"{start} is outside 0..{self.n}")

    def inside(self, start: int, stop: int) -> Iterator[tuple[int, int, T]]:
        """Walk the tiles that overlap ``start..stop``, in order; a larger one comes whole."""
        while start < stop:
            tile = self.at(start)
            yield tile
            start = tile[1]

    def put(self, start: int, stop: int, value: T) -> None:
        """Make ``start..stop`` one tile, merging those inside or splitting the one around it.

        The other pieces of a split tile keep its value.
        """
        around, end, old = self.at(start)
        if end >= stop:
            del self._tiles[around]
            for piece, piece_end in cut_around(around, end, (start, stop)):
                self._tiles[piece] = (piece_end, old)
        else:
            for begin, _, _ in list(self.inside(start, stop)):
                del self._tiles[begin]
        self._tiles[start] = (stop, value)
