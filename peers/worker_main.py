"""The helper: a clean, single-threaded process that forks a peer's workers.

A peer has threads, so it must not fork itself; and user scripts must not need a ``__main__``
guard, so workers are not fresh interpreters that run the script again. The helper imports what
workers need, once, and forks a worker whenever it is asked to, in a few milliseconds.

Every worker leads a process group of its own, so that what user code starts is killed with it
(the group is killed while its dead leader still holds the number, so no stranger can have it).
The helper reports every exit. When the peer goes, however it goes, the control socket ends: the
helper kills all groups and ends. When the helper goes, the kernel kills its workers
(``die_with_parent``); where the kernel cannot, each worker watches its own channel.

Ctrl-C in the terminal is for the peer to decide about, so helper and workers ignore it; so does
the helper what else a terminal sends (``TERMINAL_SIGNALS``), or it would die without its workers'
groups. Nothing of the peer's ``GRID_*`` environment gets here: it may hold secrets, and this runs
user code.
"""

import gc
import os
import select
import signal
import socket
import sys
import threading
from types import FrameType, ModuleType

import msgspec

from peers.modules import distrust_bytecode
from peers.process_control import (
    be_killed_first,
    die_with_parent,
    lower_priority,
    out_of_memory_kills,
)
from peers.worker import Worker
from peers.worker_channel import (
    Channel,
    Configure,
    Exited,
    Fork,
    Forked,
    Frames,
    FromHelper,
    Kill,
    NotForked,
    ToHelper,
    frame,
)
from peers.worker_page import Page

NICE = 5
"""Below the threads that keep the grid alive, above what asks to run only when idle."""

TERMINAL_SIGNALS = (signal.SIGHUP, signal.SIGQUIT)
"""Of a terminal that is closed, and of Ctrl-\\: what they end is the peer, and with it the helper.
Workers lead groups of their own and do not get them."""

GC_THRESHOLDS = (200_000, 10, 10)
"""The cyclic collector looks a few times a second at most. It is not off: a user function that
leaves cycles behind must not eat the machine."""

END_SECONDS = 3
"""What the last workers get to be gone; the kernel takes milliseconds where it can at all."""

_to_helper: msgspec.msgpack.Decoder[ToHelper] = msgspec.msgpack.Decoder(ToHelper)


def main(control_fd: int, peer_pid: int) -> None:
    """Serve as helper of the process ``peer_pid`` until it is gone."""
    for number in (signal.SIGINT, *TERMINAL_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    sys.argv[:] = [""]
    sys.modules["__main__"] = ModuleType("__main__")  # empty, to be lent the names of scripts
    helper = Helper(socket.socket(fileno=control_fd))
    signal.signal(signal.SIGTERM, helper.on_sigterm)
    die_with_parent(peer_pid, signal.SIGTERM)
    try:
        os.dup2(2, 1)  # the peer's standard output is for the peer's own results
    except OSError:
        pass  # a daemon without standard error has nothing to mix up
    distrust_bytecode()
    gc.freeze()
    gc.enable()
    helper.run()


class Helper:
    """Forks, kills and reaps workers as told over ``control``."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._frames = Frames()
        self._fds: list[int] = []
        self._pids: dict[int, int] = {}
        self._configuration: Configure | None = None
        self._oom_kills = out_of_memory_kills()
        self._ended_read, self._ended_write = os.pipe()
        for fd in (self._ended_read, self._ended_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._ended_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)

    def run(self) -> None:
        """Serve until the peer is gone; does not return."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._ended_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._ended_read in ready:
                self._reap()
            if self._control.fileno() in ready:
                self._obey()

    def on_sigterm(self, _number: int, _stack: FrameType | None) -> None:
        """The peer is gone, or somebody wants us to go: take the workers along."""
        self._end()

    def _obey(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, 64 << 10, 16)
        except OSError:
            data, fds = b"", []
        if not data:
            self._end()
        self._fds += fds
        for body in self._frames.feed(data):
            order = _to_helper.decode(body)
            match order:
                case Configure():
                    self._configuration = order
                    _adopt(order)
                case Fork():
                    self._fork(order.worker, self._fds.pop(0), self._fds.pop(0))
                case Kill():
                    self._kill(order.worker)

    def _fork(self, worker: int, channel_fd: int, page_fd: int) -> None:
        helper = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say(NotForked(worker, f"cannot start a process: {error.strerror}"))
            pid = -1
        if pid == 0:
            self._become_worker(helper, channel_fd, page_fd)
        os.close(channel_fd)
        os.close(page_fd)
        if pid > 0:
            _lead_group(pid)
            self._pids[worker] = pid
            self._say(Forked(worker, pid))

    def _become_worker(self, helper: int, channel_fd: int, page_fd: int) -> None:
        """In the child: shed all that is the helper's, and work. Does not return."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, *TERMINAL_SIGNALS):
                signal.signal(number, signal.SIG_DFL)
            _lead_group(0)
            able = die_with_parent(helper, signal.SIGKILL)
            self._control.close()
            for fd in (self._ended_read, self._ended_write, *self._fds):
                os.close(fd)
            lower_priority(NICE)
            be_killed_first()
            gc.set_threshold(*GC_THRESHOLDS)
            channel = Channel(socket.socket(fileno=channel_fd))
            if not able:
                threading.Thread(target=_die_with, args=(channel_fd,), daemon=True).start()
            assert self._configuration is not None, "the peer configures before it forks"
            folder, limits = self._configuration.folder, self._configuration.limits
            Worker(channel, Page(page_fd), folder, limits, own_process=True).serve()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(70)
        os._exit(0)

    def _kill(self, worker: int) -> None:
        pid = self._pids.get(worker)
        if pid is not None:
            _kill_group(pid)

    def _reap(self) -> None:
        try:
            os.read(self._ended_read, 4096)
        except BlockingIOError:
            pass
        for worker, pid in list(self._pids.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _kill_group(pid)
            _, status = os.waitpid(pid, 0)
            del self._pids[worker]
            code = os.waitstatus_to_exitcode(status)
            self._say(Exited(worker, code, self._out_of_memory(code)))

    def _out_of_memory(self, code: int) -> bool:
        if code != -signal.SIGKILL:
            return False
        before, self._oom_kills = self._oom_kills, out_of_memory_kills()
        return self._oom_kills > before

    def _say(self, message: FromHelper) -> None:
        try:
            self._control.sendall(frame(message))
        except OSError:
            self._end()

    def _end(self) -> None:
        """Take the workers along and end. The peer waits for us, so that they are gone by then."""
        for pid in self._pids.values():
            _kill_group(pid)
        signal.alarm(END_SECONDS)  # one that cannot be reaped must not keep us: this ends us too
        for pid in self._pids.values():
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
        os._exit(0)


def _adopt(order: Configure) -> None:
    """Be as if started only now."""
    sys.path[:] = order.paths
    for name, value in order.environment.items():
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value
    if order.directory:
        try:
            os.chdir(order.directory)
        except OSError:
            pass  # it is gone by now; a process that is in it would not notice either


def _lead_group(pid: int) -> None:
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass  # done already: parent and child both do it, so that neither is too late


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # nobody left in it


def _ignore(_number: int, _stack: FrameType | None) -> None:
    """A Python handler, so that the signal wakes the poll."""


def _die_with(channel_fd: int) -> None:
    """Without death signals: end when the other end of the channel is closed."""
    poll = select.poll()
    poll.register(channel_fd, 0)
    poll.poll()
    os._exit(1)
