"""Whatever a member says, well formed, in any order: no core raises, and the honest go on.

Messages are drawn from their types, with names that occur, so that they meet what the core knows.
One member is broken; after whatever it said it is cut off, and the job of the others must still
come to an end. Everything the cores send in the meantime must be a message that decodes.
"""

import os
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grid import effects as fx
from grid import events as ev
from grid.election import Phase
from grid.framing import Decoder, encode
from grid.messages import (
    TERM_MAX,
    Acknowledge,
    Address,
    Announce,
    AskClaims,
    AskResult,
    AskStatus,
    Assign,
    Beat,
    Drop,
    Finished,
    FromClient,
    FromServer,
    Held,
    Holding,
    Join,
    Keeping,
    LedgerEntry,
    LostOutputs,
    Message,
    NewReign,
    Output,
    Printed,
    Progress,
    RecordMeta,
    Redirect,
    Reign,
    Remembered,
    Running,
    Status,
    Submit,
    TaskDone,
    TaskReturned,
    Welcome,
)
from grid.server_state import ENTRIES_MAX
from tests.fuzz import rigs
from tests.fuzz.rigs import (
    META,
    RECORD,
    REIGN,
    Followed,
    Served,
    ref,
)
from tests.unit.strategies import Chooser, values_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
"""For a long run: ``FUZZ_EXAMPLES=100000 pytest tests/unit/test_fuzz.py --timeout 0``."""

CALLED_AND_KEPT = RecordMeta("", "everywhere", 0, 1, False, keeping=Keeping(0.0, 0.0, 0))

HINTS: Chooser = {name: st.sampled_from(values) for name, values in rigs.HINTS.items()}


def said(union: Any) -> st.SearchStrategy[list[Message]]:
    """What a broken member may say, one after the other."""
    typed = msgspec.inspect.type_info(union)
    assert isinstance(typed, msgspec.inspect.UnionType)
    each = [values_of(kind, HINTS) for kind in typed.types]
    return st.lists(st.one_of(*each), min_size=1, max_size=20)


# ------------------------------------------------------------------------------ the server


@settings(max_examples=EXAMPLES)
@given(said(FromClient), st.booleans())
@example([Submit("t", CALLED_AND_KEPT), AskResult("t", "")], True)  # its calls have no maps
def test_a_server_survives_whatever_a_member_says(messages: list[Message], first: bool) -> None:
    """And the others' job ends, once the broken one is gone."""
    served = Served()
    served.enter(3, "evil")
    if first:
        served.say(3, Join(ref("evil"), 2, True, REIGN, (), ()))
    for message in messages:
        served.say(3, message)
        served.say(1, AskStatus())
        assert 1 not in served.closed
        assert 2 not in served.closed
    served.step(ev.LinkLost(3, "gone"))
    assert served.live_on(), "the job of the honest does not end"
    assert {1, 2}.isdisjoint(served.closed)
    assert "evil" not in [m.ref.peer for m in served.core.state.roster]


@settings(max_examples=EXAMPLES // 3)
@given(said(FromServer))
def test_a_server_cuts_off_who_sends_what_servers_send(messages: list[Message]) -> None:
    served = Served()
    served.enter(3, "evil")
    served.say(3, Join(ref("evil"), 0, False, REIGN, (), ()))
    for message in messages:
        if not isinstance(message, Beat | Printed):
            served.say(3, message)
            assert 3 in served.closed


def out(kind: Any, start: int, stop: int, record: str = RECORD, producer: str = "evil") -> Holding:
    return Holding(Output(record, kind, start, stop, producer, 1), 1)


REMEMBERED = Remembered("count", {}, META, (), 60.0)
NOT_BELIEVED: dict[str, Message] = {
    "another's name": Join(ref("honest"), 1, True, REIGN, (), ()),
    "a term nobody reached": Join(ref("evil"), 1, True, Reign(TERM_MAX, "x"), (), ()),
    "many adopted": Join(ref("evil"), 1, True, REIGN, (), (), ("x",) * 5000),
    "another record's output": Announce((Held("other", (out("map", 0, 1),)),)),
    "remembered under another record": Announce((Held("other", (), (), REMEMBERED),)),
    "another's output": TaskDone("a", out("map", 0, 1, producer="honest"), 0.1),
    "joining twice": Join(ref("evil"), 1, True, REIGN, (), ()),
}


@pytest.mark.parametrize("name", NOT_BELIEVED)
def test_what_cannot_be_costs_that_link_alone(name: str) -> None:
    served = Served()
    served.enter(3, "evil")
    served.say(3, Join(ref("evil"), 1, True, REIGN, (), ()))
    served.say(3, NOT_BELIEVED[name])
    assert served.closed.keys() == {3}
    assert served.closed[3]
    assert isinstance(served.live_on(), Finished)


REDUCED = Holding(Output(RECORD, "reduce", 0, 1, "evil", 1), 1)
ELSEWHERE = Holding(Output("other", "map", 0, 1, "evil", 1), 1)


@pytest.mark.parametrize("sealed", [REDUCED, ELSEWHERE], ids=["another phase", "another record"])
def test_an_attempt_is_over_whatever_its_member_says_it_made(sealed: Holding) -> None:
    """Found by fuzzing: its range counted as given for ever, to one who had long left."""
    served = Served()
    served.enter(3, "evil")
    served.say(3, Join(ref("evil"), 2, True, REIGN, (), ()))
    given = [message for message in served.inbox[3] if isinstance(message, Assign)]
    assert given
    for assign in given:
        served.say(3, TaskDone(assign.attempt, sealed, 0.1))
    served.step(ev.LinkLost(3, "gone"))
    txn = served.core.state.registry.get(RECORD)
    assert txn is not None
    assert not {assign.attempt for assign in given} & txn.plans["map"].attempts().keys()
    assert isinstance(served.live_on(), Finished)


def test_what_a_member_says_it_no_longer_has_does_not_count() -> None:
    """Found by fuzzing: when it had left, what it had dropped still counted as held by it."""
    served = Served()
    served.enter(3, "evil")
    served.say(3, Join(ref("evil"), 2, True, REIGN, (), ()))
    served.say(3, TaskDone("old.1", out("map", 0, 2), 0.1))
    served.say(3, AskClaims(("other",)))
    served.step(ev.LinkLost(3, "gone"))
    assert isinstance(served.live_on(), Finished)


def test_an_output_announced_with_other_sizes_leaves_a_status_that_can_be_sent() -> None:
    """Found by fuzzing: fewer than no bytes were held, and whoever asked was told nonsense."""
    served = Served()
    small, large = out("map", 0, 1), Holding(out("map", 0, 1).output, 100)
    for holding in (small, large):
        served.say(2, Announce((Held(RECORD, (holding,)),)))
    served.say(2, LostOutputs(RECORD, ((small.output, "honest"),)))
    served.inbox[2] = []
    served.say(2, AskStatus())
    (status,) = [message for message in served.inbox[2] if isinstance(message, Status)]
    assert [member.held_bytes for member in status.members] == [0, 0]


def test_two_attempts_of_one_name_keep_nothing_taken() -> None:
    served = Served()
    served.enter(3, "evil")
    running = (
        Running("a", RECORD, "reduce", 0, 1),
        Running("a", RECORD, "reduce", 1, 2),
        Running("1.abcdef12.1", RECORD, "reduce", 2, 3),
        Running("1.abcdef12.999", RECORD, "reduce", 3, 4),
    )
    served.say(3, Join(ref("evil"), 2, True, REIGN, (), running))
    assert 3 not in served.closed
    served.step(ev.LinkLost(3, "gone"))
    assert isinstance(served.live_on(), Finished)


def test_many_losses_at_once_take_one_count() -> None:
    """A hundred thousand outputs declared lost are no quadratic work."""
    served = Served()
    outputs = tuple(out("map", n % 8, n % 8 + 1).output for n in range(100_000))
    counted: list[int] = []
    recount = served.core.dispatcher._recount
    served.core.dispatcher._recount = lambda txn: counted.append(1) or recount(txn)  # type: ignore[func-returns-value,method-assign]
    served.say(2, TaskReturned("none", "inputs", "", outputs))
    assert len(counted) <= 1
    assert isinstance(served.live_on(), Finished)


def test_long_news_is_cut_into_frames_that_give_the_same_ledger() -> None:
    served = Served()
    items = 4 * ENTRIES_MAX
    big = RecordMeta("big", "mapreduce", items=items, partitions=1, finish=False)
    ledger = tuple(LedgerEntry("map", n, n + 1, "honest", True) for n in range(items))
    served.say(2, Submit("t2", big, ledger=ledger))
    held = tuple(out("map", n, n + 1, "big", "dead") for n in range(items))
    served.inbox[2] = []
    served.say(2, Announce((Held("big", held),)))
    news = [m for m in served.inbox[2] if isinstance(m, Progress) and m.record == "big"]
    assert len(news) >= 4
    assert max(len(m.entries) + len(m.freed) for m in news) <= ENTRIES_MAX
    told = {entry.start for message in news for entry in message.entries if entry.held}
    assert told == set(range(items))


def test_a_status_of_absurd_holdings_can_still_be_sent() -> None:
    served = Served()
    for record in range(200):
        output = Output(f"r{record}", "map", 0, 1, "honest", 1)
        served.say(2, Announce((Held(f"r{record}", (Holding(output, 2**48),)),)))
    served.inbox[2] = []
    served.say(2, AskStatus())
    assert any(isinstance(message, Status) for message in served.inbox[2])


# ------------------------------------------------------------------------------ the client


@settings(max_examples=EXAMPLES)
@given(said(FromServer))
def test_a_client_survives_whatever_its_server_says(messages: list[Message]) -> None:
    """It ends its own job at most once, and joins again when the server is gone."""
    followed = Followed()
    for message in messages:
        followed.say(message)
        followed.now += 0.01
    assert followed.ends <= 1
    followed.step(ev.LinkLost(followed.links, "gone"))
    for _ in range(40):
        followed.now = max(followed.now, followed.core.next_deadline() or 0.0)
        followed.step(ev.DeadlineReached())
        if followed.core.election.phase is Phase.FOLLOWING:
            break
    assert followed.core.election.phase is Phase.FOLLOWING
    assert not followed.core.holdings.drop("never", ())


@settings(max_examples=EXAMPLES // 3)
@given(said(FromClient))
def test_a_client_leaves_a_server_that_sends_what_clients_send(messages: list[Message]) -> None:
    followed = Followed()
    for message in messages:
        before = followed.links
        followed.say(message)
        if not isinstance(message, Beat | Printed):
            assert before in followed.closed


LIES: dict[str, Message] = {
    "a term nobody reached": NewReign(Reign(TERM_MAX, "x")),
    "a range that is no task": Assign("a", RECORD, "map", 0, 2**40, ()),
    "an empty range": Assign("a", RECORD, "map", 4, 4, ()),
    "another record's result": Finished(
        "t1", RECORD, META, ((out("finish", 0, 1, "o"), ref("x")),)
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_server_is_left(name: str) -> None:
    followed = Followed()
    followed.say(LIES[name])
    assert followed.closed == [1]
    assert followed.core.election.seen.term < TERM_MAX
    assert followed.ends == 0


def test_a_server_with_a_term_nobody_reached_is_a_stranger() -> None:
    class Liar(Followed):
        lying = False

        @property
        def welcome(self) -> Welcome:
            reign = Reign(TERM_MAX, "x") if self.lying else REIGN
            return Welcome("server", "server", (3, 11), reign, 2)

    followed = Liar()
    followed.lying = True
    followed.step(ev.LinkLost(1, "gone"))
    assert followed.core.election.phase is not Phase.FOLLOWING
    assert followed.core.election.seen == REIGN


def test_the_same_order_twice_is_one_task() -> None:
    followed = Followed()
    prepared: list[str] = []
    perform = followed.done

    def counting(effect: fx.ClientEffect) -> list[Any]:
        if isinstance(effect, fx.Prepare):
            prepared.append(effect.assign.attempt)
            return []
        return perform(effect)

    followed.done = counting  # type: ignore[method-assign]
    for _ in range(3):
        followed.say(Assign("a", RECORD, "map", 0, 1, (ref("honest"),)))
    assert prepared == ["a"]


def test_news_of_ranges_that_no_server_cuts_is_passed_over() -> None:
    followed = Followed()
    entries = (
        LedgerEntry("map", 1, 3, "dead", True),
        LedgerEntry("map", 0, 7, "dead", True),
        LedgerEntry("finish", 1, 1, "dead", True),
        LedgerEntry("map", 2, 4, "dead", True),
    )
    followed.say(Progress(RECORD, entries, (), 0, 6, 0, 4, False, 0))
    resubmission = next(iter(followed.core.ownership.resubmissions()))
    assert isinstance(resubmission, Submit)
    assert resubmission.ledger == entries[3:]


# ------------------------------------------------------------------------------ on the wire


BEYOND: dict[str, Message] = {
    "count": Beat(2**60),
    "port": Redirect(Address("h", 70000)),
    "term": NewReign(Reign(2**60, "x")),
    "partitions": Submit("t", RecordMeta("r", "mapreduce", 1, 10**9, False)),
    "no partitions": Submit("t", RecordMeta("r", "mapreduce", 1, 0, False)),
    "seconds": TaskDone("a", out("map", 0, 1), float("nan")),
    "infinite": TaskDone("a", out("map", 0, 1), float("inf")),
    "name": Acknowledge("t" * 300, "r"),
    "slots": Join(ref("evil"), 10**6, True, REIGN, (), ()),
}


@pytest.mark.parametrize("name", BEYOND)
def test_values_beyond_their_range_are_not_decoded(name: str) -> None:
    decoder = Decoder()
    decoder.feed(encode(BEYOND[name]))
    with pytest.raises(Exception, match="no known message"):
        decoder.next()


def test_negative_numbers_are_not_decoded() -> None:
    running = (Running("a", RECORD, "map", -1, 1),)
    decoder = Decoder()
    decoder.feed(encode(Drop("ok")) + encode(Join(ref("evil"), 1, True, REIGN, (), running)))
    assert decoder.next() == Drop("ok")
    with pytest.raises(Exception, match="no known message"):
        decoder.next()
