"""What is left when peers die without a word: nothing, soon."""

import os
import signal
import textwrap
from pathlib import Path

import pytest

from peers import Job
from tests.live.harness import Process, Site, alive, is_free, until
from tests.live.jobs import answer, forever, slow_job

VICTIM = """
import itertools, os, signal, subprocess, sys, threading, time
from pathlib import Path
from peers import Job, Peer

def busy(key, how):
    Path(how).touch()
    if how == "loop":
        while True: pass
    if how == "loop in C":
        sum(itertools.repeat(0))
    if how == "blocking read":
        os.read(os.pipe()[0], 1)
    if how == "child":
        subprocess.run(["sleep", "1000"])
    if how == "fork":
        os.fork()
        os.read(os.pipe()[0], 1)

WORK = ["loop", "loop in C", "blocking read", "child", "fork"]

def wait():
    while not all(map(os.path.exists, WORK)):
        time.sleep(0.01)
    print("at work", flush=True)

def stay():
    wait()
    sys.stdin.read()

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def begin():
    peer = Peer(slots=len(WORK))
    peer.submit(Job(WORK, busy))
    return peer

class Deadly:
    #A datasource that is the end of its peer when its keys are listed, or a value is asked.
    def __init__(self, when):
        self.when = when
    def __iter__(self):
        yield "key"
        self.when == "listing" and die()
    def __getitem__(self, key):
        die()

def submit_deadly(when):
    peer = Peer(slots=1)
    peer.submit(Job(Deadly(when), busy))
    stay()

def children():
    return [pid for task in Path("/proc/self/task").iterdir()
            for pid in (task / "children").read_text().split()]

def die_with_the_first_child():
    while not children():
        pass
    die()

"""
"""A peer whose workers are busy in every way that is hard to end; how it dies is added."""

SIGNALS = {
    "killed": [signal.SIGKILL],
    "terminated": [signal.SIGTERM],
    "interrupted": [signal.SIGINT],
    "stopped, then killed": [signal.SIGSTOP, signal.SIGKILL],
    "stopped, then terminated": [signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT],
}
"""What is sent to it while it works."""

KEYS = {"hung up": signal.SIGHUP, "interrupted": signal.SIGINT, "quit": signal.SIGQUIT}
"""What its terminal sends to all that it sees of it: the helper of its workers too."""

DEATHS = {
    "os._exit": (3, "begin(); wait(); os._exit(3)"),
    "abort": (-signal.SIGABRT, "begin(); wait(); os.abort()"),
    "sys.exit": (3, "peer = begin(); wait(); sys.exit(3)"),
    "sys.exit, closing": (3, "with begin(): wait(); sys.exit(3)"),
    "nobody catches it": (1, "peer = begin(); wait(); 1 // 0"),
    "nobody catches it, closing": (1, "with begin(): wait(); 1 // 0"),
    "the script ends": (0, "peer = begin(); wait()"),
    "another program": (0, "peer = begin(); wait(); os.execlp('true', 'true')"),
    "while workers start": (
        -signal.SIGKILL,
        "threading.Thread(target=die_with_the_first_child).start(); begin(); stay()",
    ),
    "while it lists keys": (-signal.SIGKILL, "submit_deadly('listing')"),
    "while it gives values": (-signal.SIGKILL, "submit_deadly('giving')"),
}
"""What it does to itself, and the exit code by which to know that it did."""


SOON_SECONDS = 20.0
"""The kernel takes milliseconds; a busy machine may take long to look."""


def folders(site: Site) -> list[Path]:
    """The spool folders of peers."""
    return [path.parent for path in site.spool.glob("*/*/lock")]


def goes_with_all_its_workers(site: Site, victim: Process) -> None:
    """It ends, and nothing that it started is left, though nobody tidies up after it."""
    until(f"{victim.name} ends", lambda: victim.process.poll() is not None)
    until("all that it started is gone", lambda: not site.marked(), SOON_SECONDS)


@pytest.mark.parametrize("how", SIGNALS)
def test_no_worker_outlives_its_peer_however_it_is_ended(site: Site, how: str) -> None:
    """A peer that survives it takes over its port and its part of the spool."""
    victim = site.run("victim", VICTIM + "peer = begin(); stay()")
    victim.said("at work")
    site.here("survivor")
    for number in SIGNALS[how]:
        victim.process.send_signal(number)
    goes_with_all_its_workers(site, victim)
    until("the survivor has tidied up", lambda: len(folders(site)) == 1)


@pytest.mark.parametrize("how", KEYS)
def test_what_user_code_started_dies_with_a_closed_terminal(site: Site, how: str) -> None:
    victim = site.run("victim", VICTIM + "peer = begin(); stay()", start_new_session=True)
    victim.said("at work")
    site.here("survivor")
    os.killpg(victim.pid, KEYS[how])
    goes_with_all_its_workers(site, victim)
    until("the survivor has tidied up", lambda: len(folders(site)) == 1)


@pytest.mark.parametrize("how", DEATHS)
def test_no_worker_outlives_its_peer_however_it_ends(site: Site, how: str) -> None:
    """The next peer tidies up after it."""
    code, script = DEATHS[how]
    victim = site.run("victim", VICTIM + script)
    goes_with_all_its_workers(site, victim)
    assert victim.process.returncode == code, victim.err
    assert is_free(site.port)
    site.here("next")
    until("the next peer has tidied up", lambda: len(folders(site)) == 1)


def test_no_worker_outlives_its_peer_though_a_fork_of_it_lives_on(site: Site) -> None:
    script = """
    peer = begin()
    wait()
    if os.fork():
        die()
    Path("fork").write_text(str(os.getpid()))
    sys.stdin.read()
    """
    victim = site.run("victim", VICTIM + textwrap.dedent(script))
    told = site.folder / "fork"
    fork = int(until("the fork tells its number", lambda: told.exists() and told.read_text()))
    until("only the fork is left", lambda: site.marked() == [fork], SOON_SECONDS)
    site.here("next")
    until("the next peer has tidied up", lambda: len(folders(site)) == 1)
    victim.leave()
    until("the fork has left", lambda: not alive(fork))


def test_outputs_that_nobody_can_claim_are_swept_at_the_next_start(site: Site) -> None:
    """The owner died with its peer: what was mapped for it is of no use to anybody."""
    script = """
    import sys
    from peers import Job, Peer
    def mapfn(key, value):
        yield key, value
        if value == 3:
            print("mapped", flush=True)
            while True: pass
    with Peer(slots=1) as peer:
        peer.submit(Job([1, 2, 3], mapfn))
        sys.stdin.read()
    """
    process = site.run("alone", script)
    until("it has mapped", lambda: "mapped" in process.out)
    process.kill()
    assert list(site.spool.glob("*/*/*map-*"))
    site.start("next")
    assert len(folders(site)) == 1, "swept before it joined"


def test_a_worker_that_is_killed_is_replaced(site: Site) -> None:
    peer = site.here("one", slots=1)
    pid = peer.run_everywhere(os.getpid)["one"]
    txn = peer.submit(slow_job(60))
    until("it runs", lambda: txn.progress.maps_done > 5)
    os.kill(pid, signal.SIGKILL)
    assert txn.result(60) == answer(60)
    assert peer.run_everywhere(os.getpid)["one"] != pid


def test_the_helper_of_the_workers_is_replaced_too(site: Site) -> None:
    peer = site.here("one", slots=1)
    helper = peer.run_everywhere(os.getppid)["one"]
    txn = peer.submit(slow_job(60))
    until("it runs", lambda: txn.progress.maps_done > 5)
    os.kill(helper, signal.SIGKILL)
    assert txn.result(60) == answer(60)


def test_a_neighbour_takes_over_and_drops_what_a_dead_peer_held(site: Site) -> None:
    peer = site.here("one", slots=1)
    site.start("two", slots=1)

    def with_a_death() -> None:
        txn = peer.submit(slow_job(100))
        until("half of it", lambda: txn.progress.maps_done > 50)
        site.named("two").kill()
        assert txn.result(60) == answer(100)
        assert txn.progress.executed_again == 0

    with_a_death()
    until("one folder", lambda: len(folders(site)) == 1)

    def files() -> list[str]:
        return [path.name for path in site.spool.glob("*/*/*") if path.name != "lock"]

    until("it is empty", lambda: not files())


def test_an_owner_that_dies_takes_its_endless_job_with_it(site: Site) -> None:
    """Its tasks run at others; with no owner left they are stopped, and the slot is free."""
    watcher = site.here("watcher", orphan_run_seconds=0.5)
    site.start("worker", slots=1)
    owner = site.run(
        "owner",
        """
        from peers import Job, Peer
        import sys
        from pathlib import Path
        def forever(key, value):
            Path("runs").touch()
            while True: pass
        with Peer(name="owner", slots=0) as peer:
            peer.submit(Job([1, 2], forever))
            sys.stdin.read()
        """,
    )
    until("it runs", lambda: any(m.running for m in watcher.status().members))
    until("its code runs", (site.folder / "runs").exists)
    owner.kill()
    until("the slot is free", lambda: not any(m.running for m in watcher.status().members), 20.0)
    assert watcher.submit(slow_job(10)).result(60) == answer(10)


def test_closing_in_the_middle_leaves_nothing(site: Site) -> None:
    peer = site.here("one", slots=2)
    peer.submit(Job([1, 2, 3], forever))
    until("it runs", lambda: peer.status().members[0].running)
    peer.close()
    assert not site.spool.exists() or not list(site.spool.iterdir())
    assert not site.marked()
    assert is_free(site.port)
