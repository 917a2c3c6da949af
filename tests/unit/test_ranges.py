"""Aligned ranges tile, nest or are disjoint (P3: nothing twice, nothing lost)."""

from hypothesis import given
from hypothesis import strategies as st

from grid.ranges import Tiling, cut_around, is_aligned, level_of


@st.composite
def aligned(draw: st.DrawFn, n: int) -> tuple[int, int]:
    level = draw(st.integers(0, n.bit_length()))
    index = draw(st.integers(0, (n - 1) >> level))
    return index << level, min(n, (index + 1) << level)


sizes = st.integers(1, 300)
many = sizes.flatmap(lambda n: st.tuples(st.just(n), st.lists(aligned(n), max_size=30)))


@given(many)
def test_any_two_aligned_ranges_nest_or_are_disjoint(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    n, ranges = drawn
    for a in ranges:
        assert is_aligned(*a, n)
        for b in ranges:
            common = set(range(*a)) & set(range(*b))
            assert not common or common in (set(range(*a)), set(range(*b)))


@given(many)
def test_a_tiling_covers_everything_once_and_remembers_the_last_put(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    n, ranges = drawn
    tiling: Tiling[int] = Tiling(n, -1)
    expected = [-1] * n
    for number, (start, stop) in enumerate(ranges):
        tiling.put(start, stop, number)
        expected[start:stop] = [number] * (stop - start)
        assert tiling.at(start) == (start, stop, number)
    flat: list[int] = []
    for start, stop, value in tiling:
        assert start == len(flat)
        assert is_aligned(start, stop, n)
        flat += [value] * (stop - start)
    assert flat == expected
    assert len(tiling) == len(list(tiling))


def test_cutting_around_one_item_leaves_few_large_pieces() -> None:
    assert list(cut_around(0, 8, (5, 6))) == [(0, 4), (4, 5), (5, 6), (6, 8)]


def test_a_range_cut_off_at_the_end_is_aligned() -> None:
    assert is_aligned(4, 7, 7)
    assert not is_aligned(4, 7, 8)
    assert not is_aligned(2, 6, 8)
    assert level_of(4, 7) == 2


def test_an_empty_tiling_has_no_tiles() -> None:
    assert list(Tiling(0, None)) == []
