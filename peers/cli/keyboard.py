"""Keys as they are pressed on a terminal, by name, without waiting for the end of a line."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",  # as some terminals say it
    "\x1bOB": "down",
    "\r": "enter",
    "\n": "enter",
    "\x1b": "escape",
}

_READ_BYTES = 256


def decode(text: str) -> list[str]:
    """The keys that a terminal has sent: a name, or the character; what has no name is left out."""
    keys: list[str] = []
    while text:
        end = _sequence_end(text)
        sent, text = text[:end], text[end:]
        name = _NAMES.get(sent, sent if len(sent) == 1 and sent.isprintable() else "")
        if name:
            keys.append(name)
    return keys


def _sequence_end(text: str) -> int:
    """Where the first key ends: escape sequences end with a letter or a tilde."""
    if not text.startswith(("\x1b[", "\x1bO")):
        return 1
    for end in range(2, len(text)):
        if text[end].isalpha() or text[end] == "~":
            return end + 1
    return len(text)


class Keyboard:
    """A terminal's keys, or nothing where there is none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, for so long at most; return those that were pressed."""
        if self._descriptor is None:
            time.sleep(max(0.0, seconds))
            return []
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, seconds))
        if not ready:
            return []
        sent = os.read(self._descriptor, _READ_BYTES)
        if not sent:
            self._descriptor = None  # the terminal has gone; its hangup signal comes too
            return []
        return decode(sent.decode(errors="replace"))


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Have standard input give keys one by one, if it is a terminal; as before afterwards."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
