"""What a server remembers for those who watch, and what they hear of it."""

import pytest

from grid import chronicle
from grid.chronicle import Chronicle
from grid.effects import MeasureSelf, Send, ShowPrints, ShowStatus
from grid.events import (
    InputsReady,
    LinkLost,
    PrintsRequested,
    Received,
    SelfMeasured,
    Started,
    StatusRequested,
)
from grid.messages import (
    NO_BOOKMARK,
    AskPrints,
    AskStatus,
    Beat,
    Bookmark,
    Cancel,
    Failure,
    Printed,
    Prints,
    Status,
    Submit,
    TaskFailed,
    TaskRan,
    TransactionEnded,
    Vitals,
)
from tests.unit.cores import join, meta, peer
from tests.unit.table import REIGN, Table, finish, serve
from tests.unit.test_client_core import SERVER, Desk, assign

VITALS = Vitals(1, 0.5, 1000, 20, 30)


@pytest.fixture
def table() -> Table:
    """A server with one owner, which works too, and one who watches."""
    table = serve()
    table.join(join("a", slots=2), local=True)
    table.join(join("watcher", slots=0))
    return table


def ask(table: Table, after: Bookmark = NO_BOOKMARK) -> Status:
    [status] = table.hear("watcher", AskStatus(True, after))["watcher"]
    assert isinstance(status, Status)
    return status


def prints(table: Table, record: str = "r", after: Bookmark = NO_BOOKMARK) -> Prints:
    [answer] = table.hear("watcher", AskPrints(record, after))["watcher"]
    assert isinstance(answer, Prints)
    return answer


def test_tasks_and_ends_are_told_once_to_who_goes_on_asking(table: Table) -> None:
    table.now = 10.0
    table.hear("a", Submit("t", meta(items=4), "job"))
    ran = finish(table)
    first = ask(table)
    tasks = [entry for entry in first.happened if isinstance(entry, TaskRan)]
    assert [(task.attempt, task.peer) for task in tasks] == [(order.attempt, "a") for order in ran]
    assert tasks[0].ended - tasks[0].began == pytest.approx(0.01)
    [end] = [entry for entry in first.happened if isinstance(entry, TransactionEnded)]
    assert (end.record, end.name, end.owners, end.failure) == ("r", "job", ("a",), None)
    assert ask(table, first.latest).happened == ()
    assert ask(table, Bookmark("another", 10**6)).happened == first.happened


def test_a_question_without_watching_is_answered_without_the_past(table: Table) -> None:
    table.hear("a", Submit("t", meta()))
    finish(table)
    [status] = table.hear("watcher", AskStatus())["watcher"]
    assert isinstance(status, Status)
    assert status.happened == ()


def test_a_failure_is_told_without_its_exception_and_clipped(table: Table) -> None:
    table.hear("a", Submit("t", meta(items=1)))
    [(_, order)] = table.orders()
    long = "x" * 10 * chronicle.CLIP_CHARACTERS
    failure = Failure("raised", "no", "mapfn", "7", "a", f"first{long}last", b"pickled")
    table.hear("a", TaskFailed(order.attempt, failure))
    [end] = ask(table).happened
    assert isinstance(end, TransactionEnded)
    assert end.failure is not None
    assert (end.failure.message, end.failure.exception) == ("no", b"")
    assert end.failure.traceback.startswith("first")
    assert end.failure.traceback.endswith("last")
    assert len(end.failure.traceback) < 2 * chronicle.CLIP_CHARACTERS


def test_what_its_owner_withdraws_has_ended_too(table: Table) -> None:
    table.hear("a", Submit("t", meta()))
    table.hear("a", Cancel("t", "r"))
    [end] = ask(table).happened
    assert isinstance(end, TransactionEnded)
    assert chronicle.ended_as(end) == "cancelled"


def test_how_a_transaction_goes(table: Table) -> None:
    table.now = 5.0
    table.hear("a", Submit("t", meta(items=4)))
    [txn] = ask(table).transactions
    assert (txn.phase, txn.running, txn.ran, txn.known_at) == ("map", 2, 0, 5)


def test_prints_are_kept_for_whoever_asks_also_after_the_end(table: Table) -> None:
    ordered = table.hear("a", Submit("t", meta()))
    lines = [Printed("r", "a", "stdout", f"{n}\n") for n in range(3)]
    table.hear("a", lines[0], Printed("unknown", "a", "stdout", "x\n"), lines[1])
    first = prints(table)
    assert (first.prints, first.gap, first.state) == (tuple(lines[:2]), False, "running")
    table.hear("a", lines[2])
    assert prints(table, after=first.latest).prints == (lines[2],)
    table.said = ordered
    finish(table)
    assert prints(table).state == "finished"
    assert prints(table).prints == tuple(lines)
    assert prints(table, "unknown") == Prints(AskPrints("unknown"), (), Bookmark(REIGN.id, 0))


def test_prints_are_bounded_and_the_gap_is_told() -> None:
    book = Chronicle()
    for record in ("old", "r"):
        for n in range(chronicle.PRINTS_OF_ONE_MAX + 10):
            book.note_prints(Printed(record, "a", "stdout", f"{n}\n"))
    kept: list[Printed] = []
    told, latest, gap = book.prints("r", NO_BOOKMARK)
    assert gap
    while told:
        assert len(told) <= chronicle.PRINTS_ANSWER_MAX
        kept += told
        told, latest, gap = book.prints("r", latest)
        assert not gap
    assert [printed.text for printed in kept[:1]] == ["10\n"]
    assert len(kept) == chronicle.PRINTS_OF_ONE_MAX
    for n in range(chronicle.PRINTS_MAX):
        book.note_prints(Printed(f"new{n}", "a", "stdout", "x" * 10**5))
    assert book.prints("old", NO_BOOKMARK)[0] == ()
    assert len(book.prints("new7", NO_BOOKMARK)[0][0].text) < 2 * chronicle.CLIP_CHARACTERS


def test_tasks_and_ends_are_bounded(table: Table) -> None:
    for n in range(chronicle.ENDS_MAX + 5):
        table.hear("a", Submit("t", meta(f"r{n}")), Cancel("t", f"r{n}"))
    happened = ask(table).happened
    assert len(happened) == chronicle.ENDS_MAX
    assert happened[0].record == "r5"


# -- how peers do --------------------------------------------------------------------------


def test_members_say_how_they_do_only_while_somebody_watches(table: Table) -> None:
    def watched() -> list[bool]:
        table.now += 0.5
        beats = table.core.step(Received(table.links["a"], Beat()), table.now)
        said = [effect.message for effect in beats if isinstance(effect, Send)]
        return [message.watched for message in said if isinstance(message, Beat)]

    assert watched() == [False, False]
    ask(table)
    assert watched() == [True, True]
    table.hear("a", VITALS)
    assert [member.vitals for member in ask(table).members] == [VITALS, None]
    table.wait(60)
    assert watched() == [False, False]


# -- the side of who asks ------------------------------------------------------------------


@pytest.fixture
def asker() -> Desk:
    asker = Desk()
    asker.step(Started((SERVER,)))
    asker.join()
    return asker


def test_a_peer_measures_itself_when_somebody_watches_and_says_it(asker: Desk) -> None:
    assert asker.hear(Beat(2, 0, watched=False)) == []
    assert asker.hear(Beat(2, 0, watched=True)) == [MeasureSelf()]
    asker.hear(assign("1"))
    asker.step(InputsReady("1"))
    asker.step(SelfMeasured(0.5, 1000, 20, 30))
    assert asker.said == [VITALS]


def test_questions_are_asked_again_of_the_next_server_until_each_is_answered(asker: Desk) -> None:
    after = Bookmark("c", 3)
    asker.step(StatusRequested(True, after), PrintsRequested("r", after), StatusRequested())
    questions = [AskStatus(True, after), AskPrints("r", after), AskStatus()]
    assert asker.said == questions
    answer = Prints(AskPrints("r", after), (), after)
    assert asker.hear(answer) == [ShowPrints(answer)]
    status = Status(REIGN, peer("s"), (), (), answers=AskStatus())
    assert asker.hear(status) == [ShowStatus(status)]
    asker.step(LinkLost(asker.link, "reset"))
    assert asker.join(2)[1:] == [AskStatus(True, after)]
