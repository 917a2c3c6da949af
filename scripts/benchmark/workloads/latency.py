"""One task at a time, warm: from giving it to having its value."""

import statistics
import time

from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import digest_of
from scripts.benchmark.workloads.base import Figure, Input, Outcome, Workload

WARM_CALLS = 50


def same(value: int) -> int:
    return value


class Measured(Workload):
    about = "One task that returns its argument, given when the last one's value is there."
    unit = "calls"
    full = 1_000
    quick = 200
    least = 10
    figures = (
        Figure("p50", "median", "ms"),
        Figure("p99", "99th percentile", "ms"),
    )

    def run(self, engine: Engine, given: Input) -> Outcome:
        for number in range(min(WARM_CALLS, given.size)):
            engine.call(same, number)
        values: list[int] = []
        spent: list[float] = []
        for number in range(given.size):
            began = time.perf_counter()
            values.append(engine.call(same, number))
            spent.append((time.perf_counter() - began) * 1_000)
        cuts = statistics.quantiles(spent, n=100)
        return Outcome(digest_of(values), {"p50": cuts[49], "p99": cuts[98]})
