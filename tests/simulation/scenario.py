"""One seed draws a grid and its misfortunes; first safety, then heal and demand completion."""

import random
from dataclasses import dataclass

from grid.events import CancelRequested
from grid.messages import Address, RecordMeta
from grid.settings import Settings
from tests.simulation.auditor import Auditor
from tests.simulation.process import Process
from tests.simulation.world import World

HEAL_SECONDS = 60.0
"""More than silence, settling and any straggler take together."""


@dataclass
class Shape:
    """What the seed has drawn: how large, how busy, how unlucky."""

    peers: int
    jobs: int
    named: bool
    items: int
    task_seconds: float
    misfortunes: int
    span: float
    slow: float
    deaths: float


def draw(rng: random.Random) -> Shape:
    """Every size and rate comes from the seed, over wide ranges, so that seeds differ in kind."""
    return Shape(
        peers=rng.choice((1, 2, 2, 3, 3, 4, 5, 8, 13)),
        jobs=rng.choice((1, 1, 2, 3, 5)),
        named=rng.random() < 0.4,
        items=rng.choice((0, 1, 2, 7, 30, 64, 100)),
        task_seconds=rng.choice((0.002, 0.02, 0.2)),
        misfortunes=rng.choice((0, 1, 2, 4, 8, 16)),
        span=rng.choice((0.5, 3.0, 15.0)),
        slow=rng.choice((1.0, 1.0, 10.0, 100.0)),
        deaths=rng.choice((0.0, 0.0, 0.0, 0.02)),
    )


class Scenario:
    """A grid on one host, and what befalls it."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.auditor = Auditor(self.world)
        self.rng = random.Random(seed * 7919 + 1)
        self.shape = draw(self.rng)
        self.settings = Settings(
            slots=2, join_timeout=1e9, retain_seconds=20.0, orphan_hold_seconds=25.0
        )
        self.candidates = tuple(Address("h0", port) for port in self.settings.ports)
        self._names = 0
        self._txns = 0

    def add_peer(self) -> Process:
        self._names += 1
        name = f"p{self._names}"
        process = Process(self.world, self.auditor, name, "h0", self.settings)
        process.task_seconds = (self.shape.task_seconds / 2, self.shape.task_seconds * 2)
        process.worker_death_rate = self.shape.deaths
        if self.rng.random() < 0.2:
            process.slowness = self.shape.slow
        process.start(self.candidates)
        return process

    def submit(self, process: Process, name: str = "") -> None:
        self._txns += 1
        txn = f"t{self._txns}"
        meta = RecordMeta(
            record=f"r{self._txns}",
            shape="everywhere" if not name and self.rng.random() < 0.1 else "mapreduce",
            items=self.shape.items,
            partitions=8,
            finish=self.rng.random() < 0.3,
            attempts_max=1000,
            speculate=self.rng.random() < 0.5,
        )
        process.submit(txn, meta, name, {"keys": "same"})

    def living(self) -> list[Process]:
        return [p for p in self.world.processes if p.alive and not p.frozen]

    def run(self) -> list[str]:
        """Live through it all; return the promises broken."""
        rng, world, shape = self.rng, self.world, self.shape
        for _ in range(shape.peers):
            world.at(rng.choice((0.0, rng.uniform(0, 1.0))), lambda: void(self.add_peer()))
        for number in range(shape.jobs):
            name = "job" if shape.named and number < 4 else ""
            world.at(rng.uniform(0, shape.span), lambda name=name: self._submit_somewhere(name))  # type: ignore[misc]
        for _ in range(shape.misfortunes):
            world.at(rng.uniform(0.1, shape.span), self._misfortune)
        world.run(shape.span + 0.5)
        self._heal()
        world.run(world.now + HEAL_SECONDS, lambda: self.auditor.all_resolved and self._quiet())
        world.run(world.now + 10.0)
        self.auditor.check_end()
        world.run(world.now + self.settings.orphan_hold_seconds + 10.0)
        self.auditor.check_dropped()
        return world.wrong

    def _quiet(self) -> bool:
        return bool(self.world.wrong)

    def _submit_somewhere(self, name: str) -> None:
        living = self.living()
        if living:
            self.submit(self.rng.choice(living), name)

    def _misfortune(self) -> None:
        rng = self.rng
        living = self.living()
        if not living:
            return
        servers = [p for p in living if p.server is not None]
        victim = rng.choice(servers) if servers and rng.random() < 0.6 else rng.choice(living)
        kind = rng.choice(("kill", "kill", "kill", "freeze", "break", "cancel", "stranger", "new"))
        if kind == "kill" and len(living) > 1:
            victim.kill()
            if rng.random() < 0.5:
                self.world.at(rng.uniform(0, 2), lambda: void(self.add_peer()))
        elif kind == "freeze":
            victim.freeze()
            self.world.at(rng.uniform(0.1, 12.0), victim.wake)
        elif kind == "break":
            victim.break_links()
        elif kind == "cancel":
            self._cancel(victim)
        elif kind == "stranger":
            self._stranger()
        elif kind == "new":
            self.add_peer()

    def _cancel(self, process: Process) -> None:
        mine = [c for c in self.auditor.cases.values() if c.process is process and not c.outcomes]
        if mine:
            case = self.rng.choice(mine)
            everyone = self.rng.random() < 0.3
            self.world.note(process.name, f"cancels {case.txn} {'for all' if everyone else ''}")
            process.tell(CancelRequested(case.txn, everyone))

    def _stranger(self) -> None:
        port = self.rng.choice(self.settings.ports[:2])
        host = self.world.host("h0")
        if port not in host.ports:
            host.ports[port] = "a web server"
            self.world.note("h0", f"port {port} is taken by a stranger")
            self.world.at(self.rng.uniform(1, 20), lambda: void(host.ports.pop(port, None)))

    def _heal(self) -> None:
        """No more misfortune: the frozen wake, worker deaths stop, someone lives."""
        for process in self.world.processes:
            process.worker_death_rate = 0.0
            process.slowness = 1.0
            if process.frozen and process.alive:
                process.wake()
        if not self.living():
            self.add_peer()


def void(_: object) -> None:
    """Take a value and give none, for callbacks."""
