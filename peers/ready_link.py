"""The connection that a client keeps ready to the peer that will probably serve next.

It is greeted like any other, at that peer's data port, as ``await``. The peer says ``Serves`` on it
when it begins a reign; from then on the connection is as good as one greeted at its well-known
port, and ``take`` hands it out to be joined over. Until then nothing else may come over it.

Belongs to the client thread's loop. Decides nothing: ``grid/readiness.py`` says to whom.
"""

import asyncio
from collections.abc import Callable

from grid.errors import ProtocolError
from grid.messages import Address, Message, Serves, Welcome
from peers.link import Connection, Link


class ReadyLink:
    """``on_summoned`` and ``on_lost`` are told what comes of it, until it is taken or closed."""

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        on_summoned: Callable[[Serves], None],
        on_lost: Callable[["ReadyLink"], None],
    ) -> None:
        self._on_summoned = on_summoned
        self._on_lost = on_lost
        self._on_message: Callable[[Message], None] | None = None
        self._on_closed: Callable[[str], None] | None = None
        self._serves: Serves | None = None
        self._settled = asyncio.Event()
        self._link = connection.attach(loop, self._heard, self._ended)

    @property
    def remote(self) -> str:
        """The id of the peer at the other end."""
        return self._link.remote

    def welcome(self, address: Address) -> Welcome | None:
        """How that peer greets at this address, if it serves there."""
        serves = self._serves
        return serves.welcome if serves is not None and serves.address == address else None

    async def settled(self, seconds: float) -> None:
        """Wait until it is known whether that peer serves, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            pass  # whoever waited finds out another way

    def take(self, on_message: Callable[[Message], None], on_closed: Callable[[str], None]) -> Link:
        """Return the link; what comes over it is told to the caller from now on."""
        self._on_message = on_message
        self._on_closed = on_closed
        return self._link

    def close(self) -> None:
        self._link.close()

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close."""
        return self._link.filenos()

    def _heard(self, _: Link, message: Message) -> None:
        if self._on_message is not None:
            self._on_message(message)
        elif not isinstance(message, Serves):
            raise ProtocolError(f"it sent {type(message).__name__} before it was joined")
        elif message.welcome.peer != self.remote:
            raise ProtocolError("it speaks of another peer's reign")
        else:
            self._serves = message
            self._settled.set()
            self._on_summoned(message)

    def _ended(self, _: Link, reason: str) -> None:
        self._settled.set()
        if self._on_closed is not None:
            self._on_closed(reason)
        else:
            self._on_lost(self)
