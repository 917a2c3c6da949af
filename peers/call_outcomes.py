"""Outcomes of an executor's calls, opened where the calls came from, one by one.

A result that cannot be opened here is the trouble of its own future. What a call raised has, for
its cause, the traceback of the worker as text.
"""

import itertools
import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from grid.errors import GridError, NotPicklable, TaskError
from peers.call_runner import PACKED, RAISED, VALUE, Raised

T = TypeVar("T")

log = logging.getLogger(__name__)


class RemoteTraceback(Exception):
    """The ``__cause__`` of what a call raised: where, on its worker. ``tb`` is text."""

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


def resolve(future: Future[Any], kind: int, thing: Any) -> None:
    """Give a future its outcome; one that its user has set keeps that."""
    try:
        _resolve(future, kind, thing)
    except InvalidStateError:
        log.warning("a future was set by another than its executor future=%r", future)


def _resolve(future: Future[Any], kind: int, thing: Any) -> None:
    if kind == VALUE:
        future.set_result(thing)
    elif kind == PACKED:
        try:
            value = pickle.loads(thing)
        except BaseException as error:  # user code may raise anything while it is opened
            why = f"{type(error).__name__}: {error}"
            problem = GridError(f"the result of a call cannot be opened here ({why})")
            problem.__cause__ = error
            future.set_exception(problem)
        else:
            future.set_result(value)
    elif kind == RAISED:
        future.set_exception(exception_of(thing))
    else:
        future.set_exception(NotPicklable(thing))


def exception_of(raised: Raised) -> BaseException:
    """What a call raised, with where it did; or a ``TaskError`` if it does not pickle."""
    pickled, message, traceback = raised
    try:
        error: BaseException = pickle.loads(pickled)
    except BaseException:  # empty, or its class does not load here
        return TaskError(message, traceback=traceback)
    error.__cause__ = RemoteTraceback(traceback)
    return error


# ------------------------------------------------------------------------------ map


def check_map(chunksize: int, buffersize: int | None) -> None:
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def in_order(
    submits: Iterator[Future[Any]],
    buffersize: int | None,
    end: float | None,
    opened: Callable[[Any], tuple[list[T], Raised | None]],
) -> Iterator[T]:
    """Submit now, then yield what each future holds, as ``opened`` tells; cancel what is left when
    that ends. Keeps no result that it has given."""
    futures = deque(itertools.islice(submits, buffersize))

    def results() -> Iterator[T]:
        try:
            while futures:
                held, raised = opened(_popped(futures, end))
                futures.extend(itertools.islice(submits, 1))
                held.reverse()
                yield from map(list.pop, itertools.repeat(held, len(held)))
                if raised is not None:
                    raise exception_of(raised)
        finally:
            for future in futures:
                future.cancel()

    return results()


def _popped(futures: deque[Future[Any]], end: float | None) -> Any:
    """The result of the first future, which is cancelled if that takes too long."""
    try:
        return futures[0].result(None if end is None else end - time.monotonic())
    finally:
        futures.popleft().cancel()


def of_call(value: T) -> tuple[list[T], Raised | None]:
    """What a future of a single call holds."""
    return [value], None


def of_chunk(answer: tuple[list[T], Raised | None]) -> tuple[list[T], Raised | None]:
    """What a future of a chunk holds: results up to the call that raised."""
    return answer
