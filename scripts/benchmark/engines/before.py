"""This grid as it was: the code of another checkout, to see what a change has done.

``git worktree add ../before COMMIT``, then ``BENCH_BEFORE=../before scripts/bench --engines
grid,before``.
"""

import os
import sys
from pathlib import Path

from scripts.benchmark.engines import grid

VARIABLE = "BENCH_BEFORE"


class Measured(grid.Measured):
    idiom = f"As `grid`, with the code of the checkout that `{VARIABLE}` names."

    @classmethod
    def lacks(cls) -> str:
        folder = os.environ.get(VARIABLE, "")
        if (Path(folder) / "peers").is_dir() and folder:
            return ""
        return f"set {VARIABLE} to a checkout of what to compare with; now it is {folder!r}"

    def start(self) -> None:
        self._use_it()
        super().start()

    def start_apart(self) -> list[int]:
        self._use_it()
        return super().start_apart()

    def _use_it(self) -> None:
        folder = str(Path(os.environ[VARIABLE]))
        sys.path.insert(0, folder)
        # For the peers that ``start_apart`` starts.
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
