"""Waiting in which a signal is always heard.

Python runs signal handlers in the main thread, between two of its steps. A signal that comes after
the last step before that thread sleeps on a lock is noted, and wakes nobody: Ctrl-C would be heard
only once what is waited for has happened. So whoever may wait for long waits in pieces. It is the
same with input: what is read only once it is there is read by ``lines``.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import repeat
from typing import TextIO, TypeVar

PIECE_SECONDS = 0.25

T = TypeVar("T")
U = TypeVar("U")


def pieces(timeout: float | None) -> Iterator[float]:
    """Yield how many seconds to wait next, until the whole time is over; None has no end."""
    if timeout is None:
        yield from repeat(PIECE_SECONDS)
        return
    end = time.monotonic() + timeout
    yield min(PIECE_SECONDS, timeout)
    while (left := end - time.monotonic()) > 0:
        yield min(PIECE_SECONDS, left)


def wait(event: threading.Event, timeout: float | None) -> bool:
    """Wait for an event; tell whether it has come."""
    return any(event.wait(seconds) for seconds in pieces(timeout))


def lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a file, pipe or socket as they come, without their ends. Nothing else may
    read there."""
    descriptor = stream.fileno()
    rest = b""
    while True:
        while not select.select([descriptor], [], [], PIECE_SECONDS)[0]:
            pass
        data = os.read(descriptor, 1 << 16)
        *whole, rest = (rest + data).split(b"\n")
        if not data and rest:
            whole = [rest]
        for line in whole:
            yield line.decode(stream.encoding, stream.errors or "strict").removesuffix("\r")
        if not data:
            return


class InterruptibleFuture(Future[T]):
    """A future whose outcome can be waited for without becoming deaf to signals."""

    def result(self, timeout: float | None = None) -> T:
        """Return the result, or raise what was raised. ``TimeoutError`` after so many seconds."""
        return self._outcome(super().result, timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what was raised, or None. ``TimeoutError`` after so many seconds."""
        return self._outcome(super().exception, timeout)

    def _outcome(self, ask: Callable[[float], U], timeout: float | None) -> U:
        for seconds in pieces(timeout):
            try:
                return ask(seconds)
            except TimeoutError:
                if self.done():  # just now; or it is the outcome
                    break
        return ask(0)
