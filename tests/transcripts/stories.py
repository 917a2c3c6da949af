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
    """A peer is closed in the middle of a job: its outputs stay, its task goes to another."""
    _, leaver, owner = three(stage)
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


STORIES: dict[str, Callable[[Stage], None]] = {
    tell.__name__: tell
    for tell in (
        start_together,
        server_killed_while_mapping,
        frozen_server_wakes,
        owner_dies,
        named_transaction_with_a_latecomer,
        peer_leaves_well,
        server_dies_twice,
    )
}


def told(name: str) -> str:
    """Return a story as text: its title, then what happened."""
    stage = Stage()
    tell = STORIES[name]
    tell(stage)
    return f"# {tell.__doc__}\n\n{stage.story()}"
