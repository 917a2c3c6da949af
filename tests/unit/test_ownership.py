"""An owner's transactions: heard of once (P3), said until confirmed (P2), with a ledger (P4)."""

import pytest
from msgspec import structs

from grid.effects import AdoptRecord, Deliver, FetchResult, Reject, RejectName
from grid.messages import (
    Accepted,
    Acknowledge,
    Adopt,
    Cancel,
    Ended,
    Failed,
    Failure,
    Finished,
    LedgerEntry,
    LostOutputs,
    Progress,
    Rejected,
    Submit,
)
from grid.owned import Ledger
from grid.ownership import Ownership
from tests.unit.cores import holding, meta, peer

META = meta("r", 8)
PAIRS = ((holding(0, 8, "a", kind="reduce"), peer("a")),)
FINISHED = Finished("t", "r", META, PAIRS)
WITHDRAWN = Failure("cancelled", "by its owner")


def news(*entries: LedgerEntry, freed: tuple[LedgerEntry, ...] = ()) -> Progress:
    return Progress("r", entries, freed, 0, 8, 0, 8, False, 0)


def given(start: int, stop: int, who: str) -> LedgerEntry:
    return LedgerEntry("map", start, stop, who, False)


def held(start: int, stop: int, who: str) -> LedgerEntry:
    return LedgerEntry("map", start, stop, who, True)


@pytest.fixture
def owner() -> Ownership:
    owner = Ownership()
    assert owner.submit("t", META, "", {}, False, None) == [Submit("t", META)]
    return owner


def test_a_result_is_fetched_once_and_delivered_once(owner: Ownership) -> None:
    assert owner.finished(FINISHED) == ([FetchResult("t", "r", PAIRS)], [])
    assert owner.finished(FINISHED) == ([], [])
    parting = Acknowledge("t", "r")
    assert owner.fetched("t", PAIRS) == ([Deliver("t", META, PAIRS, ())], [parting])
    assert owner.fetched("t", PAIRS) == ([], [])
    assert owner.finished(FINISHED) == ([], [])
    assert len(owner) == 0


def test_a_result_that_came_along_is_delivered_at_once(owner: Ownership) -> None:
    deliver = Deliver("t", META, PAIRS, (), b"result")
    riding = structs.replace(FINISHED, result=b"result")
    assert owner.finished(riding) == ([deliver], [Acknowledge("t", "r")])
    assert owner.finished(riding) == ([], [])
    assert owner.resubmissions() == [Acknowledge("t", "r")]


def test_an_acknowledgement_is_repeated_until_confirmed(owner: Ownership) -> None:
    owner.finished(FINISHED)
    owner.fetched("t", PAIRS)
    assert owner.resubmissions() == [Acknowledge("t", "r")]
    owner.ended(Ended("t", "r"))
    assert owner.resubmissions() == []


def test_a_fetch_outlives_the_reign_that_began_it(owner: Ownership) -> None:
    owner.finished(FINISHED)
    assert [type(said) for said in owner.resubmissions()] == [Submit]
    assert owner.finished(FINISHED) == ([], []), "the new server says it again: it is being fetched"
    assert owner.fetched("t", PAIRS)[0] != []


def test_what_cannot_be_fetched_is_run_again_and_fetched_again(owner: Ownership) -> None:
    owner.finished(FINISHED)
    gone = ((PAIRS[0][0].output, "a"),)
    assert owner.missing("t", gone, "", 1.0) == ([], [LostOutputs("r", gone)])
    assert owner.finished(FINISHED) == ([FetchResult("t", "r", PAIRS)], [])
    assert owner.missing("unknown", gone, "", 1.0) == ([], [])


def test_a_result_found_finished_and_then_lost_is_run_for_us() -> None:
    """We never had the record that made it, so what is run is ours."""
    owner = Ownership()
    [ours] = owner.submit("t", META, "n", {}, False, None)
    found = Finished("t", "first", meta("first", 8), PAIRS)
    assert owner.finished(found) == ([FetchResult("t", "first", PAIRS)], [])
    assert owner.resubmissions() == [], "a new server is not asked to run what is being fetched"
    gone = ((PAIRS[0][0].output, "a"),)
    assert owner.missing("t", gone, "", 1.0) == ([], [LostOutputs("first", gone), ours])
    assert owner.finished(FINISHED) == ([FetchResult("t", "r", PAIRS)], [])
    assert owner.fetched("t", PAIRS) == (
        [Deliver("t", META, PAIRS, ())],
        [Acknowledge("t", "r")],
    )


def test_a_cancel_is_heard_at_once_and_repeated_until_confirmed(owner: Ownership) -> None:
    parting = Cancel("t", "r", True)
    assert owner.cancel("t", True, WITHDRAWN) == ([Reject("t", WITHDRAWN)], [parting])
    assert owner.cancel("t", True, WITHDRAWN) == ([], [])
    assert owner.resubmissions() == [parting]
    owner.ended(Ended("t", "r"))
    assert owner.resubmissions() == []


def test_nothing_is_heard_after_a_cancel(owner: Ownership) -> None:
    owner.finished(FINISHED)
    owner.cancel("t", False, WITHDRAWN)
    assert owner.finished(FINISHED) == ([], [])
    assert owner.fetched("t", PAIRS) == ([], [])
    assert owner.failed(Failed("t", "r", Failure("raised", "late"))) == ([], [])


def test_a_failure_is_heard_once_and_acknowledged(owner: Ownership) -> None:
    failure = Failure("raised", "division by zero")
    message = Failed("t", "r", failure)
    assert owner.failed(message) == ([Reject("t", failure)], [Acknowledge("t", "r")])
    assert owner.failed(message) == ([], [])


def test_a_confirmation_of_what_is_open_ends_nothing(owner: Ownership) -> None:
    owner.ended(Ended("t", "r"))
    assert len(owner) == 1


def test_a_deadline_ends_a_transaction_once() -> None:
    owner = Ownership()
    owner.submit("t", META, "", {}, False, 5.0)
    assert owner.deadline() == 5.0
    assert owner.due(4.9) == ([], [])
    effects, messages = owner.due(5.0)
    assert [type(effect) for effect in effects] == [Reject]
    assert messages == [Cancel("t", "r", False)]
    assert owner.due(6.0) == ([], [])
    assert owner.deadline() is None


# -- names ---------------------------------------------------------------------------------


def named() -> Ownership:
    owner = Ownership()
    owner.submit("t", META, "job", {"code": "1"}, True, None)
    return owner


def test_a_latecomer_owns_the_first_owners_record() -> None:
    owner = named()
    other = meta("first", 3)
    adopt = Adopt("t", other, (peer("a"),))
    assert owner.adopt(adopt, 1.0) == [AdoptRecord("t", other, (peer("a"),))]
    (submission,) = owner.adopted("t", other)
    assert isinstance(submission, Submit)
    assert (submission.meta, submission.ledger, submission.accepted) == (other, (), False)


def test_what_is_told_once_more_for_a_new_owner_was_not_run_again() -> None:
    ledger = Ledger(META)
    ledger.note(news(held(0, 1, "a"), given(0, 1, "b")))
    assert ledger.again == 1
    ledger.note(news(given(0, 1, "b")))
    assert ledger.again == 1
    ledger.note(news(held(0, 1, "b")))
    ledger.note(news(given(0, 1, "b")))
    assert ledger.again == 2, "it was lost, and given to the same peer"


def test_an_owner_that_cannot_be_reached_is_asked_for_again_soon() -> None:
    owner = named()
    owner.not_adopted("t", 1.0)
    again = owner.deadline()
    assert again is not None
    assert 1.0 < again < 2.0
    assert owner.due(again - 0.01) == ([], [])
    effects, (submission,) = owner.due(again)
    assert effects == []
    assert isinstance(submission, Submit)


def test_fresh_is_said_until_accepted_and_never_again() -> None:
    owner = named()
    (submission,) = owner.resubmissions()
    assert isinstance(submission, Submit)
    assert submission.fresh
    owner.accepted(Accepted("t", "r"))
    (submission,) = owner.resubmissions()
    assert isinstance(submission, Submit)
    assert (submission.fresh, submission.accepted) == (False, True)


def test_a_name_conflict_is_heard_once() -> None:
    owner = named()
    message = Rejected("t", "the name belongs to another job", ("code",))
    assert owner.rejected(message, 1.0) == [RejectName("t", message.message, ("code",))]
    assert owner.rejected(message, 1.0) == []


def test_a_found_result_that_fails_when_run_again_is_acknowledged_under_both_records() -> None:
    """We are an owner of what was found, and may have become one of our own by now."""
    owner = named()
    found = structs.replace(FINISHED, record="found", meta=meta("found", 8))
    owner.finished(found)
    failure = Failure("raised", "division by zero")
    rejected, said = owner.failed(Failed("t", "found", failure))
    assert rejected == [Reject("t", failure)]
    assert said == [Acknowledge("t", "found"), Acknowledge("t", "r")]


# -- the ledger ----------------------------------------------------------------------------


def test_a_resubmission_says_who_was_given_and_who_holds_what(owner: Ownership) -> None:
    owner.progress(news(given(0, 4, "a"), given(4, 8, "b")), 1)
    owner.progress(news(held(0, 4, "a")), 1)
    (submission,) = owner.resubmissions()
    assert isinstance(submission, Submit)
    assert submission.ledger == (held(0, 4, "a"), given(4, 8, "b"))


def test_what_is_freed_is_nobodys(owner: Ownership) -> None:
    owner.progress(news(given(0, 4, "a")), 1)
    owner.progress(news(given(0, 4, "b"), freed=(given(0, 4, "a"),)), 1)
    (submission,) = owner.resubmissions()
    assert isinstance(submission, Submit)
    assert submission.ledger == (given(0, 4, "b"),)


def test_a_finished_range_given_again_is_counted() -> None:
    ledger = Ledger(META)
    ledger.note(news(given(0, 4, "a"), given(4, 8, "b")))
    ledger.note(news(held(0, 4, "a"), given(4, 8, "c")))
    assert ledger.again == 0, "two attempts on an unfinished range repeat nothing"
    ledger.note(news(given(0, 2, "b")))
    assert ledger.again == 1
    ledger.note(news(given(0, 8, "b")))
    assert ledger.again == 2


def test_news_of_another_record_is_not_ours(owner: Ownership) -> None:
    other = Progress("other", (given(0, 8, "a"),), (), 0, 8, 0, 8, False, 0)
    assert owner.progress(other, 1) == []
