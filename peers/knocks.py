"""Greeted connections kept for a moment: whoever was greeted while seeking can be joined at once.

Seeking greets every place where a server may be, and each greeting is a whole TLS handshake. The
connection to the one that is then joined need not be made a second time; all others are closed.
After a failover every member seeks at the same moment, and a new server has half the handshakes.

Promises: a connection is handed out once, and only while it is fresh; ``clear`` leaves none open.
Belongs to one thread.
"""

import time

from grid.messages import Address
from peers.link import Connection

FRESH_SECONDS = 1.0
"""Longer than a choice among those who answered takes, shorter than a server's patience with one
who greets and says nothing."""


class Knocks:
    """The connections of one round of seeking, by the address that was dialled."""

    def __init__(self) -> None:
        self._kept: dict[Address, tuple[Connection, float]] = {}

    def keep(self, address: Address, connection: Connection) -> None:
        self._close(self._kept.pop(address, None))
        self._kept[address] = (connection, time.monotonic())

    def take(self, address: Address) -> Connection | None:
        """The connection to an address, if there is a fresh one; it is the caller's now."""
        kept = self._kept.pop(address, None)
        if kept is not None and time.monotonic() - kept[1] > FRESH_SECONDS:
            self._close(kept)
            return None
        return kept[0] if kept is not None else None

    def clear(self) -> None:
        """Close what nobody took."""
        while self._kept:
            self._close(self._kept.popitem()[1])

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close."""
        return [fd for connection, _ in list(self._kept.values()) for fd in connection.filenos()]

    @staticmethod
    def _close(kept: tuple[Connection, float] | None) -> None:
        if kept is not None:
            kept[0].close()
