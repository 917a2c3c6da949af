"""The standard library's own tests of executors, where this Python has them, on a grid.

They are laid out as a package since Python 3.12, and many installations leave them out. What does
not apply is skipped with its reason.
"""

import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peers import Peer
from tests.live.harness import Site

WHY_NOT = "this Python came without its own tests of concurrent.futures"
executor = pytest.importorskip("test.test_concurrent_futures.executor", reason=WHY_NOT)
init = pytest.importorskip("test.test_concurrent_futures.test_init", reason=WHY_NOT)
waiting = pytest.importorskip("test.test_concurrent_futures.test_wait", reason=WHY_NOT)
completed = pytest.importorskip("test.test_concurrent_futures.test_as_completed", reason=WHY_NOT)
shutdown = pytest.importorskip("test.test_concurrent_futures.test_shutdown", reason=WHY_NOT)
util = pytest.importorskip("test.test_concurrent_futures.util", reason=WHY_NOT)

SLOTS = 5  # as many as those tests have workers

_peers: list[Peer] = []


@pytest.fixture(scope="module", autouse=True)
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One grid for all of them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        site = Site(Path(tmp_path_factory.mktemp("std")), monkeypatch)
        _peers.append(site.here(slots=SLOTS))
        yield
        _peers.clear()
        site.close()


def make(max_workers: int | None = None, **options: Any) -> Any:
    return _peers[0].executor(max_workers, **options)


class GridMixin(util.ExecutorMixin):  # type: ignore[misc, name-defined]
    executor_type = staticmethod(make)


def _not(reason: str) -> Any:
    return lambda self: self.skipTest(reason)


class TestExecutor(GridMixin, executor.ExecutorTest, unittest.TestCase):  # type: ignore[misc, name-defined]
    test_map_timeout = _not("six seconds; tests/live/test_executor.py has a shorter one")


class TestWait(GridMixin, waiting.WaitTests, unittest.TestCase):  # type: ignore[misc, name-defined]
    pass


class TestAsCompleted(GridMixin, completed.AsCompletedTests, unittest.TestCase):  # type: ignore[misc, name-defined]
    pass


class TestInitializer(GridMixin, init.InitializerMixin, unittest.TestCase):  # type: ignore[misc, name-defined]
    pass


class TestFailingInitializer(GridMixin, init.FailingInitializerMixin, unittest.TestCase):  # type: ignore[misc, name-defined]
    def _assert_logged(self, _text: str) -> Any:
        return self.assertLogs("peers.call_queue", "CRITICAL")


class TestShutdown(GridMixin, shutdown.ExecutorShutdownTest, unittest.TestCase):  # type: ignore[misc, name-defined]
    test_interpreter_shutdown = test_submit_after_interpreter_shutdown = test_hang_gh83386 = _not(
        "runs a script that makes an executor of concurrent.futures by its name; "
        "tests/live/test_executor.py has one for the grid"
    )
