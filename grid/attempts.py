"""The tasks in a peer's hands: queued, preparing, ready, running.

A slot is taken only when a task's inputs are at hand, so a slow fetch never idles a worker. The
tasks go on while there is no server; their attempts are announced on rejoining. Whatever comes
back for an attempt that is no longer here is stale, and its output is dropped.
"""

from enum import Enum

from msgspec import Struct

from grid.messages import Assign, Output, Running


class Stage(Enum):
    PREPARING = 1
    READY = 2
    RUNNING = 3
    STOPPING = 4
    """Cancelled while running: the slot is free once its worker is gone."""


class _Task(Struct):
    assign: Assign
    stage: Stage


class Attempts:
    """What this peer was given to do."""

    def __init__(self, peer: str, slots: int) -> None:
        self._peer = peer
        self._slots = slots
        self._tasks: dict[str, _Task] = {}
        self._counter = 0

    def __contains__(self, attempt: str) -> bool:
        task = self._tasks.get(attempt)
        return task is not None and task.stage is not Stage.STOPPING

    def __len__(self) -> int:
        return sum(task.stage is not Stage.STOPPING for task in self._tasks.values())

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return sum(task.stage in (Stage.RUNNING, Stage.STOPPING) for task in self._tasks.values())

    def add(self, assign: Assign) -> bool:
        """Take in a task; False for one that is here already."""
        if assign.attempt in self._tasks:
            return False
        self._tasks[assign.attempt] = _Task(assign, Stage.PREPARING)
        return True

    def prepared(self, attempt: str) -> None:
        """The inputs are here."""
        task = self._tasks.get(attempt)
        if task is not None and task.stage is Stage.PREPARING:
            task.stage = Stage.READY

    def startable(self) -> list[tuple[Assign, Output]]:
        """Take free slots for ready tasks, in the order given; name their outputs."""
        busy = self.busy
        started: list[tuple[Assign, Output]] = []
        for task in self._tasks.values():
            if busy >= self._slots:
                break
            if task.stage is Stage.READY:
                task.stage = Stage.RUNNING
                busy += 1
                started.append((task.assign, self._name(task.assign)))
        return started

    def _name(self, assign: Assign) -> Output:
        self._counter += 1
        return Output(
            assign.record, assign.kind, assign.start, assign.stop, self._peer, self._counter
        )

    def ended(self, attempt: str) -> Assign | None:
        """Take an attempt out; None if it was cancelled meanwhile or never was here."""
        task = self._tasks.pop(attempt, None)
        return None if task is None or task.stage is Stage.STOPPING else task.assign

    def cancel(self, attempt: str) -> bool:
        """Stop an attempt; tell whether it was here."""
        task = self._tasks.get(attempt)
        if task is None or task.stage is Stage.STOPPING:
            return False
        if task.stage is Stage.RUNNING:
            task.stage = Stage.STOPPING
        else:
            del self._tasks[attempt]
        return True

    def of(self, record: str) -> list[str]:
        """The attempts that work for a record."""
        return [a for a, task in self._tasks.items() if task.assign.record == record]

    def waiting(self) -> list[str]:
        """The attempts that are not running yet."""
        early = (Stage.PREPARING, Stage.READY)
        return [a for a, task in self._tasks.items() if task.stage in early]

    def all(self) -> list[str]:
        return [a for a in self._tasks if a in self]

    def running(self) -> tuple[Running, ...]:
        """All in hand, as announced on joining."""
        return tuple(
            Running(a, t.assign.record, t.assign.kind, t.assign.start, t.assign.stop)
            for a, t in self._tasks.items()
            if t.stage is not Stage.STOPPING
        )
