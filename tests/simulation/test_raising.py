"""The grids in which user code raises: they meet with what they are meant to, notice faults."""

import pytest

from tests.simulation.__main__ import run
from tests.simulation.planted import RAISING, planted
from tests.simulation.scenario import Scenario

SEEDS = 60

MET = (
    "raises in map",
    "raises in reduce",
    "raises in finish",
    "raises in call",
    "failed: r",
    "failed: k",
)


def grid(seed: int) -> Scenario:
    return Scenario(seed, raising=1.0)


def test_user_code_raises_wherever_it_can_and_some_of_it_is_retried() -> None:
    unmet = list(MET)
    retried = 0
    for seed in range(SEEDS):
        scenario = grid(seed)
        assert run(scenario) == [], f"Scenario({seed}, raising=1.0)"
        story = "\n".join(scenario.world.log)
        unmet = [what for what in unmet if what not in story]
        cases = scenario.auditor.cases.values()
        retried += sum(scenario.auditor.flaws.has_raised(case.record) for case in cases)
    assert not unmet
    assert retried


def test_what_was_cancelled_before_its_submission_returned_is_owed_to_nobody() -> None:
    assert run(grid(7007)) == []


@pytest.mark.parametrize("name", RAISING)
def test_a_planted_fault_is_caught(name: str) -> None:
    seed = RAISING[name].seed
    assert run(grid(seed)) == []
    with planted(name):
        assert run(grid(seed))
