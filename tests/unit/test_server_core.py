"""A server's decisions, one message at a time: exactly what is said to whom, in which order."""

from collections import Counter
from collections.abc import Iterator

import pytest
from msgspec import structs

from grid.effects import CloseLink, FreePort, TellClient
from grid.events import LinkOpened, Received, ReignBegan, ReignEnded
from grid.messages import (
    Accepted,
    Acknowledge,
    Address,
    Adopt,
    Announce,
    AskClaims,
    AskResult,
    AskStatus,
    Assign,
    Cancel,
    CancelTask,
    Claims,
    Drop,
    Ended,
    Failed,
    Failure,
    Finished,
    Held,
    Join,
    Joined,
    Keeping,
    Leave,
    Leaving,
    LedgerEntry,
    LostOutputs,
    Message,
    NewReign,
    PeerGone,
    Progress,
    Redirect,
    Reign,
    Rejected,
    Retain,
    Running,
    Status,
    Submit,
    TaskDone,
    TaskFailed,
    TaskReturned,
    TransactionEnded,
)
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.unit.cores import everywhere, hello, holding, join, meta, peer, successors
from tests.unit.table import REIGN, Table, done, finish, serve


@pytest.fixture
def table() -> Iterator[Table]:
    table = serve()
    yield table
    table.check()


# -- members -------------------------------------------------------------------------------


def test_a_member_is_told_whose_reign_it_is(table: Table) -> None:
    said = table.join(join("a"))
    assert said == {"a": [Joined(REIGN, peer("s"), successors("a"), 1)]}


def test_a_member_that_knows_a_higher_term_is_reported_to_the_client(table: Table) -> None:
    table.join(join("a", seen=Reign(9, "x")))
    assert TellClient(Reign(9, "x")) in table.effects


def test_a_new_reign_of_the_same_server_is_told_to_all(table: Table) -> None:
    table.join(join("a"))
    assert table.step(ReignBegan(Reign(10, "y"), peer("s"), 0)) == {"a": [NewReign(Reign(10, "y"))]}


def test_the_neighbours_of_one_that_is_gone_are_told(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.join(join("c", host="far"))
    assert table.lose("b") == {"a": [PeerGone("b")]}


def test_a_few_of_many_neighbours_are_told_and_rather_those_that_stay(table: Table) -> None:
    for name in "abcdefgh":
        table.join(join(name))
    table.hear("a", Leaving())
    heard = table.lose("h")
    told = [name for name, said in heard.items() if PeerGone("h", 6) in said]
    assert told == ["b", "c", "d", "e"]


def test_visitors_adopt_only_where_too_few_peers_are(table: Table) -> None:
    for name in "uvw":
        table.join(structs.replace(join(name), serves=False))
    for name in "abcd":
        table.join(join(name))
    heard = table.lose("d")
    assert [name for name, said in heard.items() if PeerGone("d", 5) in said] == [
        "a",
        "b",
        "c",
        "u",
    ]


def test_the_silent_are_parted_from_and_the_others_are_not(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    silent = table.links.pop("b")
    heard = table.wait(5.0)
    assert heard["a"] == [PeerGone("b")]
    assert [m.ref.name for m in table.core.state.roster] == ["a"]
    assert table.core.state.roster.at(silent) is None


def test_an_abdicating_server_sends_members_on_and_frees_the_port(table: Table) -> None:
    table.join(join("s"), local=True)
    table.join(join("a"))
    address = Address("h", 11236)
    assert table.step(ReignEnded(address)) == {"a": [Redirect(address)]}
    assert table.effects == [FreePort()]


def test_one_that_says_what_only_servers_say_is_cut_off_alone(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Joined(REIGN, peer("a"), (), 1))
    assert [e.link for e in table.effects if isinstance(e, CloseLink)] == [table.links["a"]]
    assert [m.ref.name for m in table.core.state.roster] == ["b"]


# -- work ----------------------------------------------------------------------------------


def test_news_goes_out_before_the_orders_it_tells_of(table: Table) -> None:
    table.join(join("a"))
    said = table.hear("a", Submit("t", meta(items=1)))["a"]
    kinds = [type(message) for message in said]
    assert kinds == [Progress, Accepted, Assign]
    assert said[0].entries == (LedgerEntry("map", 0, 1, "a", False),)  # type: ignore[union-attr]


def test_a_job_runs_through_its_phases_and_its_owner_is_told(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Submit("t", meta(items=4, finish=True)))
    ran = finish(table)
    assert Counter(order.kind for order in ran) == {"map": 4, "reduce": 1, "finish": 1}
    (finished,) = [m for m in table.said["a"] if isinstance(m, Finished)]
    assert [h.output.kind for h, _ in finished.holdings] == ["finish"]
    said = table.hear("a", Acknowledge("t", "r"))
    assert Ended("t", "r") in said["a"]
    assert Drop("r") in said["b"]
    assert not list(table.core.state.registry)


def test_a_reduce_names_inputs_that_tile_the_whole(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Submit("t", meta(items=4)))
    reduce = next(order for order in finish(table) if order.kind == "reduce")
    outputs = sorted(o.start for source in reduce.sources for o in source.outputs)
    assert outputs == [0, 1, 2, 3]


def test_what_a_gone_member_ran_is_given_to_another(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b", host="far"))
    table.hear("a", Submit("t", meta(items=2)))
    mine = next(order for name, order in table.orders() if name == "b")
    (first,) = [order for name, order in table.orders() if name == "a"]
    table.lose("b")
    table.hear("a", done(first.attempt, holding(first.start, first.stop, "a")))
    assert [(o.start, o.stop) for _, o in table.orders()] == [(mine.start, mine.stop)]


def test_an_output_of_an_attempt_nobody_here_gave_counts(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1)))
    ((_, order),) = table.orders()
    said = table.hear("a", done("of-an-old-server", holding(0, 1, "a")))
    assert CancelTask(order.attempt) in said["a"]
    assert [o.kind for _, o in table.orders()] == ["reduce"]


def test_a_user_exception_ends_the_transaction_for_its_owner(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=2)))
    (_, order), *_ = table.orders()
    failure = Failure("raised", "division by zero", item=order.start)
    said = table.hear("a", TaskFailed(order.attempt, failure))
    assert [m.failure.message for m in said["a"] if isinstance(m, Failed)] == ["division by zero"]


@pytest.mark.parametrize("finishes", [False, True])
def test_a_small_result_goes_to_its_owner_with_the_word_that_it_is_there(
    table: Table, finishes: bool
) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1, finish=finishes)))
    ((_, order),) = table.orders()
    whole = holding(0, meta().partitions, "a", kind="reduce", counter=7)
    said = table.hear("a", TaskDone(order.attempt, whole, 0.01, result=b"result"))["a"]
    results = [message.result for message in said if isinstance(message, Finished)]
    assert results == ([] if finishes else [b"result"])
    if finishes:
        finish(table)
        (finished,) = [m for m in table.said["a"] if isinstance(m, Finished)]
        assert finished.result == b"", "it was not all: there was a finish"


def test_what_is_lost_after_its_owner_had_it_ends_also_if_it_fails_then(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1)))
    ((_, order),) = table.orders()
    whole = holding(0, meta().partitions, "a", kind="reduce", counter=7)
    table.hear("a", TaskDone(order.attempt, whole, 0.01))
    table.hear("a", LostOutputs("r", ((whole.output, "a"),)), Acknowledge("t", "r"))
    ((_, again),) = table.orders()
    table.hear("a", TaskFailed(again.attempt, Failure("raised", "division by zero")))
    assert not list(table.core.state.registry)


def test_a_failed_name_ends_with_the_last_owner_that_has_not_heard_of_it(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", named("of a", "r"))
    ((worker, order),) = table.orders()
    table.hear("b", named("of b", "r"))
    table.hear(worker, TaskFailed(order.attempt, Failure("raised", "division by zero")))
    table.hear("a", Acknowledge("of a", "r"))
    assert list(table.core.state.registry), "b has not acknowledged"
    table.lose("b")
    assert not list(table.core.state.registry)


def test_the_result_of_a_name_is_fetched_so_that_its_owner_has_a_copy(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", named("t", "r"))
    ((name, order),) = table.orders()
    whole = holding(0, meta().partitions, name, kind="reduce", counter=7)
    table.hear(name, TaskDone(order.attempt, whole, 0.01, result=b"result"))
    (finished,) = [m for m in table.said["a"] if isinstance(m, Finished)]
    assert finished.result == b""


def test_what_cannot_be_fetched_runs_again_and_is_announced_again(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1)))
    finish(table)
    (finished,) = [m for m in table.said["a"] if isinstance(m, Finished)]
    table.hear("a", LostOutputs("r", ((finished.holdings[0][0].output, "a"),)))
    assert [order.kind for _, order in table.orders()] == ["reduce"]
    finish(table)
    assert any(isinstance(m, Finished) for m in table.said["a"])


def test_what_is_lost_after_its_owner_had_it_is_run_for_nobody(table: Table) -> None:
    """Its owner has let go of the code: tasks would be handed back, and given again, for ever."""
    table.join(join("a"))
    table.join(join("b", host="far"))
    table.hear("a", Submit("t", meta(items=1)))
    ((name, order),) = table.orders()
    whole = holding(0, meta().partitions, name, kind="reduce", counter=7)
    table.hear(name, TaskDone(order.attempt, whole, 0.01))
    table.hear("a", LostOutputs("r", ((whole.output, name),)))
    ((again_at, again),) = table.orders()
    said = table.hear("a", Acknowledge("t", "r"))
    assert CancelTask(again.attempt) in said[again_at]
    assert not list(table.core.state.registry)


def test_outputs_of_an_ended_record_are_dropped_and_of_an_unknown_one_kept(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1)))
    finish(table)
    table.hear("a", Acknowledge("t", "r"))
    held = (
        Held("r", (holding(0, 1, "b"),)),
        Held("unknown", (holding(0, 1, "b", record="unknown"),)),
    )
    table.links["b"] = 9
    said = table.step(
        LinkOpened(9, hello("b"), False),
        Received(9, Join(peer("b"), 1, True, REIGN, held, ())),
    )
    assert [m for m in said["b"] if isinstance(m, Drop)] == [Drop("r")]


# -- failover ------------------------------------------------------------------------------


def resubmission(*ledger: LedgerEntry, items: int = 2) -> Submit:
    return Submit("t", meta(items=items), accepted=True, ledger=ledger)


def test_a_range_that_is_held_waits_for_its_holder_and_is_not_run_again() -> None:
    table = serve(expected=2)
    table.join(join("a"))
    table.hear(
        "a",
        resubmission(LedgerEntry("map", 0, 1, "b", True), LedgerEntry("map", 1, 2, "b", False)),
    )
    assert table.orders() == []
    held = (Held("r", (holding(0, 1, "b"),)),)
    running = (Running("old", "r", "map", 1, 2),)
    table.join(Join(peer("b"), 1, True, REIGN, held, running))
    assert table.orders() == []
    table.hear("b", done("old", holding(1, 2, "b", counter=2)))
    assert [order.kind for _, order in table.orders()] == ["reduce"]
    table.check()


@pytest.mark.parametrize("parting", [Cancel("t", "r"), Acknowledge("t", "r")])
def test_what_its_first_owner_has_done_with_is_kept_until_all_have_reported(
    parting: Cancel | Acknowledge,
) -> None:
    """It may have another owner, who is still on the way from the server before."""
    table = serve(expected=2)
    held = (Held("r", (holding(0, 2, "a"),)),)
    table.join(structs.replace(join("a"), held=held))
    table.hear("a", resubmission())
    finish(table)
    said = table.hear("a", parting)
    assert Ended("t", "r") in said["a"]
    assert not any(isinstance(message, Drop) for message in said["a"])
    table.join(join("b"))
    said = table.hear("b", Submit("u", meta(items=2), accepted=True))
    assert [message.txn for message in said["b"] if isinstance(message, Finished)] == ["u"]
    table.hear("b", Acknowledge("u", "r"))
    assert Drop("r") in table.wait(Settings().silence_seconds + 1)["a"]


def test_a_record_whose_owner_withdrew_ends_when_no_other_has_come() -> None:
    table = serve(expected=2)
    table.join(join("a"))
    table.hear("a", resubmission())
    table.hear("a", Cancel("t", "r"))
    assert table.core.state.registry.get("r") is not None
    table.wait(Settings().silence_seconds + 1)
    assert table.core.state.registry.get("r") is None


def test_what_nobody_was_given_starts_at_once() -> None:
    table = serve(expected=2)
    table.join(join("a"))
    table.hear("a", resubmission(LedgerEntry("map", 0, 1, "b", True)))
    assert [(o.start, o.stop) for _, o in table.orders()] == [(1, 2)]
    table.check()


def test_a_holder_that_never_comes_is_waited_for_no_longer_than_the_silence_limit() -> None:
    table = serve(expected=2)
    table.join(join("a"))
    table.hear("a", resubmission(LedgerEntry("map", 0, 1, "b", True), items=1))
    assert table.wait(3.4).get("a", []) == []
    assert any(isinstance(m, Assign) for m in table.wait(1.1)["a"])


def test_running_attempts_known_before_their_owner_comes_are_taken_up() -> None:
    table = serve(expected=2)
    table.join(Join(peer("b"), 1, True, REIGN, (), (Running("old", "r", "map", 0, 1),)))
    table.join(join("a"))
    table.hear("a", resubmission(items=1))
    assert table.orders() == []
    table.check()


def test_attempts_that_no_owner_claims_are_stopped_after_the_orphan_time() -> None:
    table = serve(expected=1)
    table.join(Join(peer("b"), 1, True, REIGN, (), (Running("old", "r", "map", 0, 1),)))
    seconds = Settings().orphan_run_seconds
    assert table.wait(seconds - 1).get("b", []) == []
    assert table.wait(2.0)["b"] == [CancelTask("old")]


def test_a_newcomer_does_not_stand_for_a_member_of_the_server_before() -> None:
    """Seed 208: an "everywhere" began without a member that was still on its way."""
    table = serve(expected=2)
    returning = Join(peer("a"), 1, True, REIGN, (), (), returning=True)
    table.join(returning)
    table.join(join("new"))
    table.hear("a", Submit("t", everywhere()))
    assert table.said == {}
    assert table.wait(1.0) == {}
    table.join(Join(peer("b"), 1, True, REIGN, (), (), returning=True))
    assert sorted(name for name, _ in table.orders()) == ["a", "b", "new"]
    table.check()


def test_a_server_that_took_itself_for_the_first_waits_when_someone_returns() -> None:
    """Seed 1315: a peer that had never joined grabbed the port of a grid it did not know of."""
    table = serve(expected=0)
    table.join(Join(peer("a"), 1, True, REIGN, (), (), returning=True))
    table.hear("a", Submit("t", everywhere()))
    assert table.said == {}
    heard = table.wait(4.1)
    assert [m.kind for m in heard["a"] if isinstance(m, Assign)] == ["call"]
    table.check()


def test_an_acknowledgement_of_what_is_unknown_waits_until_all_have_reported() -> None:
    table = serve(expected=2)
    table.join(Join(peer("a"), 1, True, REIGN, (Held("r", (holding(0, 1, "a"),)),), ()))
    table.hear("a", Acknowledge("t", "r"))
    assert table.said == {}
    assert table.wait(4.1)["a"] == [Drop("r"), Ended("t", "r")]


# -- what is lost and found ----------------------------------------------------------------


def test_what_was_needless_counts_after_a_loss(table: Table) -> None:
    """Seed 2184: a range had two outputs; the one that counted was lost, and it was run again."""
    table.join(join("a"))
    table.join(join("b", host="far"))
    table.hear("a", Submit("t", meta(items=1)))
    ((name, order),) = table.orders()
    assert name == "a"
    table.hear("b", done("old", holding(0, 1, "b")))
    table.hear("a", done(order.attempt, holding(0, 1, "a")))
    table.lose("b")
    assert [o for _, o in table.orders() if o.kind == "map"] == []
    txn = table.core.state.registry.get("r")
    assert txn is not None
    assert txn.plans["map"].done


def two_given(table: Table) -> Assign:
    """A job of two items, one under way at ``a``, the other at ``b``; return that of a, who has
    room for more."""
    table.join(join("a", slots=4))
    table.join(join("b"))
    table.hear("a", Submit("t", meta(items=2)))
    (_, mine), (_, other) = table.orders()
    assert (mine.start, other.start) == (0, 1)
    return mine


def test_the_estate_of_one_that_is_gone_is_waited_for_while_a_neighbour_may_adopt_it(
    table: Table,
) -> None:
    mine = two_given(table)
    table.hear("b", done("old", holding(1, 2, "b")))
    table.lose("b")
    assert table.orders() == []
    table.hear("a", Announce((Held("r", (holding(1, 2, "b"),)),), adopted="b"))
    table.hear("a", done(mine.attempt, holding(0, 1, "a")))
    assert [o.kind for _, o in table.orders()] == ["reduce"]


def test_an_estate_without_it_frees_what_waited_for_it(table: Table) -> None:
    two_given(table)
    table.hear("b", done("old", holding(1, 2, "b")))
    table.lose("b")
    table.hear("a", Announce((), adopted="b"))
    assert [(o.kind, o.start) for _, o in table.orders()] == [("map", 1)]


def test_what_a_gone_member_had_adopted_is_waited_for_with_its_producers_estate(
    table: Table,
) -> None:
    """Seed 919: it was given again between the two announcements of its keeper's estates."""
    mine = two_given(table)
    estate = (Held("r", (holding(1, 2, "dead"),)),)
    table.hear("b", Announce(estate, adopted="dead"))
    table.lose("b")
    table.hear("a", Announce((), adopted="b"))
    assert table.orders() == []
    table.hear("a", Announce(estate, adopted="dead"))
    table.hear("a", done(mine.attempt, holding(0, 1, "a")))
    assert [o.kind for _, o in table.orders()] == ["reduce"]


def test_a_member_is_believed_about_what_it_no_longer_holds(table: Table) -> None:
    held = (
        Held("x", (holding(0, 1, "a", record="x"),)),
        Held("y", (holding(0, 1, "a", record="y"),)),
    )
    table.join(Join(peer("a"), 1, True, REIGN, held, ()))
    assert table.hear("a", AskClaims(("y",))) == {"a": [Claims(())]}
    (member,) = table.core.state.roster
    assert list(member.held) == ["y"]


# -- owners and names ----------------------------------------------------------------------


def named(txn: str, record: str, code: str = "1") -> Submit:
    return Submit(txn, meta(record, 1), "job", {"code": code})


def test_a_second_owner_of_a_name_is_sent_to_the_first(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", named("t", "r"))
    assert table.hear("b", named("u", "other")) == {"b": [Adopt("u", meta("r", 1), (peer("a"),))]}


def test_another_job_of_the_same_name_is_refused_with_what_differs(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", named("t", "r"))
    ((message,),) = table.hear("a", named("u", "other", code="2")).values()
    assert isinstance(message, Rejected)
    assert message.conflict == ("code",)
    assert "'job'" in message.message


def test_a_finished_name_is_kept_by_two_for_latecomers(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", named("t", "r"))
    finish(table)
    said = table.hear("a", Acknowledge("t", "r"))
    assert [n for n, messages in said.items() if any(isinstance(m, Retain) for m in messages)] == [
        "a",
        "b",
    ]
    late = table.hear("b", named("u", "other"))["b"]
    assert [type(message) for message in late] == [Progress, Finished, Accepted]
    table.wait(Settings().retain_seconds + 1)
    assert not list(table.core.state.registry)


def test_a_retained_result_that_is_gone_is_made_again_from_the_beginning(table: Table) -> None:
    """What it was made from was dropped when it was retained, by one who has gone, too."""
    table.join(join("a", host="home", slots=0))
    table.join(join("b", host="far"))
    table.hear("a", named("t", "r"))
    finish(table)
    table.hear("a", Acknowledge("t", "r"))
    table.lose("b")
    del table.links["b"]
    table.wait(5.0)
    table.join(join("c", host="near"))
    table.hear("a", named("u", "r"))
    assert [order.kind for order in finish(table)] == ["map", "reduce"]
    assert any(isinstance(m, Finished) for m in table.said["a"])


def test_who_found_a_result_that_is_gone_with_its_first_owner_runs_its_own(table: Table) -> None:
    table.join(join("a", host="home", slots=0))
    table.join(join("b", host="far"))
    table.join(join("c", host="near", slots=0))
    table.hear("a", named("t", "r"))
    finish(table)
    (found,) = [m for m in table.hear("c", named("u", "s"))["c"] if isinstance(m, Finished)]
    lost = LostOutputs("r", tuple((held.output, "b") for held, _ in found.holdings))
    table.hear("a", lost)
    table.lose("a")
    said = table.hear("c", lost, named("u", "s"))
    assert Accepted("u", "s") in said["c"]
    assert not any(isinstance(m, Adopt) for m in said["c"]), "nobody else has the first record"
    assert [txn.meta.record for txn in table.core.state.registry] == ["s"]


@pytest.mark.parametrize("goes", [False, True])
def test_a_found_result_that_is_lost_before_it_is_told_is_submitted_anew(goes: bool) -> None:
    """Without a quorum nobody is told; who found it can neither fetch it nor run it."""
    table = Table(ServerCore(Settings(quorum=2)))
    table.step(ReignBegan(REIGN, peer("s"), 0))
    table.join(join("a", host="home", slots=0))
    table.join(join("b", host="far"))
    visitor = join("v", host="near", slots=0)
    table.join(structs.replace(visitor, serves=False))
    table.hear("a", named("t", "r"))
    finish(table)
    table.hear("a", Acknowledge("t", "r"))
    table.lose("a")
    assert Accepted("u", "r") in table.hear("v", named("u", "s"))["v"]
    (held, _), *_ = table.core.state.registry.get("r").results()  # type: ignore[union-attr]
    told: list[Message] = []
    if goes:
        table.lose("b")
        table.join(join("c", host="c"))
    else:
        told += table.hear("b", LostOutputs("r", ((held.output, "b"),))).get("v", [])
    table.join(join("d", host="d"))
    told += [*table.said.get("v", []), *table.wait(5.0).get("v", [])]
    assert Adopt("u", meta("r", 1), ()) in told
    assert Accepted("u", "s") in table.hear("v", named("u", "s"))["v"]


def test_one_of_two_copies_that_cannot_be_fetched_leaves_the_other(table: Table) -> None:
    """Found by the simulator (seed 401912): an asker that could not reach one of two who retained
    a result had it forgotten for everyone."""
    for name in ("a", "b", "c"):
        table.join(join(name))
    table.hear("a", named("t", "r"))
    finish(table)
    (finished,) = [m for m in table.said["a"] if isinstance(m, Finished)]
    ((held, producer),) = finished.holdings
    table.hear("a", Acknowledge("t", "r"))
    other = next(name for name in ("a", "b") if name != producer.peer)
    table.hear(other, Announce((Held("r", (held,)),)))
    table.hear("c", LostOutputs("r", ((held.output, producer.peer),)))
    (shown,) = table.hear("c", AskResult("w", "job"))["c"]
    assert isinstance(shown, Finished)
    assert [holder.peer for _, holder in shown.holdings] == [other]
    table.hear("c", LostOutputs("r", ((held.output, other),)))
    (none,) = table.hear("c", AskResult("w", "job"))["c"]
    assert isinstance(none, Rejected)


def test_one_owner_of_two_withdraws_and_the_job_goes_on(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", named("t", "r"), Submit("u", meta("r", 1), "job", {"code": "1"}))
    assert table.hear("a", Cancel("t", "r"))["a"] == [Ended("t", "r")]
    assert table.core.state.registry.get("r") is not None
    said = table.hear("a", Cancel("u", "r"))["a"]
    assert Ended("u", "r") in said
    assert any(isinstance(message, CancelTask) for message in said)
    assert table.core.state.registry.get("r") is None


def test_nothing_is_given_while_there_is_no_owner_to_have_it_from(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Submit("t", meta(items=4)))
    given = dict(table.orders())
    table.lose("a")
    table.hear("b", done(given["b"].attempt, holding(given["b"].start, given["b"].stop, "b")))
    assert table.orders() == []
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=4), accepted=True))
    assert {name for name, _ in table.orders()} == {"a", "b"}


def test_a_call_that_cannot_be_prepared_is_given_again_after_a_pause(table: Table) -> None:
    table.join(join("a"))
    table.hear("a", Submit("t", everywhere()))
    ((_, order),) = table.orders()
    table.hear("a", TaskReturned(order.attempt, "inputs", "no owner answers"))
    assert table.orders() == []
    assert any(isinstance(m, Assign) for m in table.wait(1.0)["a"])


def test_a_call_that_one_member_cannot_run_is_over_with_those_of_the_others(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Submit("t", everywhere()))
    given = dict(table.orders())
    table.hear("a", done(given["a"].attempt, holding(0, 1, "a", kind="call")))
    said = table.hear("b", TaskReturned(given["b"].attempt, "module", "no numpy"))
    assert any(isinstance(m, Finished) for m in said["a"])


def test_a_call_whose_value_is_gone_is_made_again(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Submit("t", everywhere()))
    given = dict(table.orders())
    gone = holding(0, 1, "b", kind="call")
    table.hear("a", done(given["a"].attempt, holding(0, 1, "a", kind="call")))
    table.hear("b", done(given["b"].attempt, gone))
    said = table.hear("a", LostOutputs("r", ((gone.output, "b"),)))
    assert not any(isinstance(m, Finished) for m in said["a"]), "it would be fetched in vain again"
    ((name, order),) = table.orders()
    assert name == "b"
    made = holding(0, 1, "b", kind="call", counter=2)
    said = table.hear("b", done(order.attempt, made))
    (finished,) = [m for m in said["a"] if isinstance(m, Finished)]
    assert [held for held, _ in finished.holdings][1:] == [made]


def test_a_call_on_every_member_that_is_to_be_kept_on_disk_is_nothing_we_know(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    kept = structs.replace(everywhere(), keeping=Keeping(9.0))
    table.hear("b", Submit("t", kept))
    assert [type(effect) for effect in table.effects].count(CloseLink) == 1
    assert not list(table.core.state.registry)


def test_full_disks_everywhere_end_a_transaction_in_time(table: Table) -> None:
    """For a while there may be room again; and where one peer has some, nothing ends."""
    table.join(join("b", slots=0))  # who never works has no say
    table.join(join("a"))
    table.hear("a", Submit("t", meta(items=1)))

    def full_for(seconds: float) -> list[Failed]:
        failed: list[Failed] = []
        end = table.now + seconds
        while table.now < end and not failed:
            for _, order in table.orders():
                said = table.hear("a", TaskReturned(order.attempt, "space", "no room in /spool"))
                failed += [m for m in said.get("a", []) if isinstance(m, Failed)]
            orders = [m for m in table.wait(1.0).get("a", []) if isinstance(m, Assign)]
            table.said = {"a": list(orders)}
        return failed

    assert full_for(50) == []
    (failed,) = full_for(30)
    assert (failed.failure.kind, failed.failure.message) == ("space", "no room in /spool")


def test_a_cancel_for_all_is_kept_for_a_record_not_met_yet(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Cancel("t", "r", all=True))
    said = table.hear("b", Submit("u", meta("r", 1)))["b"]
    assert [m.failure.kind for m in said if isinstance(m, Failed)] == ["cancelled"]
    assert not table.orders()
    ((status,),) = table.hear("a", AskStatus(watching=True)).values()
    assert isinstance(status, Status)
    (ended,) = [h for h in status.happened if isinstance(h, TransactionEnded)]
    assert ended.failure is not None
    assert (ended.record, ended.owners, ended.failure.kind) == ("r", ("b",), "cancelled")
    table.hear("b", Acknowledge("u", "r"))
    assert not list(table.core.state.registry)


def test_what_was_dropped_with_its_record_is_given_anew_when_that_comes(table: Table) -> None:
    """Its last owner here withdrew before another owner, who is late, came."""
    running = Running("1.of-an-old-server.8", "r", "map", 0, 1)
    table.join(structs.replace(join("a"), running=(running,)))
    table.join(join("b"))
    table.hear("b", Cancel("t", "r"))
    assert table.said["a"] == [Drop("r")], "which ends its attempt without a word"
    table.hear("b", Submit("u", meta("r", 1), accepted=True))
    assert [(order.start, order.stop) for _, order in table.orders()] == [(0, 1)]


def test_a_new_owner_hears_also_what_those_who_are_awaited_may_have() -> None:
    """Its ledger may be the only one that the next server sees."""
    table = serve(expected=2)
    table.join(join("a", slots=0))
    table.join(join("b", slots=0))
    held, given = LedgerEntry("map", 0, 1, "z", True), LedgerEntry("map", 1, 2, "y", False)
    owned = Submit("t", meta("r", 2), "job", {"code": "1"}, accepted=True, ledger=(held, given))
    table.hear("a", owned)
    said = table.hear("b", Submit("u", meta("r", 2), "job", {"code": "1"}))["b"]
    (news,) = [message for message in said if isinstance(message, Progress)]
    assert set(news.entries) == {held, given}
    table.join(join("z"))
    said = table.hear("b", Submit("v", meta("r", 2), "job", {"code": "1"}))["b"]
    assert held not in next(m for m in said if isinstance(m, Progress)).entries, "it has reported"


def test_what_a_peer_leaves_waits_for_a_neighbour_whose_connection_broke(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b", host="far"))
    table.join(join("c", host="far", slots=0))
    table.hear("a", Submit("t", meta(items=2)))
    order = next(order for name, order in table.orders() if name == "b")
    table.hear("b", done(order.attempt, holding(order.start, order.stop, "b")))
    table.lose("c")
    table.hear("b", Leave())
    given = [(o.kind, o.start, o.stop) for _, o in table.orders()]
    assert ("map", order.start, order.stop) not in given, "c may be back, and adopt it"
    again = [o for m in table.wait(2.0).values() for o in m if isinstance(o, Assign)]
    assert [(o.start, o.stop) for o in again] == [(order.start, order.stop)]


def test_a_leaving_members_work_goes_to_others_at_once(table: Table) -> None:
    table.join(join("a"))
    table.join(join("b"))
    table.hear("a", Submit("t", meta(items=2)))
    given = dict(table.orders())
    table.hear("b", Leave())
    table.hear("a", done(given["a"].attempt, holding(given["a"].start, given["a"].stop, "a")))
    assert [(o.start, o.stop) for _, o in table.orders()] == [(given["b"].start, given["b"].stop)]
