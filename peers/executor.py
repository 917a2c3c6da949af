"""``peer.executor()``: the grid as a ``concurrent.futures.Executor``.

Calls that wait are sent together, as the one item of a transaction, so that all a grid promises
holds for them: a server that dies only makes futures take longer. The first calls of a function go
alone; once they have proved short, as many together as take some tens of milliseconds
(``grid.pacing``). A future is *running* once its call was sent, and cannot be cancelled then.

A call may run twice if the worker, or the peer, that ran it died; a worker that dies takes nobody's
future but that of the call it died on. Futures are resolved, and their callbacks run, on the thread
of the peer's callbacks.
"""

import atexit
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from grid.errors import NotPicklable
from grid.job import Ship
from peers.call_outcomes import check_map, in_order, of_call, of_chunk
from peers.call_queue import Call, CallQueue
from peers.call_runner import Chunked
from peers.calls import Packer
from peers.engine import Engine
from peers.interruptible import InterruptibleFuture

T = TypeVar("T")


class GridExecutor(Executor):
    """Calls functions on the grid. ``Peer.executor`` makes it, and says what it takes."""

    def __init__(
        self,
        engine: Engine,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        ship: Iterable[Ship] | Ship = (),
        priority: int = 0,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._packer = Packer((ship,) if isinstance(ship, str | ModuleType) else ship)
        begin = partial(initializer, *initargs) if initializer is not None else None
        self._queue = CallQueue(engine, self._packer, max_workers, begin, priority)
        _living.add(self)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called by a worker; return its future at once.

        What cannot be pickled is told by the future (``NotPicklable``). Raises ``BrokenExecutor``,
        and ``RuntimeError`` after ``shutdown``.
        """
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        future: Future[T] = InterruptibleFuture()
        try:
            given, names = self._packer.arguments(fn, args, kwargs)
        except NotPicklable as error:
            self._queue.check_open()
            future.set_running_or_notify_cancel()
            future.set_exception(error)
        else:
            self._queue.add(Call(future, fn, given, names))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` with the elements of the iterables; return an iterator over the results, in
        this order.

        ``timeout`` counts from now. ``chunksize`` elements make one call: calls are sent together
        anyway, but one future for many is cheaper still. With ``buffersize``, so many calls are
        submitted ahead of the result that is wanted next.
        """
        check_map(chunksize, buffersize)
        end = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            submits = (self.submit(fn, *args) for args in zip(*iterables, strict=False))
            return in_order(submits, buffersize, end, of_call)
        chunked = Chunked(fn)
        parts = (self.submit(chunked, *columns) for columns in _chunks(iterables, chunksize))
        return in_order(parts, buffersize, end, of_chunk)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``cancel_futures`` cancel those not sent; ``wait`` for the rest
        to be resolved. The peer stays as it is."""
        self._queue.close(cancel=cancel_futures)
        if wait:
            self._queue.wait()

    def abandon(self) -> None:
        """Shut down without waiting, and end what was sent as well: a worker that is in the middle
        of a call is stopped. Futures that are not resolved are cancelled, or get
        ``TransactionCancelled``."""
        self._queue.abandon()

    @property
    def _broken(self) -> str:
        """Why nothing goes on, under the name that other executors have for it."""
        return self._queue.broken

    def __repr__(self) -> str:
        return f"<GridExecutor {self._queue!r}>"


def _chunks(iterables: tuple[Iterable[Any], ...], size: int) -> Iterator[list[list[Any]]]:
    """Yield up to ``size`` elements of each iterable at a time, of all as many, until the shortest
    ends."""
    if len(iterables) == 1:
        elements = iter(iterables[0])
        yield from iter(lambda: [list(itertools.islice(elements, size))], [[]])
        return
    zipped = zip(*iterables, strict=False)
    while chunk := list(itertools.islice(zipped, size)):
        yield [list(column) for column in zip(*chunk, strict=True)]


# ------------------------------------------------------------------------------ the end


_living: "weakref.WeakSet[GridExecutor]" = weakref.WeakSet()
_exiting = False


def _at_exit() -> None:
    """The interpreter ends when what was submitted is done, as with other executors."""
    global _exiting
    _exiting = True
    for executor in list(_living):
        executor.shutdown()


def _in_child() -> None:
    for executor in list(_living):
        executor._queue.after_fork()


os.register_at_fork(after_in_child=_in_child)
# Before threads are joined and peers are closed: no public name leads there.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
