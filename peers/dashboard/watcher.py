"""Looks at the grid for all who look at the page: often while somebody does, else seldom.

Whoever watches gets the whole state first, then what has changed since its last frame, twice a
second at most; who reads slowly misses states, never changes. While no server answers the looks go
on, and say so.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from peers.dashboard.patches import merge_patch
from peers.dashboard.view import State, View
from peers.snapshot import NOTHING, Snapshot
from peers.wall_clock import time_of_day
from peers.watching import Watch

FRAME_SECONDS = 0.5
UNWATCHED_SECONDS = 5.0
"""Seldom enough to cost nothing, often enough to see every failover."""

QUIET_SECONDS = 15.0
"""After so long without a change something is sent anyway, lest anyone between drop the line."""

WATCHERS_MAX = 32
"""More open pages are refused: each costs time for every frame."""


class Watcher:
    """Keeps the state of one grid. Of one event loop."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._view = View()
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        self._watching = 0
        self.state: State = {}
        self.snapshot: Snapshot = NOTHING
        self._answered_at = time.monotonic()

    async def run(self) -> None:
        """Look until closed. Raises what ``Watch.look`` does."""
        try:
            while not self._closing.is_set():
                self._wanted.clear()
                await self._look()
                await wait_for(self._closing, FRAME_SECONDS)
                if not self._watching:
                    await wait_for(self._wanted, UNWATCHED_SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        """End what runs, and every stream that is being read."""
        self._closing.set()
        self._wanted.set()
        self._changed.set()

    def refresh(self) -> None:
        """Look soon: something has been done to the grid, or is asked of it."""
        self._wanted.set()

    @property
    def answered(self) -> bool:
        """Whether a server has answered, and is not being sought."""
        return self.snapshot.sought_seconds is None and bool(self.snapshot.server)

    @property
    def silent_seconds(self) -> float:
        """How long ago a server last answered."""
        return time.monotonic() - self._answered_at

    @property
    def full(self) -> bool:
        """Whether one more page would be too many."""
        return self._watching >= WATCHERS_MAX

    async def frames(self) -> AsyncIterator[dict[str, Any] | None]:
        """Yield patches: the first makes the state from nothing. None: nothing has changed."""
        self._watching += 1
        self._wanted.set()
        sent: State = {}
        try:
            while not self._closing.is_set():
                changed, state = self._changed, self.state
                patch = merge_patch(sent, state)
                sent = state
                yield patch or None
                if patch:
                    await wait_for(self._closing, FRAME_SECONDS)
                await wait_for(changed, QUIET_SECONDS)
        finally:
            self._watching -= 1

    async def _look(self) -> None:
        """Look once, for no longer than a frame lasts: then at least it is told who is sought."""
        self.snapshot = await asyncio.to_thread(self._watch.look, FRAME_SECONDS)
        if self.answered:
            self._answered_at = time.monotonic()
        state = self._view.of(self.snapshot, time_of_day())
        if state != self.state:
            self.state = state
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until it happens, but not for longer."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass
