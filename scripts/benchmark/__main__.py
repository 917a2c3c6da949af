"""The command ``scripts/bench``.

    scripts/bench --quick                       a few minutes: grid, pool and futures, small inputs
    scripts/bench --engines grid,pool,dask      all workloads, full size
    scripts/bench --workloads group --size 500  one of them, at a size of your own
    scripts/bench report docs/benchmarks.md     a report of all that is kept
    scripts/bench one wordcount grid --size 20  one run, in the foreground, for a profiler
    scripts/bench scale                         more slots, tasks, peers and data
    BENCH_BEFORE=DIR scripts/bench --quick --engines grid,before    this code and another checkout's

Results are kept in ``.bench/results``, one for each workload and size, and so may be measured one
by one.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts.benchmark import engines, places, processes, report, results, runs, workloads
from scripts.benchmark.environments import Absent, python_of
from scripts.benchmark.runs import Plan
from scripts.benchmark.workloads.cold import STARTED

BIG = 2_000
"""The word count of ``--big``, in MB."""

QUICK_RUNS, FULL_RUNS, FULL_TRIES = 3, 5, 3


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit status."""
    if arguments[:1] == ["one"]:
        return one(arguments[1:])
    if arguments[:1] == ["scale"]:
        return grow(arguments[1:])
    if arguments[:1] == ["report"]:
        return write_report(arguments[1:])
    return compare(arguments)


def compare(arguments: list[str]) -> int:
    """Measure workloads with engines, keep and print the results."""
    given = parser().parse_args(arguments)
    processes.adopt_orphans()
    command = shlex.join(["scripts/bench", *arguments])
    failed = False
    for plan in plans(given):
        measured = runs.measure(plan, lambda text: print(text, file=sys.stderr, flush=True))
        result = results.result_of(plan, command, measured)
        results.save(result)
        print(report.section(result), end="\n\n", flush=True)
        failed = failed or any(run.wrong for one in measured for run in one.runs)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small inputs, few runs")
    parser.add_argument("--engines", type=_names(engines.NAMES), default=None)
    parser.add_argument("--workloads", type=_names(workloads.NAMES), default=None)
    parser.add_argument("--size", type=int, help="of the workload, in its own unit")
    parser.add_argument("--big", action="store_true", help=f"the word count of {BIG} MB")
    parser.add_argument("--runs", type=int, help="counted runs of each engine")
    parser.add_argument("--slots", type=int, default=2, help="processes that work")
    parser.add_argument("--tries", type=int, help="for a run without others on the machine")
    return parser


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def plans(given: argparse.Namespace) -> list[Plan]:
    """What is to be measured."""
    chosen = given.workloads or (("wordcount",) if given.big else workloads.NAMES)
    if given.size and len(chosen) > 1:
        sys.exit("--size is for one workload; name it: --workloads NAME")
    made: list[Plan] = []
    for name in chosen:
        workload = workloads.load(name)
        if given.size or given.big:
            sizes: tuple[int, ...] = (given.size or BIG,)
        else:
            sizes = (workload.quick,) if given.quick else (workload.full, *workload.more)
        made += [_plan(given, name, size) for size in sizes]
    return made


def _plan(given: argparse.Namespace, workload: str, size: int) -> Plan:
    return Plan(
        workload=workload,
        size=size,
        engines=given.engines or (engines.USUAL if given.quick else engines.ALL),
        slots=given.slots,
        counted=given.runs or (QUICK_RUNS if given.quick else FULL_RUNS),
        tries=given.tries or (1 if given.quick else FULL_TRIES),
    )


def one(arguments: list[str]) -> int:
    """One run in the foreground, not watched."""
    parser = argparse.ArgumentParser(prog="scripts/bench one")
    parser.add_argument("workload", choices=workloads.NAMES)
    parser.add_argument("engine", choices=engines.NAMES)
    parser.add_argument("--size", type=int)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--under", default="", help="a command to put before it: a profiler")
    parser.add_argument("--show", action="store_true", help="print the command, and stop")
    given = parser.parse_args(arguments)
    size = given.size or workloads.load(given.workload).quick
    plan = Plan(given.workload, size, (given.engine,), given.slots)
    try:
        python = python_of(given.engine)
    except Absent as why:
        sys.exit(f"{given.engine}: {why}")
    with places.scratch() as folder:
        command = [*shlex.split(given.under), *runs.command_of(plan, given.engine, python, folder)]
        if given.show:
            print(f"PYTHONPATH={places.TOP} PYTHONHASHSEED=0", shlex.join(command))
            return 0
        began = time.monotonic()
        environment = {**runs.environment(), STARTED: str(began)}
        status = subprocess.run(command, env=environment, check=False).returncode
        print(f"{time.monotonic() - began:.3f} s", file=sys.stderr)
    return status


def grow(arguments: list[str]) -> int:
    """Measure how the grid grows."""
    from scripts.benchmark.scale import keep, larger, parts

    parser = argparse.ArgumentParser(prog="scripts/bench scale")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", type=_names(keep.NAMES), default=keep.NAMES)
    given = parser.parse_args(arguments)
    quick = given.quick
    ways: dict[str, Callable[[], parts.Part]] = {
        "slots": lambda: parts.slots((1, 2), 40 if quick else 400),
        "tasks": lambda: parts.tasks(
            (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000),
            1_000 if quick else 100_000,
        ),
        "peers": lambda: parts.peers((10, 30) if quick else (10, 100, 300, 1_000)),
        "shuffle": lambda: parts.shuffle((200, 1_000) if quick else (1_000, 10_000)),
        "memory": lambda: parts.memory(larger.QUICK if quick else larger.FULL),
    }
    processes.adopt_orphans()
    command = shlex.join(["scripts/bench", "scale", *arguments])
    for name in given.only:
        kept = keep.Kept(ways[name](), command, results.machine())
        keep.save(kept)
        print(keep.section(kept, pictures=False), end="\n\n", flush=True)
    return 0


def write_report(arguments: list[str]) -> int:
    """Write the report, or print it."""
    parser = argparse.ArgumentParser(prog="scripts/bench report")
    parser.add_argument("path", type=Path, nargs="?")
    given = parser.parse_args(arguments)
    from scripts.benchmark.scale import keep

    growth = keep.load()
    text = report.document(results.load(), keep.document(growth))
    if given.path is None:
        print(text, end="")
    else:
        given.path.write_text(text)
        keep.draw(growth, given.path.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
