"""The ``grid`` command as its users run it: processes, signals, exit statuses, output."""

import json
import os
import pickle
import pty
import re
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.live.harness import Process, Site, until

pytestmark = pytest.mark.live

JOBS = """
import threading
import time
from peers import Job

def pairs(key, value):
    print("mapping", key)
    yield value % 3, value

def slowly(key, value):
    if key == 0:
        print("begun")
    time.sleep(0.03)
    yield value % 3, value

def fails(key, value):
    if key == 5:
        raise ValueError("five")
    yield key, value

def forever(key, value):
    print("begun")
    while True:
        time.sleep(0.1)

def total(key, values):
    return sum(values)

job = Job(range(30), pairs, reducefn=total)
slow = Job(range(80), slowly, reducefn=total)
failing = Job(range(10), fails)
endless = Job(range(4), forever)
unpicklable = Job(range(4), pairs, reducefn=lambda key, values: threading.Lock())
"""

NOISY = """
from peers import Job
import jobs

def told(results):
    print("the result function")
    return results

print("imported")
job = Job(range(30), jobs.pairs, reducefn=jobs.total, resultfn=told)
"""

ANSWER = {rest: sum(range(rest, 30, 3)) for rest in range(3)}


def grid(site: Site, *arguments: str, name: str = "", **environment: str) -> Process:
    """Run the command in the site's folder."""
    name = name or f"grid{len(site.processes)}"
    command = [sys.executable, "-W", "error", "-m", "peers", *arguments]
    process = Process(site, name, command, cwd=site.folder, env={**os.environ, **environment})
    site.processes.append(process)
    return process


def ends(process: Process, code: int = 0) -> str:
    """Wait until a command has ended with this status; return what it printed."""
    got = process.process.wait(60)
    assert got == code, f"{process.name}: {got}\n{process.out}\n{process.err}"
    assert "Traceback" not in process.err or "mapfn" in process.err
    return process.out


def up(site: Site, name: str, *arguments: str, slots: int = 1) -> Process:
    process = grid(site, "up", "--name", name, "--slots", str(slots), *arguments, name=name)
    process.said(f"{name} ")
    return process


def end_peers(site: Site) -> None:
    """Have all that still runs leave well."""
    for process in site.processes:
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGTERM)
    for process in site.processes:
        process.process.wait(60)


@pytest.fixture
def jobs(site: Site) -> Site:
    (site.folder / "jobs.py").write_text(JOBS)
    return site


def test_a_grid_from_up_to_down(jobs: Site) -> None:
    site = jobs
    first, second = up(site, "first", slots=2), up(site, "second")
    assert first.said("first serves at 127.0.0.1:").endswith("term 1, 2 slots")
    assert second.said("second follows first at ").endswith("term 1, 1 slot")
    shown = ends(grid(site, "status"))
    assert "first serves at" in shown
    assert "2 peers, 3 slots, 0 transactions" in shown
    assert "standby" in shown
    status = json.loads(ends(grid(site, "status", "--json")))
    assert (status["server"], status["term"], status["slots"]) == ("first", 1, 3)
    assert [peer["name"] for peer in status["peers"]] == ["first", "second"]
    submitted = grid(site, "submit", "jobs:job")
    lines = ends(submitted).splitlines()
    assert {int(key): int(value) for key, value in (line.split("\t") for line in lines)} == ANSWER
    assert "] mapping 29" in submitted.err  # and not among the results
    assert ends(grid(site, "down")) == "2 peers left, none remains\n"
    assert first.ended().endswith("first leaves: the grid goes down\n")
    assert second.ended().endswith("second leaves: the grid goes down\n")


def test_no_grid_is_said_soon_in_one_line(jobs: Site) -> None:
    commands = (["status"], ["down"], ["submit", "jobs:job"])
    for process, (name, *_) in [(grid(jobs, *command), command) for command in commands]:
        assert ends(process, 1) == ""
        assert process.err.startswith(f"grid {name}: no grid named 'grid' answers on this host")
        assert process.err.count("\n") == 1


def test_who_else_sits_on_the_port_is_said(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):  # takes connections, says nothing
        process = grid(site, "status", "--join-timeout", "1")
        ends(process, 1)
    assert f"There: 127.0.0.1:{site.port}: no answer in time" in process.err
    assert process.err.count("127.0.0.1") <= 2
    assert process.err.count("\n") == 1


def test_a_command_waits_for_the_one_who_replaces_a_frozen_server(site: Site) -> None:
    """Somebody holds the port and is silent: that may be a grid yet."""
    settings = {"GRID_SILENCE_SECONDS": "3"}
    first = grid(site, "up", "--name", "first", name="first", **settings)
    first.said("first serves")
    second = grid(site, "up", "--name", "second", name="second", **settings)
    second.said("second follows")
    first.freeze()
    assert json.loads(ends(grid(site, "status", "--json")))["server"] == "second"
    first.thaw()
    ends(grid(site, "down"))


def test_json_of_a_grid_from_up_to_down(jobs: Site) -> None:
    """Every command has it, so that scripts need not read what is for people."""
    site = jobs
    peer = grid(site, "up", "--name", "peer", "--slots", "1", "--json", name="peer")
    began = json.loads(peer.said(""))
    assert (began["event"], began["peer"], began["serving"]) == ("up", "peer", True)
    assert (began["server"], began["term"], began["slots"]) == ("peer", 1, 1)
    (site.folder / "one.txt").write_text("to be or not to be")
    repl = grid(site, "repl", "--json", "--top", "1")
    for line in ("one.txt", "two.txt", ""):
        repl.tell(line)
    repl.leave()
    counted, failed, told = map(json.loads, ends(repl, 1).splitlines())
    assert (counted["common"], counted["words"], counted["files"]) == ([["be", 2]], 6, 1)
    assert failed["line"] == "two.txt"
    assert "two.txt" in failed["error"]
    assert [(each["name"], each["cores"] > 0) for each in told["peers"]] == [("peer", True)]
    endless = grid(site, "submit", "jobs:endless", "--name", "for ever")
    until("it runs", lambda: "begun" in endless.err)
    cancelled = json.loads(ends(grid(site, "cancel", "for ever", "--json")))
    assert cancelled["name"] == "for ever"
    ends(endless, 1)
    key = json.loads(ends(grid(site, "key", "--json")))
    assert (key["grid"], len(key["tag"])) == ("grid", 16)
    shown = json.loads(ends(grid(site, "key", "--show", "--json")))
    assert shown["key"] == ends(grid(site, "key", "--show")).strip()
    made = json.loads(ends(grid(site, "key", "--new", "new.key", "--json")))
    assert Path(made["path"]) == site.folder / "new.key"
    assert json.loads(ends(grid(site, "down", "--json"))) == {"left": 1, "remaining": 0}
    ended = json.loads(peer.ended().splitlines()[-1])
    assert ended == {"event": "leaves", "peer": "peer", "why": "the grid goes down"}


def test_another_key_is_said(site: Site) -> None:
    peer = grid(site, "up", "--name", "locked", name="locked", GRID_PASSWORD="the right one")
    peer.said("locked serves")
    stranger = grid(site, "status", GRID_PASSWORD="a wrong one")
    ends(stranger, 1)
    assert "another key or password" in stranger.err
    ends(grid(site, "down", GRID_PASSWORD="the right one"))
    peer.ended()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_up_leaves_well_when_told_to(site: Site, number: signal.Signals) -> None:
    peer = up(site, "peer")
    peer.process.send_signal(number)
    assert peer.ended().endswith(f"peer leaves: {number.name}\n")


def test_down_spares_the_scripts_of_users_and_counts_them(site: Site) -> None:
    script = site.start("script")
    peer = up(site, "peer")
    expected = "1 peer left, 1 remains (not started by `grid up`)\n"
    assert ends(grid(site, "down")) == expected
    peer.ended()
    assert script.process.poll() is None


def test_what_submit_prints_saves_and_says(jobs: Site) -> None:
    """One peer, and what its users see of each end of a job."""
    peer = up(jobs, "peer")
    results_in_every_form(jobs)
    stdout_is_for_results_alone(jobs)
    a_failed_job_shows_the_users_traceback(jobs)
    progress_is_shown_on_a_terminal(jobs)
    a_reader_that_leaves_is_no_error(jobs)
    an_interrupted_submit_withdraws_its_job(jobs)
    peer.process.send_signal(signal.SIGTERM)
    peer.ended()


def results_in_every_form(site: Site) -> None:
    runs = [
        grid(site, "submit", "jobs:job", "--json"),
        grid(site, "submit", "jobs:job", "--output", "results.pickle"),
        grid(site, "submit", "jobs:job", "--limit", "1", "--name", "shared"),
        grid(site, "submit", "jobs:failing", "--on-error", "skip"),
    ]
    as_json, as_pickle, limited, skipping = [ends(run) for run in runs]
    assert dict(json.loads(as_json)) == ANSWER
    assert as_pickle == ""
    assert pickle.loads((site.folder / "results.pickle").read_bytes()) == ANSWER
    assert limited.count("\n") == 1
    assert "and 2 more" in runs[2].err
    assert skipping.count("\n") == 9
    assert "left out because a function raised: 1 (5)" in runs[3].err


def stdout_is_for_results_alone(site: Site) -> None:
    (site.folder / "noisy.py").write_text(NOISY)
    waited = grid(site, "submit", "noisy:job", "--json")
    assert dict(json.loads(ends(waited))) == ANSWER
    assert "imported\n" in waited.err
    assert "the result function\n" in waited.err
    detached = grid(site, "submit", "noisy:job", "--detach")
    assert re.fullmatch(r"[0-9a-f]+\n", ends(detached))


def a_failed_job_shows_the_users_traceback(jobs: Site) -> None:
    submitted = grid(jobs, "submit", "jobs:failing")
    assert ends(submitted, 1) == ""
    assert submitted.err.startswith("grid submit: ValueError: five in mapfn at key 5")
    assert 'raise ValueError("five")' in submitted.err
    assert "peers/cli" not in submitted.err
    submitted = grid(jobs, "submit", "jobs:unpicklable")
    assert ends(submitted, 1) == "", "the job failed; the command was not wrong"
    assert "cannot pickle" in submitted.err
    assert "Traceback" not in submitted.err


def an_interrupted_submit_withdraws_its_job(jobs: Site) -> None:
    watcher = jobs.here("watcher", serves=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        submitted = grid(jobs, "submit", "jobs:endless")
        until("the job runs", lambda: "begun" in submitted.err)  # noqa: B023
        submitted.process.send_signal(number)
        ends(submitted, 128 + number)
        assert submitted.err.endswith("grid submit: cancelled\n")
        until(
            "the grid has forgotten it",
            lambda: all(t.state != "running" for t in watcher.status().transactions),
        )


def test_a_submitted_job_outlives_the_server(jobs: Site) -> None:
    first, second = up(jobs, "first"), up(jobs, "second")
    submitted = grid(jobs, "submit", "jobs:slow", "--json")
    until("the job runs", lambda: "begun" in submitted.err)
    first.kill()
    second.said("second serves now")
    answer = {rest: sum(range(rest, 80, 3)) for rest in range(3)}
    assert dict(json.loads(ends(submitted))) == answer
    second.process.send_signal(signal.SIGTERM)
    second.ended()


def progress_is_shown_on_a_terminal(jobs: Site) -> None:
    ours, theirs = pty.openpty()
    script = f"exec {sys.executable} -W error -m peers submit jobs:slow 2>{os.ttyname(theirs)}"
    process = Process(jobs, "terminal", ["/bin/sh", "-c", script], cwd=jobs.folder)
    jobs.processes.append(process)
    until("it shows something", lambda: select.select([ours], [], [], 0)[0])
    os.close(theirs)
    shown = _read_all(ours)
    os.close(ours)
    assert len(ends(process).splitlines()) == 3
    assert b"map" in shown
    assert b"/80" in shown
    assert b"peer serves, term 1" in shown


def _read_all(descriptor: int) -> bytes:
    """Read a terminal until its other end is closed."""
    shown = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # how Linux says that the other end is closed
            return shown
        if not piece:
            return shown
        shown += piece


def a_reader_that_leaves_is_no_error(jobs: Site) -> None:
    (jobs.folder / "many.py").write_text(
        "from peers import Job\n"
        "def pairs(key, value):\n"
        "    yield key, 'x' * 100\n"
        "job = Job(range(5000), pairs)\n"
    )
    script = f"{sys.executable} -W error -m peers submit many:job | head -n 1"
    process = Process(jobs, "shell", ["/bin/sh", "-c", script], cwd=jobs.folder)
    jobs.processes.append(process)
    assert process.ended().count("\n") == 1
    assert process.err == ""
    assert not list(Path(jobs.folder).glob(".*-*"))
