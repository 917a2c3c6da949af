"""A cluster whose head is killed in mid-job: one clear error, in bounded time, and a process that
lives on. Also a deadline while nobody answers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from peers import DeadlineExceeded, TransactionFailed
from peers.engines import watched
from peers.engines.interface import Deadline
from peers.engines.watched import Watched, within
from tests.conformance.conftest import DaskCluster, RayHead, marked, needs_ray
from tests.live.harness import TOP, until

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("engines")]

Running = subprocess.Popen[str]

BOUND_SECONDS = 100
"""For what takes up to 40, on a machine that has much else to do."""

SCRIPT = """
import sys
from peers import DeadlineExceeded, Job, TransactionFailed, run

folder, on, deadline = sys.argv[1:]

def slow(key, value):
    import pathlib, time
    pathlib.Path(folder, str(key)).touch()
    time.sleep(0.2)
    yield key % 5, 1

try:
    run(Job(range(5000), slow), on=on, deadline_seconds=float(deadline) or None)
except (DeadlineExceeded, TransactionFailed) as error:
    print(type(error).__name__, error)
"""


def start(folder: Path, on: str, deadline: float = 0, mark: str = "PEERGRID_TEST_RAY=") -> Running:
    """Begin to compute the job there, in a process with this in its environment."""
    marks = folder / "marks"
    marks.mkdir()
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(marks), on, str(deadline)],
        env=os.environ | {"PYTHONPATH": str(TOP), name: value},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until("the job runs", lambda: any(marks.iterdir()) or process.poll() is not None)
    return process


def ended(process: Running) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=BOUND_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


def test_dask(tmp_path: Path) -> None:
    cluster = DaskCluster(workers=1)
    try:
        process = start(tmp_path, cluster.on)
        os.kill(cluster.process.pid, signal.SIGKILL)  # the scheduler; its workers follow
        code, out, err = ended(process)
    finally:
        cluster.end()
    assert code == 0, err
    assert out.startswith(f"TransactionFailed the Dask cluster at {cluster.address} was lost")


@needs_ray
@pytest.mark.timeout(300)
def test_ray_by_its_client(tmp_path: Path) -> None:
    head = RayHead()
    try:
        process = start(tmp_path, f"ray://{head.address}")
        head.kill_gcs()
        code, out, err = ended(process)
    finally:
        head.end()
    assert code == 0, err
    assert out.startswith("TransactionFailed the Ray cluster behind ray:// was lost: its head has")


@needs_ray
@pytest.mark.timeout(300)
def test_a_deadline_by_ray_s_client(tmp_path: Path) -> None:
    """Sooner than the head is given up, when the client answers nothing any more."""
    head = RayHead()
    try:
        process = start(tmp_path, f"ray://{head.address}", deadline=8)
        head.kill_gcs()
        code, out, err = ended(process)
    finally:
        head.end()
    assert code == 0, err
    assert out.startswith("DeadlineExceeded the job was not done within its deadline of 8 s")


@needs_ray
@pytest.mark.timeout(300)
def test_ray_of_this_process(tmp_path: Path) -> None:
    """Ray would end the process, without an exception."""
    mark = f"PEERGRID_TEST_RAY={os.getpid()}-{time.monotonic_ns()}"
    process = start(tmp_path, "ray", mark=mark)
    (gcs,) = (
        pid for pid in marked(mark) if Path(f"/proc/{pid}/comm").read_text() == "gcs_server\n"
    )
    os.kill(gcs, signal.SIGKILL)
    code, out, err = ended(process)
    assert code == 0, err
    assert out.startswith("TransactionFailed the Ray cluster at ")
    assert "its head has been silent for 20 s" in out
    until("all processes of it are gone", lambda: not marked(mark))


# ------------------------------------------------------------------ what watches


def silence() -> None:
    raise ConnectionError("nobody")


def test_a_silent_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LOST_SECONDS", 0.6)
    monkeypatch.setattr(watched, "ASK_SECONDS", 0.05)
    calls = Watched("the cluster", silence, Deadline(None))
    hanging = threading.Event()
    with pytest.raises(TransactionFailed, match=r"was lost: .* \(ConnectionError: nobody\)"):
        calls.call(hanging.wait, 60)
    assert calls.lost
    calls.close()
    hanging.set()


def test_a_head_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a call takes."""
    monkeypatch.setattr(watched, "LOST_SECONDS", 0.6)
    monkeypatch.setattr(watched, "ASK_SECONDS", 0.01)
    calls = Watched("the cluster", lambda: None, Deadline(None))
    calls.call(time.sleep, 1.5)
    assert calls.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        calls.call(divmod, 7, 0)
    calls.close()


def test_a_deadline_while_a_call_hangs() -> None:
    calls = Watched("the cluster", lambda: None, Deadline(0.3))
    with pytest.raises(DeadlineExceeded, match=r"its deadline of 0\.3 s"):
        calls.call(time.sleep, 1)
    calls.close()


def test_what_is_given_little_time() -> None:
    assert within(60, divmod, 7, 2) == (3, 1)
    with pytest.raises(TimeoutError, match=r"not done within 0\.1 s"):
        within(0.1, time.sleep, 5)
