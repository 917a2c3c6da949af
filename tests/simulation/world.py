"""Virtual time, hosts, ports and links: the ground on which simulated peers stand.

One heap of things to happen, one ``random.Random``; nothing else moves. Links are ordered and
reliable until they break, as TCP is: they delay, they do not lose. A process that is frozen keeps
its port and its links; what arrives waits until it wakes. Between hosts that are cut off from each
other nothing arrives, not even the news that a link is closed, until the cut is mended.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from grid.messages import Address, Output
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from tests.simulation.process import Process

Content = tuple[tuple[int, tuple[int, ...]], ...]
"""What a simulated segment holds: keys with their values, in order of first appearance."""


ACTIONS_MAX = 400_000
"""Twenty times what the busiest of some hundred seeds takes. A grid that needs more goes round in
circles."""

WRONG_MAX = 100
"""Broken promises of one grid that are worth telling."""


@dataclass
class Host:
    """A machine: its ports, and the folders that outlive their processes."""

    name: str
    processes: list["Process"] = field(default_factory=list)
    ports: dict[int, "Process | str"] = field(default_factory=dict)
    spools: dict[str, dict[Output, Content]] = field(default_factory=dict)
    adopted_by: dict[str, "Process"] = field(default_factory=dict)
    disk: Disk = field(default_factory=Disk)


class Hopeless(Exception):
    """Nothing good can come of going on with this grid."""


class World:
    """Everything that exists in one simulated grid."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.latency = (0.0001, 0.002)
        self.hosts: dict[str, Host] = {}
        self.processes: list[Process] = []
        self.log: list[str] = []
        self.wrong: list[str] = []
        self.cut_off: dict[str, None] = {}
        self.ways_cut: dict[tuple[str, str], None] = {}
        self.relayed: list[Link] = []
        self._stalled: list[tuple[Link, int, Callable[[], None]]] = []
        self.actions_left = ACTIONS_MAX
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host(name))

    # -- time --------------------------------------------------------------------------

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen after so many seconds."""
        self.at_moment(self.now + seconds, action)

    def at_moment(self, moment: float, action: Callable[[], None]) -> None:
        """Let something happen then: of what happens in one moment, in the order of the calls."""
        self._count += 1
        heapq.heappush(self._heap, (moment, self._count, action))

    def delay(self) -> float:
        return self.rng.uniform(*self.latency)

    def run(self, until: float) -> None:
        """Let time pass to ``until``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action = heapq.heappop(heap)
            action()
            self.actions_left -= 1
            if self.actions_left < 0:
                raise Hopeless(f"{self.now:.4f} the grid does not come to rest")
        self.now = until

    def run_until(self, done: Callable[[], bool], seconds: float) -> None:
        """Let time pass until ``done()``, which is asked now and then, at most so long."""
        end = self.now + seconds
        while self.now < end and not done():
            self.run(min(end, self.now + 0.25))

    # -- the network -------------------------------------------------------------------

    def holder(self, address: Address) -> "Process | str | None":
        """Who listens at an address: a process, a stranger (by name), or nobody."""
        return self.host(address.host).ports.get(address.port)

    def carries(self, one: str, other: str) -> bool:
        """Whether what one host sends arrives at the other now."""
        if one == other:
            return True
        cut = one in self.cut_off or other in self.cut_off or (one, other) in self.ways_cut
        return not cut

    def reachable(self, one: str, other: str) -> bool:
        """Whether two hosts can converse now: a connection needs both ways."""
        return self.carries(one, other) and self.carries(other, one)

    def cut_way(self, one: str, other: str) -> None:
        """From now on nothing of one host arrives at the other; the way back is open."""
        self.note(one, f"is not heard by {other}")
        self.ways_cut[one, other] = None

    def mend_way(self, one: str, other: str) -> None:
        if (one, other) in self.ways_cut:
            self.note(one, f"is heard by {other} again")
            del self.ways_cut[one, other]
            self._flow_again()

    def cut(self, host: str) -> None:
        """Cut a host off from all others."""
        self.note(host, "is cut off from the other hosts")
        self.cut_off[host] = None

    def mend(self, host: str) -> None:
        """Undo a cut: what was on its way arrives, in order."""
        if host in self.cut_off:
            self.note(host, "is reachable again")
            del self.cut_off[host]
            self._flow_again()

    def mend_all(self) -> None:
        for host in list(self.cut_off):
            self.mend(host)
        for one, other in list(self.ways_cut):
            self.mend_way(one, other)

    def _flow_again(self) -> None:
        """What was on its way arrives, in order."""
        stalled, self._stalled = self._stalled, []
        for link, end, deliver in stalled:
            link.arrive(end, deliver)

    def stall(self, link: "Link", end: int, deliver: Callable[[], None]) -> None:
        self._stalled.append((link, end, deliver))

    # -- the story ---------------------------------------------------------------------

    def note(self, who: str, what: str) -> None:
        """Write a line of the story."""
        self.log.append(f"{self.now:9.4f}  {who:<6} {what}")

    def violation(self, what: str) -> None:
        """A promise was broken."""
        self.wrong.append(f"{self.now:.4f} {what}")
        self.note("!!", what)
        if len(self.wrong) >= WRONG_MAX:
            raise Hopeless(f"{self.now:.4f} {WRONG_MAX} times a promise was broken")


class Link:
    """One ordered connection between a client and a server, each on its process. It may pass
    through a third: then it needs that one alive and awake, and both ways to it."""

    def __init__(
        self,
        world: World,
        client: "Process",
        server: "Process",
        local: bool,
        through: "Process | None" = None,
    ) -> None:
        self.world = world
        self.ends: tuple[Process, Process] = (client, server)
        self.local = local
        self.through = through
        if through is not None:
            world.relayed.append(self)
        self.open = True
        self.numbers = (client.next_link(), server.next_link())
        self._last = [0.0, 0.0]

    def send(self, end: int, deliver: Callable[[], None]) -> None:
        """Carry something to ``end`` (0 client, 1 server), after everything sent before."""
        if not self.open and not self.local:
            return
        delay = 0.0 if self.local else self.world.delay() * self.ends[end].slowness
        arrives = max(self._last[end], self.world.now + delay)
        self._last[end] = arrives
        self.world.at_moment(arrives, lambda: self.arrive(end, deliver))

    def arrive(self, end: int, deliver: Callable[[], None]) -> None:
        hosts = [self.ends[1 - end].host.name, self.ends[end].host.name]
        if self.through is not None:
            hosts.insert(1, self.through.host.name)
        if not all(self.world.carries(a, b) for a, b in itertools.pairwise(hosts)):
            self.world.stall(self, end, deliver)
        elif self.through is not None:
            self.through.receive(lambda: self.ends[end].receive(deliver))
        else:
            self.ends[end].receive(deliver)

    def tear(self, reason: str) -> None:
        """The one between is gone, with what it had not passed on: both ends notice, unless they
        are cut off from where it was; also when one of them has just closed."""
        assert self.through is not None
        self.open = False
        for end, process in enumerate(self.ends):
            if self.world.carries(self.through.host.name, process.host.name):
                lost = partial(process.link_lost, self, end, reason)
                self.world.at(self.world.delay(), partial(process.receive, lost))

    def close(self, by: int | None, reason: str) -> None:
        """Close: the other end (both, if the link breaks) learns it after what was sent."""
        if not self.open:
            return
        for end in (0, 1):
            if end != by:
                self.send(end, lambda end=end: self.ends[end].link_lost(self, end, reason))  # type: ignore[misc]
        self.open = False
