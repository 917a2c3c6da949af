"""One large idle grid whose server is killed, again and again: what it costs each peer.

Everything that crosses a border is counted: messages over links, greetings (probes, questions,
dials). Heartbeats are counted apart: they come by the clock, one each way whatever the size. What
must not grow with the grid: what a member says and hears during a failover. The server's own share
is so much for each member.
"""

import time
from collections import Counter
from dataclasses import dataclass

from grid import effects as fx
from grid.messages import Address, Beat, Claim, PeerRef
from grid.settings import Settings
from tests.simulation.auditor import Auditor
from tests.simulation.process import Process
from tests.simulation.verdict import Verdict
from tests.simulation.world import World

HOSTS = 10
"""More than a server names successors, so that peers of all grids have as many places to look."""

SEEDS = 3
START_SECONDS = 5.0
"""All peers start within this time."""

WAIT_SECONDS = 30.0
FAILOVERS = 3
SMALL = 50
"""The grid to compare with."""


class Counted(Process):
    """A process that counts what it says to others and what they say to it."""

    said: Counter[str]
    heard: Counter[str]

    def __init__(
        self, world: World, auditor: Auditor, name: str, host: str, settings: Settings
    ) -> None:
        super().__init__(world, auditor, name, host, settings)
        self.reset()

    def reset(self) -> None:
        self.said = Counter()
        self.heard = Counter()

    def _send(self, effect: fx.Send) -> None:
        far = self.far(effect.link)
        if isinstance(far, Counted) and far is not self:
            kind = type(effect.message).__name__
            self.said[kind] += 1
            far.heard[kind] += 1
        super()._send(effect)

    def _probe(self, address: Address, claim: Claim | None) -> None:
        self.said["probe"] += 1
        super()._probe(address, claim)

    def _ask(self, ref: PeerRef) -> None:
        self.said["ask"] += 1
        super()._ask(ref)

    def _reconnect(self, effect: fx.Reconnect) -> None:
        self.said["dial"] += 1
        super()._reconnect(effect)

    @property
    def talk(self) -> int:
        """All but heartbeats."""
        return sum(self.said.values()) + sum(self.heard.values()) - self.beats

    @property
    def beats(self) -> int:
        beat = Beat.__name__
        return self.said[beat] + self.heard[beat]


@dataclass(frozen=True)
class Failover:
    """One death of a server. Counts are of messages and greetings said and heard, without
    heartbeats: ``mean`` and ``most`` of the members, ``server`` of the new server for each member.
    """

    seconds: float
    """Until every member had joined the one new server, in virtual time."""
    mean: float
    most: int
    server: float
    cpu_seconds: float
    """Of simulating it all, on this machine."""
    kinds: Counter[str]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common(8))
        return (
            f"all rejoined after {self.seconds:.2f} s; a member said and heard {self.mean:.1f} "
            f"(at most {self.most}), the server {self.server:.1f} for each member; "
            f"{self.cpu_seconds:.1f} s of processor time\n    {kinds}"
        )


class LargeGrid:
    """So many peers on ten hosts, told of the first three of these."""

    def __init__(self, peers: int, seed: int = 1) -> None:
        self.world = World(seed)
        self.world.actions_left *= peers
        self.auditor = Auditor(self.world)
        self.verdict = Verdict(self.auditor)
        hosts = [f"h{number}" for number in range(HOSTS)]
        settings = Settings(hosts=tuple(hosts[:SEEDS]), slots=1, join_timeout=1e9)
        doors = [Address(host, port) for host in settings.hosts for port in settings.ports]
        self.processes: list[Counted] = []
        for number in range(peers):
            host = hosts[number % len(hosts)]
            process = Counted(self.world, self.auditor, f"p{number}", host, settings)
            self.processes.append(process)
            after = self.world.rng.uniform(0, START_SECONDS)
            self.world.at(after, lambda process=process: process.start(tuple(doors)))  # type: ignore[misc]
        self._settle("the first server")

    def _settle(self, what: str) -> None:
        self.world.run(self.world.now + START_SECONDS)
        self._until_one(what)

    def _until_one(self, what: str) -> None:
        """Go on, a few milliseconds at a time, until all follow one server."""
        until = self.world.now + WAIT_SECONDS
        while not self.verdict.one_server:
            assert self.world.now < until, f"{what} is not followed by all: {self.world.log[-5:]}"
            self.world.run(self.world.now + 0.01)

    def fail_over(self) -> Failover:
        """Kill the server; count until all have joined the next and have told it everything."""
        (server,) = [p for p in self.processes if p.awake and p.server is not None]
        for process in self.processes:
            process.reset()
        killed_at, began = self.world.now, time.process_time()
        server.kill()
        self._until_one("the next server")
        seconds = self.world.now - killed_at
        self.world.run(self.world.now + START_SECONDS)
        cpu = time.process_time() - began
        members = [p for p in self.processes if p.awake and p.server is None]
        (new,) = [p for p in self.processes if p.awake and p.server is not None]
        kinds: Counter[str] = sum((p.said for p in self.processes), Counter())
        return Failover(
            seconds=seconds,
            mean=sum(p.talk for p in members) / len(members),
            most=max(p.talk for p in members),
            server=new.talk / len(members),
            cpu_seconds=cpu,
            kinds=kinds,
        )


def report(peers: int) -> int:
    """Fail over a small grid and a large one, for people to compare."""
    wrong: list[str] = []
    for size in dict.fromkeys((min(SMALL, peers), peers)):
        began = time.process_time()
        grid = LargeGrid(size)
        took = time.process_time() - began
        print(f"{size} peers have joined ({took:.1f} s of processor time)", flush=True)
        for _ in range(FAILOVERS):
            print(f"  {grid.fail_over()}", flush=True)
        wrong += grid.world.wrong
    print("\n".join(wrong) or "every promise held")
    return 1 if wrong else 0
