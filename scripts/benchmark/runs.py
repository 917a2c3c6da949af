"""Runs: whole processes, in turns, with their answers checked and others' load watched.

Every engine does a workload once without being counted, which warms the machine's caches and is
when its memory is looked at. Then all engines take turns, A B A B, until each has its counted runs.
A run during which others used the machine is done again, a few times; if it is never quiet the last
one counts, and is marked. Answers must be the oracle's, which is ``engines.alone`` in a process of
its own; a run with another answer, or none, has no figures.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmark import places, workloads
from scripts.benchmark.engines.before import VARIABLE
from scripts.benchmark.environments import Absent, python_of
from scripts.benchmark.memory import PeakMemory
from scripts.benchmark.processes import Others, end_descendants
from scripts.benchmark.workloads.base import MEMORY, SECONDS
from scripts.benchmark.workloads.cold import STARTED

QUIET_CORES = 0.25
SAID_LINES = 12


@dataclass(frozen=True)
class Plan:
    """One workload at one size with these engines."""

    workload: str
    size: int
    engines: tuple[str, ...]
    slots: int = 2
    counted: int = 5
    tries: int = 3
    timeout_seconds: float = 1800.0


@dataclass
class Run:
    """What one process did. ``wrong`` says what was wrong with it; empty if nothing was."""

    engine: str
    figures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    version: str = ""
    wrong: str = ""
    others_cores: float = 0.0

    @property
    def disturbed(self) -> bool:
        return self.others_cores > QUIET_CORES


@dataclass
class EngineRuns:
    """All counted runs of one engine, or why there are none. ``disturbed`` counts the runs that
    were discarded because of others."""

    engine: str
    absent: str = ""
    version: str = ""
    runs: list[Run] = field(default_factory=list)
    memory_megabytes: float = 0.0
    discarded: int = 0


def measure(plan: Plan, tell: Callable[[str], None]) -> list[EngineRuns]:
    """Carry out the plan; tell about each run as it ends."""
    answer = oracle(plan)
    found = [EngineRuns(name) for name in plan.engines]
    able: list[tuple[EngineRuns, Path]] = []
    for one in found:
        try:
            able.append((one, python_of(one.engine)))
        except Absent as why:
            one.absent = str(why)
            tell(f"{one.engine}: {why}")
    for one, python in able[:]:
        run, memory = _checked(plan, one.engine, python, answer, look=True)
        one.memory_megabytes, one.version = memory, run.version
        tell(f"{plan.workload} {one.engine} to warm up: {_told(run)}, {memory:.0f} MB")
        if run.wrong:
            one.absent = run.wrong
            able.remove((one, python))
    for number in range(plan.counted):
        for one, python in able:
            run = _quiet(plan, one, python, answer)
            one.runs.append(run)
            tell(f"{plan.workload} {one.engine} {number + 1}/{plan.counted}: {_told(run)}")
    return found


def _quiet(plan: Plan, one: EngineRuns, python: Path, answer: str) -> Run:
    """A run while nobody else used the machine, or the last of some tries."""
    run = Run(one.engine)
    for left in reversed(range(plan.tries)):
        run, _ = _checked(plan, one.engine, python, answer, look=False)
        if not run.disturbed:
            break
        if left:
            one.discarded += 1
    return run


def _checked(
    plan: Plan, engine: str, python: Path, answer: str, *, look: bool
) -> tuple[Run, float]:
    watch = PeakMemory() if look else None
    with watch or nullcontext():
        run = run_once(plan, engine, python)
    if not run.wrong and run.digest != answer:
        run.wrong = f"wrong answer: {run.digest}, should be {answer}"
    if run.wrong:
        run.figures = {}
    memory = watch.megabytes if watch is not None else 0.0
    return run, memory


def _told(run: Run) -> str:
    what = run.wrong or ", ".join(f"{key} {value:.4g}" for key, value in run.figures.items())
    return f"{what} (others: {run.others_cores:.2f} cores)"


# ------------------------------------------------------------------------------ one run


def run_once(plan: Plan, engine: str, python: Path) -> Run:
    """Run one process to its end, and see that nothing of it is left."""
    with places.scratch() as folder:
        out = folder / "outcome.json"
        command = [*command_of(plan, engine, python, folder), "--out", str(out)]
        others = Others()
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment(), STARTED: str(began)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=plan.timeout_seconds)
            wrong = "" if process.returncode == 0 else _last_words(said, process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            wrong = f"not done after {plan.timeout_seconds:.0f} s"
        seconds = time.monotonic() - began
        end_descendants()
        run = Run(engine, wrong=wrong, others_cores=others.cores())
        if not wrong:
            for name, value in json.loads(out.read_text()).items():
                setattr(run, name, value)
            run.figures[SECONDS.key] = seconds
        return run


def command_of(plan: Plan, engine: str, python: Path, folder: Path) -> list[str]:
    """What is run. Its input is made now if it is not there."""
    inputs = places.inputs(workloads.load(plan.workload), plan.size)
    return [
        *(str(python), "-m", "scripts.benchmark.child", plan.workload, engine),
        *("--size", str(plan.size), "--slots", str(plan.slots)),
        *("--inputs", str(inputs), "--folder", str(folder)),
    ]


def environment() -> dict[str, str]:
    """What every run is given: the checkout's code, and one hash seed, which digests need."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    given = {**kept, "PYTHONPATH": str(places.TOP), "PYTHONHASHSEED": "0"}
    if VARIABLE in given:  # processes run in folders of their own
        given[VARIABLE] = str(Path(given[VARIABLE]).resolve())
    return given


def _last_words(said: str, status: int) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    for line in lines[-SAID_LINES:]:
        print("    " + line, file=sys.stderr)
    return f"failed with status {status}: {lines[-1].strip()[:200] if lines else 'said nothing'}"


# ------------------------------------------------------------------------------ the oracle


def oracle(plan: Plan) -> str:
    """The digest of the right answer, computed once and kept."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    kept = places.BENCH / "answers" / f"{plan.workload}-{plan.size}-{version}"
    if kept.exists():
        return kept.read_text()
    run = run_once(plan, "alone", python_of("alone"))
    if run.wrong:
        raise RuntimeError(f"the oracle of {plan.workload} failed: {run.wrong}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(run.digest)
    return run.digest


def figures_of(measured: EngineRuns) -> Iterator[tuple[str, list[float]]]:
    """Each figure with its values of all runs that were right."""
    if measured.memory_megabytes:
        yield MEMORY.key, [measured.memory_megabytes]
    keys = {key: None for run in measured.runs for key in run.figures}
    for key in keys:
        yield key, [run.figures[key] for run in measured.runs if key in run.figures]


def notes_of(measured: EngineRuns) -> dict[str, Any]:
    """Why a figure is missing."""
    return {key: note for run in measured.runs for key, note in run.notes.items()}
