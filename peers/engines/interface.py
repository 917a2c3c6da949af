"""What an engine is asked, what it answers, and what a cluster offers to those that have one.

``Engine`` is all that ``peers.run`` knows. The peer grid and the sequential oracle implement it
directly. Dask and Ray share one way through a job (``course.py``) and differ in ``Cluster``: how
a task is started, waited for, fetched and cancelled. Shuffle, spilling, retries after lost
workers, and which task goes where, are the cluster's own affair.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from grid.errors import DeadlineExceeded

if TYPE_CHECKING:
    from grid.job import Job
    from peers.engines.tasks import Share, Told
    from peers.transaction import Progress

CONNECT_SECONDS = 10.0
"""So long a cluster is looked for, unless told otherwise."""

POLL_SECONDS = 0.25
"""So soon a deadline, Ctrl-C or a lost cluster is noticed."""


@dataclass(frozen=True)
class Request:
    """A job, and how it should be run. ``grid_options`` are those that the peer grid alone has.

    ``progress`` is called in the calling thread, now and then, and at last when all is done.
    """

    job: "Job"
    on_error: Literal["raise", "skip"] = "raise"
    retries: int = 0
    deadline_seconds: float | None = None
    connect_seconds: float | None = None
    progress: "Callable[[Progress], None] | None" = None
    grid_options: dict[str, Any] = field(default_factory=dict)

    def show(self, now: "Progress") -> None:
        """Tell whoever wants to know how far it is."""
        if self.progress is not None:
            self.progress(now)


@dataclass(frozen=True)
class Outcome:
    """Results, and the keys of the items that ``on_error="skip"`` has left out, in order."""

    results: dict[Any, Any]
    skipped: list[Any]


class Deadline:
    """When a job must be done, from now on; never, if ``seconds`` is None."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def patience(self) -> float:
        """Return how long to wait before asking again. Raises ``DeadlineExceeded``."""
        if self._at is None:
            return POLL_SECONDS
        left = self._at - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"the job was not done within its deadline of {self._seconds:g} s. Give it "
                f"longer, or the cluster more workers"
            )
        return min(left, POLL_SECONDS)


class Engine(Protocol):
    """Something that computes jobs."""

    def run(self, request: Request) -> Outcome:
        """Compute the results, or raise a ``GridError``. ``resultfn`` is not called, except by the
        peer grid, which calls it for every owner."""
        ...


@dataclass(eq=False)
class Started:
    """A task on its way. ``what`` is it for people, ``told`` and ``output`` are the cluster's
    handles of a ``Told`` and of what the task made."""

    what: str
    told: Any
    output: Any


class Cluster(Protocol):
    """A cluster, connected, with one job's code. Raises ``GridError`` and ``tasks.Failed``.

    ``slots`` is how many tasks run at once, ``slices`` into how many parts a map's output can be
    taken apart.
    """

    slots: int
    slices: int

    def map(self, share: "Share") -> Started: ...

    def reduce(self, maps: Sequence[Started], first: int, stop: int) -> Started:
        """Reduce slices ``first..stop`` of these maps, given in datasource order."""
        ...

    def finish(self, reduces: Sequence[Started]) -> Started: ...

    def ended(self, tasks: Sequence[Started], seconds: float) -> list[Started]:
        """Return those that have ended, however they did; wait at most so long for a first."""
        ...

    def told(self, task: Started) -> "Told":
        """Return what an ended task says of itself, or raise how it ended."""
        ...

    def output(self, task: Started) -> list[bytes]:
        """Fetch the chunks of results that a reduce or the finish made."""
        ...

    def cancel(self) -> None:
        """Withdraw every task that has not ended."""
        ...
