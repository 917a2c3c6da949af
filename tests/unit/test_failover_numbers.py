"""What a failover took, measured by the grid itself: by whoever takes over, told to everyone."""

import random

import pytest

from grid.election import Election
from grid.events import Connected, PortBound, ProbeAnswered, ProbeFailed, ReignBegan, Started
from grid.messages import Address, FailedOver, Failover, Joined, Reign, Submit
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.unit.cores import PORT, holding, join, meta, peer, successors, welcome
from tests.unit.table import REIGN, Table, done

HERE = Address("h", PORT)
SETTINGS = Settings(port_span=1)


def taken_over(heard_at: float, lost_at: float, bound_at: float) -> tuple[Failover, ...]:
    """Follow a server, lose it, and serve; return what that is said to have taken."""
    election = Election(SETTINGS, "me", ("h",), True, random.Random(1))
    election.start(Started((HERE,)), 0.0)
    greeting = welcome("s", Reign(4, "s"))
    election.probe_answered(ProbeAnswered(HERE, greeting), 0.0)
    election.connected(Connected(1, HERE, greeting), 0.0)
    election.told(Reign(4, "s"), successors("me"), 2)
    election.failovers = (Failover("closed", 2, 0.05, 0.06), Failover("silent", 3, 3.0, 3.1))
    election.lost_server(lost_at, heard_at)
    election.probe_failed(ProbeFailed(HERE, "refused", "no"), lost_at)
    election.port_bound(PortBound(PORT, HERE), bound_at)
    return election.failovers


def test_a_closed_connection_is_timed_from_its_end() -> None:
    before, now = taken_over(heard_at=9.8, lost_at=10.0, bound_at=10.25)
    assert before == Failover("silent", 3, 3.0, 3.1), "the last of the other kind is kept"
    assert (now.how, now.term) == ("closed", 5)
    assert now.server_seconds == pytest.approx(0.25)


def test_silence_is_timed_from_the_last_sign_of_life() -> None:
    before, now = taken_over(heard_at=7.5, lost_at=10.0, bound_at=10.25)
    assert before == Failover("closed", 2, 0.05, 0.06)
    assert now.how == "silent"
    assert now.server_seconds == pytest.approx(2.75)


def serve(*failovers: Failover) -> Table:
    table = Table(ServerCore(Settings()))
    table.step(ReignBegan(REIGN, peer("s"), 0, failovers))
    return table


def test_the_first_task_run_under_the_new_server_is_timed_and_told_to_everyone() -> None:
    table = serve(Failover("closed", REIGN.term, 0.25))
    said = table.join(join("a"))
    (joined,) = [message for message in said["a"] if isinstance(message, Joined)]
    assert joined.failovers == (Failover("closed", REIGN.term, 0.25),)
    table.hear("a", Submit("t", meta(items=2), accepted=True))
    ((name, order), *_) = table.orders()
    table.now = 0.5
    said = table.hear(name, done(order.attempt, holding(order.start, order.stop, name)))
    (told,) = [message for message in said["a"] if isinstance(message, FailedOver)]
    assert told.failovers[0].task_seconds == pytest.approx(0.25 + 0.5 - 0.01), "it ran for 10 ms"
    ((name, order), *_) = table.orders()
    said = table.hear(name, done(order.attempt, holding(order.start, order.stop, name, counter=2)))
    assert not [m for m in said.get("a", []) if isinstance(m, FailedOver)], "only the first"


def test_a_failover_of_an_earlier_reign_is_not_timed_again() -> None:
    earlier = Failover("closed", REIGN.term - 1, 0.25, 0.3)
    table = serve(earlier)
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1), accepted=True))
    ((name, order),) = table.orders()
    said = table.hear(name, done(order.attempt, holding(order.start, order.stop, name)))
    assert not [m for m in said.get("a", []) if isinstance(m, FailedOver)]
    assert table.core.state.failovers == (earlier,)


def test_work_that_came_only_later_says_nothing_about_the_failover() -> None:
    table = serve(Failover("closed", REIGN.term, 0.25))
    table.join(join("a"))
    table.now = 3600.0
    table.hear("a", Submit("t", meta(items=1)))
    ((name, order),) = table.orders()
    table.hear(name, done(order.attempt, holding(order.start, order.stop, name)))
    assert table.core.state.failovers[0].task_seconds is None
