"""Tasks that do nothing: what an engine itself costs for each."""

import time
from collections.abc import Callable, Iterable

from scripts.benchmark.engines.base import Engine, Unsupported
from scripts.benchmark.work import Digest, MapReduce, Table, digest_of
from scripts.benchmark.workloads.base import MEMORY, Figure, Input, Outcome, Workload

SINGLES_SHARE = 5
"""Single tasks are a fifth of the items."""

WARM_SHARE = 20


def same(value: int) -> int:
    return value


def same_pair(key: int, value: int) -> Iterable[tuple[int, int]]:
    return ((key, value),)


class Measured(Workload):
    about = (
        "Items whose function returns its argument: as a job, as a map in the engine's own "
        "batches, and (a fifth as many, or as many as it can) as single tasks given all at once. "
        "The engine is warm."
    )
    unit = "items"
    full = 100_000
    more = (1_000_000,)
    quick = 20_000
    least = 200
    figures = (
        Figure("job", "items by a job", "a second", more=True),
        Figure("map", "items by map", "a second", more=True),
        Figure("singles", "single tasks", "a second", more=True),
        MEMORY,
    )

    def run(self, engine: Engine, given: Input) -> Outcome:
        def by_job(items: list[int]) -> str:
            work = MapReduce(Table(dict(enumerate(items))), same_pair)
            return str(Digest().add((key, vs[0]) for key, vs in engine.mapreduce(work)))

        def by_map(items: list[int]) -> str:
            return digest_of(engine.map(same, items))

        def by_each(items: list[int]) -> str:
            return digest_of(engine.each(same, items))

        outcome = Outcome("right")
        items = list(range(given.size))
        singles = items[: min(given.size // SINGLES_SHARE, engine.singles_max)]
        _rate(outcome, "job", by_job, items)
        _rate(outcome, "map", by_map, items)
        _rate(outcome, "singles", by_each, singles)
        return outcome


def _rate(outcome: Outcome, key: str, way: Callable[[list[int]], str], items: list[int]) -> None:
    expected = digest_of(items)
    try:
        # A few before, so that workers are there and know the function.
        way(items[: len(items) // WARM_SHARE])
    except Unsupported as why:
        outcome.notes[key] = str(why)
        return
    began = time.perf_counter()
    found = way(items)
    outcome.figures[key] = len(items) / (time.perf_counter() - began)
    if found != expected:
        outcome.digest = f"wrong by {key}"
