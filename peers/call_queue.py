"""The calls of one executor: those that wait, and those that were sent together and have not ended.

There is no thread here. Calls are sent by whoever adds them while there is room, else when a
transaction has ended, on the thread of its callbacks, which also resolves the futures.

A task that fails as a whole (a worker died on it, a module is missing) is sent again in pieces,
until the one call that is to blame has failed alone. Calls that had no blame may so run twice.
"""

import logging
import pickle
import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from functools import partial
from typing import Any

from grid.errors import Bug, NotPicklable, PeerClosed, TransactionCancelled, WorkerLost
from grid.job import Job
from grid.pacing import Pacer
from peers.call_outcomes import exception_of, resolve
from peers.call_runner import Arguments, run
from peers.calls import NO_NAMES, Packer, encode, kind_of
from peers.engine import Engine
from peers.interruptible import pieces
from peers.slot_watch import SlotWatch
from peers.submission import check
from peers.transaction import Transaction

log = logging.getLogger(__name__)

JOB = Job([b""], run, partitions=1)
"""What a task is to the grid. Its one item is the task's calls."""

TASK_BYTES = 4 << 20
"""Packed arguments of this size fill a task."""

ATTEMPTS_MAX = 4
"""Workers that may die on one call, as on an item of a job."""

PIECES = 8
"""Calls whose task failed as a whole are sent again in so many pieces, to find the one to blame."""


class Call:
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

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.kinds: list[Hashable] = []
        self.transaction: Transaction | None = None


class CallQueue:
    """Sends calls. ``broken`` is empty, or says why nothing goes on any more.

    At most ``max_workers`` tasks are under way. ``initializer`` is called once in each worker.
    Raises ``NotPicklable``, and ``Misuse`` for a bad ``priority``.
    """

    def __init__(
        self,
        engine: Engine,
        packer: Packer,
        max_workers: int | None,
        initializer: Callable[[], object] | None,
        priority: int,
    ) -> None:
        self.broken = ""
        self._engine = engine
        self._packer = packer
        self._max_workers = max_workers
        self._submission = check(JOB, {"priority": priority})
        self._id = secrets.token_hex(8)
        self._initializer, self._initializer_names = b"", NO_NAMES
        if initializer is not None:
            self._initializer, self._initializer_names = packer.function(initializer)
        self._pacer = Pacer(engine.settings.task_seconds)
        self._lock = threading.Lock()
        self._resolved = threading.Condition(self._lock)
        self._waiting: deque[Call] = deque()
        self._tasks: set[_Task] = set()
        self._room = sys.maxsize  # of tasks; known while there are calls that wait
        self._resolving = 0
        self._closed = False
        self._abandoned = False
        self._slots = SlotWatch(engine, lambda: bool(self._waiting), self._pump)

    # -- for the executor --------------------------------------------------------------

    def add(self, call: Call) -> None:
        """Have this call made. Raises as ``check_open``."""
        with self._lock:
            self.check_open()
            self._waiting.append(call)
            full = len(self._tasks) >= self._room
        if not full:
            self._pump()

    def check_open(self) -> None:
        """Raise ``BrokenExecutor`` or, if closed, ``RuntimeError``."""
        if self.broken:
            raise BrokenExecutor(self.broken)
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def close(self, *, cancel: bool) -> None:
        """Take no more calls; ``cancel`` those not sent."""
        unsent: list[Call] = []
        with self._lock:
            self._closed = True
            if cancel:
                unsent = [call for call in self._waiting if not call.packed]
                self._waiting = deque(call for call in self._waiting if call.packed)
        for call in unsent:
            call.future.cancel()
            call.future.set_running_or_notify_cancel()
        self._pump()  # what was cancelled one by one waits for nothing

    def wait(self) -> None:
        """Wait until every call is resolved."""

        def idle() -> bool:
            return not self._waiting and not self._resolving

        with self._resolved:
            any(self._resolved.wait_for(idle, seconds) for seconds in pieces(None))

    def abandon(self) -> None:
        """Take no more calls, cancel those not sent, and end the others."""
        self._abandoned = True
        self.close(cancel=True)
        with self._lock:
            sent = [task.transaction for task in self._tasks]
        for transaction in sent:
            if transaction is not None:
                transaction.cancel()

    def after_fork(self) -> None:
        """In a forked child, which has nothing of what this needs."""
        self._lock = threading.Lock()
        self._resolved = threading.Condition(self._lock)
        self._waiting.clear()
        self._tasks.clear()
        self._resolving = 0
        self.broken = (
            "this executor was made before the process forked; call peer.executor() in the child"
        )

    def __repr__(self) -> str:
        with self._lock:
            state = self.broken or ("shut down" if self._closed else "open")
            sent = sum(len(task.calls) for task in self._tasks)
            return f"{state}: {len(self._waiting)} calls wait, {sent} were sent"

    # -- sending -----------------------------------------------------------------------

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

    def _take(self, count: int) -> list[Call]:
        """Take at most so many calls that wait, without those that were cancelled."""
        calls: list[Call] = []
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
        kept: list[Call] = []
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
            if not self.broken:
                self.broken = f"the executor is broken: {why} ({type(cause).__name__}: {cause})"
            waiting = list(self._waiting)
            self._waiting.clear()
        living = [c for c in waiting if c.packed or c.future.set_running_or_notify_cancel()]
        for call in (*task.calls, *living):
            error = BrokenExecutor(self.broken)
            error.__cause__ = cause
            call.future.set_exception(error)
        self._end(task)


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
