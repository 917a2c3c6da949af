"""Where everything is kept: in ``.bench``, beside the code, where git does not look.

``environments`` has a virtual environment for each engine, ``inputs`` what workloads work on,
``answers`` what the oracle said, ``results`` what was measured, ``scratch`` the files of a run
while it lasts. Any of them may be removed; it is made again.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from scripts.benchmark.workloads.base import Workload

TOP = Path(__file__).parents[2]
BENCH = TOP / ".bench"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one run."""
    above = BENCH / "scratch"
    above.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(dir=above))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inputs(workload: Workload, size: int) -> Path:
    """The folder with the workload's input, made now if it is not there."""
    folder = BENCH / "inputs" / (f"{workload.input}-{size}" if workload.input else "none")
    if folder.exists():
        return folder
    with scratch() as made:
        workload.prepare(made, size)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # else another command has made it meanwhile
                raise
    return folder
