"""One run: a whole process that does one workload with one engine, and writes down what came of it.

Started by ``runs`` in the engine's environment, or by hand as ``scripts/bench one --show`` says.
"""

import argparse
import json
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from scripts.benchmark import engines, workloads
from scripts.benchmark.workloads.base import Input


def main(arguments: list[str] | None = None) -> None:
    """Do it, and write the outcome as JSON."""
    parser = argparse.ArgumentParser(description="one run of one workload with one engine")
    parser.add_argument("workload", choices=workloads.NAMES)
    parser.add_argument("engine", choices=engines.NAMES)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--inputs", type=Path, required=True, help="a folder as it was prepared")
    parser.add_argument("--folder", type=Path, required=True, help="a folder for files of the run")
    parser.add_argument(
        "--out", type=Path, help="where to write the outcome, instead of showing it"
    )
    given = parser.parse_args(arguments)
    engine_class = engines.load(given.engine)
    workload = workloads.load(given.workload)
    with engine_class(given.slots, given.folder) as engine:
        if workload.starts:
            engine.begin()
        outcome = workload.run(engine, Input(given.inputs, given.size))
    version = metadata.version(engine_class.package) if engine_class.package else ""
    text = json.dumps({**asdict(outcome), "version": version})
    if given.out is None:
        print(text)
    else:
        given.out.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
