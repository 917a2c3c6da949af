"""What the code of opened transactions prints: the latest of it, through every failover.

A server tells what was printed while it served, from a bookmark on. So each question goes on where
the last answer ended, and the latest of the transactions opened lately is kept here: what an old
server has told is still shown when another serves. While none answers the question stays open.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from grid.chronicle import PRINTS_ANSWER_MAX
from grid.errors import GridError
from grid.messages import NO_BOOKMARK, Bookmark, Printed, Prints

OPENED_MAX = 16
MESSAGES_MAX = 300
CHARACTERS_MAX = 64 << 10
"""More than anybody scrolls back on a page; `grid logs` has all that is kept."""

ASK_SECONDS = 1.0


@dataclass(slots=True)
class _Tail:
    """The latest of one record, and how far its server was asked."""

    latest: deque[Printed] = field(default_factory=lambda: deque(maxlen=MESSAGES_MAX))
    after: Bookmark = NO_BOOKMARK
    asked: Future[Prints] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Tails:
    """Keeps the tails of opened transactions. Of one event loop. ``ask`` is ``Peer.prints``."""

    def __init__(self, ask: Callable[[str, Bookmark], Future[Prints]]) -> None:
        self._ask = ask
        self._tails: dict[str, _Tail] = {}

    async def of(self, record: str) -> list[Printed]:
        """The latest that this record printed, in order: what was known, if no server answers."""
        tail = self._tails.pop(record, None) or _Tail()
        self._tails[record] = tail
        while len(self._tails) > OPENED_MAX:
            del self._tails[next(iter(self._tails))]  # the one looked at longest ago
        async with tail.turn:
            while await self._read(record, tail):
                pass
        return _short(tail.latest)

    async def _read(self, record: str, tail: _Tail) -> bool:
        """Read on once; tell whether there is more."""
        try:
            if tail.asked is None:
                tail.asked = self._ask(record, tail.after)
            answer = await asyncio.to_thread(tail.asked.result, ASK_SECONDS)
        except TimeoutError:
            return False
        except GridError:
            tail.asked = None
            return False
        tail.asked, tail.after = None, answer.latest
        tail.latest.extend(answer.prints)
        return len(answer.prints) >= PRINTS_ANSWER_MAX


def _short(latest: deque[Printed]) -> list[Printed]:
    """The last messages that have so many characters together, at least one."""
    room = CHARACTERS_MAX
    kept: list[Printed] = []
    for printed in reversed(latest):
        room -= len(printed.text)
        if room < 0 and kept:
            break
        kept.append(printed)
    return kept[::-1]
