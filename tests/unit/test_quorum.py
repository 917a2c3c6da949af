"""A server without a quorum: it takes everything in, and works at nothing."""

from collections.abc import Iterator

import pytest
from msgspec import structs

from grid.effects import Send
from grid.errors import Misuse
from grid.events import DeadlineReached, ReignBegan
from grid.messages import Acknowledge, Beat, Finished, Submit
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.unit.cores import holding, join, meta, peer
from tests.unit.table import REIGN, Table, done, finish


@pytest.fixture
def table() -> Iterator[Table]:
    """A server that wants three members, and has itself and one more."""
    table = Table(ServerCore(Settings(quorum=3)))
    table.step(ReignBegan(REIGN, peer("s"), 0))
    table.join(join("s", slots=0), local=True)
    table.join(join("a"))
    yield table
    table.check()


def test_nothing_is_given(table: Table) -> None:
    table.hear("a", Submit("t", meta()))
    assert table.orders() == []
    table.join(structs.replace(join("visitor"), serves=False))
    assert table.orders() == [], "visitors do not count"
    table.join(join("b"))
    assert table.orders() != []


def test_nothing_is_ended(table: Table) -> None:
    """What is finished without a quorum is told when there is one."""
    table.join(join("b", slots=0))
    table.hear("a", Submit("t", meta(items=1)))
    finish(table, kinds=("map",))
    ((name, order),) = table.orders()
    table.lose("b")
    made = holding(order.start, order.stop, name, kind="reduce")
    said = table.hear(name, done(order.attempt, made))
    assert not any(isinstance(message, Finished) for message in said.get("a", []))
    said = table.join(join("c", slots=0))
    assert [message for message in said["a"] if isinstance(message, Finished)]


def test_who_waits_for_a_retained_result_is_told_also_when_its_time_is_over(table: Table) -> None:
    """It came in time, and there was no quorum; it must not wait for ever."""
    table.join(join("b", slots=0))
    table.hear("a", Submit("t", meta(items=1), name="job"))
    finish(table)
    table.hear("a", Acknowledge("t", "r"))
    table.lose("b")
    said = table.hear("a", Submit("u", meta("other", 1), name="job"))
    assert not any(isinstance(message, Finished) for message in said["a"])
    table.links.pop("b")
    table.wait(Settings().retain_seconds + 1)
    said = table.join(join("c", slots=0))
    assert [message.txn for message in said["a"] if isinstance(message, Finished)] == ["u"]


def test_the_members_are_told_how_many_are_wanted(table: Table) -> None:
    table.now = 1.0
    effects = table.core.step(DeadlineReached(), table.now)
    beats = {e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Beat)}
    assert beats == {Beat(2, 1)}


def test_less_than_none_is_refused() -> None:
    with pytest.raises(Misuse, match="quorum=-1"):
        Settings(quorum=-1)
