"""The engines of the conformance suite, each started once for all its tests.

``on`` is what ``peers.run`` is given: the oracle, a grid of one peer with two workers, a Dask
cluster of two worker processes, a Ray of two: once one that this process has joined, once one that
it is a client of (``ray://``). Ray is a large thing to install for those who work on something
else, so its part runs where it is there: with ``scripts/test --engines``.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.live.harness import TOP, WAIT_SECONDS, Site, port_of, until

NO_RAY = "Ray is not installed; scripts/test --engines installs it, and runs these tests"

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason=NO_RAY)

ENGINES = [
    *("local", "grid", "dask"),
    *(pytest.param(name, marks=needs_ray) for name in ("ray", "ray client")),
]


@pytest.fixture(scope="package", autouse=True)
def _ray_of_its_own() -> Iterator[None]:
    """A token of these tests' own, for Ray would make one in the user's home; set before Ray is
    imported, which is when it looks."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("ray") is not None:
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
            patch.delenv("RAY_ADDRESS", raising=False)
        yield


RAYS = ("ray", "ray client")


@pytest.fixture(scope="package")
def engines() -> Iterator["Engines"]:
    """The engines that were asked for so far; all are gone at the end of this folder's tests: other
    tests look at the environment, the threads and the descriptors of their process."""
    running = Engines()
    yield running
    running.close()


@pytest.fixture(scope="package", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    """Its name. Of the whole package, so that all tests of one come after another."""
    return request.param


@pytest.fixture
def on(engine: str, engines: "Engines") -> Any:
    """An engine, as ``peers.run`` takes it."""
    return engines.get(engine)


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
        if name in RAYS:
            self._connect_ray(name)
        elif name not in self._started:
            self._started[name] = getattr(self, f"_start_{name}")()
        return self._started[name]

    @property
    def head(self) -> "RayHead":
        """The Ray whose clients there are, running on its own."""
        if "head" not in self._started:
            self._started["head"] = head = RayHead()
            self._ends.append(head.end)
        found = self._started["head"]
        assert isinstance(found, RayHead)
        return found

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

    def _connect_ray(self, name: str) -> None:
        """Be connected in this one of two ways: a process can be in one only."""
        import ray

        other = next(one for one in RAYS if one != name)
        if self._started.pop(other, None):
            ray.shutdown()
        if name in self._started:
            return
        if name == "ray":
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        else:
            ray.init(f"ray://{self.head.address}", logging_level="ERROR")
        if ray.shutdown not in self._ends:
            self._ends.append(ray.shutdown)
        self._started[name] = "ray"


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


class RayHead:
    """A Ray of its own processes, with a client server at ``address``. They are known by a mark in
    their environment: Ray ends none of them when one has been killed."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="pg-ray-")  # short, for sockets are in it
        self._mark = f"PEERGRID_TEST_RAY={secrets.token_hex(8)}"
        self.address = f"127.0.0.1:{unused_port()}"
        name, _, value = self._mark.partition("=")
        arguments = [
            *("--head", "--num-cpus=2", "--object-store-memory=100000000", "--port=0"),
            *("--include-dashboard=false", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
            f"--ray-client-server-port={self.address.rpartition(':')[2]}",
            f"--temp-dir={self._folder}",
        ]
        started = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments],
            env=os.environ | {"PYTHONPATH": str(TOP), name: value},
            capture_output=True,
            text=True,
            timeout=2 * WAIT_SECONDS,
        )
        assert started.returncode == 0, started.stdout + started.stderr

    def kill_gcs(self) -> None:
        """The process that knows what the cluster is."""
        (pid,) = (pid for pid in marked(self._mark) if Path(f"/proc/{pid}/comm").read_text() == GCS)
        os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Leave nothing of it."""

        def gone() -> bool:
            left = marked(self._mark)  # while one is ended another may start a third
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not left

        until("Ray has ended", gone)
        shutil.rmtree(self._folder, ignore_errors=True)


GCS = "gcs_server\n"


def marked(mark: str) -> list[int]:
    """Return the processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has just ended, or is somebody else's
    return found


def unused_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return port_of(sock)
