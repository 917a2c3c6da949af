"""How many slots the grid has, while somebody wants to know: a server is asked now and then."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from grid.messages import Status
from peers.engine import Engine

AGAIN_SECONDS = 1.0
"""Who joins is made use of this soon."""


class SlotWatch:
    """``count`` is what was last heard, at least one. After ``look`` it is asked again and again
    for as long as it is ``wanted``; ``grown`` is called, on the thread of callbacks, when it has
    become more."""

    def __init__(
        self, engine: Engine, wanted: Callable[[], bool], grown: Callable[[], None]
    ) -> None:
        self.count = 1
        self._engine = engine
        self._wanted = wanted
        self._grown = grown
        self._looking = threading.Lock()  # held from the question until it may be asked again
        self.look()

    def look(self) -> None:
        """Ask, unless that was done a moment ago. Returns at once."""
        if self._looking.acquire(blocking=False):
            self._engine.ask_status().add_done_callback(self._hear)

    def _hear(self, asked: Future[Status]) -> None:
        """On the client thread, if the answer was not there at once: as little as possible."""
        before = self.count
        self.count = max(1, sum(member.slots for member in asked.result().members))
        self._engine.client.call(self._rest)
        if self.count > before:
            self._engine.call_back(self._grown)

    def _rest(self) -> None:
        self._engine.client.loop.call_later(AGAIN_SECONDS, self._again)

    def _again(self) -> None:
        self._looking.release()
        if self._wanted():
            self.look()
