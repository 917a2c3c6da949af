"""Dask: a scheduler and workers, by ``distributed``."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from scripts.benchmark.engines import shuffle
from scripts.benchmark.engines.base import NUMPY, Engine
from scripts.benchmark.work import MapReduce, Pair, chunks

PARTITIONS_PER_SLOT = 4
"""Enough to even out the slots; tasks are dear here."""

CHUNKS_PER_SLOT = 8
JOIN_SECONDS = 60


def map_part(work: MapReduce, keys: list[Any], partitions: int) -> list[bytes]:
    """Map and group. Dask would serialise a dict value by value; bytes it leaves alone."""
    return [pickle.dumps(groups, 5) for groups in shuffle.group(work, keys, partitions)]


def reduce_part(reducefn: Any, maps: list[list[bytes]], number: int) -> bytes:
    """Merge one partition. Workers fetch all of each map: that is cheaper than a task for each."""
    parts = (pickle.loads(parts[number]) for parts in maps)
    return pickle.dumps(shuffle.reduce(parts, reducefn), 5)


def run_part(function: Callable[[Any], Any], items: list[Any]) -> bytes:
    return pickle.dumps([function(item) for item in items], 5)


class Measured(Engine):
    requirements = ("distributed>=2025.7,<2027", NUMPY)
    package = "distributed"
    idiom = (
        "`LocalCluster` with a process a slot: tasks that map and group, and tasks that merge and "
        "reduce; data as bytes, which it moves untouched; hand-made batches for a map."
    )
    singles_max = 2_000

    def start(self) -> None:
        distributed: Any = import_module("distributed")
        self._cluster = distributed.LocalCluster(
            n_workers=self.slots,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(self.folder),
        )
        self._client = distributed.Client(self._cluster)
        self._as_completed = distributed.as_completed
        self._apart: list[subprocess.Popen[bytes]] = []

    def start_apart(self) -> list[int]:
        distributed: Any = import_module("distributed")
        self._cluster = None
        self._as_completed = distributed.as_completed
        told = str(self.folder / "scheduler.json")
        scheduler = ["scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1"]
        worker = ["worker", "--nthreads", "1", "--no-dashboard"]
        said = ["--scheduler-file", told]
        commands = [[*scheduler, *said], *[[*worker, *said]] * self.slots]
        self._apart = [
            subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for command in commands
        ]
        self._client = distributed.Client(scheduler_file=told, timeout=JOIN_SECONDS)
        self._client.wait_for_workers(self.slots, timeout=JOIN_SECONDS)
        return [self._apart[0].pid]

    def close(self) -> None:
        try:
            self._client.close(timeout=5)
        finally:
            if self._cluster is not None:
                self._cluster.close()
            for process in self._apart:
                process.terminate()
                process.wait()

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        submit = self._client.submit
        partitions = self.slots * PARTITIONS_PER_SLOT
        maps = [
            submit(map_part, shuffle.part(work, keys), keys, partitions, pure=False)
            for keys in chunks(work.source.list_keys(), self.slots * shuffle.TASKS_PER_SLOT)
        ]
        reduces = [
            submit(reduce_part, work.reducefn, maps, number, pure=False)
            for number in range(partitions)
        ]
        # What no future names any more is forgotten by the workers.
        del maps
        for future in self._as_completed(reduces):
            yield from pickle.loads(future.result())

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        cut = [*chunks(list(items), self.slots * CHUNKS_PER_SLOT)]
        waiting = [self._client.submit(run_part, function, one, pure=False) for one in cut]
        return [value for part in self._client.gather(waiting) for value in pickle.loads(part)]

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        waiting = [self._client.submit(function, item, pure=False) for item in items]
        values: list[Any] = self._client.gather(waiting)
        return values
