"""Small grids across hosts in which one decision matters, and what must come of it.

Random seeds heal every fault before they judge, so a decision that only splits a grid for a while
breaks no promise there. Here each scene is set for one decision and is judged at once.
"""

from collections.abc import Callable

from grid.messages import Address, RecordMeta
from grid.settings import Settings
from tests.simulation.auditor import Auditor
from tests.simulation.process import Process
from tests.simulation.world import World

TASK_SECONDS = 0.02
ITEMS = 30


class Unmet(AssertionError):
    """What had to come of a scene did not."""


class Scene:
    """Hosts, and peers on them that know ``seeds``. Times and delays are the same every time."""

    def __init__(self, *seeds: str, quorum: int = 0, task_seconds: float = TASK_SECONDS) -> None:
        self.task_seconds = task_seconds
        self.world = World(seed=1)
        self.world.latency = (0.001, 0.001)
        self.auditor = Auditor(self.world)
        self.auditor.calm = False
        self.settings = Settings(hosts=seeds, slots=1, join_timeout=1e9, quorum=quorum)
        self._jobs = 0

    def start(self, host: str, *seeds: str) -> Process:
        """Start a peer that knows ``seeds``, or those of the scene; let it join."""
        name = f"p{len(self.world.processes) + 1}"
        process = Process(self.world, self.auditor, name, host, self.settings)
        process.shop.task_seconds = (self.task_seconds, self.task_seconds)
        ports = self.settings.ports
        hosts = seeds or self.settings.hosts
        process.start(tuple(Address(host, port) for host in hosts for port in ports))
        self.wait(2.0)
        return process

    def submit(self, process: Process) -> str:
        self._jobs += 1
        txn = f"t{self._jobs}"
        process.submit(txn, RecordMeta(f"r{self._jobs}", "mapreduce", ITEMS, 4, finish=False))
        return txn

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def cut(self, one: str, other: str) -> None:
        """Cut two hosts off from each other, both ways."""
        self.world.cut_way(one, other)
        self.world.cut_way(other, one)

    def mend(self) -> None:
        self.world.mend_all()

    def kill_host(self, process: Process) -> None:
        """Nobody is told: no connection closes."""
        self.world.cut(process.host.name)
        process.kill()

    # -- what came of it ---------------------------------------------------------------

    @property
    def reigns(self) -> int:
        """How many there were."""
        return sum(" serves as " in line for line in self.world.log)

    def expect(self, held: bool, what: str) -> None:
        if not held:
            raise Unmet("\n".join([what, *self.world.log[-20:]]))

    def expect_server(self, server: Process, *members: Process) -> None:
        """This one alone serves, and all of these follow it."""
        serving = [p.name for p in self.world.processes if p.awake and p.server is not None]
        self.expect(serving == [server.name], f"{server.name} serves alone, not {serving}")
        for member in members:
            link = member.client.election.link
            follows = member.far(link) if link is not None else None
            self.expect(follows is server, f"{member.name} follows {server.name}")

    def expect_delivered(self, txn: str) -> None:
        outcomes = self.auditor.cases[txn].outcomes
        self.expect(outcomes == ["delivered"], f"{txn} is delivered, not {outcomes}")
        self.expect(not self.world.wrong, "; ".join(self.world.wrong))


def three(
    *seeds: str, quorum: int = 0, task_seconds: float = TASK_SECONDS
) -> tuple[Scene, Process, Process, Process]:
    """Three peers on three hosts, the first of them serving."""
    scene = Scene(*seeds, quorum=quorum, task_seconds=task_seconds)
    first, second, third = scene.start("a"), scene.start("b"), scene.start("c")
    scene.expect_server(first, second, third)
    return scene, first, second, third


# ---------------------------------------------------------------------------------------- scenes


def follows_through_another() -> None:
    """Who reaches the others but not the server follows it through one of them."""
    scene, server, second, third = three("a", "b", "c")
    scene.cut("a", "c")
    scene.wait(8.0)
    scene.expect_server(server, second, third)
    txn = scene.submit(third)
    scene.wait(8.0)
    scene.expect_delivered(txn)
    scene.mend()
    scene.wait(5.0)
    scene.expect_server(server, second, third)
    scene.expect(scene.reigns == 1, "nobody has ever grabbed the port besides")


def does_not_wait_on_a_stale_vouch() -> None:
    """Who hears that another has heard nothing of the server for seconds grabs the port."""
    scene, server, _, third = three("a", "b", "c")
    scene.world.cut_way("a", "c")
    scene.wait(2.5)
    scene.kill_host(server)
    scene.wait(3.5)  # b has not noticed yet
    scene.expect(third.server is not None, "p3 serves while p2 still hopes")
    scene.wait(5.0)
    scene.expect(scene.reigns == 2, "one reign followed the first")


def one_rival_finding_the_other_is_enough() -> None:
    """A server that nobody told of another gives way to it, as that one knows where to look."""
    scene = Scene("a", "b", "c")
    scene.world.cut("a")
    alone = scene.start("a", "a")
    second, third = scene.start("b"), scene.start("c")
    scene.mend()
    scene.wait(8.0)
    scene.expect_server(second, alone, third)


def finds_the_grid_by_a_signpost() -> None:
    """A newcomer that knows only the host of a follower finds the server elsewhere."""
    scene = Scene("a", "b")
    server, follower = scene.start("a"), scene.start("b")
    scene.wait(2.0)
    newcomer = scene.start("c", "b")
    scene.expect_server(server, follower, newcomer)
    scene.expect(scene.reigns == 1, "the newcomer joined what was there")


def is_found_on_a_host_that_nobody_listed() -> None:
    """The peer of the only listed host dies, and with it the first successor, to which all others
    have a connection ready: the next takes over, and all find it."""
    scene, server, second, third = three("a")
    fourth, fifth = scene.start("d"), scene.start("e")
    server.kill()
    second.kill()
    scene.wait(8.0)
    scene.expect_server(third, fourth, fifth)
    scene.expect(scene.reigns == 2, "one reign followed the first")


def leaves_the_port_to_those_before_it() -> None:
    """The server's host dies: one successor takes over, while the others wait for their turn."""
    scene, server, second, third = three("a", "b", "c", "d")
    fourth = scene.start("d")
    scene.kill_host(server)
    scene.wait(8.0)
    scene.expect(scene.reigns == 2, "one reign followed the first")
    scene.expect_server(second, third, fourth)


def does_not_take_a_grid_away() -> None:
    """A lonely peer that comes back with a higher term gives way to who has followers."""
    scene, server, second, third = three("a", "b", "c")
    scene.world.cut("c")
    scene.wait(8.0)
    scene.expect(third.server is not None, "p3 serves alone, as there is nobody else")
    scene.mend()
    scene.wait(8.0)
    scene.expect_server(server, second, third)


def works_at_nothing_without_a_quorum() -> None:
    """Of two halves only the one with a quorum works; the other's job waits, and is not lost."""
    scene, server, second, third = three("a", "b", "c", quorum=2, task_seconds=0.4)
    scene.world.cut("a")
    lesser, greater = scene.submit(server), scene.submit(second)
    scene.wait(0.1)
    scene.expect(bool(server.shop.running), "the server does not know yet that it is cut off")
    scene.wait(15.0)
    scene.expect_delivered(greater)
    scene.expect(not scene.auditor.cases[lesser].outcomes, f"{lesser} waits")
    scene.expect(not server.shop.running, "nothing runs in the lesser half")
    scene.mend()
    scene.wait(8.0)
    scene.expect_delivered(lesser)
    scene.expect(bool(third.client.election.joined), "all are one grid again")


SCENES: dict[str, Callable[[], None]] = {
    play.__name__: play
    for play in (
        follows_through_another,
        does_not_wait_on_a_stale_vouch,
        one_rival_finding_the_other_is_enough,
        finds_the_grid_by_a_signpost,
        is_found_on_a_host_that_nobody_listed,
        leaves_the_port_to_those_before_it,
        does_not_take_a_grid_away,
        works_at_nothing_without_a_quorum,
    )
}
