"""The simulator is worth its time: each of these planted faults is caught within some seeds."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests.simulation.__main__ import run_seed
from tests.simulation.planted import FAULTS, planted

SEEDS_MAX = 500


def hunt(name: str) -> str:
    """Return the first broken promise that a grid with this fault shows, or nothing."""
    first = FAULTS[name].seed
    with planted(name):
        for seed in (*range(first, SEEDS_MAX), *range(first)):
            _, wrong = run_seed(seed)
            if wrong:
                return wrong[0]
    return ""


@pytest.fixture(scope="module")
def hunts() -> Iterator[dict[str, Future[str]]]:
    """All hunts, on two cores; each test waits for its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield {name: pool.submit(hunt, name) for name in FAULTS}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name: str, hunts: dict[str, Future[str]]) -> None:
    assert hunts[name].result(), f"{SEEDS_MAX} grids do not notice that {name}"
