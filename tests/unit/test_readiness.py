"""With whom a connection is kept ready, and when."""

import random

from grid.effects import KeepReady
from grid.messages import Address, PeerRef, Successor
from grid.readiness import AGAIN_SECONDS, CALM_SECONDS, MEMBER_SECONDS, Readiness


def successor(name: str) -> Successor:
    ref = PeerRef(name, name, "host", Address("127.0.0.1", 1))
    return Successor(ref, ())


A, B, ME = successor("a"), successor("b"), successor("me")


def readiness() -> Readiness:
    return Readiness("me", random.Random(1))


def test_the_first_successor_is_greeted_when_it_has_been_one_for_a_while() -> None:
    ready = readiness()
    assert ready.told((A, ME), 2, 10.0) == []
    assert ready.due(10.0 + CALM_SECONDS - 0.001) == []
    assert ready.deadline is not None
    assert ready.due(ready.deadline) == [KeepReady(A.ref)]
    assert ready.told((A, B, ME), 3, 12.0) == []
    assert ready.deadline is None


def test_another_first_successor_takes_its_place() -> None:
    ready = readiness()
    ready.told((A, ME), 2, 10.0)
    ready.due(20.0)
    assert ready.told((B, ME), 2, 21.0) == [KeepReady(None)]
    assert ready.due(31.0) == [KeepReady(B.ref)]


def test_nothing_is_ready_for_ones_own_reign() -> None:
    ready = readiness()
    ready.told((A, ME), 2, 10.0)
    ready.due(20.0)
    assert ready.told((ME, A), 2, 21.0) == [KeepReady(None)]
    assert ready.deadline is None
    assert ready.told((), 1, 22.0) == []


def test_what_is_lost_is_tried_again_later() -> None:
    ready = readiness()
    ready.told((A,), 2, 10.0)
    ready.due(20.0)
    ready.lost("somebody else", 20.0)
    before = ready.deadline
    ready.lost("a", 20.0)
    again = ready.deadline
    assert before is None
    assert again is not None
    assert again >= 20.0 + AGAIN_SECONDS / 2
    assert ready.due(40.0) == [KeepReady(A.ref)]


def test_a_large_grid_does_not_greet_in_one_moment() -> None:
    times = []
    for seed in range(300):
        ready = Readiness("me", random.Random(seed))
        ready.told((A,), 300, 0.0)
        assert ready.deadline is not None
        times.append(ready.deadline)
    span = 300 * MEMBER_SECONDS
    for begin in range(10):
        low = CALM_SECONDS + begin * span / 10
        assert 10 <= sum(low <= at < low + span / 10 for at in times) <= 60
