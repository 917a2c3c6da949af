"""loky: the executor below joblib."""

from concurrent.futures import Executor
from importlib import import_module
from typing import Any

from scripts.benchmark.engines.base import NUMPY
from scripts.benchmark.engines.futures import ExecutorEngine


class Measured(ExecutorEngine):
    requirements = ("loky>=3.5,<4", NUMPY)
    package = "loky"
    idiom = "`get_reusable_executor`, with the same shuffle and chunks as `futures`."

    def make(self) -> Executor:
        loky: Any = import_module("loky")
        executor: Executor = loky.get_reusable_executor(max_workers=self.slots)
        return executor
