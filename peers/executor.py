"""``peer.executor()``: the grid as a ``concurrent.futures.Executor``.

Calls that wait are sent together, as the one item of a transaction, so that all a grid promises
holds for them: a server that dies only makes futures take longer. The first calls of a function go
alone; once they have proved short, as many together as take some tens of milliseconds
(``grid.pacing``). A future is *running* once its call was sent, and cannot be cancelled then.

There is no thread here. Calls are sent by whoever submits them while there is room, else when a
transaction has ended, on the thread of its callbacks, which also resolves the futures and runs
their callbacks. A call may run twice if the worker, or the peer, that ran it died; a worker that
dies takes nobody's future but that of the call it died on.
"""

import atexit
import itertools
import logging
import os
import pickle
import secrets
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from grid.errors import (
    Bug,
    NotPicklable,
    PeerClosed,
    TransactionCancelled,
    WorkerLost,
)
from grid.job import Job, Ship
from grid.pacing import Pacer
from peers.call_outcomes import check_map, exception_of, in_order, of_call, of_chunk, resolve
from peers.call_runner import Arguments, Chunked, run
from peers.calls import NO_NAMES, Packer, encode, kind_of
from peers.engine import Engine
from peers.slot_watch import SlotWatch
from peers.submission import check
from peers.transaction import Transaction

T = TypeVar("T")

log = logging.getLogger(__name__)

JOB = Job([b""], run, partitions=1)
"""What a task is to the grid. Its one item is the task's calls."""

TASK_BYTES = 4 << 20
"""Packed arguments of this size fill a task."""

ATTEMPTS_MAX = 4
"""Workers that may die on one call, as on an item of a job."""

PIECES = 8
"""Calls whose task failed as a whole are sent again in so many pieces, to find the one to blame."""


class _Call:
    """One call that was submitted, until it is resolved. Its function is ``packed`` when it is
    first sent, and let go; ``names`` are the modules that all of it refers to."""

    __slots__ = ("function", "future", "given", "kind", "names", "packed")

    def __init__(
        self, future: Future[Any], function: Any, given: Arguments, names: frozenset[str]
    ) -> None:
        self.future = future
        self.function = function
        self.given = given
        self.names = names
        self.kind: Hashable = kind_of(function)
        self.packed = b""


class _Task:
    """Calls that are sent together. ``kinds`` are those of their functions, by position."""

    def __init__(self, calls: list[_Call]) -> None:
        self.calls = calls
        self.kinds: list[Hashable] = []
        self.transaction: Transaction | None = None


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
        self._engine = engine
        self._max_workers = max_workers
        self._submission = check(JOB, {"priority": priority})
        self._id = secrets.token_hex(8)
        self._packer = Packer((ship,) if isinstance(ship, str | ModuleType) else ship)
        self._initializer, self._initializer_names = b"", NO_NAMES
        if initializer is not None:
            self._initializer, self._initializer_names = self._packer.function(
                partial(initializer, *initargs)
            )
        self._pacer = Pacer(engine.settings.task_seconds)
        self._lock = threading.Lock()
        self._resolved = threading.Condition(self._lock)
        self._waiting: deque[_Call] = deque()
        self._tasks: set[_Task] = set()
        self._room = sys.maxsize  # of tasks; known while there are calls that wait
        self._resolving = 0
        self._broken = ""
        self._shutdown = False
        self._abandoned = False
        self._slots = SlotWatch(engine, lambda: bool(self._waiting), self._pump)
        _living.add(self)

    # -- for users ---------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have ``fn(*args, **kwargs)`` called by a worker; return its future at once.

        What cannot be pickled is told by the future (``NotPicklable``). Raises ``BrokenExecutor``,
        and ``RuntimeError`` after ``shutdown``.
        """
        future: Future[T] = Future()
        try:
            given, names = self._packer.arguments(fn, args, kwargs)
        except NotPicklable as error:
            self._check_open()
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        call = _Call(future, fn, given, names)
        with self._lock:
            self._check_open()
            self._waiting.append(call)
            full = len(self._tasks) >= self._room
        if not full:
            self._pump()
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
        zipped = zip(*iterables, strict=False)
        if chunksize == 1:
            submits = (self.submit(fn, *args) for args in zipped)
            return in_order(submits, buffersize, end, of_call)
        chunked = Chunked(fn)
        chunks = iter(lambda: tuple(itertools.islice(zipped, chunksize)), ())
        parts = (self.submit(chunked, *chunk) for chunk in chunks)
        return in_order(parts, buffersize, end, of_chunk)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``cancel_futures`` cancel those not sent; ``wait`` for the rest
        to be resolved. The peer stays as it is."""
        with self._lock:
            self._shutdown = True
            unsent: list[_Call] = []
            if cancel_futures:
                unsent = [call for call in self._waiting if not call.packed]
                self._waiting = deque(call for call in self._waiting if call.packed)
        for call in unsent:
            call.future.cancel()
            call.future.set_running_or_notify_cancel()
        self._pump()  # what was cancelled one by one waits for nothing
        if wait:
            with self._resolved:
                self._resolved.wait_for(self._all_resolved)

    def abandon(self) -> None:
        """Shut down without waiting, and end what was sent as well: a worker that is in the middle
        of a call is stopped. Futures that are not resolved are cancelled, or get
        ``TransactionCancelled``."""
        self._abandoned = True
        self.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            sent = [task.transaction for task in self._tasks]
        for transaction in sent:
            if transaction is not None:
                transaction.cancel()

    def __repr__(self) -> str:
        with self._lock:
            state = self._broken or ("shut down" if self._shutdown else "open")
            sent = sum(len(task.calls) for task in self._tasks)
            return f"<GridExecutor {state}: {len(self._waiting)} calls wait, {sent} were sent>"

    # -- sending -----------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._broken:
            raise BrokenExecutor(self._broken)
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _pump(self) -> None:
        """Send what waits, while there is room."""
        while (task := self._next_task()) is not None:
            self._send(task)

    def _next_task(self) -> _Task | None:
        with self._lock:
            while self._waiting:
                slots, waiting = self._slots.count, self._waiting
                room = self._pacer.tasks(slots, waiting[0].kind)
                self._room = min(room, self._max_workers or room)
                if len(self._tasks) >= self._room:
                    self._slots.look()
                    return None
                slots = min(slots, self._max_workers or slots)
                count = self._pacer.count(len(waiting), slots, (call.kind for call in waiting))
                calls = self._take(count)
                if calls:
                    task = _Task(calls)
                    self._tasks.add(task)
                    self._resolving += 1
                    return task
            self._room = sys.maxsize
            self._resolved.notify_all()
            return None

    def _take(self, count: int) -> list[_Call]:
        """Take at most so many calls that wait, without those that were cancelled."""
        calls: list[_Call] = []
        size = 0
        while count and self._waiting and size < TASK_BYTES:
            call = self._waiting.popleft()
            count -= 1
            if call.packed or call.future.set_running_or_notify_cancel():
                calls.append(call)
                size += len(call.given) if isinstance(call.given, bytes) else 0
        return calls

    def _send(self, task: _Task) -> None:
        """Send a task; when it has ended, its transaction says so."""
        try:
            if self._abandoned:  # it was cut, and would begin anew
                raise TransactionCancelled("the executor was abandoned")
            self._pack(task)
            if not task.calls:
                self._end(task)
                return
            functions: dict[bytes, int] = {}
            calls: list[tuple[int, Arguments]] = []
            names = set(self._initializer_names)
            for call in task.calls:
                number = functions.setdefault(call.packed, len(functions))
                if number == len(task.kinds):
                    task.kinds.append(call.kind)
                calls.append((number, call.given))
                names |= call.names
            order = encode(self._id, self._initializer, list(functions), calls)
            submission = replace(
                self._submission,
                job=JOB.over([order]),
                attempts_max=1 if len(calls) > 1 else ATTEMPTS_MAX,
                records=[],
            )
            transaction = self._engine.submit_frozen(submission, self._packer.code(names))
            task.transaction = transaction
        except Exception as error:
            self._fail(task, error)
            return
        except BaseException:  # Ctrl-C, in the thread that submits: the calls wait again
            with self._lock:
                self._waiting.extendleft(reversed(task.calls))
            self._end(task)
            raise
        transaction.add_done_callback(partial(self._on_end, task))

    def _pack(self, task: _Task) -> None:
        """Pack the functions of calls, each once; calls whose function does not pickle end here."""
        packed: dict[int, tuple[bytes, frozenset[str]] | NotPicklable] = {}
        kept: list[_Call] = []
        for call in task.calls:
            if not call.packed:
                found = packed.get(id(call.function))
                if found is None:
                    found = packed[id(call.function)] = self._pack_function(call.function)
                if isinstance(found, NotPicklable):
                    call.future.set_exception(found)
                    continue
                call.packed = found[0]
                call.names |= found[1]
            kept.append(call)
        for call in task.calls:
            call.function = None  # only now: ids are of living objects
        task.calls = kept

    def _pack_function(self, function: Any) -> tuple[bytes, frozenset[str]] | NotPicklable:
        try:
            return self._packer.function(function)
        except NotPicklable as error:
            return error

    # -- outcomes ----------------------------------------------------------------------

    def _on_end(self, task: _Task, transaction: Transaction) -> None:
        """On the thread of callbacks: calls have outcomes, and others get their place."""
        try:
            [(_, [answer])] = transaction.items()
            outcomes = pickle.loads(answer)
        except BaseException as error:
            self._fail(task, error)
            self._pump()
            return
        if len(outcomes) == 1:
            cause = exception_of(outcomes[0])
            log.critical("an initializer failed", exc_info=cause)
            self._break_down(task, "the initializer failed", cause)
            return
        kinds, things, costs = outcomes
        calls = task.calls
        with self._lock:
            self._tasks.discard(task)
            while len(calls) > len(kinds):  # it was cut: these have not begun
                self._waiting.appendleft(calls.pop())
            for number, *cost in costs:
                self._pacer.note(task.kinds[number], *cost)
        self._pump()
        calls.reverse()
        things.reverse()
        for kind in kinds:  # a future that is resolved is its user's alone
            resolve(calls.pop().future, kind, things.pop())
        self._end(task)

    def _end(self, task: _Task) -> None:
        """Every call of a task has its outcome, or waits again."""
        task.transaction = None  # which refers to this task, and has files
        with self._lock:
            self._tasks.discard(task)
            self._resolving -= 1
            self._resolved.notify_all()

    def _all_resolved(self) -> bool:
        return not self._waiting and not self._resolving

    def _fail(self, task: _Task, error: BaseException) -> None:
        """A task failed as a whole: find out by which call, or break down."""
        if isinstance(error, PeerClosed | Bug) or self._engine.closing:
            self._break_down(task, "its peer has ended", error)
            return
        if len(task.calls) > 1 and not isinstance(error, TransactionCancelled):
            size = -(-len(task.calls) // PIECES)
            for first in range(0, len(task.calls), size):
                piece = _Task(task.calls[first : first + size])
                with self._lock:
                    self._tasks.add(piece)
                    self._resolving += 1
                self._send(piece)
        else:
            for call in task.calls:
                call.future.set_exception(_of_call(error))
        self._end(task)

    def _break_down(self, task: _Task, why: str, cause: BaseException) -> None:
        """Nothing goes on: every call that is not resolved fails."""
        with self._lock:
            if not self._broken:
                self._broken = f"the executor is broken: {why} ({type(cause).__name__}: {cause})"
            waiting = list(self._waiting)
            self._waiting.clear()
        living = [c for c in waiting if c.packed or c.future.set_running_or_notify_cancel()]
        for call in (*task.calls, *living):
            error = BrokenExecutor(self._broken)
            error.__cause__ = cause
            call.future.set_exception(error)
        self._end(task)


# ------------------------------------------------------------------------------ the end


def _of_call(error: BaseException) -> BaseException:
    """What ended a task of one call, told of the call rather than of an item of a job."""
    if not isinstance(error, WorkerLost):
        return error
    how = str(error.args[0]).partition(" while ")[0]
    return WorkerLost(
        f"{how} while it ran this call, on peer {error.peer}. To call the function here shows it, "
        "and may end this process too",
        peer=error.peer,
        traceback=error.traceback,
    )


_living: "weakref.WeakSet[GridExecutor]" = weakref.WeakSet()
_exiting = False


def _at_exit() -> None:
    """The interpreter ends when what was submitted is done, as with other executors."""
    global _exiting
    _exiting = True
    for executor in list(_living):
        executor.shutdown()


def _in_child() -> None:
    """A forked child has nothing of what its parent's executors need."""
    for executor in list(_living):
        executor._lock = threading.Lock()
        executor._resolved = threading.Condition(executor._lock)
        executor._waiting.clear()
        executor._tasks.clear()
        executor._resolving = 0
        executor._broken = (
            "this executor was made before the process forked; call peer.executor() in the child"
        )


os.register_at_fork(after_in_child=_in_child)
# Before threads are joined and peers are closed: no public name leads there.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
