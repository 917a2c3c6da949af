"""A grid's size costs its members nothing: a failover says and hears as much in a large one."""

import pytest

from tests.simulation.large import SMALL, Failover, LargeGrid

LARGE = 5 * SMALL
"""``scripts/simulate --peers 1000`` takes longer than a test may."""


@pytest.fixture(scope="module")
def failovers() -> dict[int, Failover]:
    found: dict[int, Failover] = {}
    for size in (SMALL, LARGE):
        grid = LargeGrid(size)
        found[size] = grid.fail_over()
        assert not grid.world.wrong
    return found


def test_all_members_rejoin_as_soon_as_those_of_a_small_grid(
    failovers: dict[int, Failover],
) -> None:
    assert failovers[LARGE].seconds <= failovers[SMALL].seconds + 0.1


def test_what_a_member_says_and_hears_does_not_grow_with_the_grid(
    failovers: dict[int, Failover],
) -> None:
    small, large = failovers[SMALL], failovers[LARGE]
    assert large.mean <= 1.2 * small.mean
    assert large.most <= 1.2 * small.most


def test_what_the_server_says_and_hears_grows_only_with_its_members(
    failovers: dict[int, Failover],
) -> None:
    assert failovers[LARGE].server <= failovers[SMALL].server
