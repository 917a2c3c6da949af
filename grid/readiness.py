"""With whom a connection is kept ready: whoever will probably serve next.

Greeting costs a TLS handshake, some milliseconds of processor time at both ends. When a server
dies all members greet its successor in the same moment, and it becomes the server of all only when
it has greeted the last. So each member greets the first successor beforehand and keeps the
connection; when that peer serves it says so there (``Summoned``), and is joined there.

Promises: at most one connection is kept; members that hear of a new first successor at the same
moment do not greet it at the same moment. Kept connections are a shortcut and nothing else: who has
none seeks and greets as everyone does.
"""

import random

from msgspec import Struct

from grid.effects import ClientEffect, KeepReady
from grid.messages import PeerRef, Successor

CALM_SECONDS = 0.5
"""So long a first successor must have been one: the order changes while members come and go."""

MEMBER_SECONDS = 0.01
"""For each member, the time over which greetings are spread: three times what one costs."""

AGAIN_SECONDS = 10.0
"""When to try again what failed, on average: it may be a door that this peer cannot reach."""


class Readiness(Struct):
    """``peer`` is this peer: it keeps nothing ready for its own reign."""

    peer: str
    rng: random.Random
    deadline: float | None = None
    _next: PeerRef | None = None
    """Who should serve next, as last told."""
    _kept: bool = False
    """A connection to that peer was ordered, and is not known to be lost."""

    def told(
        self, successors: tuple[Successor, ...], members: int, now: float
    ) -> list[ClientEffect]:
        """The server told the order of taking over."""
        first = successors[0].ref if successors else None
        if first is not None and first.peer == self.peer:
            first = None
        if first == self._next:
            return []
        released: list[ClientEffect] = [KeepReady(None)] if self._kept else []
        self._next, self._kept, self.deadline = first, False, None
        if first is not None:
            self.deadline = now + CALM_SECONDS + self.rng.uniform(0, members * MEMBER_SECONDS)
        return released

    def lost(self, peer: str, now: float) -> None:
        """The connection to this peer could not be made, or is no more."""
        if self._kept and self._next is not None and self._next.peer == peer:
            self._kept = False
            self.deadline = now + self.rng.uniform(0.5, 1.5) * AGAIN_SECONDS

    def due(self, now: float) -> list[ClientEffect]:
        """Order the connection when it is time."""
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        self._kept = True
        return [KeepReady(self._next)]
