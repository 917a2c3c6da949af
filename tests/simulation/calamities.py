"""Detached work in some of the simulated grids, and what befalls those who keep it: power that
fails, disks that are lost, full or torn, submitters that leave, whole grids that go and come back.

Drawn apart from everything else, so that grids without detached work are what they were. These
strike besides the misfortunes of the grid's mix. In the end the hosts that have something on disk
run again, and everything that was promised is demanded.
"""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grid.keeping import TOUCH_SECONDS, TOUCHES
from grid.messages import Keeping, RecordMeta
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

KINDS: dict[str, int] = {
    "submit": 4,
    "submitter_leaves": 2,
    "power": 4,
    "blackout": 3,
    "torn": 1,
    "disk_lost": 1,
    "disk_full": 2,
    "absent": 4,
    "gone": 2,
    "keeper_killed": 3,
    "ask": 2,
    "cancel": 1,
}

SHARE = 0.1
"""Of the grids have detached work; none of those that once found something else. They take five
times as long as others."""

HEAL_SECONDS = 60.0
"""More than it takes to go on with everything, once all is well."""


@dataclass(frozen=True)
class Keeps:
    """What is drawn for a grid with detached work. ``seconds`` are how long ends are kept,
    ``replace`` how long a keeper may be away, ``strikes`` how often something befalls them, after
    ``pause`` seconds on average."""

    jobs: int
    copies: int
    seconds: float
    replace: float
    strikes: int
    pause: float
    fast: tuple[float, ...]

    def settings(self) -> dict[str, Any]:
        return {
            "copies": self.copies,
            "keep_seconds": self.seconds,
            "replace_seconds": self.replace,
        }


def draw_keeps(seed: int, share: float = SHARE) -> Keeps | None:
    """What is drawn for the detached work of this grid, if it has any."""
    rng = random.Random(seed * 32452843 + 27)
    if rng.random() >= share:
        return None
    return Keeps(
        jobs=rng.choice((1, 1, 2, 4)),
        copies=rng.choice((1, 2, 2, 3)),
        seconds=rng.choice((100.0, 100.0, 200.0)),
        replace=rng.choice((1.0, 5.0, 20.0)),
        strikes=rng.choice((0, 1, 2, 4, 8)),
        pause=rng.choice((0.05, 0.3, 1.0, 3.0)),
        fast=tuple(rng.choice((0.0, 0.0, -3000.0, 7000.0)) for _ in range(4)),
    )


class Calamities:
    """Submits detached work to a scenario's grid, and strikes those who keep it."""

    def __init__(self, scenario: "Scenario", keeps: Keeps, seed: int) -> None:
        self._scenario = scenario
        self._keeps = keeps
        self._world = scenario.world
        self._ledger = scenario.auditor.detached
        self._rng = random.Random(seed * 49979687 + 11)
        self._left = keeps.strikes
        self._jobs_left = keeps.jobs
        self._count = 0
        self._stopped = False
        self._away: dict[str, None] = {}
        for name, fast in zip(scenario.hosts, keeps.fast, strict=False):
            self._world.host(name).disk.fast = fast

    # -- when --------------------------------------------------------------------------

    def begin(self) -> None:
        for _ in range(self._keeps.jobs):
            self._world.at(self._rng.uniform(0.5, 5.0), self._begin_job)
        if self._left:
            self._next()

    def _begin_job(self) -> None:
        self._jobs_left -= 1
        self._submit()

    def _next(self) -> None:
        self._world.at(self._rng.expovariate(1 / self._keeps.pause), self._strike)

    def _strike(self) -> None:
        if self._left <= 0:
            return
        if self._ledger.promises:
            self._left -= 1
            kind = self._rng.choices(tuple(KINDS), tuple(KINDS.values()))[0]
            getattr(self, f"_{kind}")()
        self._next()

    @property
    def over(self) -> bool:
        return self._left <= 0 and self._jobs_left <= 0

    def stop(self) -> None:
        """No more of it: disks have room, and where something is on disk somebody runs."""
        self._left = 0
        self._stopped = True
        for record in self._ledger.promises:
            if all(name in self._away for name in self._ledger.pages(record)):
                self._away.clear()  # nobody else has it
        for name, host in list(self._world.hosts.items()):
            host.disk.full = False
            if name not in self._away and any(page.whole for page in host.disk.pages.values()):
                self._bring_back(name)

    def _bring_back(self, name: str) -> None:
        if not any(p.host.name == name for p in self._scenario.living()):
            self._scenario.add_peer(name)

    def return_late(self) -> bool:
        """When the time of everything is over, those return that were gone all the while. Tell
        whether there are any."""
        for name in self._away:
            self._bring_back(name)
        return bool(self._away)

    # -- in the end --------------------------------------------------------------------

    def demand(self) -> None:
        """Everything that was promised and not lost is there for everybody, on enough disks."""
        world, ledger, verdict = self._world, self._ledger, self._scenario.verdict
        for case in self._scenario.auditor.cases.values():
            if case.open and case.process.awake and ledger.lost(case.wanted):
                self._scenario.auditor.withdrawn(case.txn, everyone=False)
                case.process.cancel(case.txn, everyone=False)
        # Who died before it joined is missed by nobody: what it kept is found by the next look.
        world.run(world.now + min(TOUCH_SECONDS, self._keeps.seconds / TOUCHES))
        owed = ledger.owed(HEAL_SECONDS)
        for record in owed:
            for process in self._scenario.living():
                process.ask(self._scenario.next_txn(), record, wait=True)
        world.run_until(lambda: verdict.all_resolved, HEAL_SECONDS)
        verdict.check_asked()
        replaced = 2 * self._keeps.replace + HEAL_SECONDS / 2
        world.run_until(lambda: not ledger.too_few(), replaced)
        ledger.check_copies()

    # -- who ---------------------------------------------------------------------------

    def _anyone(self) -> Process:
        living = self._scenario.living()
        return self._rng.choice(living) if living else self._scenario.add_peer()

    def _keeper(self) -> Process:
        """One that keeps something, else anyone."""
        disks = [host.disk for host in self._world.hosts.values()]
        names = [name for disk in disks for page in disk.pages.values() for name in page.keepers]
        keepers = [p for p in self._scenario.living() if p.me.peer in names]
        return self._rng.choice(keepers) if keepers else self._anyone()

    def _host(self) -> str:
        """Where something is kept, else any."""
        full = [name for name, host in self._world.hosts.items() if host.disk.pages]
        return self._rng.choice(full or list(self._scenario.hosts))

    # -- what: users -------------------------------------------------------------------

    def _submit(self) -> Process:
        self._count += 1
        items = self._rng.choice((1, 7, 30, 100))
        process = self._anyone()
        meta = RecordMeta(
            record=f"k{self._count}",
            shape="mapreduce",
            items=items,
            partitions=8,
            finish=self._rng.random() < 0.3,
            attempts_max=1000,
            speculate=self._rng.random() < 0.5,
            keeping=Keeping(self._keeps.seconds, 0.0, self._keeps.copies),
        )
        process.submit_detached(self._scenario.auditor.flaws.afflict(meta))
        return process

    def _submitter_leaves(self) -> None:
        """One submits and goes, perhaps before it has given everything away."""
        submitter = self._submit()

        def leave() -> None:
            if not self._stopped:  # else it is looked to that somebody stays where something is
                submitter.leave()

        self._world.at(self._rng.uniform(0.0, 0.05), leave)

    def _ask(self) -> None:
        record = self._rng.choice(list(self._ledger.promises))
        self._anyone().ask(self._scenario.next_txn(), record, wait=self._rng.random() < 0.5)

    def _cancel(self) -> None:
        record = self._rng.choice(list(self._ledger.promises))
        self._anyone().end(self._scenario.next_txn(), record)

    # -- what: power and disks ---------------------------------------------------------

    def _fail_power(self, name: str, seconds: float) -> None:
        """All processes of a host die at once; some time later as many start there."""
        self._scenario.auditor.calm = self._scenario.auditor.gentle = False
        victims = [p for p in self._world.processes if p.alive and p.host.name == name]
        for victim in victims:
            victim.kill()
        host = self._world.host(name)
        if self._rng.random() < 0.3:  # what is in memory is gone: a spool may be there
            for folder in host.spools.values():
                folder.clear()

        def restart() -> None:
            for _ in range(max(1, len(victims))):
                self._scenario.add_peer(name)

        self._world.at(seconds, restart)

    def _power(self) -> None:
        self._fail_power(self._host(), self._rng.uniform(0.05, 10.0))

    def _absent(self) -> None:
        """A host that keeps something misses how it ends; it returns when a server has died."""
        name, seconds = self._host(), self._rng.uniform(3.0, 12.0)
        self._fail_power(name, seconds)

        def kill_server() -> None:
            servers = [p for p in self._scenario.living() if p.server and p.host.name != name]
            if servers and not self._stopped and len(self._scenario.living()) > 1:
                servers[0].kill()

        self._world.at(max(0.0, seconds + self._rng.uniform(-0.5, 1.5)), kill_server)

    def _gone(self) -> None:
        """A host goes and returns when all that it keeps is over."""
        unlisted = [h for h in self._scenario.hosts if h not in self._scenario.seeds]
        if unlisted and any(p.host.name not in unlisted for p in self._scenario.living()):
            name = self._rng.choice(unlisted)
            self._away[name] = None
            for victim in [p for p in self._world.processes if p.alive and p.host.name == name]:
                victim.kill()
            self._scenario.auditor.calm = self._scenario.auditor.gentle = False
            self._world.note(name, "is gone for long")

    def _blackout(self) -> None:
        """The whole grid dies and comes back, host after host."""
        self._world.note("!!", "the power fails everywhere")
        for name in self._scenario.hosts:
            self._fail_power(name, self._rng.uniform(0.05, self._rng.choice((1.0, 5.0, 20.0))))

    def _torn(self) -> None:
        """The power fails, and what was written last is lost with it."""
        name = self._host()
        self._fail_power(name, self._rng.uniform(0.05, 5.0))
        self._ledger.disks_lost = True
        torn = self._world.host(name).disk.tear()
        self._world.note(name, f"has {torn or 'nothing'} torn on its disk")

    def _disk_lost(self) -> None:
        name = self._host()
        self._fail_power(name, self._rng.uniform(0.05, 5.0))
        self._ledger.disks_lost = True
        host = self._world.host(name)
        host.disk.lose()
        for folder in host.spools.values():
            folder.clear()
        self._world.note(name, "has a new disk")

    def _disk_full(self) -> None:
        name = self._host()
        disk = self._world.host(name).disk
        disk.full = True
        self._world.note(name, "has a full disk")

        def make_room() -> None:
            disk.full = False

        self._world.at(self._rng.uniform(0.5, 20.0), make_room)

    def _keeper_killed(self) -> None:
        self._scenario.auditor.calm = self._scenario.auditor.gentle = False
        self._keeper().kill()
