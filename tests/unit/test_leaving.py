"""Leaving well, decision by decision: the server lets go who owes nothing; the client waits."""

from collections.abc import Iterator

import pytest

from grid.effects import Closed, DrainSelf, FetchResult, ForgetTask, RunTask, ShowDrained
from grid.events import (
    CloseRequested,
    DrainRequested,
    InputsReady,
    LinkLost,
    ResultFetched,
    ResultMissing,
    Started,
)
from grid.messages import (
    Acknowledge,
    Address,
    Announce,
    AskDrain,
    Assign,
    Drained,
    DrainNow,
    Finished,
    Held,
    Join,
    Leave,
    Leaving,
    MayGo,
    NotTaken,
    Retain,
    Submit,
    TakeOver,
    TaskReturned,
)
from tests.unit.cores import PORT, everywhere, holding, join, meta, peer
from tests.unit.table import Table, done, finish, serve
from tests.unit.test_client_core import Desk, assign


@pytest.fixture
def table() -> Iterator[Table]:
    table = serve()
    yield table
    table.check()


def working(table: Table, *others: str) -> Assign:
    """An owner on a host of its own, and ``a`` on another, who was given a map; return that."""
    table.join(join("owner", host="home", slots=0))
    table.join(join("a", host="far"))
    for name in others:
        table.join(join(name, host=name, slots=0))
    table.hear("owner", Submit("t", meta(items=1)))
    (order,) = [order for name, order in table.orders() if name == "a"]
    return order


def mapped(table: Table, *others: str) -> Assign:
    """Like ``working``, and ``a`` wants to leave, and has the only output."""
    order = working(table, *others)
    assert table.hear("a", Leaving()) == {}
    table.hear("a", done(order.attempt, holding(0, 1, "a")))
    return order


# -- the server ------------------------------------------------------------------------------


def test_who_owes_nothing_may_go_at_once(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    assert table.hear("a", Leaving()) == {"a": [MayGo()]}


def test_a_leaver_is_given_nothing_and_takes_nothing_over(table: Table) -> None:
    working(table)
    table.join(join("b"))
    table.hear("a", Leaving())
    order = [successor.ref.name for successor in table.core.state.roster.successors()]
    assert order == ["owner", "b"]
    table.hear("owner", Submit("u", meta("other", items=4)))
    assert {name for name, _ in table.orders()} == {"b"}


def test_what_a_leaver_alone_has_is_taken_over_before_it_may_go(table: Table) -> None:
    mapped(table)
    held = holding(0, 1, "a")
    assert TakeOver("r", ((held, peer("a", "far")),)) in table.said["owner"]
    assert "a" not in table.said
    said = table.hear("owner", Announce((Held("r", (held,)),)))
    assert said["a"] == [MayGo()]


def test_a_neighbour_adopts_what_a_leaver_has_so_it_may_go(table: Table) -> None:
    order = working(table)
    table.join(join("b", host="far", slots=0))
    table.hear("a", Leaving())
    said = table.hear("a", done(order.attempt, holding(0, 1, "a")))
    assert said["a"] == [MayGo()]


def test_who_cannot_take_over_is_not_asked_again_but_another_is(table: Table) -> None:
    mapped(table, "b")
    held = holding(0, 1, "a")
    (first,) = [n for n, said in table.said.items() if any(isinstance(m, TakeOver) for m in said)]
    said = table.hear(first, NotTaken("r", (held.output,)))
    (second,) = [n for n, told in said.items() if any(isinstance(m, TakeOver) for m in told)]
    assert {first, second} == {"owner", "b"}
    assert table.hear(second, NotTaken("r", (held.output,)))["a"] == [MayGo()], "nobody can"


def test_one_who_was_asked_and_dies_is_replaced(table: Table) -> None:
    mapped(table, "b")
    (first,) = [n for n, said in table.said.items() if any(isinstance(m, TakeOver) for m in said)]
    if first == "owner":
        table.hear("b", Submit("u", meta(items=1), accepted=True))
    said = table.lose(first)
    assert sum(isinstance(m, TakeOver) for told in said.values() for m in told) == 1


def test_running_tasks_are_waited_for_and_handed_back_ones_go_to_others(table: Table) -> None:
    order = working(table)
    table.hear("a", Leaving())
    assert "a" not in table.wait(5.0)
    table.join(join("b", host="home"))
    said = table.hear("a", TaskReturned(order.attempt, "leaving"))
    assert said["a"] == [MayGo()]
    assert [name for name, _ in table.orders()] == ["b"]


def test_nobody_waits_when_nobody_stays(table: Table) -> None:
    mapped(table)
    assert table.hear("owner", Leaving())["owner"] == [MayGo()]
    assert MayGo() in table.said["a"]


def test_a_result_on_its_way_to_its_owner_is_waited_for(table: Table) -> None:
    order = working(table)
    table.join(join("b", host="far", slots=0))
    table.hear("a", done(order.attempt, holding(0, 1, "a")))
    finish(table)
    assert any(isinstance(m, Finished) for m in table.said.get("owner", []))
    assert "a" not in table.hear("a", Leaving()), "a neighbour is there, but the owner reads"
    said = table.hear("owner", Acknowledge("t", "r"))
    assert MayGo() in said["a"]


def test_a_retained_result_is_remembered_by_another_before_its_keeper_goes(table: Table) -> None:
    table.join(join("owner", host="home", slots=0))
    table.join(join("a", host="far"))
    table.hear("owner", Submit("t", meta(items=1), "name", {"k": "1"}))
    finish(table)
    table.hear("owner", Acknowledge("t", "r"))
    said = table.hear("a", Leaving())
    assert any(isinstance(m, Retain) for m in said["owner"])
    assert "a" not in said
    results = tuple(h for h, _ in table.core.state.registry.get("r").results())  # type: ignore[union-attr]
    assert MayGo() in table.hear("owner", Announce((Held("r", results),)))["a"]


def test_a_call_that_a_leaver_has_not_begun_is_not_expected(table: Table) -> None:
    table.join(join("owner", slots=0))
    table.join(join("a"))
    table.hear("owner", Submit("t", everywhere()))
    ((_, order),) = table.orders()
    table.hear("a", Leaving())
    said = table.hear("a", TaskReturned(order.attempt, "leaving"))
    assert any(isinstance(m, Finished) for m in said["owner"])


def test_what_is_said_twice_to_be_taken_over_is_taken_over(table: Table) -> None:
    table.join(join("owner", host="home", slots=0))
    table.join(join("a", host="far"))
    table.hear("owner", Submit("t", meta(items=1)))
    ((_, order),) = table.orders()
    made = holding(0, 1, "a")
    said = table.hear("a", Leaving(), done(order.attempt, made))
    assert any(isinstance(m, TakeOver) for m in said["owner"])
    assert MayGo() in table.hear("owner", Announce((Held("r", (made, made)),)))["a"]


def test_who_rejoins_leaving_is_still_leaving(table: Table) -> None:
    table.join(join("b"))
    came = join("a")
    again = Join(came.me, 1, True, came.seen, (), (), doors=came.doors, leaving=True)
    assert MayGo() in table.join(again)["a"]


def test_nobody_may_go_before_all_had_the_time_to_report() -> None:
    table = serve(expected=3)
    table.join(join("b"))
    table.join(join("a"))
    assert "a" not in table.hear("a", Leaving())
    assert MayGo() in table.wait(10.0)["a"]


def test_one_that_leaves_at_once_as_it_has_nothing_has_left_well(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("b", AskDrain("a", 9.0))
    assert table.hear("a", Leave())["b"][0] == Drained("a", True, True)


def test_who_asked_for_it_hears_how_a_peer_has_left(table: Table) -> None:
    order = working(table)
    assert table.hear("owner", AskDrain("a", 9.0)) == {"a": [DrainNow(9.0)]}
    table.hear("a", Leaving())
    held = holding(0, 1, "a")
    table.hear("a", done(order.attempt, held))
    said = table.hear("owner", Announce((Held("r", (held,)),)))
    assert said["owner"][-1] == Drained("a", True, True, finished=1, passed_on=held.bytes)


def test_a_peer_that_goes_before_it_may_has_not_left_well(table: Table) -> None:
    working(table)
    table.hear("owner", AskDrain("a", 9.0))
    table.hear("a", Leaving())
    assert Drained("a", True, False, handed_back=1) in table.hear("a", Leave())["owner"]


def test_one_that_is_not_here_is_said_to_be_unknown(table: Table) -> None:
    table.join(join("b"))
    assert table.hear("b", AskDrain("nobody", 9.0)) == {"b": [Drained("nobody")]}


# -- the client ------------------------------------------------------------------------------


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.step(Started((Address("h", PORT),)))
    desk.join()
    return desk


def test_a_client_hands_back_what_does_not_run_and_waits_for_the_rest(desk: Desk) -> None:
    desk.hear(assign("1"))
    desk.step(InputsReady("1"))
    desk.hear(assign("2"))
    effects = desk.step(CloseRequested(9.0))
    assert desk.said == [Leaving(), TaskReturned("2", "leaving")]
    assert ForgetTask("2") in effects
    desk.hear(assign("3"))
    assert desk.said == [TaskReturned("3", "leaving")]
    assert not any(isinstance(effect, RunTask) for effect in desk.done)
    effects = desk.hear(MayGo())
    assert desk.said == [Leave()]
    assert effects[-1] == Closed(True)


@pytest.mark.parametrize("how", ["again", "late"])
def test_a_client_goes_when_asked_again_or_at_its_limit(desk: Desk, how: str) -> None:
    desk.hear(assign("1"))
    desk.step(InputsReady("1"))
    desk.step(CloseRequested(3.0))
    effects = desk.step(CloseRequested(3.0)) if how == "again" else desk.wait(4.0)
    assert Closed(False) in effects


def test_a_client_without_a_server_waits_for_the_next_and_tells_it(desk: Desk) -> None:
    desk.hear(assign("1"))
    desk.step(InputsReady("1"))
    desk.step(CloseRequested(9.0))
    desk.step(LinkLost(desk.link, "reset"))
    joined = next(m for m in desk.join(2) if isinstance(m, Join))
    assert joined.leaving
    assert [running.attempt for running in joined.running] == ["1"]


def test_a_client_takes_over_and_says_what_it_could_not(desk: Desk) -> None:
    held = holding(0, 1, "a")
    (fetch,) = desk.hear(TakeOver("r", ((held, peer("a")),)))
    assert isinstance(fetch, FetchResult)
    desk.step(ResultMissing(fetch.txn, "r", (held.output,), "gone"))
    assert desk.said == [NotTaken("r", (held.output,))]
    (fetch,) = desk.hear(TakeOver("r", ((held, peer("a")),)))
    assert isinstance(fetch, FetchResult)
    desk.step(ResultFetched(fetch.txn, "r", sizes=(3, 4)))
    assert desk.said == [Announce((Held("r", (held,), (3, 4)),))]
    assert held.output in desk.core.holdings


def test_a_client_asks_until_it_hears_how_a_peer_has_left(desk: Desk) -> None:
    desk.step(DrainRequested("a", 9.0))
    assert desk.said == [AskDrain("a", 9.0)]
    desk.step(LinkLost(desk.link, "reset"))
    assert AskDrain("a", 9.0) in desk.join(2)
    assert desk.hear(Drained("a", True)) == [ShowDrained(Drained("a", True))]
    desk.step(LinkLost(desk.link, "reset"))
    assert AskDrain("a", 9.0) not in desk.join(3)
    assert desk.hear(DrainNow(5.0)) == [DrainSelf(5.0)]
