"""A client's decisions, one fact at a time: what it says on joining, runs, keeps and drops."""

import random
from collections.abc import Iterator

import pytest

from grid.client_core import ADOPT_AFTER_SECONDS, ADOPT_APART_SECONDS, ClientCore
from grid.effects import (
    AdoptEstates,
    ClientEffect,
    Closed,
    CloseLink,
    Deliver,
    DropOutput,
    DropOutputs,
    FetchResult,
    ForgetTask,
    Prepare,
    Probe,
    Reconnect,
    Reject,
    RoleChanged,
    RunTask,
    Send,
)
from grid.election import JOIN_ATTEMPTS, JOIN_SECONDS
from grid.events import (
    CancelRequested,
    ClientEvent,
    CloseRequested,
    Connected,
    DeadlineReached,
    EstateAdopted,
    InputsFailed,
    InputsReady,
    LinkLost,
    ProbeAnswered,
    ProbeFailed,
    Received,
    ResultFetched,
    ResultMissing,
    Started,
    SubmitRequested,
    TaskBroke,
    TaskSealed,
)
from grid.messages import (
    Accepted,
    Acknowledge,
    Address,
    Announce,
    AskClaims,
    Assign,
    Beat,
    Cancel,
    CancelTask,
    Drop,
    Failure,
    Finished,
    Held,
    Join,
    Joined,
    Leave,
    LedgerEntry,
    LostOutputs,
    Message,
    Output,
    PeerGone,
    Progress,
    Redirect,
    Reign,
    Submit,
    TaskDone,
    TaskFailed,
    TaskReturned,
)
from grid.settings import Settings
from tests.unit.cores import PORT, holding, meta, peer, successors, welcome

SERVER = Address("h", PORT)
SETTINGS = Settings(slots=1, port_span=1, orphan_hold_seconds=50.0)


class Desk:
    """A client core, and what it did last. ``said`` is what it told its server."""

    def __init__(self) -> None:
        self.core = ClientCore(SETTINGS, peer("me"), random.Random(1), own=("h",), strict=True)
        self.now = 0.0
        self.link = 0
        self.done: list[ClientEffect] = []

    def step(self, *events: ClientEvent) -> list[ClientEffect]:
        self.done = []
        for event in events:
            self.done += self.core.step(event, self.now)
        return [e for e in self.done if not (isinstance(e, Send) and isinstance(e.message, Beat))]

    @property
    def said(self) -> list[Message]:
        sends = [effect for effect in self.done if isinstance(effect, Send)]
        assert all(send.link == self.link for send in sends)
        return [send.message for send in sends if not isinstance(send.message, Beat)]

    def hear(self, *messages: Message) -> list[ClientEffect]:
        return self.step(*(Received(self.link, message) for message in messages))

    def join(self, term: int = 1) -> list[Message]:
        """Find a server and join it; return what was said on joining."""
        reign = Reign(term, f"reign{term}")
        greeting = welcome("s", reign)
        self.step(ProbeAnswered(SERVER, greeting))
        self.link += 1
        self.step(Connected(self.link, SERVER, greeting))
        said = self.said
        self.hear(Joined(reign, peer("s"), successors("x", "me"), 3))
        return said

    def wait(self, seconds: float) -> list[ClientEffect]:
        """Let time pass, hearing the server; return what was done."""
        done: list[ClientEffect] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.25)
            done += self.step(Received(self.link, Beat()), DeadlineReached())
        return done

    def check(self) -> None:
        core = self.core
        assert core.next_deadline() is None or core.election.phase.name != "CLOSED"
        running = core.attempts.running()
        assert len({run.attempt for run in running}) == len(running)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    desk.step(Started((SERVER,)))
    desk.join()
    yield desk
    desk.check()


def assign(attempt: str, start: int = 0, stop: int = 1) -> Assign:
    return Assign(attempt, "r", "map", start, stop, (peer("o"),))


def submit(desk: Desk, items: int = 4) -> list[ClientEffect]:
    return desk.step(SubmitRequested("t", meta(items=items), "", {}, False, None))


def seal(desk: Desk, attempt: str = "1", start: int = 0) -> Output:
    """Have a task assigned, prepared, run and sealed; return its output."""
    desk.hear(assign(attempt, start, start + 1))
    effects = desk.step(InputsReady(attempt))
    (output,) = [effect.output for effect in effects if isinstance(effect, RunTask)]
    held = holding(start, start + 1, "me", counter=output.counter)
    assert held.output == output
    desk.step(TaskSealed(attempt, held, (), 0.1))
    return output


# -- joining -------------------------------------------------------------------------------


def test_the_first_join_says_there_is_nothing() -> None:
    desk = Desk()
    desk.step(Started((SERVER,)))
    assert desk.join() == [Join(peer("me"), 1, True, Reign(1, "reign1"), (), ())]


def test_a_rejoin_says_what_is_held_and_run_then_what_is_owned_with_its_ledger(desk: Desk) -> None:
    submit(desk)
    output = seal(desk)
    desk.hear(assign("2", 1, 2), Accepted("t", "r"))
    entry = LedgerEntry("map", 0, 1, "me", True)
    desk.hear(Progress("r", (entry,), (), 1, 4, 0, 8, False, 1))
    desk.step(LinkLost(desk.link, "reset"))
    join, resubmission = desk.join(term=2)
    assert isinstance(join, Join)
    assert [h.output for held in join.held for h in held.holdings] == [output]
    assert [run.attempt for run in join.running] == ["2"]
    assert join.returning
    assert resubmission == Submit("t", meta(), accepted=True, ledger=(entry,))


def test_a_rejoin_of_the_same_reign_is_no_return_from_an_earlier_one(desk: Desk) -> None:
    desk.step(LinkLost(desk.link, "reset"))
    join, *_ = desk.join(term=1)
    assert isinstance(join, Join)
    assert not join.returning


def test_what_is_sealed_without_a_server_is_said_on_joining(desk: Desk) -> None:
    desk.hear(assign("1"))
    (run,) = desk.step(InputsReady("1"))
    assert isinstance(run, RunTask)
    desk.step(LinkLost(desk.link, "reset"))
    desk.step(TaskSealed("1", holding(0, 1, "me"), (), 0.1))
    assert desk.said == []
    (join,) = desk.join(term=2)
    assert isinstance(join, Join)
    assert [len(held.holdings) for held in join.held] == [1]
    assert join.running == ()


def test_a_silent_server_is_left_and_another_sought(desk: Desk) -> None:
    effects: list[ClientEffect] = []
    while not any(isinstance(effect, Probe) for effect in effects):
        desk.now += 0.5
        assert desk.now < SETTINGS.silence_seconds + 2
        effects = desk.step(DeadlineReached())
    assert desk.now > SETTINGS.silence_seconds
    assert any(isinstance(effect, CloseLink) for effect in effects)


def test_after_a_pause_of_ones_own_the_server_is_not_blamed(desk: Desk) -> None:
    desk.now += 60.0
    assert not any(isinstance(e, CloseLink | Probe) for e in desk.step(DeadlineReached()))


def test_a_redirected_client_joins_where_it_was_sent(desk: Desk) -> None:
    there = Address("h", PORT + 1)
    close, role, dial = desk.hear(Redirect(there))
    assert (close, dial) == (CloseLink(1), Reconnect(there, JOIN_ATTEMPTS, JOIN_SECONDS))
    assert isinstance(role, RoleChanged)
    greeting = welcome("b", Reign(2, "better"))
    desk.link = 9
    desk.step(Connected(9, there, greeting))
    assert [type(message) for message in desk.said] == [Join]


def test_what_comes_late_from_links_and_probes_of_the_past_changes_nothing(desk: Desk) -> None:
    assert desk.step(LinkLost(99, "some other link")) == []
    assert desk.step(ProbeFailed(SERVER, "refused", "stale")) == []
    assert desk.step(Received(99, Leave())) == []
    assert desk.core.election.joined


# -- tasks ---------------------------------------------------------------------------------


def test_a_task_is_prepared_then_run_on_a_free_slot_then_told(desk: Desk) -> None:
    assert desk.hear(assign("1"), assign("2", 1, 2)) == [
        Prepare(assign("1")),
        Prepare(assign("2", 1, 2)),
    ]
    assert desk.step(InputsReady("2")) == [
        RunTask(assign("2", 1, 2), Output("r", "map", 1, 2, "me", 1))
    ]
    assert desk.step(InputsReady("1")) == []
    held = holding(1, 2, "me")
    desk.step(TaskSealed("2", held, (1, 2), 0.5))
    assert desk.said == [TaskDone("2", held, 0.5, (1, 2))]
    assert isinstance(desk.done[-1], RunTask)


def test_inputs_that_cannot_be_had_are_handed_back_and_the_slot_is_never_taken(desk: Desk) -> None:
    desk.hear(assign("1"))
    gone = (holding(0, 1, "x").output,)
    desk.step(InputsFailed("1", "no answer", gone))
    assert desk.said == [TaskReturned("1", "inputs", "no answer", gone)]


def test_a_datasource_that_raises_is_the_users_failure(desk: Desk) -> None:
    desk.hear(assign("1"))
    failure = Failure("raised", "KeyError", key="'x'")
    desk.step(InputsFailed("1", "raised", (), failure))
    assert desk.said == [TaskFailed("1", failure)]


def test_a_cancelled_task_frees_its_slot_only_when_its_worker_is_gone(desk: Desk) -> None:
    desk.hear(assign("1"), assign("2", 1, 2))
    desk.step(InputsReady("1"), InputsReady("2"))
    assert desk.hear(CancelTask("1")) == [ForgetTask("1")]
    (run,) = desk.step(TaskBroke("1", Failure("died", "stopped")))
    assert isinstance(run, RunTask)
    assert run.assign.attempt == "2"


def test_the_output_of_a_cancelled_task_is_dropped(desk: Desk) -> None:
    desk.hear(assign("1"))
    desk.step(InputsReady("1"))
    desk.hear(CancelTask("1"))
    held = holding(0, 1, "me")
    assert desk.step(TaskSealed("1", held, (), 0.1)) == [DropOutput(held.output)]
    assert held.output not in desk.core.holdings


def test_an_assignment_heard_twice_is_done_once(desk: Desk) -> None:
    desk.hear(assign("1"))
    assert not any(isinstance(effect, Prepare) for effect in desk.hear(assign("1")))


def test_dropping_a_record_stops_its_tasks_and_removes_its_outputs(desk: Desk) -> None:
    seal(desk, "1")
    desk.hear(assign("2", 1, 2))
    assert desk.hear(Drop("r")) == [ForgetTask("2"), DropOutputs("r", ())]
    assert desk.core.holdings.records() == ()


# -- results -------------------------------------------------------------------------------

PAIRS = ((holding(0, 8, "x", kind="reduce"), peer("x")),)


def test_a_result_is_fetched_delivered_kept_and_acknowledged(desk: Desk) -> None:
    submit(desk)
    (fetch,) = desk.hear(Finished("t", "r", meta(), PAIRS))
    assert fetch == FetchResult("t", "r", PAIRS)
    effects = desk.step(ResultFetched("t", "r"))
    assert [e for e in effects if isinstance(e, Deliver)] == [Deliver("t", meta(), PAIRS, ())]
    assert desk.said == [Announce((Held("r", (PAIRS[0][0],)),)), Acknowledge("t", "r")]
    assert PAIRS[0][0].output in desk.core.holdings


def test_what_was_fetched_for_a_cancelled_transaction_is_removed(desk: Desk) -> None:
    """Seed 1489: it stayed on disk, held by nobody."""
    submit(desk)
    desk.hear(Finished("t", "r", meta(), PAIRS))
    effects = desk.step(CancelRequested("t", False))
    assert [type(effect) for effect in effects] == [Reject, Send]
    assert desk.step(ResultFetched("t", "r")) == [DropOutput(PAIRS[0][0].output)]


def test_a_result_that_is_not_there_is_asked_for_again(desk: Desk) -> None:
    submit(desk)
    desk.hear(Finished("t", "r", meta(), PAIRS))
    gone = (PAIRS[0][0].output,)
    desk.step(ResultMissing("t", "r", gone, "gone"))
    assert desk.said == [LostOutputs("r", ((gone[0], PAIRS[0][1].peer),))]
    (fetch,) = desk.hear(Finished("t", "r", meta(), PAIRS))
    assert isinstance(fetch, FetchResult)


# -- estates, claims, leaving --------------------------------------------------------------


def test_a_neighbours_estate_is_looked_for_now_and_a_few_times_more(desk: Desk) -> None:
    desk.wait(5.0)
    desk.hear(PeerGone("x"))
    looked = [e for e in desk.done + desk.wait(5.0) if isinstance(e, AdoptEstates)]
    assert len(looked) == len(ADOPT_AFTER_SECONDS)


def test_among_hundreds_of_neighbours_looks_are_few(desk: Desk) -> None:
    done: list[ClientEffect] = []
    for number in range(100):
        done += desk.hear(PeerGone(f"x{number}", 400)) + desk.wait(0.02)
    looked = [effect for effect in done if isinstance(effect, AdoptEstates)]
    assert 4 <= len(looked) <= 2.0 / (400 * ADOPT_APART_SECONDS) + 1


def test_an_adopted_estate_is_held_and_announced(desk: Desk) -> None:
    estate = (Held("r", (holding(0, 1, "dead"),)),)
    desk.step(EstateAdopted("dead", estate))
    assert desk.said == [Announce(estate, "dead")]
    assert holding(0, 1, "dead").output in desk.core.holdings


def test_sizes_of_unlike_lengths_are_added_all_the_same(desk: Desk) -> None:
    """Those of an estate are what its folder says."""
    for number, sizes in enumerate(((1, 2), (1,))):
        estate = (Held("r", (holding(number, number + 1, "dead"),), sizes),)
        desk.step(EstateAdopted("dead", estate))
    assert [held.sizes for held in desk.core.holdings.held(desk.now)] == [(2, 2)]


def test_outputs_that_nobody_claims_for_long_are_dropped_and_the_server_hears_of_it(
    desk: Desk,
) -> None:
    seal(desk)
    effects = desk.wait(SETTINGS.orphan_hold_seconds + 1)
    asked = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, AskClaims)]
    assert len(asked) > 5
    assert asked[-1] == AskClaims(())
    assert DropOutputs("r", ()) in effects


def test_closing_withdraws_leaves_and_stops_in_this_order(desk: Desk) -> None:
    submit(desk)
    effects = desk.step(CloseRequested(2.0))
    assert desk.said == [Cancel("t", "r", False), Leave()]
    kinds = [type(effect) for effect in effects]
    assert kinds[0] is Reject
    assert kinds.index(CloseLink) < kinds.index(Closed)
    assert desk.core.next_deadline() is None
    assert desk.step(DeadlineReached()) == []


def test_a_server_that_says_what_only_clients_say_is_left(desk: Desk) -> None:
    effects = desk.hear(Leave())
    assert any(isinstance(effect, CloseLink) for effect in effects)
    assert any(isinstance(effect, Probe) for effect in effects)
    assert not any(isinstance(effect, Reconnect) for effect in effects)
