"""How workers are started and ended: as processes by a helper, or as threads of the peer.

A starter gives the peer its end of a new worker's channel, kills a worker when told, and calls
``on_exit(worker, how, pid)`` once for each worker that is gone. All methods are called on the
peer's loop, save ``close_now``.

``ProcessStarter`` has a helper (``peers.helper_process``) before the first worker, and starts it
anew when it died. ``ThreadStarter`` is for embedding and debugging: its ``kill`` can only ask, and
code that is blocked in a system call stays until that returns.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from grid.errors import Misuse
from peers.helper_process import ROOT, HelperProcess
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

THREAD_SECONDS = 0.5
"""What a worker thread gets to end when it is closed."""


class Starter(Protocol):
    """Starts and ends workers; see the module."""

    def prepare(self) -> None:
        """Do now what the first worker would have to wait for. Never fails: it would tell."""

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
    """Workers are processes, forked by a helper process: ``helper``, if it was started before."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        folder: Path,
        limits: Limits,
        on_exit: OnExit,
        helper: HelperProcess | None = None,
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._limits = limits
        self._on_exit = on_exit
        self._helper = helper
        self._control: Link | None = None
        self._pids: dict[int, int | None] = {}

    def prepare(self) -> None:
        try:
            self._reach_helper()
        except (OSError, Misuse) as error:
            logger.debug("cannot start the helper of the workers yet: %s", error)

    def start(self, worker: int) -> tuple[socket.socket, Page]:
        helper, control = self._reach_helper()
        if not helper.in_use:
            helper.in_use = True
            control.send(self._configuration(helper))
        ours, theirs = socket.socketpair()
        try:
            page = Page.create()
        except OSError:
            ours.close()
            theirs.close()
            raise
        with theirs:
            self._pids[worker] = None
            control.send(Fork(worker), fds=(theirs.fileno(), page.fd))
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
        return [self._helper.sock.fileno()] if self._helper is not None else []

    def _reach_helper(self) -> tuple[HelperProcess, Link]:
        """Return the helper and its channel; start it if there is none."""
        helper = self._helper = self._helper or HelperProcess()
        if self._control is None:
            self._control = Link(
                self._loop, helper.sock, from_helper, self._on_message, self._on_end
            )
            logger.debug("has a helper of the workers pid=%d", helper.pid)
        return helper, self._control

    def _configuration(self, helper: HelperProcess) -> Configure:
        paths = [entry for entry in sys.path if isinstance(entry, str)]
        if ROOT not in paths:
            paths.append(ROOT)
        return Configure(paths, str(self._folder), self._limits, *helper.changes())

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
        return helper.end() if helper is not None else 0


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

    def prepare(self) -> None:
        pass  # a thread starts at once

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
            thread.join(THREAD_SECONDS)

    def filenos(self) -> list[int]:
        return []


def _kill_group(pid: int) -> None:
    """Kill what a worker started, after worker and helper died: nobody else is left to do it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # nobody is left in it
