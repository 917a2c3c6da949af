"""``concurrent.futures.ProcessPoolExecutor``."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from typing import Any

from scripts.benchmark.engines import shuffle
from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import MapReduce, Pair

CHUNKS_PER_SLOT = 8


class ExecutorEngine(Engine):
    """Any executor of the standard interface."""

    def make(self) -> Executor:
        """Return the executor, ready for work."""
        raise NotImplementedError

    def start(self) -> None:
        self._executor = self.make()

    def close(self) -> None:
        self._executor.shutdown()

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        return shuffle.mapreduce(work, self.slots, self.folder, self._as_they_come)

    def _as_they_come(self, function: Callable[[Any], Any], tasks: list[Any]) -> Iterator[Any]:
        waiting = [self._executor.submit(function, task) for task in tasks]
        for future in as_completed(waiting):
            yield future.result()
            waiting.remove(future)  # it keeps its value

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        size = max(1, len(items) // (self.slots * CHUNKS_PER_SLOT))
        return list(self._executor.map(function, items, chunksize=size))

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        waiting = [self._executor.submit(function, item) for item in items]
        return [future.result() for future in waiting]


class Measured(ExecutorEngine):
    idiom = (
        "The same hand-written shuffle as `pool`; `map` with large chunks; `submit` for single "
        "tasks."
    )

    def make(self) -> Executor:
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(self.slots, mp_context=context)
