"""MapReduce by hand, for everything that can only map a function over arguments.

Two rounds, as a careful user of ``multiprocessing.Pool`` would write them: a task of the first maps
a run of items, groups their pairs, and writes one file with a pickle for each partition; a task of
the second reads its partition from all files, in order, merges, reduces, and returns the results.
The cyclic collector is off meanwhile: walking lists of live values costs more than the work.
"""

import gc
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmark.work import MapReduce, Pair, Table, TextFiles, chunks

TASKS_PER_SLOT = 16
"""Few enough that a word is not pickled once a file, many enough to even out the slots."""

Run = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]
"""Call a function on each argument in other processes; give the values as they come."""


@dataclass(frozen=True)
class MapTask:
    work: MapReduce
    keys: list[Any]
    path: str
    partitions: int


@dataclass(frozen=True)
class Written:
    """A file of pickles, one a partition: where each starts, and where the last one ends."""

    path: str
    starts: list[int]


@dataclass(frozen=True)
class ReduceTask:
    reducefn: Callable[[Any, list[Any]], Any] | None
    inputs: list[Written]
    partition: int


def mapreduce(work: MapReduce, slots: int, folder: Path, run: Run) -> Iterator[Pair]:
    """Do the work with ``run``, and files in ``folder``."""
    gc.disable()
    count = slots * TASKS_PER_SLOT
    maps = [
        MapTask(part(work, keys), keys, str(folder / f"map-{number}"), count)
        for number, keys in enumerate(chunks(work.source.list_keys(), count))
    ]
    written = sorted(run(map_task, maps), key=lambda one: int(one.path.rpartition("-")[2]))
    reduces = [ReduceTask(work.reducefn, written, number) for number in range(count)]
    for results in run(reduce_task, reduces):
        yield from results
    for one in written:
        Path(one.path).unlink()
    gc.enable()


def part(work: MapReduce, keys: list[Any]) -> MapReduce:
    """The same work with only these items, so that a task carries no others."""
    source: Table | TextFiles = work.source
    if isinstance(source, Table):
        source = Table({key: source.items[key] for key in keys})
    return MapReduce(source, work.mapfn, work.reducefn)


def map_task(task: MapTask) -> Written:
    """Map, group, and write."""
    parts = group(task.work, task.keys, task.partitions)
    starts = [0]
    with Path(task.path).open("wb") as file:
        for groups in parts:
            file.write(pickle.dumps(groups, 5))
            starts.append(file.tell())
    return Written(task.path, starts)


def group(work: MapReduce, keys: list[Any], partitions: int) -> list[dict[Any, list[Any]]]:
    """Map these items; group the pairs by key, and the keys by partition."""
    gc.disable()
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for key in keys:
        for out, value in work.mapfn(key, work.source.value(key)):
            groups[out].append(value)
    parts: list[dict[Any, list[Any]]] = [{} for _ in range(partitions)]
    for out, values in groups.items():
        parts[hash(out) % partitions][out] = values
    return parts


def reduce_task(task: ReduceTask) -> list[Pair]:
    """Read, merge, and reduce."""
    return reduce(_read(task), task.reducefn)


def _read(task: ReduceTask) -> Iterator[dict[Any, list[Any]]]:
    for one in task.inputs:
        start, stop = one.starts[task.partition : task.partition + 2]
        with Path(one.path).open("rb") as file:
            file.seek(start)
            yield pickle.loads(file.read(stop - start))


def reduce(
    parts: Iterable[dict[Any, list[Any]]], reducefn: Callable[[Any, list[Any]], Any] | None
) -> list[Pair]:
    """Merge what was grouped, in the order given, and reduce it."""
    gc.disable()
    merged: dict[Any, list[Any]] = {}
    for groups in parts:
        for key, values in groups.items():
            held = merged.get(key)
            if held is None:
                merged[key] = values
            else:
                held += values
    if reducefn is None:
        return list(merged.items())
    return [(key, reducefn(key, values)) for key, values in merged.items()]
