"""A grid of this host for one measurement: its own port, key and spool; its server apart."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from peers import Peer
from scripts.benchmark import places, processes
from scripts.benchmark.memory import held_kilobytes
from scripts.benchmark.runs import environment

POLL_SECONDS = 0.02
PATIENCE_SECONDS = 180.0


class Apart:
    """A process of peers (``peer.py``)."""

    def __init__(self, variables: dict[str, str], slots: int, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmark.scale.peer", str(slots), str(count)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def wait_until_joined(self) -> None:
        self._read()

    def counts(self) -> dict[str, float]:
        """Bytes ``sent`` and ``received`` and processor ``seconds``, so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counts: dict[str, float] = json.loads(self._read())
        return counts

    def memory_kilobytes(self) -> int:
        return held_kilobytes(self.pid)[0]

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def leave(self) -> None:
        """Ask it to leave, without waiting."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.close()

    def end(self) -> None:
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"peer process {self.pid} ended: {self._process.wait()}")
        return line


class Site:
    """Processes and peers of one grid. All are gone when the context is left."""

    def __init__(self, **variables: str) -> None:
        self._given = variables
        self._stack = ExitStack()
        self._apart: list[Apart] = []

    def __enter__(self) -> Self:
        self.folder = self._stack.enter_context(places.scratch())
        self._variables = {
            "GRID_PORT": str(_free_port()),
            "GRID_SPOOL": str(self.folder / "spool"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            **self._given,
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._apart:
            process.leave()
        for process in self._apart:
            process.end()
        self._stack.close()
        processes.end_descendants()

    def start(self, slots: int, count: int = 1) -> Apart:
        """Start a process of peers, without waiting for it. Many are a host of their own: they
        have another spool than the rest."""
        variables = {**environment(), **self._variables}
        if count > 1:
            variables["GRID_SPOOL"] += f"-{len(self._apart)}"
        process = Apart(variables, slots, count)
        self._apart.append(process)
        return process

    def joined(self, slots: int) -> Apart:
        """Start a process with one peer, and wait until it has joined."""
        process = self.start(slots)
        process.wait_until_joined()
        return process

    def here(self, slots: int = 0, **settings: Any) -> Peer:
        """A peer in this process. The first peer of a site must be apart, or it would serve."""
        os.environ.update(self._variables)
        return self._stack.enter_context(Peer(slots=slots, **settings))

    def spool_bytes(self) -> int:
        """What lies in the spool now."""
        total = 0
        for path in Path(self._variables["GRID_SPOOL"]).rglob("*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except OSError:
                pass  # removed meanwhile
        return total

    def disk_bytes(self) -> int:
        """What lies in the spool now, and in files of our processes that have no name."""
        nameless = {}
        for pid in processes.descendants():
            for status in _open_nameless(pid):
                nameless[status.st_dev, status.st_ino] = status.st_blocks * 512
        return self.spool_bytes() + sum(nameless.values())

    def told(self, module: str, *arguments: int) -> dict[str, Any]:
        """Run a module to its end and return the JSON that it printed last."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**environment(), **self._variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


def _open_nameless(pid: int) -> Iterator[os.stat_result]:
    """The files that a process has open and that have no name; none of one that is gone."""
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            status = entry.stat()
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                yield status
    except OSError:
        return


def until(is_so: Callable[[], bool]) -> float:
    """Wait until it is so; return for how many seconds."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
