"""What a server remembers for those who watch: tasks that ran, transactions that ended, prints.

Each entry has the next number of this chronicle, so whoever asks again hears only what is new: it
says where it had come to (``Bookmark``). A new server begins a new chronicle; what the old one knew
of the past is gone with it, unless somebody watched.

Bounded in every way, as a server's memory must be (P7): the latest entries of each sort are kept,
and an answer holds only as many as fit well into a frame. Nothing is decided by what is in here.
"""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import merge
from itertools import islice, takewhile
from typing import TypeVar

from msgspec import structs

from grid.messages import (
    NO_BOOKMARK,
    Bookmark,
    Failure,
    Happening,
    Printed,
    TaskDone,
    TaskRan,
    TransactionEnded,
)
from grid.registry import Transaction

TASKS_MAX = 4096
"""Some minutes of a busy grid."""

ENDS_MAX = 200

PRINTS_MAX = 4000
PRINTS_OF_ONE_MAX = 1000
"""Messages, of a line or a few each: what one scrolls back, for a few transactions at once."""

ANSWER_MAX = 1000
"""Entries in one answer: some hundred kilobytes."""

PRINTS_ANSWER_MAX = 200

CLIP_CHARACTERS = 8 << 10
"""Of a traceback or a printed text that is kept: enough for a person, little for a frame."""

Entry = TypeVar("Entry", TaskRan, TransactionEnded, tuple[int, Printed])


class Tail:
    """The latest that one record printed, each with its number; the last that was ``dropped``."""

    def __init__(self) -> None:
        self.prints: deque[tuple[int, Printed]] = deque()
        self.dropped = 0

    def drop(self) -> None:
        self.dropped, _ = self.prints.popleft()


class Chronicle:
    """The past of one server, as far as it is kept. ``id`` tells it from those of others."""

    def __init__(self) -> None:
        self.id = ""
        self._count = 0
        self._tasks: deque[TaskRan] = deque(maxlen=TASKS_MAX)
        self._ends: deque[TransactionEnded] = deque(maxlen=ENDS_MAX)
        self._tails: dict[str, Tail] = {}
        self._prints = 0

    def _next(self) -> int:
        self._count += 1
        return self._count

    # -- writing -----------------------------------------------------------------------

    def note_task(self, done: TaskDone, peer: str, now: float) -> None:
        """A task ended well. When it began is known from how long it says it took."""
        output = done.holding.output
        span = (output.record, output.kind, output.start, output.stop)
        began = max(0.0, now - done.seconds)
        self._tasks.append(TaskRan(self._next(), done.attempt, *span, peer, began, now))

    def note_end(
        self, txn: Transaction, owners: tuple[str, ...], failure: Failure | None, now: float
    ) -> None:
        """A transaction ended, with a result or with this failure."""
        meta = txn.meta
        sums = (meta.items, meta.partitions, txn.ran)
        times = (txn.known_at, now)
        ended = TransactionEnded(
            self._next(), meta.record, txn.name, owners, *sums, *times, _clipped(failure)
        )
        self._ends.append(ended)

    def note_prints(self, printed: Printed) -> None:
        """User code printed: the latest is kept, of this record and of all together."""
        tail = self._tails.pop(printed.record, None) or Tail()
        self._tails[printed.record] = tail
        if len(printed.text) > CLIP_CHARACTERS:
            printed = structs.replace(printed, text=printed.text[:CLIP_CHARACTERS] + " ...\n")
        tail.prints.append((self._next(), printed))
        self._prints += 1
        while len(tail.prints) > PRINTS_OF_ONE_MAX:
            tail.drop()
            self._prints -= 1
        while self._prints > PRINTS_MAX:
            oldest = next(iter(self._tails))  # of those that have printed, the longest silent
            self._prints -= len(self._tails.pop(oldest).prints)

    # -- reading -----------------------------------------------------------------------

    def happened(self, after: Bookmark) -> tuple[tuple[Happening, ...], Bookmark]:
        """What has happened since, oldest first, and where to go on."""
        number = self._number(after)
        tasks = _since(self._tasks, number, lambda entry: entry.number)
        ends = _since(self._ends, number, lambda entry: entry.number)
        merged: Iterable[Happening] = merge(tasks, ends, key=lambda entry: entry.number)
        told = tuple(islice(merged, ANSWER_MAX))
        return told, Bookmark(self.id, told[-1].number if told else number)

    def prints(self, record: str, after: Bookmark) -> tuple[tuple[Printed, ...], Bookmark, bool]:
        """What a record has printed since, where to go on, and whether some of it is not kept."""
        number = self._number(after)
        tail = self._tails.get(record)
        if tail is None:
            return (), Bookmark(self.id, number), False
        found = _since(tail.prints, number, lambda entry: entry[0])[:PRINTS_ANSWER_MAX]
        latest = found[-1][0] if found else number
        told = tuple(printed for _, printed in found)
        return told, Bookmark(self.id, latest), tail.dropped > number

    def outcome(self, record: str) -> str:
        """How a transaction ended, as far as it is kept; else nothing."""
        for end in reversed(self._ends):
            if end.record == record:
                return ended_as(end)
        return ""

    def _number(self, after: Bookmark) -> int:
        return after.number if after.chronicle == self.id else NO_BOOKMARK.number


def ended_as(end: TransactionEnded) -> str:
    """In a word how a transaction ended."""
    if end.failure is None:
        return "finished"
    return "cancelled" if end.failure.kind == "cancelled" else "failed"


def _since(entries: deque[Entry], number: int, numbered: Callable[[Entry], int]) -> list[Entry]:
    """The entries of higher numbers, in order."""
    newest_first = takewhile(lambda entry: numbered(entry) > number, reversed(entries))
    return list(newest_first)[::-1]


def _clipped(failure: Failure | None) -> Failure | None:
    """A failure for people, without what only its owner may open."""
    if failure is None:
        return None
    texts = {
        name: _shortened(getattr(failure, name)) for name in ("message", "traceback", "function")
    }
    return structs.replace(failure, exception=b"", key=_shortened(failure.key), **texts)


def _shortened(text: str) -> str:
    """Its beginning and, where a traceback says what happened, its end."""
    if len(text) <= CLIP_CHARACTERS:
        return text
    half = CLIP_CHARACTERS // 2
    return f"{text[:half]}\n ...\n{text[-half:]}"
