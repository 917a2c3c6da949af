"""Busy is not dead: a grid at full load, whose interpreters are held, keeps its server.

The grid was begun by ``tests/simulation`` and has lived since, beside the simulator and the unit
tests; run alone, this test waits until it has lived long enough. Half an hour of the same is
``scripts/soak --hog 30``.
"""

import pytest

from tests.live.harness import until
from tests.witness.hog import BREATH_SECONDS, HELD_SECONDS
from tests.witness.witness import Witness, complaints

LIVED_SECONDS = 60.0


@pytest.mark.timeout(180)
def test_nobody_is_taken_for_dead_while_all_are_busy_and_interpreters_are_held(
    witness: Witness,
) -> None:
    until("it has lived long enough", lambda: witness.age >= LIVED_SECONDS, LIVED_SECONDS + 5)
    account = witness.account()
    print(account)
    assert not complaints(account)
    assert account.jobs >= 2
    assert account.busy_share > 0.3, "of finished jobs alone, and up to four are open"
    server, owner, plain = account.seen
    for hog in (server, owner):
        assert hog.holds > 0.7 * account.seconds / (HELD_SECONDS + BREATH_SECONDS)
    assert plain.silence_seconds_max > HELD_SECONDS - 0.5, "the server was not really held"
