"""mpire: a quicker ``multiprocessing.Pool``, by its own account."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from scripts.benchmark.engines import shuffle
from scripts.benchmark.engines.base import NUMPY, Engine
from scripts.benchmark.work import MapReduce, Pair

CHUNKS_PER_SLOT = 8


class Measured(Engine):
    requirements = ("mpire>=2.10,<3", NUMPY)
    package = "mpire"
    idiom = "`WorkerPool`, forked, with the same shuffle as `pool`; `map` with large chunks."

    def start(self) -> None:
        mpire: Any = import_module("mpire")
        self._pool = mpire.WorkerPool(n_jobs=self.slots, start_method="fork", keep_alive=True)

    def close(self) -> None:
        self._pool.stop_and_join()

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        run = partial(self._pool.imap_unordered, chunk_size=1)
        return shuffle.mapreduce(work, self.slots, self.folder, run)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        size = max(1, len(items) // (self.slots * CHUNKS_PER_SLOT))
        values: list[Any] = self._pool.map(function, items, chunk_size=size)
        return values

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        waiting = [self._pool.apply_async(function, (item,)) for item in items]
        return [one.get() for one in waiting]
