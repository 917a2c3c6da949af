"""Bad disks and bad clocks: no permission, no room, and time that jumps."""

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.messages import (
    Acknowledge,
    Address,
    Finished,
    Holding,
    Joined,
    Output,
    PeerRef,
    RecordMeta,
    Reign,
    Welcome,
)
from grid.settings import Settings
from peers import Misuse, Peer, TransactionFailed
from peers.failures import as_error
from tests.live.harness import TOP, Site

CLONE_NEWNS = 0x20000


def can_mount() -> bool:
    """Whether a child of this process may mount a file system that nobody else sees."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    attempt = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({CLONE_NEWNS}))"
    return subprocess.run([sys.executable, "-c", attempt], check=False).returncode == 0


SMALL_DISK = """
import ctypes, logging, os, sys
from pathlib import Path
from peers import Job, Peer
from tests.live.harness import until
from tests.live.jobs import reducing_job

spool = Path(sys.argv[1])
spool.mkdir()
libc = ctypes.CDLL(None, use_errno=True)
# A disk of a megabyte that this process and its workers alone can see.
assert libc.unshare({namespace}) == 0, os.strerror(ctypes.get_errno())
private = 1 << 14 | 1 << 18
assert libc.mount(b"none", b"/", None, private, None) == 0, os.strerror(ctypes.get_errno())
size = b"size=8m"
assert libc.mount(b"tmpfs", bytes(spool), b"tmpfs", 0, size) == 0, os.strerror(ctypes.get_errno())

told = []

class Handler(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())

logging.getLogger("peers").addHandler(Handler())
ballast = spool / "ballast"
job = reducing_job(60)
expected = job.run()
with Peer(spool=str(spool), name="full", slots=1) as peer:
    ballast.write_bytes(bytes(7 << 20))
    txn = peer.submit(job)
    until("it hands a task back", lambda: any("hands a task back" in line for line in told))
    print("told", [line for line in told if "hands a task back" in line][0], flush=True)
    until("its own words are shown", lambda: "hands a task back" in Path(sys.argv[2]).read_text())
    assert not txn.done()
    ballast.unlink()
    assert txn.result(60) == expected
    print("done", flush=True)
""".replace("{namespace}", hex(CLONE_NEWNS))


def test_a_full_disk_hands_the_task_back_and_says_so(site: Site) -> None:
    """And the job goes on as soon as there is room."""
    if not can_mount():
        pytest.skip("needs root, to mount a small disk of its own")
    folder = site.folder / "small"
    err = site.folder / "full.err"
    process = site.run("full", SMALL_DISK, str(folder), str(err))
    told = process.said("told")
    assert "peer=full" in told
    assert "No space left on device" in told
    assert str(folder) in told or "segments" in told
    process.said("done")
    process.ended()
    assert "[full] hands a task back" in process.err


WHERE = Address("127.0.0.1", 4000)


def test_no_room_for_a_result_at_its_owner_is_told_and_ends_it() -> None:
    """The server is told too, so that nothing of it is kept for ever."""
    me, server = PeerRef("me", "me", "h", WHERE), PeerRef("s", "s", "h", WHERE)
    core = ClientCore(Settings(slots=0), me, random.Random(1), own=(), strict=True)
    reign = Reign(1, "x")
    meta = RecordMeta("r", "mapreduce", 1, 1, False)
    holding = Holding(Output("r", "reduce", 0, 1, "s", 1), 1)
    welcome = Welcome("s", "s", (3, 11), reign)
    effects: list[fx.ClientEffect] = []
    for event in (
        ev.Started((WHERE,)),
        ev.ProbeAnswered(WHERE, welcome),
        ev.Connected(1, WHERE, welcome),
        ev.Received(1, Joined(reign, server, (), 2)),
        ev.SubmitRequested("t", meta, "", {}, False, None),
        ev.Received(1, Finished("t", "r", meta, ((holding, server),))),
        ev.ResultUnkept("t", "r", "no room for the result in /spool on me: disk full"),
    ):
        effects = core.step(event, 1.0)
    assert fx.DropOutput(holding.output) in effects
    assert fx.Send(1, Acknowledge("t", "r")) in effects
    (rejected,) = [effect for effect in effects if isinstance(effect, fx.Reject)]
    error = as_error(rejected.failure)
    assert isinstance(error, TransactionFailed)
    assert "no room for the result in /spool on me" in str(error)
    assert "GRID_SPOOL" in str(error)


def test_a_spool_that_cannot_be_used_is_told_with_what_to_do(site: Site, tmp_path: Path) -> None:
    """No permission (for root, a place where nobody may write), or no folder."""
    file = tmp_path / "file"
    file.touch()
    locked = Path("/sys/spool")
    if os.geteuid() != 0:
        locked = tmp_path / "locked" / "spool"
        locked.parent.mkdir(mode=0o500)
    for bad in (locked, file, file / "below"):
        with pytest.raises(Misuse, match="GRID_SPOOL") as caught:
            Peer(spool=str(bad))
        assert str(bad) in str(caught.value)


# ------------------------------------------------------------------------- clocks

WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}


def wall_clocks_in(path: Path) -> list[str]:
    """Where a file asks what time of day it is."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
            owner = node.value.id if isinstance(node.value, ast.Name) else owner
            if (owner, node.attr) in WALL_CLOCKS:
                found.append(f"{path.name}:{node.lineno}: {owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [f"{path.name}: {name.name}" for name in node.names if name.name == "time"]
    return found


def test_nothing_is_decided_by_the_time_of_day() -> None:
    """A clock that jumps harms nothing, because nobody looks at it; only how long detached
    transactions are kept is counted by it, over restarts of everything."""
    files = [path for package in ("grid", "peers") for path in (TOP / package).rglob("*.py")]
    assert len(files) > 50
    looks = [line for path in files for line in wall_clocks_in(path)]
    assert [line.partition(":")[0] for line in looks] == ["wall_clock.py"], looks
    for path in (TOP / "grid").rglob("*.py"):
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        impure = {"time", "datetime", "socket", "threading", "asyncio", "subprocess", "secrets"}
        assert not names & impure, f"{path.name} imports {names & impure}"


def test_the_search_for_clocks_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "clock.py"
    path.write_text("import time, datetime\ntime.time()\ndatetime.datetime.now()\n")
    assert len(wall_clocks_in(path)) == 2
