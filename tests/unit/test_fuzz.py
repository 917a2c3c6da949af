"""Whatever a member says, well formed, in any order: no core raises, and the honest go on.

Messages are drawn from their types, with names that occur, so that they meet what the core knows.
One member is broken; after whatever it said it is cut off, and the job of the others must still
come to an end. Everything the cores send in the meantime must be a message that decodes.
"""

import os
import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.election import Phase
from grid.framing import HEADER_BYTES, Decoder, decode, encode
from grid.messages import (
    PROTOCOL,
    TERM_MAX,
    Acknowledge,
    Address,
    Announce,
    AskStatus,
    Assign,
    Beat,
    Drop,
    Failed,
    Finished,
    FromClient,
    FromServer,
    Held,
    Hello,
    Holding,
    Join,
    Joined,
    LedgerEntry,
    Message,
    NewReign,
    Output,
    PeerRef,
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
from grid.server_core import ServerCore
from grid.server_state import ENTRIES_MAX
from grid.settings import Settings
from tests.unit.cores import successors
from tests.unit.strategies import Chooser, values_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
"""For a long run: ``FUZZ_EXAMPLES=100000 pytest tests/unit/test_fuzz.py --timeout 0``."""

SETTINGS = Settings(slots=2)
REIGN = Reign(1, "abcdef1234567890")
WHERE = Address("127.0.0.1", 4000)
RECORD = "the-record"
META = RecordMeta(RECORD, "mapreduce", items=6, partitions=4, finish=True)
PEERS = ("server", "honest", "evil", "dead")


def ref(peer: str) -> PeerRef:
    return PeerRef(peer, peer, "host", WHERE)


def hello(peer: str) -> Hello:
    return Hello(PROTOCOL, "grid", peer, peer, (3, 11), "peer", WHERE)


HINTS: Chooser = {
    "record": st.sampled_from([RECORD, RECORD, "other"]),
    "txn": st.sampled_from(["t1", "t1", "t2"]),
    "attempt": st.sampled_from([f"1.abcdef12.{n}" for n in range(1, 9)] + ["old.1", "old.2"]),
    "peer": st.sampled_from(PEERS),
    "producer": st.sampled_from(PEERS),
    "name": st.sampled_from(["", "count"]),
    "start": st.sampled_from([0, 1, 2, 4]),
    "stop": st.sampled_from([1, 2, 4, 6]),
    "items": st.sampled_from([0, 1, 6]),
    "partitions": st.sampled_from([1, 4]),
    "term": st.integers(0, 3),
    "adopted": st.sampled_from(["dead", ""]),
    "slots": st.integers(0, 2),
    "me": st.just(ref("evil")),
}


def said(union: Any) -> st.SearchStrategy[list[Message]]:
    """What a broken member may say, one after the other."""
    typed = msgspec.inspect.type_info(union)
    assert isinstance(typed, msgspec.inspect.UnionType)
    each = [values_of(kind, HINTS) for kind in typed.types]
    return st.lists(st.one_of(*each), min_size=1, max_size=20)


def check_sent(message: Message) -> None:
    """What a core sends must arrive as what it is."""
    assert decode(encode(message)[HEADER_BYTES:]) == message


# ------------------------------------------------------------------------------ the server


@dataclass
class Served:
    """A server core, its own client, an honest member that owns a job, and room for another."""

    core: ServerCore = field(default_factory=lambda: ServerCore(SETTINGS))
    now: float = 100.0
    inbox: dict[int, list[Message]] = field(default_factory=dict)
    closed: dict[int, str] = field(default_factory=dict)
    counter: int = 0

    def __post_init__(self) -> None:
        self.step(ev.ReignBegan(REIGN, ref("server"), expected=0))
        for link, peer in ((1, "server"), (2, "honest")):
            self.enter(link, peer)
            self.say(link, Join(ref(peer), 2, True, REIGN, (), ()))
        self.say(2, Submit("t1", META, name="count", fingerprint={"mapfn": "f"}))

    def step(self, event: Any) -> None:
        for effect in self.core.step(event, self.now):
            if isinstance(effect, fx.Send):
                check_sent(effect.message)
                self.inbox.setdefault(effect.link, []).append(effect.message)
            elif isinstance(effect, fx.CloseLink):
                self.closed[effect.link] = effect.reason

    def enter(self, link: int, peer: str) -> None:
        self.step(ev.LinkOpened(link, hello(peer), local=link == 1))

    def say(self, link: int, message: Message) -> None:
        self.step(ev.Received(link, message))

    def work(self, link: int, peer: str) -> None:
        """Do every task that this honest member was given."""
        taken, self.inbox[link] = self.inbox.get(link, []), []
        for message in taken:
            if isinstance(message, Assign):
                self.counter += 1
                output = Output(
                    message.record, message.kind, message.start, message.stop, peer, self.counter
                )
                sizes = (10, 0, 5, 1) if message.kind == "map" else ()
                done = TaskDone(message.attempt, Holding(output, 16), 0.01, sizes)
                self.say(link, done)
            elif isinstance(message, Finished | Failed) and message.txn == "t1":
                self.inbox[link].append(message)

    def outcome(self) -> Message | None:
        ends = [m for m in self.inbox.get(2, []) if isinstance(m, Finished | Failed)]
        return ends[0] if ends else None

    def live_on(self) -> Message | None:
        """The honest work and beat, for longer than anything is waited for."""
        for _ in range(60):
            self.now += 0.5
            self.step(ev.DeadlineReached())
            for link, peer in ((1, "server"), (2, "honest")):
                self.say(link, Beat())
                self.work(link, peer)
            if self.outcome():
                break
        return self.outcome()


@settings(max_examples=EXAMPLES, deadline=None)
@given(said(FromClient), st.booleans())
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


@settings(max_examples=EXAMPLES // 3, deadline=None)
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


class Followed:
    """A client core that follows a server at the other end of link 1, with a job of its own."""

    def __init__(self) -> None:
        self.core = ClientCore(
            SETTINGS, ref("honest"), random.Random(1), own=("127.0.0.1",), strict=True
        )
        self.now = 100.0
        self.links = 0
        self.closed: list[int] = []
        self.ends = 0
        self.step(ev.Started((WHERE,)))
        assert self.core.election.phase is Phase.FOLLOWING
        self.say(Joined(REIGN, ref("server"), successors("honest", "dead"), 3))
        self.step(ev.SubmitRequested("t1", META, "", {}, False, None))

    def step(self, event: Any) -> None:
        """Take one step, and answer every order as a driver does when all goes well."""
        events = [event]
        while events:
            for effect in self.core.step(events.pop(0), self.now):
                events += self.done(effect)

    def done(self, effect: fx.ClientEffect) -> list[Any]:
        match effect:
            case fx.Send():
                check_sent(effect.message)
            case fx.Probe():
                return [self.probed(address) for address in effect.addresses]
            case fx.Reconnect():
                self.links += 1
                return [ev.Connected(self.links, effect.address, self.welcome)]
            case fx.CloseLink():
                self.closed.append(effect.link)
            case fx.Prepare():
                return [ev.InputsReady(effect.assign.attempt)]
            case fx.RunTask():
                holding = Holding(effect.output, 3)
                return [ev.TaskSealed(effect.assign.attempt, holding, (), 0.1)]
            case fx.FetchResult():
                return [ev.ResultFetched(effect.txn, effect.record)]
            case fx.Deliver() | fx.Reject() | fx.RejectName():
                self.ends += 1
            case fx.BindPort():
                return [ev.PortTaken(effect.port, "taken")]
            case _:
                pass
        return []

    @property
    def welcome(self) -> Welcome:
        return Welcome("server", "server", (3, 11), REIGN, 2)

    def probed(self, address: Address) -> Any:
        if address == WHERE:
            return ev.ProbeAnswered(address, self.welcome)
        return ev.ProbeFailed(address, "refused", "nobody listens")

    def say(self, message: Message) -> None:
        self.step(ev.Received(self.links, message))


@settings(max_examples=EXAMPLES, deadline=None)
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


@settings(max_examples=EXAMPLES // 3, deadline=None)
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
