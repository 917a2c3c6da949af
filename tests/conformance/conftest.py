"""The engines of the conformance suite, each started once for all its tests.

``on`` is what ``peers.run`` is given: the oracle, a grid of one peer with two workers, a Dask
cluster of two worker processes, a Ray of two. Ray is a large thing to install for those who work
on something else, so its part runs where it is there: with ``scripts/test --engines``.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.live.harness import TOP, WAIT_SECONDS, Site

NO_RAY = "Ray is not installed; scripts/test --engines installs it, and runs these tests"

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason=NO_RAY)

ENGINES = ["local", "grid", "dask", pytest.param("ray", marks=needs_ray)]


@pytest.fixture(scope="package")
def engines() -> Iterator["Engines"]:
    """The engines that were asked for so far; all are gone at the end of this folder's tests: other
    tests look at the environment, the threads and the descriptors of their process."""
    running = Engines()
    yield running
    running.close()


@pytest.fixture(params=ENGINES)
def on(request: pytest.FixtureRequest, engines: "Engines") -> Any:
    """An engine, as ``peers.run`` takes it."""
    return engines.get(request.param)


@pytest.fixture
def dask_on(engines: "Engines") -> str:
    address = engines.get("dask")
    assert isinstance(address, str)
    return address


class Engines:
    """Starts engines when they are first asked for."""

    def __init__(self) -> None:
        self._started: dict[str, Any] = {"local": "local"}
        self._ends: list[Any] = []

    def get(self, name: str) -> Any:
        if name not in self._started:
            self._started[name] = getattr(self, f"_start_{name}")()
        return self._started[name]

    def close(self) -> None:
        for end in reversed(self._ends):
            end()

    def _start_grid(self) -> Any:

        folder = tempfile.TemporaryDirectory(prefix="peergrid-engines-")
        patch = pytest.MonkeyPatch()
        site = Site(Path(folder.name), patch, alone=False)
        self._ends += [folder.cleanup, patch.undo, site.close]
        return site.here(slots=2)

    def _start_dask(self) -> str:
        cluster = DaskCluster()
        self._ends.append(cluster.end)
        return cluster.on

    def _start_ray(self) -> str:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        self._ends.append(ray.shutdown)
        return "ray"


class DaskCluster:
    """A scheduler and worker processes, in a process of their own, as ``on="dask"`` has them.

    ``workers`` is how many; ``command`` is another way to start them, by Python's arguments.
    """

    def __init__(self, workers: int = 2, command: Sequence[str] = (), **environment: str) -> None:
        given = {
            "PYTHONPATH": str(TOP),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",  # each costs a new worker
            **environment,
        }
        arguments = command or ("-m", "peers.engines.dask_local", str(workers))
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | given,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.on = self.address.replace("tcp://", "dask://")

    def end(self) -> None:
        """End it well, so that nothing of it is left."""
        with self.process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(WAIT_SECONDS)
            finally:
                process.kill()
