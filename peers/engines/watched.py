"""Calls into a cluster's library that do not hold their caller when the cluster is gone.

Some libraries wait for a lost head without end, in whatever they are asked. Here each call is made
on a thread of its own, while the caller waits in small steps: so a deadline, Ctrl-C and a silent
head are noticed whatever the library does. Another thread asks the head now and then whether it
is there. A call that was given up stays on its daemon thread, which keeps no process alive.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from grid.errors import TransactionFailed
from peers.crew import Crew
from peers.engines.interface import POLL_SECONDS, Deadline

LOST_SECONDS = 20.0
"""So long a head may be silent: one that is started anew is back by then, and Ray ends the
processes on its cluster after 60."""

ASK_SECONDS = 4.0
"""Between two questions to the head."""

END_SECONDS = 6.0
"""So long the last words to a cluster may take."""

T = TypeVar("T")


class Watched:
    """Makes calls while ``ask`` says, by raising nothing, that the head of ``where`` is there."""

    def __init__(self, where: str, ask: Callable[[], object], deadline: Deadline) -> None:
        self._where = where
        self._ask = ask
        self._deadline = deadline
        self._silent = 0.0
        self._looked = time.monotonic()
        self._why = "no answer"
        self._over = threading.Event()
        self._crew: Crew[Callable[[], None]] = Crew("grid-cluster", lambda call: call(), 1)
        self._watcher = threading.Thread(target=self._watch, name="grid-head", daemon=True)
        self._watcher.start()

    @property
    def lost(self) -> bool:
        """Has the head been silent for too long?"""
        return self._silent > LOST_SECONDS

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return what the function does. Raises what it does, ``DeadlineExceeded``, and
        ``TransactionFailed`` if the head is gone."""
        future: Future[T] = Future()
        self._crew.give(lambda: _settle(future, function, *args))
        while not wait([future], self._deadline.patience()).done:
            self._check()
        self._check()
        return future.result()

    def close(self) -> None:
        """Ask no more; end the threads that can be ended."""
        self._over.set()
        if not self.lost:
            self._watcher.join(END_SECONDS)
            self._crew.close()

    def _check(self) -> None:
        # Looks are counted rather than time: this process may have been stopped for a while.
        now = time.monotonic()
        self._silent += min(now - self._looked, 2 * POLL_SECONDS)
        self._looked = now
        if self.lost:
            raise TransactionFailed(
                f"{self._where} was lost: its head has been silent for {LOST_SECONDS:g} s "
                f"({self._why}), and what was computed is lost with it. Run the job again when the "
                f"cluster is back"
            )

    def _watch(self) -> None:
        while not self._over.wait(ASK_SECONDS):
            try:
                self._ask()
                self._silent = 0.0
            except Exception as error:
                self._why = f"{type(error).__name__}: {error}"


def within(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """Return what the function does, or raise it; ``TimeoutError`` if it takes longer than that,
    and then its thread is left to it."""
    future: Future[T] = Future()
    arguments = (future, function, *args)
    threading.Thread(target=_settle, args=arguments, name="grid-bounded", daemon=True).start()
    if not wait([future], seconds).done:
        raise TimeoutError(f"not done within {seconds:g} s")
    return future.result()


def _settle(future: "Future[T]", function: Callable[..., T], *args: Any) -> None:
    try:
        future.set_result(function(*args))
    except BaseException as error:
        future.set_exception(error)
