"""P4 when peers leave well: what they finished is not done again, on one host or on several."""

from dataclasses import replace
from random import Random

import pytest

from tests.simulation.process import Process
from tests.simulation.scenario import Scenario, Shape, draw

DRAIN_SECONDS = 60.0


def grid(seed: int, hosts: int, peers: int) -> Scenario:
    """A calm grid, settled."""
    shape: Shape = replace(
        draw(Random(seed)),
        hosts=hosts,
        seeds=hosts,
        ignorant=False,
        peers=peers,
        items=100,
        task_seconds=0.4,
        named=False,
        slow=1.0,
        deaths=0.0,
        late=0.0,
        misfortunes=0,
    )
    scenario = Scenario(seed, shape)
    for _ in range(peers):
        scenario.add_peer()
    scenario.world.run(10.0)
    return scenario


def restarted(scenario: Scenario, process: Process) -> float:
    """Have a process leave, and another start in its place; return how long it took."""
    began = scenario.world.now
    process.leave(DRAIN_SECONDS)
    scenario.world.run_until(lambda: not process.alive, DRAIN_SECONDS)
    scenario.add_peer(process.host.name)
    return scenario.world.now - began


def story(scenario: Scenario) -> str:
    return "\n".join(scenario.world.log)


@pytest.mark.parametrize("hosts", [1, 3])
@pytest.mark.parametrize("seed", range(10))
def test_all_peers_are_restarted_one_after_another_during_a_job(seed: int, hosts: int) -> None:
    """The owner alone stays, and its job ends with nothing done twice."""
    scenario = grid(seed, hosts, peers=4)
    owner, *others = scenario.world.processes
    scenario.submit(owner, "job")
    case = next(iter(scenario.auditor.cases.values()))
    for process in sorted(others, key=lambda process: process.server is None):
        scenario.world.run(scenario.world.now + 0.3)
        assert restarted(scenario, process) < DRAIN_SECONDS / 2, story(scenario)
    assert case.open, "it has to be under way while they leave"
    scenario.world.run_until(lambda: bool(case.outcomes), 120.0)
    assert scenario.world.wrong == []
    assert (case.outcomes, case.again) == (["delivered"], 0), story(scenario)
    assert scenario.auditor.gentle, story(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_hosts_leave_for_good_until_the_owner_is_alone(seed: int) -> None:
    """What whole hosts finished goes from hand to hand, at last to the only peer that is left."""
    scenario = grid(seed, hosts=4, peers=4)
    owner, *others = scenario.world.processes
    scenario.submit(owner, "job")
    case = next(iter(scenario.auditor.cases.values()))
    for process in others:
        scenario.world.run(scenario.world.now + 0.5)
        process.leave(DRAIN_SECONDS)
        scenario.world.run_until(lambda process=process: not process.alive, DRAIN_SECONDS)  # type: ignore[misc]
    scenario.world.run_until(lambda: bool(case.outcomes), 120.0)
    assert scenario.world.wrong == []
    assert (case.outcomes, case.again) == (["delivered"], 0), story(scenario)
    assert scenario.auditor.gentle, story(scenario)


def test_one_that_has_no_time_leaves_in_haste_and_the_job_ends_all_the_same() -> None:
    scenario = grid(1, hosts=2, peers=2)
    owner, other = scenario.world.processes
    scenario.submit(owner, "job")
    case = next(iter(scenario.auditor.cases.values()))
    scenario.world.run(scenario.world.now + 0.3)
    other.leave(0.0)
    assert not other.alive
    scenario.world.run_until(lambda: bool(case.outcomes), 120.0)
    assert case.outcomes == ["delivered"]
    assert scenario.world.wrong == []
    assert "in haste" in story(scenario)
