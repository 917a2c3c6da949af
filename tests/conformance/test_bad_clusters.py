"""What keeps a job from being run elsewhere: one clear error each, in bounded time."""

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peers import CannotJoin, Job, Misuse, ModuleMissing, Refused, run
from peers.engines import versions
from tests.conformance.conftest import DaskCluster, Engines, marked, needs_ray, unused_port
from tests.conformance.jobs import TEXTS, total, words
from tests.live.harness import TOP, until

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("engines")]

JOB = Job(TEXTS, words, reducefn=total)

PATIENCE_SECONDS = 1.0
BOUND_SECONDS = 60.0
"""What is within bounds, on a machine that has much else to do."""


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND_SECONDS


@pytest.mark.parametrize(
    ("on", "text"),
    [
        ("dusk", r"on='dusk' is no engine; did you mean 'dask'"),
        ("local://x", "is no engine"),
        ("", "is no engine"),
        ("dask://", "on='dask://' lacks a host or port; the usual port is 8786"),
        ("dask://somewhere", "lacks a host or port"),
        ("dask://[::1]:65536", "lacks a host or port"),
        ("ray://somewhere:", "lacks a host or port; the usual port is 10001"),
        ("ray://:10001", "lacks a host or port"),
        (None, "on=None is no engine"),
        (7, "use a name such as 'grid'"),
    ],
)
def test_an_engine_that_there_is_not(on: Any, text: str) -> None:
    with pytest.raises(Misuse, match=text):
        run(JOB, on=on)


def test_what_is_not_a_job() -> None:
    with pytest.raises(TypeError, match="takes a Job"):
        run(words, on="local")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="name= is for on='grid' alone; on='local' has nothing like"):
        run(JOB, on="local", name="words")
    with pytest.raises(Misuse, match="no setting 'nmae'; did you mean 'name'"):
        run(JOB, on="local", nmae="words")


@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed(
    engine: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for module in (engine, f"{engine}_connecting"):
        monkeypatch.delitem(sys.modules, f"peers.engines.{module}", raising=False)
    with pytest.raises(Misuse, match=rf"is not installed here .*'peergrid\[{engine}\]'"):
        run(JOB, on=engine)


def test_nobody_at_the_address() -> None:
    with pytest.raises(CannotJoin, match=r"no Dask scheduler answers at 127.0.0.1:\d+: "):
        run(JOB, on=f"dask://127.0.0.1:{unused_port()}", connect_seconds=PATIENCE_SECONDS)


def test_somebody_at_the_address_who_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CannotJoin, match="but not greeted within 1 s"):
            run(JOB, on=f"dask://{address}", connect_seconds=PATIENCE_SECONDS)


def test_a_cluster_without_workers() -> None:
    cluster = DaskCluster(workers=0)
    try:
        with pytest.raises(CannotJoin, match="has had no worker for 1 s"):
            run(JOB, on=cluster.on, connect_seconds=PATIENCE_SECONDS)
    finally:
        cluster.end()


DIFFERENT = [
    (("3.10", True, {}), "runs Python 3.10, this process Python 3.1"),
    (("", False, {}), "has no peergrid: install peergrid"),
    (("", True, {"cloudpickle": "1.0"}), "has cloudpickle 1.0, this process cloudpickle"),
    (("", True, {"distributed": "2020.1"}), "install the same version on both sides"),
]


@pytest.mark.parametrize(("theirs", "text"), DIFFERENT)
def test_other_versions(theirs: versions.Answer, text: str) -> None:
    mine = versions.here(("cloudpickle", "distributed"))
    python, installed, packages = theirs
    answer = (python or mine[0], installed, packages)
    with pytest.raises(Refused, match=f"^the worker .*{text}"):
        versions.check(mine, {"the worker": answer})
    versions.check(mine, {"the worker": mine})


def test_the_version_is_that_of_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of another that comes later on the path."""
    (tmp_path / "cloudpickle-1.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: cloudpickle\nVersion: 1.0\n"
    (tmp_path / "cloudpickle-1.0.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    assert versions.here(("cloudpickle",))[2]["cloudpickle"] == "1.0"


def test_a_cluster_of_another_python(dask_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of a real cluster; it is this side that claims to be something else."""
    _, installed, packages = versions.here(("distributed",))
    monkeypatch.setattr(versions, "here", lambda _: ("3.99", installed, packages))
    with pytest.raises(Refused, match="the Dask scheduler runs Python 3"):
        run(JOB, on=dask_on)


def test_a_cluster_without_this_package(tmp_path: Path) -> None:
    """Real worker processes that cannot import it."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['peers'] = None\n")
    code = "from distributed import LocalCluster as C; import sys; c = C(n_workers=1, "
    code += "threads_per_worker=1, dashboard_address=None); print(c.scheduler_address, flush=True);"
    code += "sys.stdin.read(); c.close()"
    cluster = DaskCluster(command=["-c", code], PYTHONPATH=str(tmp_path))
    try:
        with pytest.raises(Refused, match="the Dask scheduler has no peergrid: install"):
            run(JOB, on=cluster.on)
    finally:
        cluster.end()


def test_a_module_in_another_version(
    dask_on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's workers stay; what they have loaded cannot be had anew."""
    name = f"versioned{os.getpid()}"
    source = "def mapfn(key, value):\n    yield value, {}\n"
    path = tmp_path / f"{name}.py"
    path.write_text(source.format(1))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    assert run(Job([7] * 8, module.mapfn), on=dask_on) == {7: [1] * 8}
    path.write_text(source.format("'other'"))
    importlib.reload(module)
    with pytest.raises(ModuleMissing, match="restart the cluster's workers to load it anew"):
        run(Job([7] * 8, module.mapfn), on=dask_on)


SCRIPT = """
from dataclasses import dataclass
from peers import Job, run

@dataclass(frozen=True)
class Seen:
    count: int

def mapfn(key, value):
    yield value % 3, Seen(key)

def reducefn(key, seen):
    return Seen(sum(one.count for one in seen))

job = Job(range(30), mapfn, reducefn=reducefn)
results = run(job, on={on!r})
assert results == job.run(), results
assert all(type(value) is Seen for value in results.values())
print("same")
"""


@pytest.mark.parametrize("on", ["dask", pytest.param("ray", marks=needs_ray)])
def test_a_script_without_a_guard(on: str, tmp_path: Path) -> None:
    """One word is changed, nothing else: no ``if __name__ == "__main__"``, no cluster made; and
    all of it is gone when the script ends."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(on=on))
    mark = f"PEERGRID_TEST_SCRIPT={os.getpid()}"
    name, _, value = mark.partition("=")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(TOP), name: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("same\n")
    until("all processes of it are gone", lambda: not marked(mark))


def test_what_is_there_already(dask_on: str) -> None:
    """A Dask client of the user's is used, and left as it was."""
    from distributed import Client

    with Client(dask_on.replace("dask://", "tcp://"), set_as_default=False) as client:
        assert run(JOB, on=client) == JOB.run()
        with client.as_current():
            assert run(JOB, on="dask") == JOB.run()
        assert client.status == "running"
        until("nothing of it is left", lambda: not any(client.has_what().values()))


@needs_ray
def test_no_ray_at_the_address() -> None:
    with pytest.raises(CannotJoin, match=r"no Ray cluster answers at 127.0.0.1:\d+: "):
        run(JOB, on=f"ray://127.0.0.1:{unused_port()}", connect_seconds=PATIENCE_SECONDS)


@needs_ray
def test_somebody_at_ray_s_address_who_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CannotJoin, match="but not greeted within 1 s"):
            run(JOB, on=f"ray://{address}", connect_seconds=PATIENCE_SECONDS)


@needs_ray
def test_a_ray_that_wants_a_token(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says that there was no connection, after half a minute."""
    address = engines.head.address
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(CannotJoin, match=f"{address} wants a token .*: set RAY_AUTH_MODE=token"):
        run(JOB, on=f"ray://{address}")


@needs_ray
def test_no_ray_where_its_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # else that one is taken
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{unused_port()}")
    with pytest.raises(CannotJoin, match=r"no Ray cluster answers at 127.0.0.1:\d+: "):
        run(JOB, on="ray", connect_seconds=PATIENCE_SECONDS)
