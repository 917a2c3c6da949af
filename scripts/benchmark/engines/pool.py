"""``multiprocessing.Pool``, with the shuffle that one has to write oneself."""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.pool import Pool
from typing import Any

from scripts.benchmark.engines import shuffle
from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import MapReduce, Pair

CHUNKS_PER_SLOT = 8


class Measured(Engine):
    idiom = (
        "A hand-written shuffle in two rounds through files, collector off; `Pool.map` with "
        "large chunks; `apply_async` for single tasks."
    )

    def start(self) -> None:
        # Forked, which is its quickest way and so its best.
        self._pool: Pool = multiprocessing.get_context("fork").Pool(self.slots)

    def close(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        return shuffle.mapreduce(work, self.slots, self.folder, self._pool.imap_unordered)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        size = max(1, len(items) // (self.slots * CHUNKS_PER_SLOT))
        return self._pool.map(function, items, chunksize=size)

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        waiting = [self._pool.apply_async(function, (item,)) for item in items]
        return [one.get() for one in waiting]
