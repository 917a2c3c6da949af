"""How workers are started and ended: as processes by a helper, or as threads of the peer.

A starter gives the peer its end of a new worker's channel, kills a worker when told, and calls
``on_exit(worker, how, pid)`` once for each worker that is gone. All methods are called on the
peer's loop, save ``close_now``.

``ProcessStarter`` starts the helper (``peers.worker_main``) with the first worker, and anew when
it died. The helper's environment has no ``GRID_*`` variable, its arguments hold nothing but a
folder and numbers, and it must be started by a thread that lives as long as the peer, since the
kernel ends it with that thread. ``ThreadStarter`` is for embedding and debugging: its ``kill`` can
only ask, and code that is blocked in a system call stays until that returns.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from grid.errors import Misuse
from peers.worker import Worker, WorkerThread
from peers.worker_channel import (
    Channel,
    Configure,
    Exited,
    Fork,
    Forked,
    FromHelper,
    Kill,
    Limits,
    NotForked,
)
from peers.worker_failures import describe_exit
from peers.worker_link import Link, from_helper
from peers.worker_page import Page

logger = logging.getLogger(__name__)

OnExit = Callable[[int, str, int | None], None]

CLOSE_SECONDS = 5.0
"""What the helper gets for killing and reaping all workers; it needs milliseconds."""

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from peers.worker_main import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


class Starter(Protocol):
    """Starts and ends workers; see the module."""

    def start(self, worker: int) -> tuple[socket.socket, Page]:
        """Start worker number ``worker``; return our end of its channel, and its page, which the
        caller closes. Raises ``OSError``, and ``Misuse`` where no process can be started."""

    def kill(self, worker: int) -> None:
        """End this worker now. Unknown ones are gone already."""

    def close(self) -> None:
        """End all workers and whatever started them; nobody is called back."""

    def close_now(self) -> None:
        """As ``close``, from any thread, when the loop will not run again."""

    def filenos(self) -> list[int]:
        """Return the descriptors which a forked child must close."""


class ProcessStarter:
    """Workers are processes, forked by a helper process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, folder: Path, limits: Limits, on_exit: OnExit
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._limits = limits
        self._on_exit = on_exit
        self._helper: subprocess.Popen[bytes] | None = None
        self._control: Link | None = None
        self._pids: dict[int, int | None] = {}

    def start(self, worker: int) -> tuple[socket.socket, Page]:
        control = self._control or self._start_helper()
        ours, theirs = socket.socketpair()
        try:
            page = Page.create()
        except OSError:
            ours.close()
            theirs.close()
            raise
        with theirs:
            self._pids[worker] = None
            control.send(Fork(worker), (theirs.fileno(), page.fd))
        return ours, page

    def kill(self, worker: int) -> None:
        if self._control is not None and worker in self._pids:
            self._control.send(Kill(worker))

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
        self._end_helper()

    def close_now(self) -> None:
        if self._control is not None:
            self._control.close_descriptor()
        self._end_helper()

    def filenos(self) -> list[int]:
        return [self._control.fileno()] if self._control is not None else []

    def _start_helper(self) -> Link:
        if not sys.executable:
            raise Misuse(
                "this Python does not know its own executable, so it cannot start worker "
                "processes; use thread mode, or set sys.executable"
            )
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[1])
        arguments = [root, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            try:
                self._helper = subprocess.Popen(
                    [sys.executable, *_interpreter_options(), "-P", "-c", _BOOT, *arguments],
                    env={name: v for name, v in os.environ.items() if not name.startswith("GRID_")},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except BaseException:
                ours.close()
                raise
        paths = [entry for entry in sys.path if isinstance(entry, str)]
        if root not in paths:
            paths.append(root)
        self._control = Link(self._loop, ours, from_helper, self._on_message, self._on_end)
        self._control.send(Configure(paths, str(self._folder), self._limits))
        logger.debug("started the helper of the workers pid=%d", self._helper.pid)
        return self._control

    def _on_message(self, message: FromHelper) -> None:
        match message:
            case Forked():
                self._pids[message.worker] = message.pid
            case Exited():
                pid = self._pids.pop(message.worker, None)
                how = describe_exit(message.code, message.out_of_memory)
                self._on_exit(message.worker, how, pid)
            case NotForked():
                self._pids.pop(message.worker, None)
                self._on_exit(message.worker, f"was not started ({message.reason})", None)

    def _on_end(self, why: str) -> None:
        """The helper is gone, and its workers with it."""
        code = self._end_helper()
        how = f"ended when its helper process {why or describe_exit(code, False)}"
        logger.warning(
            "the helper of the workers is gone: it %s", why or describe_exit(code, False)
        )
        pids, self._pids = self._pids, {}
        for worker, pid in pids.items():
            if pid is not None:
                _kill_group(pid)
            self._on_exit(worker, how, pid)

    def _end_helper(self) -> int:
        """Wait for the helper, whose control socket is closed; return its exit code."""
        helper, self._helper, self._control = self._helper, None, None
        if helper is None:
            return 0
        try:
            return helper.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            helper.kill()
            return helper.wait(CLOSE_SECONDS)


class ThreadStarter:
    """Workers are threads of this process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, folder: Path, limits: Limits, on_exit: OnExit
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._limits = limits
        self._on_exit = on_exit
        self._threads: dict[int, WorkerThread] = {}

    def start(self, worker: int) -> tuple[socket.socket, Page]:
        ours, theirs = socket.socketpair()
        page = Page.create()
        channel, shared = Channel(theirs), Page(os.dup(page.fd))
        body = Worker(channel, shared, str(self._folder), self._limits, own_process=False)
        self._threads[worker] = WorkerThread(body)
        return ours, page

    def kill(self, worker: int) -> None:
        thread = self._threads.pop(worker, None)
        if thread is not None:
            thread.interrupt()
            self._loop.call_soon(self._on_exit, worker, "was given up", None)

    def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        threads, self._threads = self._threads, {}
        for thread in threads.values():
            thread.interrupt()
        for thread in threads.values():
            thread.join(CLOSE_SECONDS / 10)

    def filenos(self) -> list[int]:
        return []


def _kill_group(pid: int) -> None:
    """Kill what a worker started, after worker and helper died: nobody else is left to do it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # nobody is left in it


def _interpreter_options() -> list[str]:
    """Return the options this interpreter was started with that user code can notice."""
    options = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    options += [f"-W{option}" for option in sys.warnoptions]
    flags = {"-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    options += [option for option, given in flags.items() if given]
    if sys.flags.utf8_mode:
        options += ["-X", "utf8"]
    return options
