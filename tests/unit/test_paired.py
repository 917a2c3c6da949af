"""Real client cores and real server cores joined in memory: they need nothing else to agree.

No virtual time, no misfortune and no driver but this one: a list of what is still to arrive. The
simulator proves more; this shows in a hundred lines what a driver has to do.
"""

import random
from collections import deque
from collections.abc import Callable

from grid.client_core import ClientCore
from grid.effects import (
    BindPort,
    ClientEffect,
    ConnectOwnServer,
    Deliver,
    FetchResult,
    Prepare,
    Probe,
    Reconnect,
    RunTask,
    Send,
    Serve,
    ServerEffect,
)
from grid.events import (
    ClientEvent,
    Connected,
    DeadlineReached,
    InputsReady,
    LinkLost,
    LinkOpened,
    PortBound,
    ProbeAnswered,
    ProbeFailed,
    Received,
    ReignBegan,
    ResultFetched,
    ServerEvent,
    Started,
    SubmitRequested,
    TaskSealed,
)
from grid.messages import Address, Holding, Kind, Reign
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.unit.cores import hello, meta, peer, welcome

SETTINGS = Settings(port_span=1)
PORT = Address("h", SETTINGS.port)


class Pair:
    """Peers of one host. A link has the number of its client on both sides."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.clients = {name: self._client(name) for name in names}
        self.numbers = {name: number for number, name in enumerate(names, 1)}
        self.serving: str | None = None
        self.server: ServerCore | None = None
        self.reign: Reign | None = None
        self.delivered: list[str] = []
        self.ran: list[tuple[Kind, int]] = []
        self.todo: deque[Callable[[], None]] = deque()

    @staticmethod
    def _client(name: str) -> ClientCore:
        rng = random.Random(name)
        return ClientCore(SETTINGS, peer(name), rng, own=("h",), strict=True)

    def tell(self, name: str, event: ClientEvent) -> None:
        self.todo.append(lambda: self._step_client(name, event))

    def tell_server(self, event: ServerEvent) -> None:
        self.todo.append(lambda: self._step_server(event))

    def settle(self, seconds: float = 0.0) -> None:
        """Let everything arrive; then let time pass, deadline by deadline."""
        end = self.now + seconds
        while True:
            while self.todo:
                self.todo.popleft()()
            if self.now >= end:
                return
            self.now += 0.05
            for name in self.clients:
                self.tell(name, DeadlineReached())
            self.tell_server(DeadlineReached())

    def kill(self, name: str) -> None:
        del self.clients[name]
        if self.serving == name:
            self.serving = self.server = None
            for other, number in self.numbers.items():
                self.tell(other, LinkLost(number, "closed"))

    def _step_client(self, name: str, event: ClientEvent) -> None:
        if name in self.clients:
            for effect in self.clients[name].step(event, self.now):
                self._do_client(name, effect)

    def _step_server(self, event: ServerEvent) -> None:
        if self.server is not None:
            for effect in self.server.step(event, self.now):
                self._do_server(effect)

    def _connect(self, name: str) -> None:
        assert self.reign is not None
        assert self.serving is not None
        number = self.numbers[name]
        self.tell_server(LinkOpened(number, hello(name), name == self.serving))
        self.tell(name, Connected(number, PORT, welcome(self.serving, self.reign)))

    def _do_client(self, name: str, effect: ClientEffect) -> None:
        match effect:
            case Send():
                self.tell_server(Received(effect.link, effect.message))
            case Probe() if self.serving is not None and self.reign is not None:
                self.tell(name, ProbeAnswered(PORT, welcome(self.serving, self.reign)))
            case Probe():
                self.tell(name, ProbeFailed(PORT, "refused", "nobody"))
            case BindPort() if self.serving is None:
                self.serving = name
                self.tell(name, PortBound(PORT.port, PORT))
            case Serve():
                self.server, self.reign = ServerCore(SETTINGS), effect.reign
                self.tell_server(
                    ReignBegan(effect.reign, peer(name), effect.expected, effect.failovers)
                )
            case ConnectOwnServer() | Reconnect():
                self._connect(name)
            case Prepare():
                self.tell(name, InputsReady(effect.assign.attempt))
            case RunTask():
                self.ran.append((effect.output.kind, effect.output.start))
                sealed = TaskSealed(effect.assign.attempt, Holding(effect.output, 1), (), 0.01)
                self.tell(name, sealed)
            case FetchResult():
                self.tell(name, ResultFetched(effect.txn, effect.record))
            case Deliver():
                self.delivered.append(effect.txn)
            case _:
                pass

    def _do_server(self, effect: ServerEffect) -> None:
        if isinstance(effect, Send):
            name = next(n for n, number in self.numbers.items() if number == effect.link)
            self.tell(name, Received(effect.link, effect.message))


def started(*names: str) -> Pair:
    pair = Pair(*names)
    for name in names:
        pair.tell(name, Started((PORT,)))
        pair.settle()
    pair.settle(1.0)
    assert all(client.election.joined for client in pair.clients.values())
    return pair


def test_peers_agree_on_the_first_and_finish_a_job() -> None:
    pair = started("a", "b", "c")
    assert pair.serving == "a"
    pair.tell("c", SubmitRequested("t", meta(items=6, finish=True), "", {}, False, None))
    pair.settle()
    assert pair.delivered == ["t"]
    assert sorted(pair.ran) == [("finish", 0), *(("map", i) for i in range(6)), ("reduce", 0)]
    assert all(client.holdings.records() == () for client in pair.clients.values())


def test_after_the_servers_death_the_successor_serves_and_work_goes_on() -> None:
    pair = started("a", "b", "c")
    pair.kill("a")
    pair.settle()
    pair.tell("c", SubmitRequested("t", meta(items=3), "", {}, False, None))
    pair.settle(2.0)
    assert pair.serving == "b"
    assert pair.reign is not None
    assert pair.reign.term == 2
    assert pair.delivered == ["t"]


def test_the_last_one_finishes_alone() -> None:
    pair = started("a", "b")
    pair.kill("a")
    pair.tell("b", SubmitRequested("t", meta(items=3), "", {}, False, None))
    pair.settle(2.0)
    assert (pair.serving, pair.delivered) == ("b", ["t"])
