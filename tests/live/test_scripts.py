"""What a user's script may rely on: modules beside it, prints, signals, sys.path, forks."""

import os
import signal
import zipfile
from pathlib import Path

import pytest

from tests.live.harness import STAY, Site, alive, is_free, until

BESIDE = """
import beside_too

def words(key, text):
    return [(beside_too.fold(word), 1) for word in text.split()]
"""

BESIDE_TOO = """
def fold(word):
    return word.lower()
"""

IMPORTS = """
import beside
from peers import Job, Peer
with Peer(name="script", slots=0) as peer:
    job = Job(["A b", "B c"], beside.words, reducefn=lambda k, vs: len(vs))
    assert peer.submit(job).result(60) == {"a": 1, "b": 2, "c": 1}
"""


def test_modules_beside_the_script_import_on_its_own_workers(site: Site) -> None:
    """Functions of ``__main__``, and modules beside it that import others, need no ``ship``."""
    (site.scripts / "beside.py").write_text(BESIDE)
    (site.scripts / "beside_too.py").write_text(BESIDE_TOO)
    site.run("alone", IMPORTS.replace("slots=0", "slots=1")).ended()


def test_a_module_that_no_peer_has_is_named_and_can_be_shipped(site: Site) -> None:
    """It is in an archive that only the script has on its path."""
    site.start("worker", slots=1)
    with zipfile.ZipFile(site.folder / "archive.zip", "w") as archive:
        archive.writestr("beside.py", BESIDE)
        archive.writestr("beside_too.py", BESIDE_TOO)
    script = """
    import sys
    sys.path.insert(0, "archive.zip")
    import beside, beside_too
    from grid.errors import ModuleMissing
    from peers import Job, Peer
    with Peer(name="script", slots=0) as peer:
        try:
            peer.submit(Job(["A b", "B c"], beside.words)).result(60)
        except ModuleMissing as error:
            assert "beside" in str(error), error
        else:
            sys.exit("that cannot be")
        job = Job(["A b", "B c"], beside.words, ship=[beside, "beside_too"])
        assert peer.submit(job).result(60) == job.run(), peer
    """
    site.run("shipping", script).ended()


def test_a_module_beside_every_copy_of_the_script_is_used_where_it_is(site: Site) -> None:
    """Peers started in other folders, each with the module beside its own script."""
    for name in ("one", "two"):
        folder = site.folder / f"of_{name}"
        folder.mkdir()
        (folder / "beside.py").write_text(BESIDE)
        (folder / "beside_too.py").write_text(BESIDE_TOO)
    site.run(
        "one", STAY.format(arguments="name='one', slots=1"), folder=site.folder / "of_one"
    ).said("joined")
    site.run("two", IMPORTS, folder=site.folder / "of_two").ended()


def test_what_user_code_prints_and_logs_reaches_its_owner_with_the_peers_name(site: Site) -> None:
    site.start("worker", slots=1)
    script = """
    import logging, sys
    from peers import Job, Peer

    def talk(key, value):
        print("printed", value)
        print("complained", file=sys.stderr)
        logging.getLogger("user").warning("logged %d", value)
        yield key, value

    with Peer(name="script", slots=0) as peer:
        peer.submit(Job([7], talk)).result(60)
        print("asking", flush=True)
        sys.stdin.read()
    """
    process = site.run("script", script)
    process.said("asking")
    assert process.said("[worker] printed") == "7"
    until("stderr", lambda: "[worker] complained" in process.err)
    until("the log", lambda: "logged 7" in process.err)
    assert site.named("worker").out.splitlines() == ["joined 1"]


def test_scripts_need_no_main_guard_and_no_signal_handler_is_taken(site: Site) -> None:
    script = """
    import signal
    before = {s: signal.getsignal(s) for s in signal.valid_signals()}
    from peers import Job, Peer
    peer = Peer(slots=1)
    assert peer.submit(Job([1, 2], lambda k, v: [(k, v)])).result(60) == {0: [1], 1: [2]}
    assert {s: signal.getsignal(s) for s in signal.valid_signals()} == before
    assert signal.set_wakeup_fd(-1) == -1
    print("done")
    """  # the peer is not closed: the end of the interpreter does it
    assert site.run("script", script).ended() == "done\n"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_script_that_is_interrupted_ends_and_leaves_nothing(
    site: Site, end: signal.Signals
) -> None:
    """SIGTERM kills a plain script without a word; what it left is swept by the next peer."""
    script = """
    from peers import Job, Peer
    def forever(key, value):
        while True: pass
    with Peer(slots=2) as peer:
        txn = peer.submit(Job([1, 2], forever))
        while not peer.status().members[0].running: pass
        print("running", flush=True)
        txn.result()
    """
    process = site.run("script", script)
    process.said("running")
    process.process.send_signal(end)
    process.process.wait(60)
    assert process.process.returncode in (-end, 1, 130)
    until("its workers are gone", lambda: not site.marked(), 20.0)
    site.here().close()


FORKS = """
import os, signal, sys, warnings
from peers import Job, Peer

warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # of Python itself, from 3.12 on

def answer(peer):
    job = Job([1, 2], lambda k, v: [("sum", v)], reducefn=lambda k, vs: sum(vs))
    return peer.submit(job).result(60)

peer = Peer(slots=1)
assert answer(peer) == {"sum": 3}
mine = peer.id
txn = peer.submit(Job([1], lambda k, v: [(k, v)]))
child = os.fork()
if child == 0:
    code = 1
    try:
        if "use" in sys.argv:
            assert answer(peer) == {"sum": 3}
            assert peer.id != mine
            assert peer.name.endswith(f"-{os.getpid()}"), peer.name
            assert [m.name for m in peer.status().members if m.serving]
            peer.close()
        print("child", os.getpid(), flush=True)
        if "stay" in sys.argv:
            signal.pause()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)
assert answer(peer) == {"sum": 3}
assert txn.result(60) == {0: [1]}
print("parent", os.getpid(), flush=True)
if "stay" in sys.argv:
    signal.pause()
assert os.waitpid(child, 0)[1] == 0
assert answer(peer) == {"sum": 3}
assert peer.id == mine
"""


def test_a_forked_child_can_use_the_peer_and_gets_its_own(site: Site) -> None:
    site.run("forks", FORKS, "use").ended()


def test_a_forked_child_keeps_nothing_of_its_parents_alive(site: Site) -> None:
    """The parent served. It is killed; the child lives on, and another peer takes over."""
    process = site.run("forks", FORKS, "stay")
    child = int(process.said("child"))
    process.said("parent")
    peer = site.here("other", slots=1)
    assert not peer.serving
    process.kill()
    until("the other peer serves on the port", lambda: peer.serving, 20.0)
    assert peer.status().address == f"127.0.0.1:{site.port}"
    assert alive(child)
    held = [str(entry.readlink()) for entry in Path(f"/proc/{child}/fd").iterdir()]
    assert not [target for target in held if "socket" in target or "spool" in target], held
    until("the dead parent's folder is gone", lambda: len(list(site.spool.glob("*/*/lock"))) == 1)
    peer.close()
    assert is_free(site.port)
    os.kill(child, signal.SIGKILL)
    until("the child is gone", lambda: not alive(child))


def test_a_multiprocessing_pool_forked_from_a_process_with_a_peer(site: Site) -> None:
    script = """
    import multiprocessing, warnings
    from peers import Job, Peer
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    def square(n):
        return n * n
    with Peer(slots=1) as peer:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
        job = Job([1, 2], lambda k, v: [(k, v)])
        assert peer.submit(job).result(60) == job.run()
    """
    site.run("pool", script).ended()


def test_a_child_that_runs_another_program_inherits_nothing(site: Site) -> None:
    script = """
    import subprocess
    from peers import Job, Peer
    with Peer(slots=1) as peer:
        peer.submit(Job([1], lambda k, v: [(k, v)])).result(60)
        command = ["/bin/sh", "-c", "ls -l /proc/self/fd"]
        told = subprocess.run(command, close_fds=False, capture_output=True, text=True)
        assert "pipe" in told.stdout, told
        assert "socket" not in told.stdout and "spool" not in told.stdout, told
    """
    site.run("program", script).ended()
