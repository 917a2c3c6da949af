"""What anybody may want of others' transactions: a finished result by its name, and an end."""

from collections.abc import Iterator

import pytest

from grid.effects import ClientEffect, Deliver, FetchResult, Reject, RejectName
from grid.messages import (
    Acknowledge,
    Announce,
    AskResult,
    Cancel,
    Ended,
    Failed,
    Failure,
    Finished,
    Held,
    Join,
    LostOutputs,
    Rejected,
    Retain,
    Submit,
)
from grid.ownership import FETCHES_MAX, Ownership
from tests.unit.cores import holding, join, meta, peer
from tests.unit.table import Table, finish, serve

META = meta("r", 8)
PAIRS = ((holding(0, 8, "a", kind="reduce"), peer("a")),)
GONE = ((PAIRS[0][0].output, "a"),)
FINISHED = Finished("w", "r", META, PAIRS)
WITHDRAWN = Failure("cancelled", "by its owner")
ASKED = AskResult("w", "job")


# -- who asks ------------------------------------------------------------------------------


@pytest.fixture
def asker() -> Ownership:
    asker = Ownership()
    assert asker.ask("w", "job") == [ASKED]
    return asker


def test_a_result_is_asked_for_by_its_name_and_delivered_without_a_word(asker: Ownership) -> None:
    assert asker.finished(FINISHED) == ([FetchResult("w", "r", PAIRS)], [])
    assert asker.finished(FINISHED) == ([], [])
    assert asker.fetched("w", PAIRS) == ([Deliver("w", META, PAIRS, ())], [])
    assert asker.resubmissions() == []


def test_the_next_server_is_asked_again_until_there_is_an_answer(asker: Ownership) -> None:
    assert asker.resubmissions() == [ASKED]
    asker.finished(FINISHED)
    assert asker.resubmissions() == [], "it is being fetched, whoever serves"


def test_what_is_gone_is_told_and_asked_for_again(asker: Ownership) -> None:
    asker.finished(FINISHED)
    assert asker.missing("w", GONE, "gone", 1.0) == ([], [LostOutputs("r", GONE)])
    assert not asker.awaits_run("w")
    again_at = asker.deadline()
    assert again_at is not None
    assert asker.due(again_at) == ([], [ASKED])
    assert asker.rejected(Rejected("w", "none"), 2.0) == [RejectName("w", "none", ())]
    assert asker.resubmissions() == []


def test_what_can_never_be_fetched_is_told_in_the_end(asker: Ownership) -> None:
    told: list[ClientEffect] = []
    for attempt in range(FETCHES_MAX):
        assert not told, attempt
        asker.finished(FINISHED)
        told, said = asker.missing("w", GONE, "no route", 1.0)
        assert said == [LostOutputs("r", GONE)]
    (reject,) = told
    assert isinstance(reject, RejectName)
    assert "no route" in reject.message
    assert asker.resubmissions() == []


def test_who_asks_and_gives_up_owes_nothing(asker: Ownership) -> None:
    assert asker.cancel("w", True, WITHDRAWN) == ([Reject("w", WITHDRAWN)], [])
    assert asker.finished(FINISHED) == ([], [])
    assert asker.resubmissions() == []


def test_an_end_is_said_until_it_is_confirmed() -> None:
    anyone = Ownership()
    assert anyone.end("w", "r") == [Cancel("w", "r", all=True)]
    assert anyone.resubmissions() == [Cancel("w", "r", all=True)]
    assert anyone.cancel("w", False, WITHDRAWN) == ([], []), "closing takes nothing back"
    anyone.ended(Ended("w", "r"))
    assert anyone.resubmissions() == []


# -- who is asked --------------------------------------------------------------------------


@pytest.fixture
def table() -> Iterator[Table]:
    table = serve()
    table.join(join("a"))
    table.join(visitor("v"))
    yield table
    table.check()


def visitor(name: str) -> Join:
    sent = join(name, slots=0)
    return Join(sent.me, 0, False, sent.seen, (), ())


def finished_job(table: Table) -> Finished:
    """Run a named job of "a" to its end; return what "a" was told."""
    table.hear("a", Submit("t", META, "job"))
    finish(table)
    (told,) = [m for m in table.said["a"] if isinstance(m, Finished)]
    return told


def test_a_retained_result_is_given_to_whoever_asks(table: Table) -> None:
    first = finished_job(table)
    table.hear("a", Acknowledge("t", "r"))
    assert table.hear("v", ASKED) == {"v": [Finished("w", "r", META, first.holdings)]}
    txn = table.core.state.registry.named("job")
    assert txn is not None
    assert not txn.owners


def test_asking_keeps_nothing_from_being_retained(table: Table) -> None:
    """A result that its owner is still fetching is given too, and nobody waits for who asked."""
    finished_job(table)
    assert [type(m) for m in table.hear("v", ASKED)["v"]] == [Finished]
    table.hear("a", Acknowledge("t", "r"))
    txn = table.core.state.registry.named("job")
    assert txn is not None
    assert txn.retained_until is not None


def test_what_is_not_finished_is_said(table: Table) -> None:
    (none,) = table.hear("v", ASKED)["v"]
    assert isinstance(none, Rejected)
    assert "no finished result named 'job'" in none.message
    table.hear("a", Submit("t", META, "job"))
    (running,) = table.hear("v", ASKED)["v"]
    assert isinstance(running, Rejected)
    assert "not finished yet" in running.message
    table.hear("v", Cancel("e", "r", all=True))
    (failed,) = table.hear("v", ASKED)["v"]
    assert isinstance(failed, Rejected)
    assert "has failed" in failed.message


def test_a_new_server_answers_when_everyone_had_the_time_to_come() -> None:
    table = serve(expected=2)
    table.join(visitor("v"))
    assert table.hear("v", ASKED) == {}, "who remembers it may still be coming"
    (none,) = table.wait(5.0)["v"]
    assert isinstance(none, Rejected)


def test_anyone_ends_a_job_and_its_owner_is_told(table: Table) -> None:
    table.hear("a", Submit("t", META, "job"))
    said = table.hear("v", Cancel("e", "r", all=True))
    assert said["v"] == [Ended("e", "r")]
    (failed,) = [m for m in said["a"] if isinstance(m, Failed)]
    assert failed.failure.kind == "cancelled"


def test_who_waits_hears_that_the_last_owner_has_withdrawn(table: Table) -> None:
    table.hear("a", Submit("t", META, "job"))
    table.hear("v", AskResult("w", "job", wait=True))
    said = table.hear("a", Cancel("t", "r"))
    assert [type(m) for m in said["v"]] == [Rejected]


def test_a_result_is_kept_by_two_that_stay(table: Table) -> None:
    """A visitor that has fetched it is gone in a moment."""
    table.join(join("b", slots=0))
    first = finished_job(table)
    fetched = tuple(held for held, _ in first.holdings)
    table.hear("v", Announce((Held("r", fetched),)))
    said = table.hear("a", Acknowledge("t", "r"))
    keepers = [name for name, told in said.items() if any(isinstance(m, Retain) for m in told)]
    assert sorted(keepers) == ["a", "b", "v"]
