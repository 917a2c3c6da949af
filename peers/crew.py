"""A few daemon threads for work that blocks: reading files, datasources, data sockets."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_JOIN_SECONDS = 5.0  # then work that hangs in user code keeps its (daemon) thread


class Crew(Generic[T]):
    """Threads that take work from a queue: none at first, one more when all are busy.

    What ``serve(work)`` raises is logged. Daemon threads, so that one that hangs in user code does
    not keep the process alive.
    """

    def __init__(self, name: str, serve: Callable[[T], None], threads_max: int) -> None:
        self._name = name
        self._serve = serve
        self._threads_max = threads_max
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()
        self._free = 0  # threads that wait, less work that waits for them
        self._lock = threading.Lock()

    def give(self, work: T) -> None:
        """Have one of the threads do this, soon."""
        with self._lock:
            if self._free <= 0 and len(self._threads) < self._threads_max:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # Python 3.12 starts none once the interpreter ends
                    self._free -= 1
                else:
                    self._threads.append(thread)
            else:
                self._free -= 1
        self._queue.put((work,))

    def close(self) -> None:
        """End the threads, each after what it has in hand."""
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (taken := self._queue.get()) is not None:
            try:
                self._serve(taken[0])
            except BaseException:  # a thread that ends here would be counted on for ever
                log.exception("work on a thread failed thread=%s", self._name)
            del taken  # what it refers to must not live on until there is something else to do
            with self._lock:
                self._free += 1
