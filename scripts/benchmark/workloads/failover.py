"""The process that coordinates is killed half-way: what becomes of the work, and who notices?

Tasks of a second each on two slots, once undisturbed, and once more with a SIGKILL at half time. A
task appends to a file of its own when it is done, so what was finished, and what was done twice, is
known also when no result comes back.
"""

import os
import signal
import threading
import time
from pathlib import Path

from scripts.benchmark.engines.base import Engine, Unsupported
from scripts.benchmark.work import digest_of
from scripts.benchmark.workloads.base import Figure, Input, Outcome, Workload

TASK_SECONDS = 1.0
SAID_MAX = 160


def second(path: str) -> str:
    """Take a second; leave a trace."""
    time.sleep(TASK_SECONDS)
    with Path(path).open("a") as file:
        file.write("x")
    return path.rpartition("/")[2]


class Measured(Workload):
    about = (
        "Tasks of one second on two slots; half-way the process that coordinates gets SIGKILL. "
        "Every process of the engine but that one goes on living."
    )
    unit = "tasks"
    full = 40
    quick = 8
    least = 2
    starts = False
    figures = (
        Figure("undisturbed", "undisturbed", "s"),
        Figure("killed", "with the kill", "s"),
        Figure("share", "of undisturbed", "times"),
        Figure("twice", "tasks done twice", "tasks"),
    )

    def run(self, engine: Engine, given: Input) -> Outcome:
        names = [f"task-{number}" for number in range(given.size)]
        outcome = Outcome(digest_of(names))
        try:
            victims = engine.begin_apart()
        except Unsupported as why:
            outcome.notes["killed"] = str(why)
            return outcome
        if not victims:
            raise RuntimeError("the process that coordinates was not found")
        engine.tasks(second, _paths(engine.folder, "warm", names[:2]))
        began = time.monotonic()
        if engine.tasks(second, _paths(engine.folder, "whole", names)) != names:
            outcome.digest = "wrong without a kill"
        undisturbed = time.monotonic() - began
        outcome.figures["undisturbed"] = undisturbed
        self._kill(engine, victims, names, undisturbed, outcome)
        return outcome

    def _kill(
        self,
        engine: Engine,
        victims: list[int],
        names: list[str],
        undisturbed: float,
        outcome: Outcome,
    ) -> None:
        paths = _paths(engine.folder, "killed", names)
        timer = threading.Timer(undisturbed / 2, _end, [victims])
        timer.start()
        began = time.monotonic()
        try:
            if engine.tasks(second, paths) != names:
                outcome.digest = "wrong with a kill"
        except Exception as error:  # what the user sees is what is asked
            late = time.monotonic() - began - undisturbed / 2
            what = f"{type(error).__name__}: {error}".replace("\n", " ")[:SAID_MAX]
            ended = sum(Path(path).exists() for path in paths)
            outcome.notes["killed"] = (
                f"{late:.2f} s after the kill the user sees {what}; {ended} of {len(paths)} tasks "
                "had ended, no result is left"
            )
            return
        finally:
            timer.join()
        seconds = time.monotonic() - began
        runs = sum(len(Path(path).read_text()) for path in paths)
        outcome.figures |= {
            "killed": seconds,
            "share": seconds / undisturbed,
            "twice": runs - len(paths),
        }


def _paths(folder: Path, kind: str, names: list[str]) -> list[str]:
    (folder / kind).mkdir()
    return [str(folder / kind / name) for name in names]


def _end(victims: list[int]) -> None:
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
