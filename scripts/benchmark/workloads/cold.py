"""From the start of a process to the value of its first task."""

import os
import time

from scripts.benchmark.engines.base import Engine
from scripts.benchmark.work import digest_of
from scripts.benchmark.workloads.base import MEMORY, Figure, Input, Outcome, Workload

STARTED = "BENCH_STARTED"
"""The variable with the time, by the machine's steady clock, at which the process was started."""


def same(value: int) -> int:
    return value


class Measured(Workload):
    about = "The first value, from the start of the process; then, until it has ended."
    unit = "task"
    full = quick = least = 1
    figures = (
        Figure("first", "to the first value", "s"),
        Figure("seconds", "whole process", "s"),
        MEMORY,
    )

    def run(self, engine: Engine, given: Input) -> Outcome:
        value = engine.call(same, given.size)
        now = time.monotonic()
        return Outcome(digest_of([value]), {"first": now - float(os.environ.get(STARTED, now))})
