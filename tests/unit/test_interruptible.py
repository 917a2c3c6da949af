"""A signal that wakes nobody is heard all the same, and waiting is otherwise as it was."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from peers import interruptible
from peers.interruptible import InterruptibleFuture
from peers.transaction import Transaction

FAR = 30.0


@contextmanager
def signalled_asleep() -> Iterator[None]:
    """Ctrl-C within a moment, taken by a thread that is not the main one, which so sleeps on: what
    also happens when it comes just before the sleep."""

    def press() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        asleep.wait(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    asleep = threading.Event()
    thread = threading.Thread(target=press)
    # Before there is a signal: one that came in this call would raise and leave all blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        thread.start()
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        thread.join()


WAITS: list[Callable[[], object]] = [
    lambda: InterruptibleFuture[int]().result(FAR),
    lambda: InterruptibleFuture[int]().exception(FAR),
    lambda: Transaction("id", "", lambda _: None).result(FAR),
    lambda: interruptible.wait(threading.Event(), FAR),
]


@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_that_wakes_nobody_is_heard(wait: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), signalled_asleep():
        wait()
    assert time.monotonic() - began < FAR / 2


def test_a_signal_is_heard_while_input_is_waited_for() -> None:
    near, far = os.pipe()
    with (
        os.fdopen(near) as stream,
        os.fdopen(far, "w"),
        pytest.raises(KeyboardInterrupt),
        signalled_asleep(),
    ):
        next(interruptible.lines(stream))


def test_lines_come_whole_and_also_the_last() -> None:
    near, far = os.pipe()
    with os.fdopen(near, encoding="utf-8") as stream, os.fdopen(far, "wb", 0) as writer:
        read = interruptible.lines(stream)
        writer.write(b"one\ntw")
        assert next(read) == "one"
        writer.write("ö\r\n\nthree".encode())
        assert next(read) == "twö"
        writer.close()
        assert list(read) == ["", "three"]


def test_an_outcome_comes_as_from_any_future() -> None:
    kept: InterruptibleFuture[int] = InterruptibleFuture()
    with pytest.raises(TimeoutError):
        kept.result(0.01)
    threading.Timer(0.3, kept.set_result, [3]).start()
    assert kept.result() == 3
    assert kept.exception(-1.0) is None
    failed: InterruptibleFuture[int] = InterruptibleFuture()
    failed.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        failed.result(FAR)


def test_an_event_is_waited_for_as_long_as_said() -> None:
    event = threading.Event()
    assert not interruptible.wait(event, 0.3)
    event.set()
    assert interruptible.wait(event, None)
