"""Batches: small at first, then tens of milliseconds each, small again at the end."""

from hypothesis import given
from hypothesis import strategies as st

from grid.batches import GROWTH, LONG_SHARES, STRETCH, WORTH_SECONDS, BatchSizer
from grid.messages import TASK_RANGE_MAX


def test_the_first_batch_is_one_item() -> None:
    assert BatchSizer(0.05).size(1_000_000, 4) == 1


def test_a_batch_has_at_most_so_many_times_what_was_seen() -> None:
    sizer = BatchSizer(0.05)
    sizer.note(1, 1e-6)
    assert sizer.size(1_000_000, 1) == GROWTH
    sizer.note(GROWTH, 1e-6)
    assert sizer.size(1_000_000, 1) == GROWTH * (1 + GROWTH)


def test_a_batch_takes_about_the_time_it_should() -> None:
    sizer = BatchSizer(0.05)
    sizer.note(1000, 1.0)
    assert sizer.size(LONG_SHARES * 50, 1) == 50


def test_a_batch_of_a_long_phase_takes_longer_within_bounds() -> None:
    sizer = BatchSizer(0.05)
    sizer.note(1000, 1.0)
    assert sizer.size(LONG_SHARES * 100, 1) == 100
    assert sizer.size(LONG_SHARES * 100, 2) == 50
    assert sizer.size(1_000_000, 1) == STRETCH * 50


def test_what_is_left_is_shared_out() -> None:
    sizer = BatchSizer(0.05)
    sizer.note(100, 1.0)
    assert sizer.size(24, 4) == 2
    assert sizer.size(1, 4) == 1


def test_too_little_to_be_worth_it_is_not_shared_out() -> None:
    sizer = BatchSizer(0.05)
    sizer.note(10_000, 0.01)
    assert sizer.size(24, 4) == 24
    assert sizer.size(1_000_000, 100) == WORTH_SECONDS * 1_000_000
    assert sizer.size(6_000_000, 100) == 20_000


def test_slow_items_go_one_by_one_and_are_not_quick() -> None:
    sizer = BatchSizer(0.05)
    assert not sizer.quick, "nothing is known yet"
    sizer.note(1, 3.0)
    assert sizer.size(1_000_000, 1) == 1
    assert not sizer.quick
    assert sizer.expected_seconds(2) == 6.0


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 100)), max_size=20),
    st.integers(1, 10**9),
    st.integers(0, 1000),
)
def test_a_batch_is_never_empty_or_huge(
    seen: list[tuple[int, float]], left: int, slots: int
) -> None:
    sizer = BatchSizer(0.05)
    for items, seconds in seen:
        sizer.note(items, seconds)
    assert 1 <= sizer.size(left, slots) <= TASK_RANGE_MAX
