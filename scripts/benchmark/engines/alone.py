"""One process and plain dicts: what an answer has to be, and what one core does without help."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import MapReduce, Pair


class Measured(Engine):
    idiom = "A loop in one process, grouping into a dict of lists."

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        groups: defaultdict[Any, list[Any]] = defaultdict(list)
        for key in work.source.list_keys():
            for out, value in work.mapfn(key, work.source.value(key)):
                groups[out].append(value)
        if work.reducefn is None:
            return groups.items()
        reducefn = work.reducefn
        return ((key, reducefn(key, values)) for key, values in groups.items())

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        return [function(item) for item in items]

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return [function(item) for item in items]
