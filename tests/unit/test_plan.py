"""Plans: whatever happens, ranges tile and each is counted once (P3, P4)."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.plan import Needless, Plan, aligned_size
from grid.ranges import level_of
from tests.unit.cores import holding


def check(plan: Plan) -> None:
    """What holds of every plan at every moment."""
    reached = 0
    for tile in plan.outputs():
        assert tile.start == reached
        assert plan.has(tile.start, tile.stop)
        reached = tile.stop
        assert not (tile.done and tile.attempts), "nothing runs for what is done"
        assert tile.done == bool(tile.holders), "what is done is held by someone"
        for attempt in tile.attempts:
            assert plan.attempts()[attempt] is tile
    assert reached == plan.n
    tiles = plan.outputs()
    assert plan.done_count == sum(tile.stop - tile.start for tile in tiles if tile.done)
    assert plan.active == sum(len(tile.attempts) for tile in tiles)
    first = next((tile for tile in tiles if tile.free and tile.not_before <= 1e9), None)
    found = plan.next_free(1e9)
    assert (found is None) == (first is None), "what is free is found"


@pytest.fixture
def plan() -> Iterator[Plan]:
    plan = Plan("map", 8)
    yield plan
    check(plan)


def give(plan: Plan, size: int, attempt: str, peer: str = "a", now: float = 0.0) -> tuple[int, int]:
    tile = plan.next_free(now)
    assert tile is not None
    tile = plan.cut(tile, size)
    plan.give(tile, attempt, peer, now)
    return tile.start, tile.stop


def test_pieces_are_given_in_order_and_done_when_all_are_credited(plan: Plan) -> None:
    assert [give(plan, 4, "1"), give(plan, 3, "2"), give(plan, 9, "3")] == [(0, 4), (4, 6), (6, 8)]
    assert plan.next_free(0) is None
    for start, stop in ((0, 4), (4, 6)):
        assert plan.credit(holding(start, stop), "a")[0]
        assert not plan.done
    assert plan.credit(holding(6, 8), "a") == (True, [Needless("3", "a", 6, 8)])
    assert plan.done


def test_an_output_inside_a_free_range_splits_it(plan: Plan) -> None:
    assert plan.credit(holding(2, 3), "a") == (True, [])
    assert [(t.start, t.stop, t.done) for t in plan.outputs()] == [
        (0, 2, False),
        (2, 3, True),
        (3, 4, False),
        (4, 8, False),
    ]


def test_an_output_over_finished_pieces_counts_once(plan: Plan) -> None:
    plan.credit(holding(0, 1), "a")
    plan.credit(holding(2, 4), "a")
    assert plan.credit(holding(0, 4, "b"), "b") == (True, [])
    assert plan.done_count == 4
    assert len(plan.outputs()) == 2


def test_an_output_over_pieces_that_are_all_finished_is_no_news(plan: Plan) -> None:
    plan.credit(holding(0, 2), "a")
    plan.credit(holding(2, 4), "a")
    assert plan.credit(holding(0, 4, "b"), "b") == (False, [])
    assert len(plan.outputs()) == 3


def test_an_output_makes_the_attempts_inside_it_needless(plan: Plan) -> None:
    give(plan, 1, "1", "a")
    give(plan, 1, "2", "b")
    news, needless = plan.credit(holding(0, 4, "c"), "c")
    assert news
    assert needless == [Needless("1", "a", 0, 1), Needless("2", "b", 1, 2)]
    assert plan.active == 0


def test_less_than_what_is_under_way_does_not_count(plan: Plan) -> None:
    give(plan, 4, "1")
    assert plan.credit(holding(0, 1, "b"), "b") == (False, [])
    assert plan.done_count == 0


def test_the_same_output_elsewhere_is_a_second_holder(plan: Plan) -> None:
    plan.credit(holding(0, 8), "a")
    assert plan.credit(holding(0, 8), "b") == (False, [])
    assert plan.lose(holding(0, 8).output, "a") is None
    assert plan.done
    lost = plan.lose(holding(0, 8).output, "b")
    assert lost is not None
    assert lost.free


def test_what_everyone_lost_is_free(plan: Plan) -> None:
    plan.credit(holding(0, 8), "a")
    plan.credit(holding(0, 8), "b")
    assert plan.lose(holding(0, 8).output, None) is not None
    assert plan.done_count == 0


def test_another_output_of_the_same_range_is_not_lost_with_it(plan: Plan) -> None:
    plan.credit(holding(0, 8, "a"), "a")
    assert plan.lose(holding(0, 8, "b").output, "b") is None
    assert plan.done


def test_a_released_range_waits_until_its_time(plan: Plan) -> None:
    give(plan, 8, "1")
    tile = plan.release("1")
    assert tile is not None
    tile.not_before = 5.0
    assert plan.next_free(4.9) is None
    assert plan.next_free(5.0) is tile
    assert plan.release("1") is None


def test_one_of_two_attempts_released_leaves_the_range_given(plan: Plan) -> None:
    give(plan, 8, "1")
    tile = plan.given()[0]
    plan.give(tile, "2", "b", 1.0)
    plan.release("1")
    assert plan.next_free(9) is None
    assert plan.given() == [tile]


def test_an_expected_range_is_free_when_its_peer_has_reported(plan: Plan) -> None:
    assert plan.expect(0, 4, "a")
    assert plan.expect(0, 4, "b")
    assert [give(plan, 8, "1")] == [(4, 8)]
    plan.settle("a")
    assert plan.next_free(0) is None
    plan.settle("b")
    assert give(plan, 8, "2") == (0, 4)


def test_a_range_that_is_done_or_given_is_not_expected(plan: Plan) -> None:
    plan.credit(holding(0, 4), "a")
    give(plan, 4, "1")
    assert not plan.expect(0, 4, "b")
    assert not plan.expect(4, 8, "b")
    assert not plan.expect(0, 8, "b")


def test_an_attempt_of_an_earlier_server_is_taken_up(plan: Plan) -> None:
    plan.expect(0, 4, "a")
    assert plan.reclaim(0, 4, "old", "a", 0.0)
    assert [tile.attempts for tile in plan.given()] == [{"old": "a"}]
    plan.release("old")
    assert give(plan, 8, "1") == (4, 8), "the range still waits for what its peer reports"
    plan.settle("a")
    assert give(plan, 8, "2") == (0, 4)


def test_an_attempt_over_free_pieces_makes_them_one(plan: Plan) -> None:
    plan.expect(0, 1, "b")
    assert plan.reclaim(0, 4, "old", "a", 0.0)
    assert [(tile.start, tile.stop) for tile in plan.outputs()] == [(0, 4), (4, 8)]


@pytest.mark.parametrize("size", [1, 4, 8])
def test_an_attempt_on_what_is_done_is_not_taken_up(plan: Plan, size: int) -> None:
    plan.credit(holding(0, 4), "a")
    assert not plan.reclaim(0, size, "old", "b", 0.0)


def test_a_poison_item_is_set_apart_with_its_deaths(plan: Plan) -> None:
    give(plan, 8, "1")
    tile = plan.release("1")
    assert tile is not None
    tile.deaths = 2
    alone = plan.isolate(tile, 5)
    assert (alone.start, alone.stop, alone.deaths) == (5, 6, 2)
    assert [t.deaths for t in plan.outputs() if t is not alone] == [0, 0, 0]


def test_an_empty_plan_is_done() -> None:
    plan = Plan("reduce", 0)
    assert plan.done
    assert plan.next_free(0) is None
    check(plan)


@pytest.mark.parametrize(
    ("n", "pieces", "size"), [(256, 1, 256), (256, 4, 64), (8, 100, 1), (0, 3, 1)]
)
def test_sizes_are_powers_of_two(n: int, pieces: int, size: int) -> None:
    assert aligned_size(n, pieces) <= size
    assert aligned_size(n, pieces).bit_count() == 1


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_whatever_happens_the_plan_is_sound_and_can_be_finished(n: int, seed: int) -> None:
    rng = random.Random(seed)
    plan = Plan("map", n)
    for step in range(40):
        level = rng.randint(0, level_of(0, n))
        start = rng.randrange(n) >> level << level
        stop = min(n, start + (1 << level))
        who = rng.choice("abc")
        match rng.randrange(8):
            case 0 | 1:
                tile = plan.next_free(step)
                if tile is not None:
                    plan.give(plan.cut(tile, rng.randint(1, 8)), f"{step}", who, step)
            case 2:
                plan.credit(holding(start, stop, who, counter=step), who)
            case 3:
                plan.expect(start, stop, who)
            case 4:
                plan.settle(who)
            case 5:
                plan.reclaim(start, stop, f"{step}", who, step)
            case 6 if plan.attempts():
                plan.release(rng.choice(list(plan.attempts())))
            case _:
                done = [tile.holding for tile in plan.outputs() if tile.holding is not None]
                if done:
                    plan.lose(rng.choice(done).output, rng.choice(["a", "b", "c", None]))
        check(plan)
    for attempt in list(plan.attempts()):
        plan.release(attempt)
    for who in "abc":
        plan.settle(who)
    while (tile := plan.next_free(1e9)) is not None:
        plan.credit(holding(tile.start, tile.stop, "z"), "z")
    assert plan.done
