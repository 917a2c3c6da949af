"""What befalls a simulated grid. One strikes after another while there is unfinished work.

A mix says how likely each kind is; seeds of different mixes differ in kind. ``killers`` and
``assassin`` only kill, so that the auditor can demand that no finished task is ever repeated.
"""

import random
from typing import TYPE_CHECKING

from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

MIXES: dict[str, dict[str, int]] = {
    "killers": {
        "kill": 3,
        "kill_server": 4,
        "kill_between": 4,
        "kill_owner": 1,
        "new": 3,
        "leave": 1,
        "cancel": 1,
    },
    "assassin": {"kill_reigning": 4, "kill_between": 4, "new": 4},
    "sleepers": {"freeze": 2, "freeze_server": 3, "freeze_owner": 1, "kill": 1, "new": 1},
    "network": {
        "cut": 3,
        "cut_way": 3,
        "cut_pair": 3,
        "halve": 3,
        "break": 3,
        "slow": 2,
        "kill_server": 1,
        "kill_host": 1,
        "new": 1,
    },
    "users": {
        "cancel": 4,
        "cancel_all": 2,
        "end": 1,
        "ask": 2,
        "leave": 2,
        "kill_owner": 1,
        "late_submit": 4,
        "new": 1,
    },
    "caretakers": {
        "drain": 3,
        "rolling": 2,
        "leave": 2,
        "new": 3,
        "late_submit": 1,
    },
    "all": {
        "kill": 2,
        "kill_server": 3,
        "kill_owner": 1,
        "kill_reigning": 1,
        "kill_between": 2,
        "burst": 1,
        "restart": 1,
        "freeze": 1,
        "freeze_server": 2,
        "freeze_owner": 1,
        "break": 2,
        "slow": 1,
        "cut": 2,
        "cut_way": 1,
        "cut_pair": 1,
        "halve": 1,
        "kill_host": 1,
        "stranger": 1,
        "cancel": 1,
        "cancel_all": 1,
        "end": 1,
        "ask": 1,
        "late_submit": 1,
        "leave": 1,
        "drain": 1,
        "rolling": 1,
        "new": 3,
    },
}

SUDDEN = (
    "kill_server",
    "kill_between",
    "kill",
    "kill_owner",
    "freeze_server",
    "freeze",
    "freeze_owner",
    "break",
    "cut",
    "halve",
)
"""What can come between two messages, to those who say them."""

ROLL_SECONDS = 0.1
"""How often a caretaker looks whether a peer has left, and may start the next."""


class Misfortunes:
    """Strikes a scenario's grid so many times."""

    def __init__(self, scenario: "Scenario", rng: random.Random) -> None:
        self._scenario = scenario
        self._world = scenario.world
        self._rng = rng
        self._left = 0
        self._extra = 0
        self._rolls = 0
        self._mix = MIXES[scenario.shape.mix]

    # -- when --------------------------------------------------------------------------

    def begin(self, count: int) -> None:
        self._left = count
        self._extra = 2 * count
        self._next(self._scenario.shape.pause)

    def stop(self) -> None:
        self._left = 0

    @property
    def over(self) -> bool:
        """Nothing more will happen: all has struck, and everything is submitted."""
        jobs = self._scenario.auditor.jobs
        return self._left == 0 and self._rolls == 0 and jobs >= self._scenario.shape.jobs

    def _next(self, seconds: float) -> None:
        if self._left > 0:
            self._world.at(self._rng.expovariate(1 / seconds), self._strike)

    def _strike(self) -> None:
        """Strike if there is unfinished work; if there is none and will be none, give some, and
        strike while it is under way."""
        if self._left <= 0:
            return
        cases = self._scenario.auditor.cases.values()
        pause = self._scenario.shape.pause
        if any(case.open and case.process.awake for case in cases):
            self._left -= 1
            kind = self._rng.choices(tuple(self._mix), tuple(self._mix.values()))[0]
            getattr(self, f"_{kind}")()
        elif self._scenario.auditor.jobs >= self._scenario.shape.jobs:
            if self._extra == 0:
                self._left = 0
            elif self._living():
                self._extra -= 1
                self._scenario.submit(self._anyone(), self._name())
                pause = min(pause, self._scenario.work_seconds / 2 + 0.005)
        self._next(pause)

    def strike_suddenly(self, record: str) -> None:
        """Let one of those that are left come now, if this mix has any that may; most often to an
        owner of this record."""
        kinds = [kind for kind in SUDDEN if kind in self._mix]
        if self._left <= 0 or not kinds or not self._living():
            return
        self._left -= 1
        kind = self._rng.choice(kinds)
        cases = self._scenario.auditor.cases.values()
        names = [c.name or c.txn for c in cases if c.meta.record == record]
        owners = [c.process for c in cases if (c.name or c.txn) in names and c.process.awake]
        if kind in ("kill", "kill_owner") and owners:
            self._kill_one(self._rng.choice(owners))
        elif kind in ("freeze", "freeze_owner") and owners:
            self._freeze_one(self._rng.choice(owners))
        elif kind == "break" and owners:
            self._rng.choice(owners).break_links()
        else:
            getattr(self, f"_{kind}")()

    def _name(self) -> str:
        named = self._scenario.shape.named and self._rng.random() < 0.3
        return f"job{self._rng.randint(1, 9)}" if named else ""

    # -- whom --------------------------------------------------------------------------

    def _living(self) -> list[Process]:
        return self._scenario.living()

    def _anyone(self) -> Process:
        return self._rng.choice(self._living())

    def _server(self) -> Process:
        """One that serves, else anyone."""
        return self._rng.choice([p for p in self._living() if p.server] or self._living())

    def _owner(self) -> Process:
        """One that waits for a result, else anyone."""
        cases = self._scenario.auditor.cases.values()
        owners = dict.fromkeys(case.process for case in cases if case.open and case.process.awake)
        return self._rng.choice(list(owners) or self._living())

    # -- what: deaths ------------------------------------------------------------------

    def _kill_one(self, victim: Process) -> None:
        if len(self._living()) < 2:
            self._new()
        victim.kill()

    def _kill(self) -> None:
        """Kill anyone, also one who is about to leave."""
        awake = [process for process in self._world.processes if process.awake]
        self._kill_one(self._rng.choice(awake))

    def _kill_server(self) -> None:
        self._kill_one(self._server())

    def _kill_owner(self) -> None:
        self._kill_one(self._owner())

    def _kill_reigning(self) -> None:
        """Kill the server, and its successor while it still waits for the members to report."""
        self._kill_server()
        self._world.at(self._rng.uniform(0, 0.5), self._kill_server_again)

    def _kill_server_again(self) -> None:
        servers = [process for process in self._living() if process.server]
        if servers and self._left > 0:
            self._kill_one(self._rng.choice(servers))

    def _kill_between(self) -> None:
        """Kill the server in the middle of what it is telling its members."""
        servers = [process for process in self._living() if process.server]
        if servers and len(self._living()) > 1:
            servers[0].orders_left = self._rng.randint(1, 8)

    def _burst(self) -> None:
        """Many die in the same moment."""
        for victim in self._rng.sample(self._living(), len(self._living()) // 2):
            victim.kill()

    def _restart(self) -> None:
        """All die; as many start anew."""
        victims = self._living()
        for victim in victims:
            victim.kill()
        for victim in victims:
            self._scenario.add_peer(victim.host.name)

    def _leave(self) -> None:
        if len(self._living()) < 2:
            self._new()
        self._anyone().leave()

    def _drain(self) -> None:
        """One leaves and takes its time."""
        if len(self._living()) < 2:
            self._new()
        self._anyone().leave(self._scenario.settings.drain_seconds)

    def _rolling(self) -> None:
        """All leave, one after another, and as many start anew on their hosts."""
        if len(self._living()) < 2:
            self._new()
        self._rolls += 1
        self._roll(self._living())

    def _roll(self, waiting: list[Process]) -> None:
        waiting = [process for process in waiting if process.awake]
        if not waiting:
            self._rolls -= 1
            return
        first = waiting[0]
        if not first.closing:
            first.leave(self._scenario.settings.drain_seconds)

        def look() -> None:
            if first.awake:
                self._world.at(ROLL_SECONDS, look)
                return
            self._scenario.add_peer(first.host.name)
            self._world.at(ROLL_SECONDS, lambda: self._roll(waiting[1:]))

        look()

    def _new(self) -> None:
        self._scenario.add_peer()

    # -- what: pauses and the network --------------------------------------------------

    def _freeze_one(self, victim: Process) -> None:
        victim.freeze()
        self._world.at(self._rng.uniform(0.1, 12.0), lambda: self._wake(victim))

    def _wake(self, victim: Process) -> None:
        if self._left > 0 or self._scenario.shape.sleepers_wake:
            victim.wake()

    def _freeze(self) -> None:
        self._freeze_one(self._anyone())

    def _freeze_server(self) -> None:
        self._freeze_one(self._server())

    def _freeze_owner(self) -> None:
        self._freeze_one(self._owner())

    def _break(self) -> None:
        self._anyone().break_links()

    def _slow(self) -> None:
        self._anyone().slow_down(self._rng.choice((10.0, 100.0, 300.0)))

    def _cut(self) -> None:
        host = self._rng.choice(self._scenario.hosts)
        if host in self._world.cut_off or not self._may_cut():
            return
        self._world.cut(host)
        self._world.at(self._rng.uniform(0.1, 15.0), lambda: self._world.mend(host))

    def _may_cut(self) -> bool:
        """There is a network to be cut; if not, connections break."""
        if len(self._scenario.hosts) == 1:
            self._break()
            return False
        for process in self._world.processes:
            process.disturb()
        return True

    def _cut_ways(self, ways: list[tuple[str, str]]) -> None:
        for one, other in ways:
            self._world.cut_way(one, other)
        seconds = self._rng.uniform(0.1, 15.0)
        for one, other in ways:
            self._world.at(seconds, lambda way=(one, other): self._world.mend_way(*way))  # type: ignore[misc]

    def _cut_way(self) -> None:
        """One host is not heard by another, which it hears."""
        if self._may_cut():
            one, other = self._rng.sample(self._scenario.hosts, 2)
            self._cut_ways([(one, other)])

    def _cut_pair(self) -> None:
        """Two hosts do not reach each other, and both reach the others."""
        if self._may_cut():
            one, other = self._rng.sample(self._scenario.hosts, 2)
            self._cut_ways([(one, other), (other, one)])

    def _halve(self) -> None:
        """The network falls into two halves, each of which works on."""
        if self._may_cut():
            hosts = list(self._scenario.hosts)
            self._rng.shuffle(hosts)
            middle = self._rng.randint(1, len(hosts) - 1)
            ways = [(a, b) for a in hosts[:middle] for b in hosts[middle:]]
            self._cut_ways([*ways, *((b, a) for a, b in ways)])

    def _kill_host(self) -> None:
        """A host dies: the others are not told, and it starts anew, empty, some time later."""
        if not self._may_cut():
            return
        host = self._rng.choice(self._scenario.hosts)
        if host in self._world.cut_off:
            return
        self._world.cut(host)
        victims = [p for p in self._world.processes if p.alive and p.host.name == host]
        for victim in victims:
            victim.kill()
        for folder in self._world.host(host).spools.values():
            folder.clear()

        def restart() -> None:
            self._world.mend(host)
            self._scenario.add_peer(host)

        self._world.at(self._rng.uniform(0.5, 15.0), restart)

    def _stranger(self) -> None:
        """Something else holds one of the ports for a while."""
        name = self._rng.choice(self._scenario.hosts)
        port = self._rng.choice(self._scenario.settings.ports[:2])
        ports = self._world.host(name).ports
        if port not in ports:
            ports[port] = "a web server"
            self._world.note(name, f"port {port} is taken by a stranger")
            self._world.at(self._rng.uniform(1, 20), lambda: void(ports.pop(port, None)))

    # -- what: users -------------------------------------------------------------------

    def _cancel(self) -> None:
        self._cancel_one(everyone=False)

    def _cancel_all(self) -> None:
        self._cancel_one(everyone=True)

    def _cancel_one(self, *, everyone: bool) -> None:
        cases = self._scenario.auditor.cases.values()
        mine = [case for case in cases if case.open and case.process.awake]
        if mine:
            case = self._rng.choice(mine)
            case.process.cancel(case.txn, everyone=everyone)

    def _end(self) -> None:
        """Anyone ends the work of someone."""
        cases = self._scenario.auditor.cases.values()
        running = [case for case in cases if case.open and not case.asked]
        if running:
            record = self._rng.choice(running).meta.record
            self._anyone().end(self._scenario.next_txn(), record)

    def _ask(self) -> None:
        """Anyone asks for what may be finished."""
        self._anyone().ask(self._scenario.next_txn(), "job")

    def _late_submit(self) -> None:
        """A latecomer: the same name again, or one more job."""
        named = self._scenario.shape.named and self._rng.random() < 0.7
        self._scenario.submit(self._anyone(), "job" if named else "")


def void(_: object) -> None:
    """Take a value and give none, for callbacks."""
