"""Detached transactions in the cores: what keepers say and do, and what a server tells whom."""

from collections.abc import Iterator

import pytest
from msgspec import structs

from grid.effects import ClientEffect, FetchResult, Reject
from grid.events import Received
from grid.holdings import Holdings
from grid.keeping import EntryState, ends_anew, takes_end
from grid.messages import (
    Accepted,
    Acknowledge,
    Announce,
    AskResult,
    Cancel,
    Drop,
    Ended,
    Failed,
    Failure,
    Finished,
    Held,
    Holding,
    Join,
    Keeping,
    LostOutputs,
    Progress,
    Rejected,
    Remembered,
    Submit,
    TaskDone,
)
from grid.ownership import ASKS_MAX, KEEP_AGAIN_SECONDS, KEPT_AGAIN_SECONDS, Ownership
from tests.unit.cores import holding, join, meta, peer
from tests.unit.table import Table, finish, serve

META = structs.replace(meta("r", 8), keeping=Keeping(1000.0, 5.0))
SUBMIT = Submit("k", META)
RESULT = holding(0, 8, "a", kind="reduce")
PAIRS = ((RESULT, peer("a")),)
FINISHED = Finished("k", "r", META, PAIRS, (3,))
END = Remembered("", {}, META, (RESULT,), 1000.0, (3,))
FAILURE = Failure("raised", "ValueError")
FAILED_END = Remembered("", {}, META, (), 1000.0, failure=FAILURE)
ASK = AskResult("w", "r", wait=True)


# -- an entry ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["", "arriving", "aside"])
def test_an_end_leaves_nothing_of_what_nobody_found_whole(state: EntryState) -> None:
    """Else it would be on a damaged page, counted as a copy and never read."""
    assert takes_end(state)
    assert ends_anew(state)


def test_an_end_goes_into_the_entry_that_was_seen_through() -> None:
    assert takes_end("open")
    assert not ends_anew("open")


# -- a keeper ------------------------------------------------------------------------------


@pytest.fixture
def keeper() -> Ownership:
    keeper = Ownership()
    assert keeper.submit("k", META, "", {}, False, None) == [SUBMIT]
    return keeper


def test_a_result_is_on_disk_before_it_is_acknowledged(keeper: Ownership) -> None:
    assert keeper.finished(FINISHED) == ([FetchResult("k", "r", PAIRS, END)], [])
    assert keeper.fetched("k", PAIRS) == ([], [Acknowledge("k", "r")]), "no user waits for it here"


def test_a_keeper_fetches_also_what_came_along_as_it_has_to_be_a_file(
    keeper: Ownership,
) -> None:
    riding = structs.replace(FINISHED, result=b"result")
    assert keeper.finished(riding) == ([FetchResult("k", "r", PAIRS, END)], [])


def test_a_failure_too(keeper: Ownership) -> None:
    told = keeper.failed(Failed("k", "r", FAILURE))
    assert told == ([FetchResult("k", "r", (), FAILED_END)], [])
    assert keeper.failed(Failed("k", "r", FAILURE)) == ([], []), "it is being written"
    assert keeper.fetched("k", ()) == ([], [Acknowledge("k", "r")])


def test_a_deadline_that_passes_is_a_failure_to_be_kept() -> None:
    keeper = Ownership()
    keeper.submit("k", META, "", {}, False, 10.0)
    assert keeper.deadline() == 10.0
    (fetch,), said = keeper.due(10.0)
    assert isinstance(fetch, FetchResult)
    assert fetch.keep is not None
    assert fetch.keep.failure is not None
    assert fetch.keep.failure.kind == "deadline"
    assert said == []
    assert keeper.due(11.0) == ([], []), "once"


def test_a_keeper_that_leaves_withdraws_nothing(keeper: Ownership) -> None:
    ours = meta("ours")
    keeper.submit("t", ours, "", {}, False, None)
    closing = Failure("cancelled", "closing")
    assert keeper.withdraw_all(closing) == ([Reject("t", closing)], [Cancel("t", "ours")])


def test_a_keeper_without_room_steps_back_and_comes_again(keeper: Ownership) -> None:
    keeper.accepted(Accepted("k", "r"))
    keeper.finished(FINISHED)
    assert keeper.unkept("k", 10.0) == [Cancel("k", "r")]
    keeper.accepted(Accepted("k", "r"))  # of the submission that is withdrawn: they have crossed
    assert keeper.due(10.0 + KEEP_AGAIN_SECONDS / 2) == ([], [])
    again = keeper.due(10.0 + KEEP_AGAIN_SECONDS)
    assert again == ([], [SUBMIT]), "a new server is to hear first of those who know the end"
    assert keeper.finished(FINISHED) == ([FetchResult("k", "r", PAIRS, END)], [])


def test_a_keeper_that_cannot_fetch_an_end_asks_again_where_it_is(keeper: Ownership) -> None:
    keeper.finished(FINISHED)
    gone = ((RESULT.output, "a"),)
    assert keeper.missing("k", gone, "", 10.0) == ([], [LostOutputs("r", gone)])
    assert keeper.due(10.0 + KEPT_AGAIN_SECONDS) == ([], [SUBMIT])
    assert keeper.finished(FINISHED) == ([FetchResult("k", "r", PAIRS, END)], [])
    assert keeper.due(20.0) == ([], []), "it is being fetched"


def test_an_end_on_disk_outlives_the_order_to_drop_its_outputs() -> None:
    holdings = Holdings(600.0)
    holdings.add(holding(0, 1, "a"), (), 1.0)
    holdings.add(RESULT, (), 1.0)
    holdings.remember(END, 1.0)
    assert holdings.drop("r", ())
    assert [held.holdings for held in holdings.held(1.0)] == [(RESULT,)]
    assert holdings.kept() == [META]
    assert holdings.expired(1.0 + END.seconds_left + 1.0) == ["r"]


def test_one_that_is_revived_gives_others_time_to_come() -> None:
    keeper = Ownership()
    assert keeper.submit("k", META, "", {}, False, None, not_before=4.0) == []
    assert keeper.due(3.0) == ([], [])
    assert keeper.due(4.0) == ([], [SUBMIT])


def test_who_waits_asks_again_before_there_is_taken_to_be_nothing() -> None:
    """Who keeps it may have been started a moment ago, and be reading its journal."""
    asker = Ownership()
    asker.ask("w", "r", wait=True)
    told: list[ClientEffect] = []
    for _ in range(ASKS_MAX):
        assert asker.rejected(Rejected("w", "none"), 1.0) == []
        again_at = asker.deadline()
        assert again_at is not None
        assert asker.due(again_at) == ([], [ASK])
    told = asker.rejected(Rejected("w", "none"), 1.0)
    assert len(told) == 1


def test_who_is_certain_waits_for_ever() -> None:
    asker = Ownership()
    asker.ask("w", "r", wait=True, certain=True)
    for _ in range(10 * ASKS_MAX):
        assert asker.rejected(Rejected("w", "none"), 1.0) == []


# -- its server ----------------------------------------------------------------------------


@pytest.fixture
def table() -> Iterator[Table]:
    table = serve()
    for name in "abc":
        table.join(join(name))
    table.join(visitor("v"))
    yield table
    table.check()


def visitor(name: str) -> Join:
    sent = join(name, slots=0)
    return Join(sent.me, 0, False, sent.seen, (), ())


def run(table: Table) -> Finished:
    """Have "a" and "b" keep it, and run it to its end."""
    table.step(*(Received(table.links[name], SUBMIT) for name in "ba"))
    finish(table)
    (told,) = [m for m in table.said["a"] if isinstance(m, Finished)]
    assert any(isinstance(m, Finished) for m in table.said["b"])
    return told


def store(table: Table, name: str, told: Finished) -> dict[str, list[object]]:
    """A keeper has fetched the result, and put it on its disk."""
    held = tuple(held for held, _ in told.holdings)
    kept = structs.replace(END, holdings=held, skipped=(), ended=9.0)
    said = table.hear(name, Announce((Held("r", held, (), kept),)), Acknowledge("k", "r"))
    return {who: list(messages) for who, messages in said.items()}


def test_nobody_hears_of_the_end_before_all_keepers_have_it_on_disk(table: Table) -> None:
    told = run(table)
    table.hear("v", ASK)
    assert not [m for m in table.said.get("v", ()) if not isinstance(m, Progress)]
    said = store(table, "a", told)
    assert not [m for m in said.get("v", ()) if not isinstance(m, Progress)]
    said = store(table, "b", told)
    (end,) = [m for m in said["v"] if isinstance(m, Finished)]
    assert {held.output for held, _ in end.holdings} == {held.output for held, _ in told.holdings}
    assert {ref.peer for _, ref in end.holdings} <= {"a", "b"}
    assert said["c"] == [Drop("r")], "who does not keep it need not hold it"


def test_who_does_not_wait_is_told_how_far_it_is(table: Table) -> None:
    table.hear("a", SUBMIT)
    (none,) = table.hear("v", AskResult("w", "r"))["v"]
    assert isinstance(none, Rejected)
    assert "not finished yet: 0 of 8" in none.message


def test_who_waits_hears_how_far_it_is(table: Table) -> None:
    table.hear("a", SUBMIT)
    (progress,) = table.hear("v", ASK)["v"]
    assert isinstance(progress, Progress)
    assert progress.maps_total == 8


def test_a_failure_is_told_when_it_is_kept(table: Table) -> None:
    table.hear("a", SUBMIT)
    table.hear("v", ASK, Cancel("e", "r", all=True))
    (failed,) = [m for m in table.said["a"] if isinstance(m, Failed)]
    assert not [m for m in table.said["v"] if isinstance(m, Failed)]
    end = structs.replace(FAILED_END, failure=failed.failure)
    said = table.hear("a", Announce((Held("r", (), (), end),)), Acknowledge("k", "r"))
    assert said["v"] == [Failed("w", "r", failed.failure)]
    assert table.hear("v", ASK)["v"] == [Failed("w", "r", failed.failure)], "as often as asked"


def test_it_goes_on_without_keepers_for_a_while_and_only_a_cancel_ends_it(table: Table) -> None:
    table.hear("a", SUBMIT)
    table.hear("a", Cancel("k", "r"))
    assert table.core.state.registry.get("r") is not None, "that was no end"
    assert table.said["a"] == [Ended("k", "r")]
    table.hear("b", SUBMIT)
    table.wait(20.0)
    assert table.core.state.registry.get("r") is not None, "it has an owner again"


def test_a_new_server_hears_of_the_end_from_a_keeper(table: Table) -> None:
    """One that missed it is told at once; what others cannot fetch is no reason to forget it."""
    held = Held("r", (RESULT,), (), structs.replace(END, ended=9.0))
    table.join(structs.replace(join("d"), held=(held,)))
    (shown,) = table.hear("v", ASK)["v"]
    assert isinstance(shown, Finished)
    said = table.hear("a", SUBMIT)
    (told,) = [m for m in said["a"] if isinstance(m, Finished)]
    assert told.holdings == ((RESULT, peer("d")),)
    store(table, "a", told)
    table.hear("v", LostOutputs("r", ((RESULT.output, "d"),)))
    first, second = (table.hear("v", ASK)["v"][0] for _ in range(2))
    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert {first.holdings[0][1].peer, second.holdings[0][1].peer} == {"a", "d"}, "in turn"
    (status,) = table.core._status().transactions
    assert (status.state, status.detached) == ("retained", True)
    assert (status.began, status.ended) == (5.0, 9.0)


def test_the_word_of_an_output_that_crosses_the_order_to_drop_it_counts_no_more(
    table: Table,
) -> None:
    held = Held("r", (RESULT,), (), structs.replace(END, ended=9.0))
    table.join(structs.replace(join("d"), held=(held,)))
    said = table.hear("a", TaskDone("late", RESULT, 0.1))
    assert said["a"] == [Drop("r")]
    for _ in range(2):
        (shown,) = table.hear("v", ASK)["v"]
        assert isinstance(shown, Finished)
        assert shown.holdings == ((RESULT, peer("d")),), "nobody is sent to who has dropped it"


def test_one_that_has_ended_elsewhere_is_not_revived(table: Table) -> None:
    table.hear("a", SUBMIT)
    cancelled = structs.replace(FAILED_END, failure=Failure("cancelled", "elsewhere"))
    said = table.join(structs.replace(join("d"), held=(Held("r", (), (), cancelled),)))
    assert [m.failure.message for m in said["a"] if isinstance(m, Failed)] == ["elsewhere"]


def test_an_end_that_comes_when_its_owner_has_stepped_back_is_told(table: Table) -> None:
    """A keeper had no room for a failure; when it has, it is not made an owner again."""
    table.hear("a", SUBMIT)
    table.hear("v", ASK, Cancel("e", "r", all=True))
    (failed,) = [m for m in table.said["a"] if isinstance(m, Failed)]
    table.hear("a", Cancel("k", "r"))
    table.wait(KEEP_AGAIN_SECONDS)
    assert table.hear("a", SUBMIT)["a"] == [Failed("k", "r", failed.failure)]
    end = structs.replace(FAILED_END, failure=failed.failure)
    table.hear("a", Announce((Held("r", (), (), end),)), Acknowledge("k", "r"))
    assert [m for m in table.wait(1.0)["v"] if isinstance(m, Failed)]
    table.wait(100.0)
    assert table.hear("v", ASK)["v"] == [Failed("w", "r", failed.failure)]


def test_one_that_was_cancelled_before_its_keeper_came_is_known_to_be(table: Table) -> None:
    table.hear("c", Cancel("e", "r", all=True))
    (failed,) = table.hear("a", SUBMIT)["a"]
    assert isinstance(failed, Failed)
    end = structs.replace(FAILED_END, failure=failed.failure)
    assert table.hear("a", Announce((Held("r", (), (), end),)), Acknowledge("k", "r"))["a"] == [
        Ended("k", "r")
    ]
    assert table.hear("v", ASK)["v"] == [Failed("w", "r", failed.failure)]


def test_a_new_server_begins_nothing_before_others_could_come() -> None:
    table = serve(expected=3)
    table.join(join("a"))
    assert table.hear("a", SUBMIT) == {}
    assert [type(m) for m in table.wait(5.0)["a"]][:2] == [Progress, Accepted]
    again = serve(expected=3)
    again.join(join("a"))
    again.hear("a", structs.replace(SUBMIT, accepted=True))
    assert again.orders(), "whose owner has a ledger goes on at once"


def holdings_of(told: Finished) -> tuple[Holding, ...]:
    return tuple(held for held, _ in told.holdings)


def test_when_its_keepers_are_away_that_is_said_and_it_is_there_when_they_return(
    table: Table,
) -> None:
    told = run(table)
    store(table, "a", told)
    store(table, "b", told)
    table.lose("a")
    table.lose("b")
    (away,) = table.hear("v", AskResult("w", "r"))["v"]
    assert isinstance(away, Rejected)
    assert "not here now" in away.message
    table.hear("v", ASK)
    end = structs.replace(END, holdings=holdings_of(told))
    said = table.join(structs.replace(join("a"), held=(Held("r", end.holdings, (), end),)))
    assert any(isinstance(m, Finished) for m in said["v"])
