"""One seed draws a grid and its misfortunes; first safety, then heal and demand completion."""

import random
from dataclasses import dataclass, replace

from grid.messages import Address, RecordMeta
from grid.settings import Settings
from tests.simulation import flaws
from tests.simulation.auditor import Auditor
from tests.simulation.calamities import SHARE, Calamities, draw_keeps
from tests.simulation.misfortunes import MIXES, Misfortunes
from tests.simulation.process import Process
from tests.simulation.verdict import Verdict
from tests.simulation.world import World

HEAL_SECONDS = 60.0
"""More than silence, settling and any straggler take together, besides the work itself."""

PATIENCE_SECONDS = 5.0
"""Longer than it takes to fetch a finished result."""


@dataclass(frozen=True)
class Shape:
    """What the seed has drawn: how large, how busy, how unlucky. ``pause`` is the mean time between
    misfortunes, which befall the grid while something is submitted and unfinished. Peers are told
    of the first ``seeds`` hosts; with ``ignorant``, some of only the first."""

    hosts: int
    seeds: int
    ignorant: bool
    peers: int
    together: bool
    jobs: int
    named: bool
    items: int
    task_seconds: float
    span: float
    mix: str
    misfortunes: int
    pause: float
    slow: float
    deaths: float
    late: float
    duplicates: float
    sleepers_wake: bool
    quorum: int = 0


def draw(rng: random.Random) -> Shape:
    """Every size and rate comes from the seed, over wide ranges, so that seeds differ in kind."""
    mix = rng.choice(tuple(MIXES))
    deadly = mix in ("killers", "assassin")
    hosts = 1 if deadly else rng.choice((1, 1, 1, 2, 3, 3, 4))
    return Shape(
        hosts=hosts,
        seeds=rng.randint(1, hosts),
        ignorant=rng.random() < 0.3,
        peers=rng.choice((1, 2, 2, 3, 3, 3, 4, 4, 5, 8, 13)),
        together=rng.random() < 0.5,
        jobs=rng.choice((1, 1, 2, 3, 5)),
        named=rng.random() < 0.4,
        items=rng.choice((0, 1, 7, 30, 30, 64, 100, 100)),
        task_seconds=rng.choice((0.002, 0.02, 0.2)),
        span=rng.choice((0.0, 0.5, 3.0, 10.0)),
        mix=mix,
        misfortunes=rng.choice((0, 1, 2, 4, 8, 16)),
        pause=rng.choice((0.01, 0.05, 0.2, 1.0, 3.0)),
        slow=1.0 if deadly else rng.choice((1.0, 1.0, 10.0, 100.0)),
        deaths=rng.choice((0.0, 0.0, 0.0, 0.02)),
        late=rng.choice((0.0, 0.0, 0.02, 0.2)),
        duplicates=rng.choice((0.0, 0.0, 0.3)),
        sleepers_wake=rng.random() < 0.7,
    )


def draw_quorum(seed: int, hosts: int) -> int:
    """Apart from all else that is drawn, so that seeds which found something still do."""
    return random.Random(seed * 104729 + 3).choice((0, 0, 0, 2, 3)) if hosts > 1 else 0


class Scenario:
    """A grid on one to four hosts, and what befalls it. ``shape`` overrides what is drawn; of the
    grids of all seeds ``share`` have detached work, and ``raising`` user code that raises."""

    def __init__(
        self,
        seed: int,
        shape: Shape | None = None,
        share: float = SHARE,
        raising: float = flaws.SHARE,
    ) -> None:
        self.world = World(seed)
        self.auditor = Auditor(self.world)
        self.verdict = Verdict(self.auditor)
        self.rng = random.Random(seed * 7919 + 1)
        drawn = draw(self.rng)
        self.shape = shape or replace(drawn, quorum=draw_quorum(seed, drawn.hosts))
        self.auditor.calm = self.shape.hosts == 1
        self.hosts = tuple(f"h{number}" for number in range(self.shape.hosts))
        self.seeds = self.hosts[: self.shape.seeds]
        self.keeps = draw_keeps(seed, share) if shape is None else None
        self.settings = Settings(
            hosts=self.seeds if self.shape.hosts > 1 else (),
            slots=2,
            join_timeout=1e9,
            retain_seconds=20.0,
            orphan_hold_seconds=25.0,
            quorum=self.shape.quorum,
            **(self.keeps.settings() if self.keeps else {}),
        )
        self.misfortunes = Misfortunes(self, self.rng)
        if shape is None:
            self.auditor.flaws.draw(seed, raising, self._strike_after)
        self.calamities = Calamities(self, self.keeps, seed) if self.keeps else None
        self._jobs = 0
        self._wishes = 0

    # -- what there is -----------------------------------------------------------------

    def add_peer(self, host: str = "") -> Process:
        number = len(self.world.processes)
        where = host or self.hosts[number % len(self.hosts)]
        process = Process(self.world, self.auditor, f"p{number + 1}", where, self.settings)
        process.shop.task_seconds = (self.shape.task_seconds / 2, self.shape.task_seconds * 2)
        process.shop.death_rate = self.shape.deaths
        process.shop.late_rate = self.shape.late
        process.duplicates = self.shape.duplicates
        if self.rng.random() < 0.2:
            process.slow_down(self.shape.slow)
        seeds = self.seeds[:1] if self._is_ignorant() else self.seeds
        ports = self.settings.ports
        process.start(tuple(Address(host, port) for host in seeds for port in ports))
        return process

    def _is_ignorant(self) -> bool:
        return self.shape.ignorant and self.rng.random() < 0.5

    def submit(self, process: Process, name: str = "") -> None:
        self._jobs += 1
        meta = RecordMeta(
            record=f"r{self._jobs}",
            shape="everywhere" if not name and self.rng.random() < 0.1 else "mapreduce",
            items=self.shape.items,
            partitions=8,
            finish=self.rng.random() < 0.3,
            attempts_max=1000,
            speculate=self.rng.random() < 0.5,
        )
        meta = self.auditor.flaws.afflict(meta)
        shared = self.auditor.flaws.shared(meta.record) if meta.shape == "mapreduce" else None
        if shared is not None:
            name = name or f"shared{self._jobs}"
            self.world.at(shared, lambda: self._submit_somewhere(name))
        process.submit(f"t{self._jobs}", meta, name, {"keys": "same"})

    def _strike_after(self, record: str, seconds: float) -> None:
        self.world.at(seconds, lambda: self.misfortunes.strike_suddenly(record))

    def next_txn(self) -> str:
        """Name what is wanted without a submission."""
        self._wishes += 1
        return f"w{self._wishes}"

    @property
    def work_seconds(self) -> float:
        """About how long one job takes, all going well."""
        slots = 2 * max(1, len(self.living()))
        return self.shape.items * self.shape.task_seconds / slots

    def living(self) -> list[Process]:
        """Those that are not about to leave."""
        return [
            process for process in self.world.processes if process.awake and not process.closing
        ]

    # -- what happens ------------------------------------------------------------------

    def run(self) -> list[str]:
        """Live through it all; return the promises broken."""
        rng, world, shape = self.rng, self.world, self.shape
        for _ in range(shape.peers):
            seconds = 0.0 if shape.together else rng.uniform(0, 1.0)
            world.at(seconds, lambda: void(self.add_peer()))
        for number in range(shape.jobs):
            name = "job" if shape.named and number < 4 else ""
            world.at(rng.uniform(0, shape.span), lambda name=name: self._submit_somewhere(name))  # type: ignore[misc]
        self.misfortunes.begin(shape.misfortunes)
        if self.calamities:
            self.calamities.begin()
        world.run_until(self._is_over, shape.span + 30.0)
        self._heal()
        self._demand()
        return world.wrong

    def _is_over(self) -> bool:
        return self.misfortunes.over and (self.calamities is None or self.calamities.over)

    def _wake_sleepers(self) -> None:
        """All, or so many that a port of each host is left to grab."""
        for process in self.world.processes:
            ports = self.world.host(process.host.name).ports.values()
            asleep = [p for p in ports if isinstance(p, Process) and p.frozen]
            barred = process in asleep and len(asleep) >= self.settings.port_span
            if self.shape.sleepers_wake or barred or self.keeps:
                process.wake()

    def _demand(self) -> None:
        """Now that all is well: everything ends, one server is followed, nothing is left."""
        world, verdict = self.world, self.verdict
        work = len(self.auditor.cases) * self.shape.items * self.shape.task_seconds * 2
        world.run_until(lambda: verdict.all_resolved and verdict.one_server, HEAL_SECONDS + work)
        verdict.check_end()
        self._ask_for_what_is_retained()
        if self.calamities:
            self.calamities.demand()
        patience = 1.5 * self.keeps.seconds if self.keeps else 0.0  # it is looked for now and then
        patience += self.settings.retain_seconds + self.settings.orphan_hold_seconds + 10.0
        world.run_until(lambda: verdict.clean, patience)
        if self.calamities and self.calamities.return_late():
            world.run(world.now + HEAL_SECONDS / 4)
            world.run_until(lambda: verdict.clean, patience)
        verdict.check_left()

    def _ask_for_what_is_retained(self) -> None:
        """Now that one server is followed: whoever asks for a retained result by name gets it."""
        for name in self.verdict.retained(PATIENCE_SECONDS):
            for process in self.living():
                process.ask(self.next_txn(), name)
        self.world.run_until(lambda: self.verdict.all_resolved, PATIENCE_SECONDS)
        self.verdict.check_asked()

    def _submit_somewhere(self, name: str) -> None:
        living = self.living()
        if living:
            self.submit(self.rng.choice(living), name)

    def _heal(self) -> None:
        """No more misfortune: cuts are mended, workers live, someone is there. The frozen wake, or
        sleep on for ever: the others must do without them."""
        self.misfortunes.stop()
        if self.calamities:
            self.calamities.stop()
        self.world.mend_all()
        for process in self.world.processes:
            process.shop.death_rate = 0.0
            process.shop.late_rate = 0.0
            process.orders_left = None
            process.slow_down(1.0)
        self._wake_sleepers()
        for seed in self.seeds:
            # Who knows only this host must find the grid there: if nobody is left, one is started.
            if not any(process.host.name == seed for process in self.living()):
                self.add_peer(seed)
        while len(self.living()) < self.shape.quorum:
            self.add_peer()


def void(_: object) -> None:
    """Take a value and give none, for callbacks."""
