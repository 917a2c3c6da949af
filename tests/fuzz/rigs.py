"""One core with honest company, for inputs that come from somebody broken or hostile.

``Served`` is a server with members that own a job, ``Followed`` a client with a server. Both check
that whatever the core sends decodes as what it is.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.election import Phase
from grid.framing import HEADER_BYTES, decode, encode
from grid.messages import (
    PROTOCOL,
    Address,
    Assign,
    Beat,
    Failed,
    Finished,
    Hello,
    Holding,
    Join,
    Joined,
    Message,
    Output,
    PeerRef,
    RecordMeta,
    Reign,
    Submit,
    TaskDone,
    Welcome,
)
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.unit.cores import successors

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


HINTS: dict[str, Sequence[Any]] = {
    "record": (RECORD, RECORD, "other"),
    "txn": ("t1", "t1", "t2"),
    "attempt": (*(f"1.abcdef12.{n}" for n in range(1, 9)), "old.1", "old.2"),
    "peer": PEERS,
    "producer": PEERS,
    "name": ("", "count"),
    "start": (0, 1, 2, 4),
    "stop": (1, 2, 4, 6),
    "items": (0, 1, 6),
    "partitions": (1, 4),
    "term": (0, 1, 2, 3),
    "adopted": ("dead", ""),
    "slots": (0, 1, 2),
    "me": (ref("evil"),),
}
"""Values that a core has met, for fields of these names."""


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
