"""When a worker holds too much: its process is looked at, rather than sizes guessed.

A ``Memory`` belongs to a worker process and remembers how large it was before it held any data. A
``Watch`` belongs to one stretch of work. A process rarely gives all that it lets go back to the
system, so a large process alone does not mean that much is held: after room was made, as much as
fitted before may be held again before it is looked for more.

Where the size of a process cannot be asked, the number of values held is the only bound.
"""

import sys
from typing import Protocol

from peers.process_control import ResidentBytes, give_back_memory
from peers.worker_channel import Limits


class Memory:
    """The memory of this process. Made before there is any data in it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.resident_bytes = ResidentBytes()
        self.before = self.resident_bytes()

    def close(self) -> None:
        """No watch of this memory is used again."""
        self.resident_bytes.close()

    def watch(self, most: int = sys.maxsize) -> "Watch":
        """Return a watch for which ``most`` bytes of data are enough, if the limits allow more."""
        return Watch(self, min(most, self.limits.held_bytes_max))


class Full(Protocol):
    """Whoever holds values and may be told that they are too many."""

    def __call__(self, held: int) -> bool: ...


class Watch:
    """Tells when to make room."""

    def __init__(self, memory: Memory, most: int) -> None:
        self._resident_bytes = memory.resident_bytes
        self._values_max = memory.limits.values_max
        self._slack = most // 4
        self._ceiling = memory.before + most
        self._fits = 1
        self._high = self._resident_bytes()
        if self._high > self._ceiling:  # what was let go before, or what user code keeps
            self._fits = sys.maxsize

    def full(self, held: int) -> bool:
        """Say whether ``held`` values are too many. Costs a microsecond."""
        if held >= self._values_max:
            return held > 0
        size = self._resident_bytes()
        if not held or size <= self._ceiling:
            return False
        return held >= self._fits or size > self._high + self._slack

    def made_room(self, held: int) -> None:
        """The ``held`` values that were too many were let go."""
        give_back_memory()
        self._high = self._resident_bytes()
        fragmented = self._high > self._ceiling - self._slack
        self._fits = max(1, held) if fragmented else 1
