"""The grids with detached work: they go through what they are meant to, and notice faults."""

import pytest

from tests.simulation.calamities import draw_keeps
from tests.simulation.planted import LOSING, planted
from tests.simulation.scenario import Scenario

SEEDS_MAX = 700

MET = (
    "is returned",
    "goes on with k",
    "announces the end of k",
    "has the end of k",
    "removes k",
    "power fails everywhere",
    "has a full disk",
    "has a new disk",
    "is gone for long",
)


def test_detached_work_meets_with_what_it_is_meant_to_outlive() -> None:
    """Hosts go and come back, disks are full and lost; it is resumed, kept, and over in the end."""
    unmet = list(MET)
    for seed in range(SEEDS_MAX):
        if unmet and draw_keeps(seed):
            story = "\n".join(_story(seed))
            unmet = [what for what in unmet if what not in story]
    assert not unmet


def _story(seed: int) -> list[str]:
    scenario = Scenario(seed)
    assert scenario.run() == [], f"scripts/simulate --seed {seed} --story"
    return scenario.world.log


@pytest.mark.parametrize("name", LOSING)
def test_a_planted_fault_is_caught(name: str) -> None:
    seed = LOSING[name].seed
    assert Scenario(seed, share=1.0).run() == []
    with planted(name):
        assert Scenario(seed, share=1.0).run()
