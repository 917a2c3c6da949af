"""Whole grids for live tests: peers in processes of their own, on ports and folders of their own.

A ``Site`` is one test's host: a home with its own key, a spool, a free span of ports. ``start``
runs a peer there as a process, ``here`` makes one in this process. When the test is over,
``Site.close`` ends what still runs and then holds the grid to its word: no process that the test
started, nor any of their descendants, lives; no thread, descriptor, spool folder or port is left.

Processes are found by a mark in their environment, which every descendant inherits, and are ended
by pid. Nothing here waits for a fixed time: everything polls until a deadline.
"""

import gc
import os
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from peers import Peer, PeerStatus

TOP = Path(__file__).parents[2]
PORT_SPAN = 3
WAIT_SECONDS = 60.0
MARK = "PEERGRID_TEST_SITE"

T = TypeVar("T")

STAY = """
import sys
from peers import Peer
with Peer({arguments}) as peer:
    print("joined", peer.status().term, flush=True)
    sys.stdin.read()
"""
"""A peer that stays until its standard input is closed, then leaves well."""


def until(what: str, ask: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
    """Poll until ``ask()`` is true; return what it gave. ``what`` names it when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} (last: {answer!r})"
        time.sleep(0.01)


def reserve_ports() -> list[socket.socket]:
    """Sockets that keep a span of free ports; the first port is the OS's choice.

    They are bound but do not listen, so peers can listen there, while no outgoing connection of
    anybody gets such a port as its near end: it would keep it from listeners, and go on doing so
    for a minute after it is closed.
    """
    while True:
        held: list[socket.socket] = []
        try:
            port = 0
            for _ in range(PORT_SPAN):
                held.append(socket.socket())
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held[-1].bind(("127.0.0.1", port))
                port = port_of(held[-1]) + 1
            return held
        except (OSError, OverflowError):  # the next port is somebody's, or past the last one
            for sock in held:
                sock.close()


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """The processes that it started, and that these did."""
    try:
        tasks = [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
        said = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in tasks]
    except OSError:
        return []  # it has just ended
    children = [int(child) for line in said for child in line.split()]
    return children + [below for child in children for below in descendants(child)]


def marked(mark: str) -> list[int]:
    """Every other living process with this mark in its environment."""
    sought = f"{MARK}={mark}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it has just ended, or is somebody else's
        if sought in environment.split(b"\0") and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


class HasFolder(Protocol):
    """A site or a host: where the output of its processes goes."""

    @property
    def folder(self) -> Path: ...


class Process:
    """A process of a site. Its output goes to ``<name>.out`` and ``<name>.err``."""

    def __init__(self, site: HasFolder, name: str, command: list[str], **options: Any) -> None:
        self.name = name
        self._out = site.folder / f"{name}.out"
        self._err = site.folder / f"{name}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, **options
            )
        self.pid = self.process.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def said(self, text: str, seconds: float = WAIT_SECONDS) -> str:
        """Wait for a whole line that begins with ``text``; return the rest of it."""

        def find() -> str | None:
            for line in self.out.splitlines(keepends=True):
                if line.startswith(text) and line.endswith("\n"):
                    return line.removeprefix(text).strip() or " "
            assert self.process.poll() is None or text in self.out, (
                f"{self.name} ended ({self.process.returncode}) before it said {text!r}\n{self.err}"
            )
            return None

        return (until(f"{self.name} says {text!r}", find, seconds) or "").strip()

    def tell(self, line: str) -> None:
        """Write one line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL: it does nothing more, and its parent knows at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT_SECONDS)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def leave(self) -> None:
        """Close its standard input: a ``STAY`` peer leaves well. Does not wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def ended(self, seconds: float = WAIT_SECONDS) -> str:
        """Wait until it has ended well; return what it printed."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end\n{self.out}\n{self.err}") from None
        assert code == 0, f"{self.name} ended with {code}\n{self.out}\n{self.err}"
        return self.out

    def end(self) -> None:
        """However it is: gone now."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_SECONDS)


class Site:
    """One test's host. ``port`` is the first of a span. Not ``alone``: other tests run in this
    process meanwhile, so its own threads and descriptors are none of this site's business."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool = True
    ) -> None:
        self.folder = folder
        self._alone = alone
        self._held = reserve_ports()
        self.port = port_of(self._held[0])
        self.spool = folder / "spool"
        self.scripts = folder / "scripts"
        self.scripts.mkdir()
        self._mark = secrets.token_hex(8)
        given = {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "GRID_PORT": str(self.port),
            "GRID_SPOOL": str(self.spool),
            "PYTHONPATH": str(TOP),
            MARK: self._mark,
        }
        for name in [name for name in os.environ if name.startswith("GRID_")]:
            monkeypatch.delenv(name)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        self.processes: list[Process] = []
        self.peers: list[Peer] = []
        self._threads = {thread.ident for thread in threading.enumerate()}
        self._descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a path is slower
        self.began_at = time.time()

    # -- peers -------------------------------------------------------------------------

    def here(self, name: str = "here", **settings: Any) -> Peer:
        """A peer in this process; ``slots=0`` unless told otherwise."""
        peer = Peer(name=name, **{"slots": 0, **settings})
        self.peers.append(peer)
        return peer

    def begin(self, name: str = "", **settings: Any) -> Process:
        """Begin a peer in a process of its own, with one slot unless told otherwise."""
        name = name or f"peer{len(self.processes) + 1}"
        given = {"name": name, "slots": 1, **settings}
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        return self.run(name, STAY.format(arguments=arguments))

    def start(self, name: str = "", **settings: Any) -> Process:
        """Begin a peer and wait until it has joined or serves."""
        process = self.begin(name, **settings)
        process.said("joined")
        return process

    def run(
        self, name: str, script: str, *arguments: str, folder: Path | None = None, **options: Any
    ) -> Process:
        """Run a script of this name, in a folder of scripts, from another folder."""
        path = (folder or self.scripts) / f"{name}.py"
        path.write_text(textwrap.dedent(script))
        process = Process(
            self,
            name,
            [sys.executable, "-W", "error", str(path), *arguments],
            cwd=self.folder,
            **options,
        )
        self.processes.append(process)
        return process

    def named(self, name: str) -> Process:
        return next(process for process in self.processes if process.name == name)

    def server(self, peer: Peer) -> Process:
        """The process that serves, as ``peer`` sees it."""
        return self.named(peer.status().server)

    # -- the end -----------------------------------------------------------------------

    def marked(self) -> list[int]:
        """Every living process that this site started, or that one of them did."""
        return marked(self._mark)

    def close(self) -> None:
        """End everything, then tell what was left behind."""
        for peer in self.peers:
            peer.close()
        for process in self.processes:
            if process.process.poll() is None:
                process.thaw()
            process.leave()
        for process in self.processes:
            try:
                process.process.wait(WAIT_SECONDS / 3)
            except subprocess.TimeoutExpired:
                pass  # told as a process left behind
        left = self._left_behind()
        for process in self.processes:
            process.end()
        for pid in self.marked():
            with suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(pid, signal.SIGKILL)
        for sock in self._held:
            sock.close()
        assert not left, f"left behind: {left}"

    def _left_behind(self) -> list[str]:
        deadline = time.monotonic() + 20.0
        while (left := self._leftovers()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _leftovers(self) -> list[str]:
        left = [f"process {pid}: {command_of(pid)}" for pid in self.marked()]
        if self._alone:
            left += self._own_leftovers()
        if self.spool.exists():
            left += [str(path) for path in self.spool.glob("*/*") if path.is_dir()]
        left += [f"port {self.port + n}" for n in range(PORT_SPAN) if not is_free(self.port + n)]
        return left

    def _own_leftovers(self) -> list[str]:
        """What this process has more than before."""
        left = [f"thread {thread.name}" for thread in self._new_threads()]
        gc.collect()
        grown = len(os.listdir("/proc/self/fd")) - self._descriptors  # noqa: PTH208
        if grown > 0:
            left.append(f"{grown} descriptors: {descriptors()}")
        return left

    def _new_threads(self) -> Iterable[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.ident not in self._threads]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    except OSError:
        return "(gone)"


def descriptors() -> list[str]:
    """What this process has open."""
    found: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return found


def agree(peers: list[Peer]) -> PeerStatus | None:
    """The one server that all of these follow, or None while they do not agree."""
    statuses: list[PeerStatus] = []
    for peer in peers:
        try:
            statuses.append(peer.status(2.0))
        except TimeoutError:
            return None
    first = statuses[0]
    same = all((s.server, s.term) == (first.server, first.term) for s in statuses)
    return first if same else None
