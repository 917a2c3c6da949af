"""What a watch remembers from answer to answer, and what the terminal makes of it."""

import pytest
from msgspec import structs
from rich.console import Console

from grid.messages import (
    Bookmark,
    Failover,
    Failure,
    Happening,
    MemberStatus,
    Reign,
    Status,
    TaskRan,
    TransactionEnded,
    TransactionStatus,
    Vitals,
)
from peers.cli.keyboard import decode
from peers.cli.top_view import View, bar, frame
from peers.snapshot import NOTHING, FailoverSeen, Snapshot
from peers.watching import AWAITED_SECONDS, ENDED_SHOWN, GONE_PEERS_MAX, TASKS_SHOWN, Memory
from tests.unit.cores import peer

NOON = 1_000_000.0
VITALS = Vitals(2, 1.5, 3_000_000, 4000, 5000)
FAILURE = Failure("raised", "ValueError: no", "mapfn", "7", "a", "Traceback\n  the last line")


def member(name: str, slots: int = 2, vitals: Vitals | None = None) -> MemberStatus:
    return MemberStatus(name, name, "h", slots, 0, name == "a", not slots, 10, vitals=vitals)


def txn(record: str = "r", done: int = 0, **more: object) -> TransactionStatus:
    status = TransactionStatus(record, "job", "running", ("o",), done, 100, 0, 8, phase="map")
    return structs.replace(status, **more)


def status(*transactions: TransactionStatus, clock: float = 50.0, **more: object) -> Status:
    answer = Status(Reign(1, "x"), peer("a"), (member("a"), member("me", 0)), transactions)
    return structs.replace(answer, clock=clock, **more)


def ran(number: int, began: float, ended: float, name: str = "a", record: str = "r") -> TaskRan:
    return TaskRan(
        number, f"attempt{number}", record, "map", number, number + 1, name, began, ended
    )


def end(number: int, record: str = "r", failure: Failure | None = None) -> TransactionEnded:
    return TransactionEnded(number, record, "job", ("o",), 100, 8, 5, 40.0, 50.0, failure)


class Book:
    """A memory that is told of answers a second apart."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.now = NOON

    def take(self, answer: Status, *happened: Happening) -> Snapshot:
        self.now += 1.0
        answer = structs.replace(answer, happened=happened, latest=Bookmark("x", 1))
        return self.memory.take(answer, self.now, "me", "h:1", ())


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_call_on_every_peer_is_seen_while_it_runs_and_after_only_if_it_failed(book: Book) -> None:
    """As that of `grid doctor`: it has no items, and leaves nothing to look at."""
    nameless = {"name": "", "items": 0}
    call = txn(name="", maps_total=0)
    assert [seen.state for seen in book.take(status(call)).transactions] == ["running"]
    assert book.take(status(), structs.replace(end(1), **nameless)).transactions == ()
    failed = structs.replace(end(2, "f", FAILURE), **nameless)
    assert [seen.state for seen in book.take(status(), failed).transactions] == ["failed"]


def test_who_asks_is_not_shown_and_times_are_of_this_host(book: Book) -> None:
    seen = book.take(status(txn(known_at=45.0)))
    assert [peer.name for peer in seen.peers] == ["a"]
    assert (seen.server, seen.address, seen.term, seen.slots) == ("a", "h:1", 1, 2)
    assert seen.transactions[0].began == book.now - 5.0
    assert book.memory.bookmark == Bookmark("x", 1)


def test_a_transaction_keeps_its_age_and_tasks_when_another_server_takes_it_up(book: Book) -> None:
    book.take(status(txn(known_at=45.0, ran=10)), ran(1, 46.0, 47.0))
    seen = book.take(status(txn(known_at=3.0, ran=2), clock=4.0), ran(1, 46.0, 47.0))
    [shown] = seen.transactions
    assert shown.began == pytest.approx(NOON + 1.0 - 5.0)
    assert shown.tasks_done == 12
    assert len(shown.tasks) == 1
    book.take(status(txn(known_at=3.0, state="retained", ran=0), clock=4.0))
    [shown] = book.take(status(), end(9)).transactions
    assert shown.tasks_done == 12 + 5


def test_rate_and_time_left_follow_what_is_done(book: Book) -> None:
    assert book.take(status(txn(done=10))).transactions[0].rate is None
    assert book.take(status(txn(done=20))).transactions[0].rate == 10.0
    [shown] = book.take(status(txn(done=30))).transactions
    assert (shown.rate, shown.eta_seconds) == (10.0, 7.0)
    [shown] = book.take(status(txn(done=30))).transactions
    assert shown.rate is not None
    assert 0 < shown.rate < 10.0
    [shown] = book.take(status(txn(done=100, phase="reduce"))).transactions
    assert (shown.rate, shown.eta_seconds) == (None, None), "another phase has its own pace"


def test_tasks_that_ran_at_once_had_different_slots(book: Book) -> None:
    tasks = (ran(1, 1.0, 2.0), ran(2, 1.0, 3.0), ran(3, 2.001, 4.0), ran(4, 3.0, 5.0))
    seen = book.take(status(txn()), *tasks)
    assert [task.slot for task in seen.transactions[0].tasks] == [0, 1, 0, 1]
    assert seen.transactions[0].tasks[0].ended == book.now - 48.0
    seen = book.take(status(txn()), ran(5, 1.0, 9.0))
    assert seen.transactions[0].tasks[-1].slot < 2, "a peer has no more slots than it says"


def test_what_has_ended_stays_with_how_it_ended(book: Book) -> None:
    book.take(status(txn("fine", done=90), txn("bad", done=10), txn("lost", done=20)))
    seen = book.take(status(), end(1, "fine"), end(2, "bad", FAILURE))
    shown = {each.record: each for each in seen.transactions}
    assert (shown["fine"].state, shown["fine"].items_done) == ("finished", 100)
    assert (shown["bad"].state, shown["bad"].items_done) == ("failed", 10)
    assert shown["bad"].failure is not None
    assert shown["bad"].failure.traceback == FAILURE.traceback
    assert shown["lost"].state == "awaited"
    assert seen.transactions[0] is shown["lost"], "it may come back, and is among those that run"
    book.now += AWAITED_SECONDS
    assert {each.record: each.state for each in book.take(status()).transactions}["lost"] == "gone"
    again = book.take(status(txn("fine", done=90)))
    assert (again.transactions[0].record, again.transactions[0].state) == ("fine", "running")


def test_a_withdrawn_one_was_cancelled(book: Book) -> None:
    seen = book.take(status(), end(1, failure=Failure("cancelled", "by its owner")))
    assert seen.transactions[0].state == "cancelled"


def test_what_is_remembered_is_bounded(book: Book) -> None:
    many = [ran(n, n, n + 1.0) for n in range(TASKS_SHOWN + 10)]
    seen = book.take(status(txn()), *many)
    assert [task.start for task in seen.transactions[0].tasks[:1]] == [10]
    seen = book.take(status(), *(end(n, f"r{n}") for n in range(ENDED_SHOWN + 10)))
    assert len(seen.transactions) == ENDED_SHOWN
    for n in range(3):
        come = range(n * GONE_PEERS_MAX, (n + 1) * GONE_PEERS_MAX)
        book.take(status(members=tuple(member(f"p{number}") for number in come)))
    assert len(book.memory._names) == 2 * GONE_PEERS_MAX


def test_failovers_add_up_and_only_those_seen_have_a_time(book: Book) -> None:
    first = Failover("closed", 2, 0.01)
    book.take(status(failovers=(first,)))
    second = Failover("closed", 3, 0.02)
    book.take(status(failovers=(second,)))
    seen = book.take(status(failovers=(Failover("closed", 3, 0.02, 0.3),)))
    assert [(f.term, f.task_seconds, f.at) for f in seen.failovers] == [
        (2, None, None),
        (3, 0.3, NOON + 2.0),
    ]


def test_how_a_peer_does_is_known_until_the_next_server_has_heard(book: Book) -> None:
    book.take(status(members=(member("a", vitals=VITALS),)))
    [shown] = book.take(status(members=(member("a"),))).peers
    assert (shown.busy, shown.load, shown.memory) == (2, 1.5, 3_000_000)
    book.take(status(members=()))
    assert book.take(status(members=(member("a"),))).peers[0].busy is None


# -- on the terminal -----------------------------------------------------------------------


def drawn(snapshot: Snapshot, view: View, height: int = 40, width: int = 140) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(frame(snapshot, view, snapshot.at, width, height, keys=True))
    return captured.get()


@pytest.fixture
def seen(book: Book) -> Snapshot:
    members = (member("a", vitals=VITALS), member("b", vitals=structs.replace(VITALS, load=9.0)))
    book.take(status(txn("one"), members=members))
    return book.take(
        status(txn("one", done=50, name="1st"), txn("two", name="[bold]"), members=members),
        end(1, "bad", FAILURE),
    )


def test_a_frame_shows_peers_transactions_and_keys(seen: Snapshot) -> None:
    shown = drawn(seen, View())
    assert "a serves at h:1, term 1: 2 peers, 4 of 4 slots busy" in shown
    assert "3.0 MB" in shown
    assert "######...... 50/100" in shown
    assert "[bold]" in shown, "names are no markup"
    assert "q quit" in shown


def test_a_lost_server_is_said(seen: Snapshot) -> None:
    assert drawn(NOTHING, View()).startswith("no server has answered yet\n")
    lost = structs.replace(seen, sought_seconds=2.5)
    assert drawn(lost, View()).startswith("no server: looking for one for 2.50 s; before: a serves")


def test_rows_that_do_not_fit_are_counted_and_the_selected_one_is_shown(seen: Snapshot) -> None:
    many = tuple(
        structs.replace(seen.transactions[0], record=f"r{n}", name=f"job{n}") for n in range(50)
    )
    peers = tuple(structs.replace(seen.peers[0], name=f"p{n}") for n in range(30))
    shown = drawn(structs.replace(seen, transactions=many, peers=peers), View(selected="r40"), 30)
    assert "> " in shown
    assert "job40" in shown
    assert "50 in all" in shown
    assert "more" in shown
    assert len(shown.splitlines()) <= 30


def test_a_small_window_shows_the_most_important(seen: Snapshot) -> None:
    visitor = structs.replace(seen.peers[0], name="asks", role="visitor", slots=0)
    peers = (*(structs.replace(seen.peers[0], name=f"p{n}") for n in range(9)), visitor)
    failovers = (FailoverSeen("silent", 2, 4.0, 4.5, None),)
    shown = drawn(structs.replace(seen, peers=peers, failovers=failovers), View(), 18, 72)
    assert len(shown.splitlines()) <= 18
    assert "1 visitor" in shown
    assert "asks" not in shown
    for wanted in ("next server, term 2, after 4.00 s", "p0", "memory", "1st", "50/100", "q quit"):
        assert wanted in shown


def test_keys_select_show_details_and_cancel_after_asking(seen: Snapshot) -> None:
    view = View()
    assert view.press("c", seen) == ""
    assert "select a transaction first" in drawn(seen, view)
    for _ in range(9):
        view.press("down", seen)
    assert view.press("c", seen) == ""
    assert "bad" not in view.asking, "what has ended is not cancelled"
    view.press("enter", seen)
    assert "the last line" in drawn(seen, view)
    view.press("up", seen)
    view.press("k", seen)
    view.press("c", seen)
    assert "cancel 1st for everyone? y/n" in drawn(seen, view)
    assert view.press("x", seen) == ""
    view.press("c", seen)
    assert view.press("y", seen) == "cancel one"
    assert view.press("q", seen) == "quit"


def test_keys_sort(seen: Snapshot) -> None:
    view = View()
    assert [peer.name for peer in view.peers(seen)] == ["a", "b"]
    for _ in range(3):
        view.press("s", seen)
    assert view.said == "peers by load"
    assert [peer.name for peer in view.peers(seen)] == ["b", "a"]
    view.press("t", seen)
    assert [each.name for each in view.transactions(seen)] == ["1st", "[bold]", "job"]


def test_a_bar_is_full_only_at_the_end() -> None:
    assert bar(0, 0) == bar(0, 5) == "............"
    assert bar(999, 1000).count("#") == 11
    assert bar(3, 3) == "############"


def test_keys_have_names() -> None:
    assert decode("q\x1b[A\x1bOBj\r\x1b[5~\x1b[1;5Cé\x1b") == [
        *("q", "up", "down", "j", "enter", "é", "escape")
    ]
