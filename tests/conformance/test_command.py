"""``grid submit --on``: the same command, another engine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.conftest import Engines, needs_ray
from tests.live.harness import TOP, WAIT_SECONDS, until

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("engines")]

JOBS = """
import os, time
from pathlib import Path
from peers import Job

def words(key, text):
    if not text:
        raise ValueError("nothing in it")
    for word in text.split():
        yield word, 1

def total(word, counts):
    return sum(counts)

job = Job({"a": "x y x", "b": "", "c": "y"}, words, reducefn=total)

def endless(key, folder):
    Path(folder, f"{key}-{os.getpid()}").touch()
    time.sleep(0.05)
    yield key, 1

def slow():
    return Job([os.environ["MARKS"]] * 2000, endless)
"""


def command(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start ``grid submit`` in a folder with these jobs."""
    (folder / "work.py").write_text(JOBS)
    marks = folder / "marks"
    marks.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "peers", "submit", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TOP), "MARKS": str(marks)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=WAIT_SECONDS)
    return process.returncode, out, err


@pytest.mark.parametrize("engine", ["dask", pytest.param("ray", marks=needs_ray)])
def test_results_and_failures(engine: str, engines: Engines, tmp_path: Path) -> None:
    on = engines.get("dask") if engine == "dask" else f"ray://{engines.head.address}"
    code, out, err = ended(command(tmp_path, "work:job", "--on", on, "--on-error", "skip"))
    assert (code, sorted(out.splitlines())) == (0, ["x\t2", "y\t2"]), err
    assert "left out because a function raised: 1 ('b')" in err
    code, out, err = ended(command(tmp_path, "work:job", "--on", on))
    assert (code, out) == (1, "")
    assert "grid submit: ValueError: nothing in it in mapfn at key 'b'" in err
    assert err.count('raise ValueError("nothing in it")') == 1  # the remote traceback


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--on", "dusk"), "on='dusk' is no engine; did you mean 'dask'?"),
        (("--on", "local", "--name", "x"), "--name is for the grid alone; --on local has nothing"),
    ],
)
def test_bad_flags(arguments: tuple[str, ...], text: str, tmp_path: Path) -> None:
    code, out, err = ended(command(tmp_path, "work:job", *arguments))
    assert (code, out) == (2, "")
    assert f"grid submit: {text}" in err


def test_ctrl_c_cancels_on_dask(dask_on: str, tmp_path: Path) -> None:
    from distributed import Client

    process = command(tmp_path, "work:slow", "--on", dask_on)
    until("the job runs", lambda: any((tmp_path / "marks").iterdir()) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 128 + signal.SIGINT
    assert "grid submit: cancelled" in err
    with Client(dask_on.replace("dask://", "tcp://"), set_as_default=False) as client:
        until("nothing is to run any more", lambda: not any(client.processing().values()))


@needs_ray
@pytest.mark.parametrize("by", ["itself", "its client"])
def test_ctrl_c_cancels_on_ray(
    by: str, engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    on = "ray"
    if by == "itself":
        engines.get("ray")
        monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    else:
        engines.get("ray client")
        on = f"ray://{engines.head.address}"
    process = command(tmp_path, "work:slow", "--on", on)
    until("the job runs", lambda: any((tmp_path / "marks").iterdir()) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 128 + signal.SIGINT, err
    assert "grid submit: cancelled" in err
    until("its processor is free again", lambda: ray.available_resources().get("CPU") == 2)


def test_the_example_counts_the_same_everywhere(dask_on: str, tmp_path: Path) -> None:
    """As its readers run it, over a small library."""
    (tmp_path / "lib" / "package").mkdir(parents=True)
    (tmp_path / "lib" / "package" / "one.py").write_text("import this as that\nthat = this\n")
    script = "import sys, sysconfig, runpy; lib, path = sys.argv[1:3]; del sys.argv[1:3]; "
    script += "sysconfig.get_path = lambda _: lib; runpy.run_path(path, run_name='__main__')"
    example = str(TOP / "examples" / "anywhere.py")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "lib"), example, "local", dask_on],
        env=os.environ | {"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["local", dask_on]
    assert all(line.endswith("7 words, 5 different: same") for line in lines)
