"""Spark, by PySpark in its local mode."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from scripts.benchmark.engines.base import NUMPY, Engine
from scripts.benchmark.engines.shuffle import TASKS_PER_SLOT
from scripts.benchmark.work import MapReduce, Pair

DRIVER_MEMORY = "4g"
"""Its usual gigabyte is too little for two million results."""

CHUNKS_PER_SLOT = 8


class Measured(Engine):
    requirements = ("pyspark>=4,<5", NUMPY)
    package = "pyspark"
    idiom = (
        "`local[2]`: `flatMap`, `groupByKey`, `map`, `collect` on an RDD; a job of its own, from "
        "threads, for each single task."
    )
    singles_max = 100

    @classmethod
    def lacks(cls) -> str:
        return "" if shutil.which("java") else "needs Java 17 or newer, and there is no `java`"

    def start(self) -> None:
        os.environ["PYSPARK_PYTHON"] = sys.executable
        pyspark: Any = import_module("pyspark")
        settings = pyspark.SparkConf()
        settings.setMaster(f"local[{self.slots}]").setAppName("benchmark")
        settings.set("spark.ui.enabled", "false")
        settings.set("spark.driver.memory", DRIVER_MEMORY)
        settings.set("spark.driver.host", "127.0.0.1")
        settings.set("spark.driver.bindAddress", "127.0.0.1")
        settings.set("spark.local.dir", str(self.folder))
        settings.set("spark.ui.showConsoleProgress", "false")
        self._context = pyspark.SparkContext(conf=settings)
        self._context.setLogLevel("ERROR")

    def close(self) -> None:
        self._context.stop()

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        source, mapfn, reducefn = work.source, work.mapfn, work.reducefn
        keys = source.list_keys()
        items = [(key, source.value(key)) for key in keys] if work.is_table else keys
        count = min(self.slots * TASKS_PER_SLOT, len(keys))
        given = self._context.parallelize(items, count)
        if work.is_table:
            pairs = given.flatMap(lambda item: mapfn(*item))
        else:
            pairs = given.flatMap(lambda key: mapfn(key, source.value(key)))
        groups = pairs.groupByKey(self.slots * TASKS_PER_SLOT)
        if reducefn is None:
            results = groups.mapValues(list)
        else:
            results = groups.map(lambda group: (group[0], reducefn(group[0], list(group[1]))))
        collected: list[Pair] = results.collect()
        return collected

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        given = self._context.parallelize(items, self.slots * CHUNKS_PER_SLOT)
        values: list[Any] = given.map(function).collect()
        return values

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        def run(item: Any) -> Any:
            return self._context.parallelize([item], 1).map(function).collect()[0]

        with ThreadPoolExecutor(self.slots) as threads:
            return list(threads.map(run, items))
