"""A virtual environment for each engine, made when the engine is first wanted.

Versions are bounded by the engine's ``requirements``; an environment is made anew when these
change. ``Absent`` says in a line why an engine cannot be measured here.
"""

import subprocess
import sys
from pathlib import Path

from scripts.benchmark import engines
from scripts.benchmark.engines.base import Engine
from scripts.benchmark.places import BENCH

REASON_MAX = 200


class Absent(Exception):
    """The engine cannot be had here. The text says why and stands in the report."""


def python_of(name: str) -> Path:
    """Return the interpreter that has the engine, installed now if need be. Raises ``Absent``."""
    engine = engines.load(name)
    if lacks := engine.lacks():
        raise Absent(lacks)
    plain = engine.requirements == Engine.requirements
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = BENCH / "environments" / f"{'plain' if plain else name}-{version}"
    stamp, python = folder / "installed", folder / "bin" / "python"
    wanted = "\n".join(engine.requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing what {name} needs (once) ...", file=sys.stderr)
        _install(folder, python, engine.requirements)
        stamp.write_text(wanted)
    return python


def _install(folder: Path, python: Path, requirements: tuple[str, ...]) -> None:
    base: str = getattr(sys, "_base_executable", sys.executable)
    pip = [str(python), "-m", "pip"]
    if not _ran([base, "-m", "venv", "--clear", str(folder)]):
        # Some systems' Python comes without the bundled pip: then the system's pip is used.
        _run([base, "-m", "venv", "--clear", "--without-pip", str(folder)])
        pip = [base, "-m", "pip", "--python", str(python)]
    _run([*pip, "install", "--quiet", "--disable-pip-version-check", *requirements])


def _ran(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise Absent(f"cannot be installed: {said[-1].strip()[:REASON_MAX]}")
