"""The peer's workers: as many as it has slots, each busy with one attempt or waiting warm.

The pool lives on the client thread's loop; every method but ``close_now`` is called there and
``on_event`` is called there. A task goes to a waiting worker (best to one that knows the job's
code), else to a new one; none is started before the first task, but ``prepare`` has what starts
them ready. Code is sent once to each worker.

Promises, for every attempt given to ``run`` and not killed: exactly one of ``Succeeded``,
``Raised``, ``Refused`` and ``Died`` is told, after all that it printed. After ``kill`` nothing
more is told of it, and what it wrote is removed. A dead worker's half-written files are removed,
its slot is free again, and how it died is told as it was. A worker that holds another version of
a module is replaced and the attempt begins again in a fresh process, once.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from grid.errors import Misuse
from peers.helper_process import HelperProcess
from peers.segment import segment_name, unsealed_names
from peers.worker_channel import (
    Died,
    FromWorker,
    Items,
    Learn,
    Limits,
    MapTask,
    NeedItems,
    PoolEvent,
    Printed,
    Raised,
    Recent,
    ReduceTask,
    Refused,
    Stale,
    Succeeded,
    Task,
    whole_output,
)
from peers.worker_failures import died
from peers.worker_link import Link, from_worker
from peers.worker_page import Page
from peers.worker_starters import ProcessStarter, Starter, ThreadStarter

logger = logging.getLogger(__name__)

Mode = Literal["process", "thread"]

DRAIN_SECONDS = 1.0
"""How long the channel of a dead worker may stay open: something it forked may have kept it."""


class _Order:
    """A task in hand, with what is needed to begin it again."""

    def __init__(self, task: Task, code: bytes) -> None:
        self.task = task
        self.code = code
        self.begun_anew = False

    @property
    def attempt(self) -> str:
        return self.task.attempt


class _Hand:
    """A worker as the pool sees it."""

    def __init__(self, worker: int, page: Page) -> None:
        self.worker = worker
        self.page = page
        self.link: Link
        self.codes: Recent[bool] = Recent()
        self.order: _Order | None = None
        self.garbage = ""
        self.ended = False
        self.how = ""
        self.pid: int | None = None


class WorkerPool:
    """Runs tasks in worker processes (or threads, ``mode="thread"``).

    ``slots`` is how many at once, ``folder`` where segments go, ``name`` the peer's name, which is
    put into failures. ``limits`` say when workers spill. ``helper`` was started for it early.
    """

    def __init__(
        self,
        slots: int,
        folder: Path,
        on_event: Callable[[PoolEvent], None],
        *,
        mode: Mode = "process",
        name: str = "",
        limits: Limits | None = None,
        helper: HelperProcess | None = None,
    ) -> None:
        self._slots = slots
        self._helper = helper
        self._folder = folder
        self._on_event = on_event
        self._mode = mode
        self._name = name
        self._limits = limits or Limits()
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starter: Starter | None = None
        self._hands: dict[int, _Hand] = {}
        self._dying: dict[int, _Hand] = {}
        self._idle: list[_Hand] = []
        self._running: dict[str, _Hand] = {}
        self._waiting: deque[_Order] = deque()
        self._closed = False

    @property
    def free(self) -> int:
        """How many more tasks would start at once."""
        return max(0, self._slots - len(self._running) - len(self._waiting))

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Bind to ``loop`` (default: the running one). ``run`` does it when it was not done."""
        if self._starter is None:
            self._loop = loop or asyncio.get_running_loop()
            about = (self._loop, self._folder, self._limits, self._on_exit)
            if self._mode == "process":
                self._starter = ProcessStarter(*about, helper=self._helper)
            else:
                self._starter = ThreadStarter(*about)

    def prepare(self) -> None:
        """Have ready what starts workers, if there are to be any."""
        if self._slots and not self._closed:
            self.start()
            assert self._starter is not None
            self._starter.prepare()

    def run(self, task: Task, code: bytes) -> None:
        """Run ``task`` of the record whose encoded ``Code`` is ``code``, as soon as a slot is
        free. What becomes of it is told by events."""
        assert not self._closed, "the pool is closed"
        self.start()
        self._waiting.append(_Order(task, code))
        self._dispatch()

    def give_items(self, attempt: str, items: bytes) -> None:
        """Answer ``NeedItems``: the pickle of the list of values asked for."""
        hand = self._running.get(attempt)
        if hand is not None:
            hand.link.send(Items(attempt, items))

    def kill(self, attempt: str) -> None:
        """Stop this attempt now. Nothing more is told of it; an unknown one is over already."""
        self._waiting = deque(order for order in self._waiting if order.attempt != attempt)
        hand = self._running.pop(attempt, None)
        if hand is not None:
            self._give_up(hand)
            self._dispatch()

    def close(self) -> None:
        """End all workers and their helper, within seconds; nothing more is told."""
        if self._closed:
            return
        self._closed = True
        for hand in self._hands.values():
            hand.link.close()
        if self._starter is not None:
            self._starter.close()
        self._tidy()

    def close_now(self) -> None:
        """As ``close``, from any thread, when the loop will not run again."""
        if self._closed:
            return
        self._closed = True
        for hand in self._hands.values():
            hand.link.close_descriptor()
        if self._starter is not None:
            self._starter.close_now()
        self._tidy()

    def filenos(self) -> list[int]:
        """Return the descriptors which a forked child must close."""
        hands = [*self._hands.values(), *self._dying.values()]
        fds = [hand.page.fd for hand in hands] + [hand.link.fileno() for hand in hands]
        fds += self._starter.filenos() if self._starter is not None else []
        return [fd for fd in fds if fd >= 0]

    # ------------------------------------------------------------------ giving

    def _dispatch(self) -> None:
        while self._waiting and not self._closed:
            try:
                hand = self._free_hand(self._waiting[0].task.output.record)
            except (OSError, Misuse) as error:
                order = self._waiting.popleft()
                self._later(
                    partial(self._tell_died, order, None, f"was not started ({error})", None)
                )
                continue
            if hand is None:
                return
            self._give(hand, self._waiting.popleft())

    def _free_hand(self, record: str) -> _Hand | None:
        for index in reversed(range(len(self._idle))):
            if record in self._idle[index].codes:
                return self._idle.pop(index)
        if self._idle:
            return self._idle.pop()
        return self._hire() if len(self._hands) < self._slots else None

    def _hire(self) -> _Hand:
        assert self._starter is not None
        assert self._loop is not None
        number = next(self._numbers)
        sock, page = self._starter.start(number)
        hand = self._hands[number] = _Hand(number, page)
        hand.link = Link(
            self._loop,
            sock,
            from_worker,
            partial(self._on_message, hand),
            partial(self._on_end, hand),
        )
        return hand

    def _give(self, hand: _Hand, order: _Order) -> None:
        hand.order = order
        hand.page.item = None
        self._running[order.attempt] = hand
        record = order.task.output.record
        if hand.codes.get(record) is None:
            hand.codes.put(record, True)
            hand.link.send(Learn(record, order.code), order.task)
        else:
            hand.link.send(order.task)

    # ------------------------------------------------------------------ hearing

    def _on_message(self, hand: _Hand, message: FromWorker) -> None:
        if isinstance(message, Printed):
            self._on_event(message)
            return
        order = hand.order
        if order is None or order.attempt != message.attempt:
            return  # of an attempt that is over
        if isinstance(message, NeedItems):
            self._on_event(message)
        elif isinstance(message, Stale):
            self._begin_anew(hand, order, message)
        else:
            self._finish(hand, order)
            self._on_event(self._signed(message))
            self._dispatch()

    def _finish(self, hand: _Hand, order: _Order) -> None:
        hand.order = None
        del self._running[order.attempt]
        self._idle.append(hand)

    def _signed(self, message: Succeeded | Raised | Refused) -> PoolEvent:
        """A worker does not know its peer's name; failures carry it."""
        if isinstance(message, Raised):
            failure = msgspec.structs.replace(message.failure, peer=self._name)
            return Raised(message.attempt, failure)
        return message

    def _begin_anew(self, hand: _Hand, order: _Order, message: Stale) -> None:
        del self._running[order.attempt]
        hand.order = None  # it wrote nothing, and its successor writes under the same name
        self._give_up(hand)
        if order.begun_anew:
            self._on_event(Refused(order.attempt, "module", message.detail))
        else:
            order.begun_anew = True
            self._waiting.appendleft(order)
        self._dispatch()

    # ------------------------------------------------------------------ deaths

    def _give_up(self, hand: _Hand) -> None:
        """Kill a worker that nobody needs to hear of again."""
        assert self._starter is not None
        del self._hands[hand.worker]
        self._dying[hand.worker] = hand
        hand.link.close()
        self._starter.kill(hand.worker)

    def _on_end(self, hand: _Hand, garbage: str) -> None:
        """The channel is at its end: all that the worker said was heard."""
        hand.ended = True
        hand.garbage = garbage
        if hand.how:
            self._bury(hand)
        elif self._starter is not None:
            self._starter.kill(hand.worker)  # it closed its channel, so it is of no use

    def _on_exit(self, worker: int, how: str, pid: int | None) -> None:
        dying = self._dying.pop(worker, None)
        if dying is not None:
            self._clear_away(dying)
            return
        hand = self._hands.get(worker)
        if hand is None:
            return
        hand.how, hand.pid = how, pid
        if hand.ended:
            self._bury(hand)
        else:
            assert self._loop is not None
            self._loop.call_later(DRAIN_SECONDS, self._bury, hand)

    def _bury(self, hand: _Hand) -> None:
        """The worker is gone and was heard to the end: free its slot and tell its death."""
        if self._hands.pop(hand.worker, None) is None:
            return
        if hand in self._idle:
            self._idle.remove(hand)
        hand.link.close()
        item, report = hand.page.item, hand.page.report()
        order = hand.order
        how = f"{hand.how} after it {hand.garbage}" if hand.garbage else hand.how
        logger.info("a worker is gone peer=%s pid=%s: it %s", self._name, hand.pid, how)
        self._clear_away(hand)
        if order is not None:
            del self._running[order.attempt]
            self._tell_died(order, item, how, hand.pid, report)
        self._dispatch()

    def _tell_died(
        self, order: _Order, item: int | None, how: str, pid: int | None, report: str = ""
    ) -> None:
        if self._closed:
            return
        failure = died(how, pid, _doing(order.task, item), report, self._name)
        self._on_event(Died(order.attempt, failure, item))

    def _clear_away(self, hand: _Hand) -> None:
        """Let go of a worker that is gone, and of what its last attempt wrote but did not tell."""
        hand.page.close()
        if hand.order is not None:
            task = hand.order.task
            outputs = [task.output]
            if isinstance(task, MapTask) and task.whole:
                outputs.append(whole_output(task))
            for output in outputs:
                for name in (segment_name(output), *unsealed_names(output)):
                    (self._folder / name).unlink(missing_ok=True)

    def _tidy(self) -> None:
        for hand in [*self._hands.values(), *self._dying.values()]:
            self._clear_away(hand)
        for kept in (self._hands, self._dying, self._idle, self._running, self._waiting):
            kept.clear()

    def _later(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon(call)


def _doing(task: Task, item: int | None) -> str:
    output = task.output
    what = f"{output.kind} {output.start}..{output.stop}"
    if item is None:
        return f"it had {what} to do"
    if isinstance(task, MapTask):
        return f"it mapped item {item} (of {what})"
    if isinstance(task, ReduceTask):
        return f"it reduced partition {item} (of {what})"
    return f"it did {what}"
