"""What user code prints and logs in a worker becomes messages to the peer.

``sys.stdout`` and ``sys.stderr`` are real text streams (with ``buffer``, ``flush`` and the rest)
over a raw stream that sends; whole lines go at once, the rest when the task ends. The root logger
gets a handler that does the same.

Promises: terminal control sequences are stripped; what is sent is bounded by a budget, so that a
flood of prints neither stops the worker for long nor fills anybody's memory; what was dropped is
counted and said. Does not do: text that native code or child processes write to descriptors 1 and
2 themselves; that goes to the peer's own standard error.
"""

import codecs
import io
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from grid.pickling import plain

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Stream = Literal["stdout", "stderr", "log"]
Send = Callable[[Stream, str], None]

BURST_CHARACTERS = 256 << 10
CHARACTERS_PER_SECOND = 32 << 10
"""A thousand lines at once and hundreds a second: more than anyone reads."""

MESSAGE_COST = 64
"""What a message costs beside its text, so that a flood of empty lines is bounded too."""

TEXT_MAX = 16 << 10
"""The most one message carries."""

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links and other strings
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def clean(text: str) -> str:
    """Return ``text`` without control sequences; a carriage return begins a new line."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return plain(_CONTROL.sub("", text), len(text) + 1)


class Budget:
    """A bucket of characters that fills with time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(BURST_CHARACTERS)
        self._filled_at = clock()

    def take(self, characters: int) -> bool:
        """Return whether ``characters`` may be sent now; if so they are taken."""
        now = self._clock()
        gained = (now - self._filled_at) * CHARACTERS_PER_SECOND
        self._left = min(float(BURST_CHARACTERS), self._left + gained)
        self._filled_at = now
        if characters > self._left:
            return False
        self._left -= characters
        return True


class Forwarder:
    """Sends text within the budget, and says how much was dropped."""

    def __init__(self, send: Send, budget: Budget | None = None) -> None:
        self._send = send
        self._budget = budget or Budget()
        self._dropped = 0

    def write(self, stream: Stream, text: str) -> None:
        """Send ``text``, cut to what a message carries, or drop it."""
        text = clean(text)
        if not text:
            return
        for start in range(0, len(text), TEXT_MAX):
            part = text[start : start + TEXT_MAX]
            if not self._budget.take(len(part) + MESSAGE_COST):
                self._dropped += len(text) - start
                return
            self._confess()
            self._send(stream, part)

    def end_of_task(self) -> None:
        """Say what was dropped, whatever the budget."""
        self._confess()

    def _confess(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._send("stderr", f"[{dropped} characters of output were dropped: too fast]\n")


class _Raw(io.RawIOBase):
    """The bottom of a standard stream: bytes in, text to the forwarder."""

    def __init__(self, forwarder: Forwarder, stream: Stream) -> None:
        self._forwarder = forwarder
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Where child processes that are given this stream may write."""
        return 2

    def isatty(self) -> bool:
        return False

    def write(self, data: "ReadableBuffer", /) -> int:
        received = bytes(data)
        self._forwarder.write(self._stream, self._decoder.decode(received))
        return len(received)


class _Handler(logging.Handler):
    def __init__(self, forwarder: Forwarder) -> None:
        super().__init__()
        self._forwarder = forwarder
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._forwarder.write("log", text + "\n")


def redirect(forwarder: Forwarder) -> None:
    """Send what this process prints and logs from now on to ``forwarder``."""
    sys.stdout = _text_stream(forwarder, "stdout")
    sys.stderr = _text_stream(forwarder, "stderr")
    root = logging.getLogger()
    root.addHandler(_Handler(forwarder))
    root.setLevel(logging.INFO)


def restore() -> None:
    """Undo ``redirect``: for a child that user code forks, whose prints have no channel."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)


def flush() -> None:
    """Send what stands unfinished in the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass  # user code closed or replaced it


def _text_stream(forwarder: Forwarder, stream: Stream) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Raw(forwarder, stream))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
