"""A program's datasource, read in the thread that runs its server.

The grid reads values when tasks need them, from threads of its own, several at once. Programs were
written for a server with one thread: their datasources seek in open files and ask databases that
belong to the thread which opened them. So a reading thread asks here, and the server's thread,
which has nothing else to do while a transaction runs, reads for it.

Also here: what counts as a datasource. Beside all that a ``Job`` takes these are objects that only
list pairs, with ``items()``, or ``iteritems()`` of the Python 2 days.
"""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from grid.errors import PeerClosed
from grid.job import Job
from peers.interruptible import pieces


def readable(datasource: Any) -> Any:
    """Return something with keys and values for each: ``datasource``, or a dict of its pairs."""
    if hasattr(datasource, "__getitem__") and hasattr(datasource, "__iter__"):
        return datasource
    for name in ("items", "iteritems"):
        pairs = getattr(datasource, name, None)
        if callable(pairs) and not isinstance(datasource, type):
            return dict(pairs())
    return datasource


class Source:
    """The keys and values of a ``Job``, for another that computes on the grid.

    Made, and served (``serve``), by the one thread that may touch the datasource.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._thread = threading.get_ident()
        self._asked: queue.SimpleQueue[tuple[Any, Future[Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        return iter(self._job.keys())

    def __getitem__(self, key: Any) -> Any:
        if threading.get_ident() == self._thread:
            return self._job.datasource[key]
        answer: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise PeerClosed("the transaction has ended, its datasource is read no more")
            self._asked.put((key, answer))
        return answer.result()

    def serve(self, transaction: Future[Any]) -> None:
        """Read what is asked for, until ``transaction`` is done."""
        transaction.add_done_callback(lambda _: self._asked.put(None))
        try:
            while (asked := self._next()) is not None:
                key, answer = asked
                try:
                    answer.set_result(self._job.datasource[key])
                except Exception as error:
                    answer.set_exception(error)
        finally:
            self._end()

    def _next(self) -> tuple[Any, Future[Any]] | None:
        """What is asked for next; None when the transaction is done."""
        for seconds in pieces(None):
            try:
                return self._asked.get(timeout=seconds)
            except queue.Empty:
                pass
        return None

    def _end(self) -> None:
        """Whoever still asks is told that nobody reads any more."""
        with self._lock:
            self._ended = True
        while True:
            try:
                asked = self._asked.get_nowait()
            except queue.Empty:
                return
            if asked is not None:
                asked[1].set_exception(PeerClosed("the transaction has ended"))
