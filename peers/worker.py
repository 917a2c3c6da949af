"""A worker: takes tasks from its channel, one at a time, runs user code, and answers.

It runs in a process of its own (forked by ``peers.worker_main``) or, for embedding and debugging,
in a thread of the peer. In a process it also forwards what is printed and logged, writes a crash
report into its page, and cuts a child that user code forks off from the channel.

Promises: every task is answered by exactly one of ``Succeeded``, ``Raised``, ``Refused`` and
``Stale``, unless the process dies; whatever user code raises, the worker goes on to the next task.
"""

import ctypes
import faulthandler
import logging
import os
import pickle
import sys
import threading
import time
from types import ModuleType
from typing import Any

from msgspec import structs

from grid.errors import Misuse, NotPicklable
from grid.functions import Functions
from grid.mapreduce import UserFault
from grid.messages import Failure
from grid.pickling import plain
from peers import worker_failures as failures
from peers import worker_output
from peers.segment_writer import SpoolFull
from peers.shipping import Code, ModuleUnavailable, StaleModule, lend_main, load, use_paths
from peers.worker_channel import (
    Channel,
    FromWorker,
    Items,
    Learn,
    Limits,
    NeedItems,
    Printed,
    Raised,
    Recent,
    Refused,
    Stale,
    Succeeded,
    Task,
)
from peers.worker_memory import Memory
from peers.worker_output import Forwarder, Stream
from peers.worker_page import REPORT_START, Page
from peers.worker_tasks import Bench, InputsLost, perform

logger = logging.getLogger(__name__)


_FUNCTIONS = {
    "map": "mapfn",
    "reduce": "reducefn",
    "finish": "finishfn",
    "call": "the called function",
}


class Killed(BaseException):
    """Raised in a worker's thread when the peer has given it up."""


class _PeerGone(BaseException):
    """The channel ended in the middle of a task."""


class _Job:
    """The code of a record, loaded when a task first needs it."""

    def __init__(self, code: bytes) -> None:
        self._code = Code.decode(code)
        self._functions: Functions | None = None

    def functions(self, main: ModuleType | None) -> Functions:
        """Return the functions, and make this process the job's: its folders are on the path,
        its script's classes are found in ``main``."""
        if self._functions is None:
            self._functions = load(self._code, main)
        elif main is not None:
            use_paths(self._code)
            lend_main(self._functions, main)
        return self._functions


class Worker:
    """Serves the tasks that come over ``channel``; writes segments into ``folder``.

    ``own_process`` says that the whole process is this worker's to arrange. ``busy`` says, under
    the lock ``turn``, that a task is in hand, ``given_up`` that no other may be begun.
    """

    def __init__(
        self, channel: Channel, page: Page, folder: str, limits: Limits, *, own_process: bool
    ) -> None:
        self._channel = channel
        self._page = page
        self._folder = folder
        self._memory = Memory(limits)
        self._own_process = own_process
        self._pid = os.getpid()
        self._jobs: Recent[_Job] = Recent()
        self._attempt = ""
        self._record = ""
        self._forwarder = Forwarder(self._print)
        self.turn = threading.Lock()
        self.busy = False
        self.given_up = False
        # A thread's ``__main__`` is the script itself: its classes are there already.
        self._main = sys.modules["__main__"] if own_process else None

    def serve(self) -> None:
        """Serve until the peer closes the channel, or gives this worker up."""
        if self._own_process:
            self._settle_in()
        try:
            while (message := self._channel.receive()) is not None:
                match message:
                    case Learn():
                        self._jobs.put(message.record, _Job(message.code))
                    case Items():
                        pass  # for a task that has ended
                    case _:
                        self._channel.send(self._take_turn(message))
        except (_PeerGone, Killed, OSError):
            pass  # nobody is left to tell

    def close(self) -> None:
        """Let go of channel, page and memory."""
        self._channel.close()
        self._page.close()
        self._memory.close()

    def _settle_in(self) -> None:
        os.lseek(self._page.fd, REPORT_START, os.SEEK_SET)
        faulthandler.enable(file=self._page.fd, all_threads=False)
        worker_output.redirect(self._forwarder)
        os.register_at_fork(after_in_child=self._cut_off)

    def _cut_off(self) -> None:
        """In a child that user code forked: it is not the worker and must not speak for it."""
        worker_output.restore()
        self._channel.close()

    def _take_turn(self, task: Task) -> FromWorker:
        """Answer a task, such that ``Killed`` is raised in here or not at all."""
        with self.turn:
            if self.given_up:
                raise Killed
            self.busy = True
        try:
            return self._answer(task)
        finally:
            with self.turn:
                self.busy = False
            for _ in range(2):
                pass  # the interpreter looks for what was raised from outside when it loops

    def _answer(self, task: Task) -> FromWorker:
        self._attempt, self._record = task.attempt, task.output.record
        started = time.perf_counter()
        answer = self._outcome(task, started)
        if self._own_process:
            if os.getpid() != self._pid:
                os._exit(0)  # a child that user code forked and let run on into here
            worker_output.flush()
            self._forwarder.end_of_task()
        return answer

    def _outcome(self, task: Task, started: float) -> FromWorker:
        attempt = task.attempt
        try:
            sealed = perform(task, self._bench())
        except (Killed, _PeerGone):
            raise
        except UserFault as fault:
            return Raised(attempt, failures.raised(fault.cause, fault.function, fault.key))
        except NotPicklable as error:
            return Raised(attempt, failures.unpicklable(error))
        except InputsLost as lost:
            return Refused(attempt, "inputs", lost.detail, lost.missing)
        except StaleModule as error:
            return self._stale(attempt, str(error))
        except ModuleUnavailable as error:
            return Refused(attempt, "module", plain(str(error), failures.MESSAGE_MAX))
        except (SpoolFull, OSError) as error:
            return Refused(attempt, "space", f"cannot write segments here: {error}")
        except (Misuse, MemoryError, RecursionError) as error:
            return Raised(attempt, self._raised(task, error))
        except Exception as error:
            logger.exception("a task failed by a mistake of the grid itself attempt=%s", attempt)
            return Raised(attempt, failures.bug(error))
        except BaseException as error:  # SystemExit and its like, which user code raised
            return Raised(attempt, self._raised(task, error))
        seconds = time.perf_counter() - started
        return Succeeded(attempt, sealed.holding, sealed.sizes, seconds, sealed.content)

    def _raised(self, task: Task, error: BaseException) -> Failure:
        """What nobody caught on its way: the kind of task says which function it was, and the page
        which item; its owner knows the key."""
        failure = failures.raised(error, _FUNCTIONS[task.output.kind])
        item = self._page.item
        if task.output.kind != "map" or item is None:
            return failure
        return structs.replace(failure, item=item)

    def _stale(self, attempt: str, detail: str) -> FromWorker:
        if self._own_process:
            return Stale(attempt, detail)
        return Refused(attempt, "module", f"{detail}; restart this process to load it anew")

    def _bench(self) -> Bench:
        job = self._jobs.get(self._record)
        assert job is not None, f"no code was sent for record {self._record}"
        return Bench(self._functions(job), self._folder, self._memory, self._page, self._need)

    def _functions(self, job: _Job) -> Functions:
        try:
            return job.functions(self._main)
        except (StaleModule, ModuleUnavailable):
            raise
        except Exception as error:
            raise UserFault("loading of the job's code", "", error) from error

    def _need(self, indices: tuple[int, ...]) -> list[Any]:
        """Ask the peer for these items and wait for them."""
        self._channel.send(NeedItems(self._attempt, indices))
        while (message := self._channel.receive()) is not None:
            if isinstance(message, Items) and message.attempt == self._attempt:
                values: list[Any] = pickle.loads(message.items)
                return values
        raise _PeerGone

    def _print(self, stream: Stream, text: str) -> None:
        try:
            self._channel.send(Printed(self._attempt, self._record, stream, text))
        except OSError:
            pass  # the peer is gone, and this worker will be in a moment


class WorkerThread:
    """Serves ``worker`` in a daemon thread of this process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._thread = threading.Thread(target=self._run, name="grid-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._worker.serve()
        except Killed:
            pass
        finally:
            self._worker.close()

    def interrupt(self) -> None:
        """Have ``Killed`` raised in the task it runs, if any, when that next runs Python code.

        It takes no other task, and a thread that waits for one ends when its channel does.
        """
        ident = self._thread.ident
        assert ident is not None
        with self._worker.turn:
            self._worker.given_up = True
            if self._worker.busy:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(ident), ctypes.py_object(Killed)
                )

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        self._thread.join(seconds)
