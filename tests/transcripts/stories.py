"""The stories that are kept as text: each a small grid, some work, and what befalls it."""

from collections.abc import Callable

from tests.simulation.process import Process
from tests.transcripts.stage import Stage


def three(stage: Stage) -> tuple[Process, Process, Process]:
    """Three peers, the first of them serving."""
    first = stage.start()
    stage.wait(0.5)
    second, third = stage.start(), stage.start()
    stage.wait(0.5)
    return first, second, third


def start_together(stage: Stage) -> None:
    """Three peers start in the same moment and agree on one server."""
    for _ in range(3):
        stage.start()
    stage.wait(1.0)


def server_killed_while_mapping(stage: Stage) -> None:
    """The server is killed; one takes over; nothing that is sealed is run again."""
    server, _, owner = three(stage)
    stage.say("p3 submits; half of the items are mapped when the server dies")
    stage.submit(owner, 8)
    stage.wait(0.25)
    server.kill()
    stage.wait(6.0)


def frozen_server_wakes(stage: Stage) -> None:
    """A frozen server keeps its port; the next port is grabbed; waking, it gives way."""
    server, _, owner = three(stage)
    stage.submit(owner, 6)
    stage.wait(0.15)
    server.freeze()
    stage.wait(12.0)
    stage.say("the job is finished; the frozen server wakes")
    server.wake()
    stage.wait(6.0)


def owner_dies(stage: Stage) -> None:
    """The only owner of a job dies: the others stop working for it."""
    stage.task_seconds = 9.0
    _, _, owner = three(stage)
    stage.submit(owner, 8)
    stage.wait(12.0)
    owner.kill()
    stage.wait(90.0)


def named_transaction_with_a_latecomer(stage: Stage) -> None:
    """Two peers submit one name and share its work; a third comes when it is finished."""
    first, second, third = three(stage)
    stage.submit(first, 4, "job")
    stage.wait(0.05)
    stage.submit(second, 4, "job")
    stage.wait(2.0)
    stage.say("p3 comes late")
    stage.submit(third, 4, "job")
    stage.wait(1.0)


def peer_leaves_well(stage: Stage) -> None:
    """A peer is closed in the middle of a job: it ends its task, a neighbour adopts its outputs."""
    _, leaver, owner = three(stage)
    stage.submit(owner, 6)
    stage.wait(0.15)
    leaver.leave()
    stage.wait(3.0)


def host_leaves_well(stage: Stage) -> None:
    """The only peer of a host is closed: others take over its outputs before it goes."""
    _, leaver, owner = three_hosts(stage, "a", "b", "c")
    stage.submit(owner, 6)
    stage.wait(0.15)
    leaver.leave()
    stage.wait(3.0)


def server_dies_twice(stage: Stage) -> None:
    """The successor dies too, before everyone has come back to it."""
    first, second, _ = three(stage)
    owner = stage.start()
    stage.wait(0.5)
    stage.submit(owner, 8)
    stage.wait(0.15)
    first.kill()
    stage.wait(0.1)
    second.kill()
    stage.wait(8.0)


def three_hosts(stage: Stage, *seeds: str) -> tuple[Process, Process, Process]:
    """Three peers on hosts a, b and c, the first of them serving."""
    stage.across(*seeds)
    peers: list[Process] = []
    for host in ("a", "b", "c"):
        peers.append(stage.start(host))
        stage.wait(1.5)
    return peers[0], peers[1], peers[2]


def unlisted_host_takes_over(stage: Stage) -> None:
    """The peer of the only listed host dies; one of a host in nobody's list takes over."""
    server, _, owner = three_hosts(stage, "a")
    stage.say("p3 submits; the peer of host a dies")
    stage.submit(owner, 6)
    stage.wait(0.15)
    server.kill()
    stage.wait(6.0)
    stage.say("host a is back: its new peer hears of the others when they look there")
    stage.start("a")
    stage.wait(5.0)


def cut_from_the_server_alone(stage: Stage) -> None:
    """A peer is cut off from the server, and not from the others: it follows through one."""
    _, _, third = three_hosts(stage, "a", "b", "c")
    stage.say("hosts a and c do not reach each other any more")
    stage.world.cut_way("a", "c")
    stage.world.cut_way("c", "a")
    stage.wait(7.0)
    stage.say("p3 submits; what p1 cannot get from p3 is given to others")
    stage.submit(third, 3)
    stage.wait(3.0)


def two_halves_heal(stage: Stage) -> None:
    """A grid is cut in halves, each with a job; healed, it has one server, and both have ended."""
    server, second, _ = three_hosts(stage, "a", "b", "c")
    stage.task_seconds = 0.8
    stage.start("a")
    stage.wait(1.5)
    stage.say("host a is cut off; p1 and p2 submit")
    stage.world.cut("a")
    stage.submit(server, 4, "one")
    stage.submit(second, 3, "two")
    stage.wait(9.0)
    stage.say("the cut is mended")
    stage.world.mend("a")
    stage.wait(6.0)


def newcomer_finds_a_signpost(stage: Stage) -> None:
    """A newcomer knows one host, whose peer follows a server elsewhere: it is sent there."""
    three_hosts(stage, "a", "b")
    stage.say("p4 knows only host b")
    stage.start("d", "b")
    stage.wait(1.5)


STORIES: dict[str, Callable[[Stage], None]] = {
    tell.__name__: tell
    for tell in (
        start_together,
        server_killed_while_mapping,
        frozen_server_wakes,
        owner_dies,
        named_transaction_with_a_latecomer,
        peer_leaves_well,
        host_leaves_well,
        server_dies_twice,
        unlisted_host_takes_over,
        cut_from_the_server_alone,
        two_halves_heal,
        newcomer_finds_a_signpost,
    )
}


def told(name: str) -> str:
    """Return a story as text: its title, then what happened."""
    stage = Stage()
    tell = STORIES[name]
    tell(stage)
    return f"# {tell.__doc__}\n\n{stage.story()}"
