"""Ray, on one machine."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from scripts.benchmark.engines import shuffle
from scripts.benchmark.engines.base import NUMPY, Engine
from scripts.benchmark.processes import descendants, name_of
from scripts.benchmark.work import MapReduce, Pair, chunks

CHUNKS_PER_SLOT = 8


def map_part(work: MapReduce, keys: list[Any], partitions: int) -> Any:
    parts = shuffle.group(work, keys, partitions)
    return parts if partitions > 1 else parts[0]


def reduce_part(reducefn: Any, *parts: dict[Any, list[Any]]) -> list[Pair]:
    return shuffle.reduce(parts, reducefn)


def run_part(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]


def run_one(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


class Measured(Engine):
    requirements = ("ray>=2.50,<3", NUMPY)
    package = "ray"
    idiom = (
        "Tasks of `ray.init()`: those that map return a partition each as an object, those that "
        "reduce take one of each; batches by hand for a map."
    )
    singles_max = 5_000

    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray: Any = import_module("ray")
        self._ray = ray
        self._cluster: Any = None
        # Not below the run's folder: the names of its sockets must be short.
        self._temporary = tempfile.mkdtemp(prefix="ray-")
        ray.init(
            num_cpus=self.slots,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=self._temporary,
        )
        self._make_tasks()

    def _make_tasks(self) -> None:
        ray = self._ray
        self._map_part, self._reduce_part, self._run_part, self._run_one = (
            ray.remote(function) for function in (map_part, reduce_part, run_part, run_one)
        )

    def start_apart(self) -> list[int]:
        """A head that has no workers, and a node that has them; what is killed is the head."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._ray = import_module("ray")
        self._temporary = tempfile.mkdtemp(prefix="ray-")
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._temporary}
        utilities: Any = import_module("ray.cluster_utils")
        self._cluster = utilities.Cluster(initialize_head=True, head_node_args=head)
        coordinators = [pid for pid in descendants() if name_of(pid) in ("gcs_server", "raylet")]
        self._cluster.add_node(num_cpus=self.slots)
        self._ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        self._make_tasks()
        return coordinators

    def close(self) -> None:
        self._ray.shutdown()
        if self._cluster is not None:
            self._cluster.shutdown()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        count = self.slots * shuffle.TASKS_PER_SLOT
        task = self._map_part.options(num_returns=count)
        cut = chunks(work.source.list_keys(), count)
        maps = [task.remote(shuffle.part(work, keys), keys, count) for keys in cut]
        waiting = [
            self._reduce_part.remote(work.reducefn, *(one[number] for one in maps))
            for number in range(count)
        ]
        del maps
        while waiting:
            (ready,), waiting = self._ray.wait(waiting)
            yield from self._ray.get(ready)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        cut = chunks(list(items), self.slots * CHUNKS_PER_SLOT)
        waiting = [self._run_part.remote(function, one) for one in cut]
        return [value for part in self._ray.get(waiting) for value in part]

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        waiting = [self._run_one.remote(function, item) for item in items]
        values: list[Any] = self._ray.get(waiting)
        return values
