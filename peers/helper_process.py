"""The helper of the workers as a process of its peer, started before anything needs a worker.

A new interpreter with all that workers need takes a tenth of a second, which the first task of a
peer would have to wait for. So a peer with slots starts its helper first, and loads its own engine
and joins meanwhile. What may have changed between then and the first worker (the environment, the
current folder, where modules are found) the helper is told with that worker, so that this is as if
it had been started for it.

The helper's environment has no ``GRID_*`` variable, its arguments hold nothing but a folder and
numbers, and it must be started by a thread that lives as long as the peer, since the kernel ends it
with that thread.
"""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from grid.errors import Misuse

ROOT = str(Path(__file__).resolve().parents[1])
"""Where this package is found."""

END_SECONDS = 5.0
"""What the helper gets for killing and reaping all workers; it needs milliseconds."""

_BOOT = (
    "import gc, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "gc.disable(); sys.path.insert(0, sys.argv[1]); "
    "from peers.worker_main import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
"""Ctrl-C is for the peer to decide about, from the first. Importing makes little garbage: to look
for it would take a seventh of the time."""


class HelperProcess:
    """A helper, started by making this. ``sock`` is our end of its control channel.

    Raises ``OSError``, and ``Misuse`` where this Python cannot start another.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise Misuse(
                "this Python does not know its own executable, so it cannot start worker "
                "processes; use thread mode, or set sys.executable"
            )
        self._environment = _environment()
        self._directory = _directory()
        self.in_use = False
        """Whether it was told to start workers: then it has to end them before itself."""
        self.sock, theirs = socket.socketpair()
        arguments = [ROOT, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *_interpreter_options(), "-P", "-c", _BOOT, *arguments],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except BaseException:
                self.sock.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def changes(self) -> tuple[bytes, dict[bytes, bytes | None]]:
        """What has changed since it was started: the current folder, if it has, and variables of
        the environment, with ``None`` for those that are gone."""
        now, then = _environment(), self._environment
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        directory = _directory()
        return b"" if directory == self._directory else directory, {n: now.get(n) for n in names}

    def end(self) -> int:
        """Close its channel, by which it ends, and wait for it; return its exit code. May be
        repeated."""
        self.sock.close()
        if not self.in_use:
            self._process.kill()  # it may not even have begun to listen
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(END_SECONDS)


def start_early() -> HelperProcess | None:
    """Start a helper from the main thread, which lives as long as any peer; on another thread,
    or where it cannot be started, do nothing: the peer's own thread does it, and tells."""
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        return HelperProcess()
    except (OSError, Misuse):
        return None


def _environment() -> dict[bytes, bytes]:
    return {name: v for name, v in os.environb.items() if not name.startswith(b"GRID_")}


def _directory() -> bytes:
    try:
        return bytes(Path.cwd())
    except OSError:
        return b""  # it was removed


def _interpreter_options() -> list[str]:
    """Return the options this interpreter was started with that user code can notice."""
    options = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    options += [f"-W{option}" for option in sys.warnoptions]
    flags = {"-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    options += [option for option, given in flags.items() if given]
    if sys.flags.utf8_mode:
        options += ["-X", "utf8"]
    return options
