"""What is left when peers die without a word: nothing, soon."""

import os
import signal
from pathlib import Path

import pytest

from peers import Job
from tests.live.harness import Site, is_free, until
from tests.live.jobs import answer, forever, slow_job

LOOPS = """
from peers import Job, Peer
import subprocess, sys

def forever(key, value):
    if value == 2:
        subprocess.run(["sleep", "1000"])
    while True:
        pass

with Peer(slots=2) as peer:
    peer.submit(Job([1, 2], forever))
    while peer.status().members[0].running < 2:
        pass
    print("running", flush=True)
    sys.stdin.read()
"""


def folders(site: Site) -> list[Path]:
    """The spool folders of peers."""
    return [path.parent for path in site.spool.glob("*/*/lock")]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_peer(site: Site, how: signal.Signals) -> None:
    process = site.run("loops", LOOPS)
    process.said("running")
    until("workers run", lambda: len(site.marked()) >= 4)  # peer, helper, two workers
    process.process.send_signal(how)
    process.process.wait(10)
    until("everyone is gone", lambda: not site.marked(), 5.0)
    assert is_free(site.port)
    assert folders(site), "nobody was there to tidy up"
    site.start("next")
    until("the next peer has tidied up", lambda: len(folders(site)) == 1)


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
    assert txn.result(20) == answer(60)
    assert peer.run_everywhere(os.getpid)["one"] != pid


def test_the_helper_of_the_workers_is_replaced_too(site: Site) -> None:
    peer = site.here("one", slots=1)
    helper = peer.run_everywhere(os.getppid)["one"]
    txn = peer.submit(slow_job(60))
    until("it runs", lambda: txn.progress.maps_done > 5)
    os.kill(helper, signal.SIGKILL)
    assert txn.result(20) == answer(60)


def test_a_neighbour_takes_over_and_drops_what_a_dead_peer_held(site: Site) -> None:
    peer = site.here("one", slots=1)
    site.start("two", slots=1)

    def with_a_death() -> None:
        txn = peer.submit(slow_job(100))
        until("half of it", lambda: txn.progress.maps_done > 50)
        site.named("two").kill()
        assert txn.result(20) == answer(100)
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
    until("the slot is free", lambda: not any(m.running for m in watcher.status().members), 5.0)
    assert watcher.submit(slow_job(10)).result(10) == answer(10)


def test_closing_in_the_middle_leaves_nothing(site: Site) -> None:
    peer = site.here("one", slots=2)
    peer.submit(Job([1, 2, 3], forever))
    until("it runs", lambda: peer.status().members[0].running)
    peer.close()
    assert not site.spool.exists() or not list(site.spool.iterdir())
    assert not site.marked()
    assert is_free(site.port)
