"""``Engine``: what a benchmark asks of whatever runs work on two cores.

An engine is made, started, given work, and, on leaving its context, closed, all in one process
that is measured as a whole. Modules of engines import their rival only in ``start``: the command
reads ``requirements`` and ``lacks`` where the rival is not installed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from scripts.benchmark.work import MapReduce, Pair

NUMPY = "numpy>=1.26,<3"


class Unsupported(Exception):
    """This engine has nothing for this work. The text says what and stands in the table."""


class Engine(ABC):
    """One way of doing work with ``slots`` processes. ``folder`` is the run's own, for files."""

    requirements: ClassVar[tuple[str, ...]] = (NUMPY,)
    """What is installed into the engine's environment."""

    package: ClassVar[str] = ""
    """Whose version the report tells; empty for Python itself."""

    idiom: ClassVar[str] = ""
    """How the work is done with this engine, in a sentence or two, for the report."""

    singles_max: ClassVar[int] = 20_000
    """So many single tasks at most are given when their rate is measured: some are slow."""

    def __init__(self, slots: int, folder: Path) -> None:
        self.slots = slots
        self.folder = folder
        self._begun = False

    def begin(self) -> None:
        """``start``, so that leaving the context will ``close``."""
        self.start()
        self._begun = True

    def begin_apart(self) -> list[int]:
        """``start_apart``, so that leaving the context will ``close``."""
        coordinators = self.start_apart()
        self._begun = True
        return coordinators

    @classmethod
    def lacks(cls) -> str:
        """Say what this machine lacks, besides packages of Python; empty if nothing."""
        return ""

    def start(self) -> None:  # noqa: B027 - some have nothing to start
        """Get ready for work."""

    def start_apart(self) -> list[int]:
        """Start, instead of ``start``, so that what coordinates is not this process; return the
        processes that do. Raises ``Unsupported`` if that cannot be."""
        raise Unsupported("the process that submits coordinates: killed, all is gone with it")

    def close(self) -> None:  # noqa: B027
        """End everything that was started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            self.close()

    @abstractmethod
    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        """Do the work; return the results in any order, as a stream if there is one."""

    @abstractmethod
    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        """Call ``function`` on each item, in the batches that suit this engine best."""

    @abstractmethod
    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Call ``function`` on each item as a task of its own, all given at once."""

    def tasks(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Call ``function`` on each item, which takes a second or so."""
        return self.each(function, items)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call ``function`` once and wait for its value."""
        return self.each(function, [argument])[0]
