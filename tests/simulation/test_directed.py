"""Decisions across hosts, each in a scene made for it; and each scene notices when it is wrong."""

import pytest

from tests.simulation.directed import SCENES, Unmet
from tests.simulation.planted import SPLITTING, planted


@pytest.mark.parametrize("name", SCENES)
def test_a_peer(name: str) -> None:
    SCENES[name]()


@pytest.mark.parametrize("name", SPLITTING)
def test_a_scene_notices_that(name: str) -> None:
    with planted(name), pytest.raises(Unmet):
        SCENES[SPLITTING[name].scene]()


def test_every_scene_notices_something() -> None:
    assert {fault.scene for fault in SPLITTING.values()} == set(SCENES)
