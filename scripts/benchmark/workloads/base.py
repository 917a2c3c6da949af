"""``Workload``: one kind of work, with its sizes, its input, and the figures that come of it.

``prepare`` makes the input from the size alone, once, into a folder that later runs use again.
``run`` has an engine do the work and returns a digest of the answer, which every engine must agree
on, and the figures that it took itself. What the whole process took, and its memory, are taken from
outside (``runs``).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import Digest, MapReduce


@dataclass(frozen=True)
class Figure:
    """A number that is compared. ``more`` says whether more is better."""

    key: str
    label: str
    unit: str
    more: bool = False


SECONDS = Figure("seconds", "whole process", "s")
"""From the start of the process to its end."""

MEMORY = Figure("memory", "peak memory", "MB")
"""The most that all processes of the run held at one time, PSS and files in memory."""


@dataclass(frozen=True)
class Input:
    """``folder`` has what ``prepare`` made for this size."""

    folder: Path
    size: int


@dataclass
class Outcome:
    """``notes`` says, by figure, why there is none."""

    digest: str
    figures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Workload(ABC):
    """``full``, ``quick`` and ``least`` (for tests) are sizes, in ``unit``."""

    about: ClassVar[str]
    more: ClassVar[tuple[int, ...]] = ()
    """Further sizes that are measured when all is."""

    input: ClassVar[str] = ""
    """Names the input that ``prepare`` makes; workloads with the same one share it."""

    unit: ClassVar[str]
    full: ClassVar[int]
    quick: ClassVar[int]
    least: ClassVar[int]
    figures: ClassVar[tuple[Figure, ...]] = (SECONDS, MEMORY)
    starts: ClassVar[bool] = True
    """Whether the engine is started before ``run``; otherwise ``run`` does."""

    def prepare(self, folder: Path, size: int) -> None:  # noqa: B027 - many need no files
        """Make the input in this empty folder."""

    @abstractmethod
    def run(self, engine: Engine, given: Input) -> Outcome:
        """Have the engine do it."""


class MapReduceWorkload(Workload):
    """A single job, whose answer does not depend on the order of its pairs."""

    @abstractmethod
    def work(self, given: Input) -> MapReduce:
        """The job."""

    def run(self, engine: Engine, given: Input) -> Outcome:
        return Outcome(str(Digest().add(engine.mapreduce(self.work(given)))))
