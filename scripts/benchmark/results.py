"""What was measured, kept as JSON: one file for each workload and size, replaced when repeated."""

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmark import places, runs, workloads
from scripts.benchmark.runs import EngineRuns, Plan

FOLDER = places.BENCH / "results"


@dataclass
class Result:
    """A workload, and for each engine its figures: every counted value."""

    workload: str
    size: int
    command: str
    machine: dict[str, str]
    slots: int
    counted: int
    engines: list[dict[str, Any]] = field(default_factory=list)
    """Of each: name, version, absent, notes, disturbed, discarded, and figures by their keys."""


def result_of(plan: Plan, command: str, measured: list[EngineRuns]) -> Result:
    """Gather what is kept."""
    result = Result(plan.workload, plan.size, command, machine(), plan.slots, plan.counted)
    for one in measured:
        wrong = [run.wrong for run in one.runs if run.wrong]
        result.engines.append(
            {
                "name": one.engine,
                "version": one.version,
                "absent": one.absent or (wrong[0] if len(wrong) == len(one.runs) else ""),
                "wrong": wrong,
                "notes": runs.notes_of(one),
                "disturbed": sum(run.disturbed for run in one.runs),
                "discarded": one.discarded,
                "figures": dict(runs.figures_of(one)),
            }
        )
    return result


def save(result: Result, folder: Path = FOLDER) -> Path:
    """Write it where ``load`` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.workload}-{result.size}.json"
    path.write_text(json.dumps(asdict(result), indent=1))
    return path


def load(folder: Path = FOLDER) -> list[Result]:
    """All that is kept, in the order of the workloads, larger sizes last."""
    found = [Result(**json.loads(path.read_text())) for path in folder.glob("*-*.json")]
    known = [one for one in found if one.workload in workloads.NAMES]
    return sorted(known, key=lambda one: (workloads.NAMES.index(one.workload), one.size))


def machine() -> dict[str, str]:
    """What figures depend on, besides the engines."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _commit() -> str:
    command = ["git", "-C", str(places.TOP), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
