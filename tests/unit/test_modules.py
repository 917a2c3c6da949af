"""The user's modules, looked at by many threads, as the requests of a web application do."""

import ast
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peers import modules


def test_one_thread_parses_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 cannot have two: now and then one raises ``SystemError``."""
    parsing, together = threading.Semaphore(), []
    entered = threading.Barrier(2)

    def slow(source: bytes) -> Any:
        if not parsing.acquire(blocking=False):
            together.append(source)
        try:
            entered.wait(0.05)  # the other one comes now, if it may
        except threading.BrokenBarrierError:
            entered.reset()
        finally:
            parsing.release()
        return ast.parse(source)

    names = {**vars(ast), "parse": slow}
    monkeypatch.setattr(modules, "ast", SimpleNamespace(**names))
    paths = [tmp_path / name for name in ("one.py", "two.py")]
    for path in paths:
        path.write_text(f"import {path.stem}_needs")
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda p: modules.imported_by_file(p.stem, str(p)), paths)
        assert list(found) == [("one_needs",), ("two_needs",)]
    assert together == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python, from 3.12 on
def test_a_child_forked_while_a_thread_parses_can_parse(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text("import needed")
    with modules._parsing:
        child = os.fork()
        if child == 0:
            os._exit(modules.imported_by_file("one", str(path)) != ("needed",))
    assert os.waitpid(child, 0)[1] == 0


def test_the_finder_of_a_workers_modules_asks_sysconfig_nothing(tmp_path: Path) -> None:
    """It is asked by imports that ``sysconfig`` itself does, in Python 3.13."""
    script = """
import sys
from peers import modules
modules.distrust_bytecode()
del modules.sysconfig
modules._users_finder(sys.argv[1])
"""
    top = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, cwd=top, check=True, timeout=60)
