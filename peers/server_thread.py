"""The standby server thread: binds the well-known port when its client says so, and serves.

Performs what ``grid.server_core`` decides. While it is standing by it costs a sleeping thread. A
``Doorman`` greets whoever connects, apart from this loop; greeted links are handed over here.
"""

import asyncio
import itertools
import logging
import socket
import sys
from collections.abc import Callable
from typing import assert_never

from grid.effects import CloseLink, FreePort, Greet, Send, ServerEffect, TellClient
from grid.errors import Bug
from grid.events import (
    ClientEvent,
    DeadlineReached,
    LinkLost,
    LinkOpened,
    PortBound,
    PortTaken,
    Received,
    ReignBegan,
    ReignEnded,
    ServerEvent,
    TermSurpassed,
)
from grid.messages import Address, Hello, Message, PeerRef, Refusal, Reign, Welcome
from grid.server_core import ServerCore
from grid.settings import Settings
from peers.core_thread import CoreThread
from peers.doorman import Doorman, bind
from peers.link import Connection, Link
from peers.local_link import LocalLink
from peers.security import Security

log = logging.getLogger(__name__)


class ServerThread(CoreThread):
    """Binds, greets and serves. ``tell_client`` posts events to the client thread;
    ``listen_hosts`` are the addresses to bind, ``door(port)`` is where others find that port."""

    def __init__(
        self,
        settings: Settings,
        security: Security,
        me: PeerRef,
        listen_hosts: tuple[str, ...],
        door: Callable[[int], Address],
        tell_client: Callable[[ClientEvent], None],
    ) -> None:
        super().__init__("grid-server")
        self._settings = settings
        self._security = security
        self._me = me
        self._listen_hosts = listen_hosts
        self._door = door
        self._tell_client = tell_client
        self._core: ServerCore | None = None
        self._listeners: list[socket.socket] = []
        self._doorman: Doorman | None = None
        self._links: dict[int, Link | LocalLink] = {}
        self._numbers = itertools.count(1)
        self._welcome = self._greeting(Reign(0, ""), 0)

    # -- what the client thread orders ---------------------------------------------------

    def bind(self, port: int) -> None:
        """Bind and listen; the client hears ``PortBound`` or ``PortTaken``."""
        self.call(self._bind, port)

    def serve(self, reign: Reign, expected: int) -> None:
        self.post(ReignBegan(reign, self._me, expected))

    def stop_serving(self, redirect: Address | None) -> None:
        self.post(ReignEnded(redirect))

    def connect_locally(self, client: CoreThread, client_number: int) -> LocalLink:
        """Link the client of this process; return its end. Called on the client's thread."""
        number = next(self._numbers)
        theirs, mine = LocalLink.pair(client, client_number, self, number)
        self.call(self._admit_local, number, mine)
        return theirs

    @property
    def welcome(self) -> Welcome:
        """What is answered to greetings now."""
        return self._welcome

    def filenos(self) -> list[int]:
        fds = [s.fileno() for s in list(self._listeners)]
        fds += [fd for link in list(self._links.values()) for fd in link.filenos()]
        if self._doorman is not None:
            fds += self._doorman.filenos()
        return [*super().filenos(), *(fd for fd in fds if fd >= 0)]

    # -- on the thread -----------------------------------------------------------------

    def _bind(self, port: int) -> None:
        if self._broken:
            self._tell_client(PortTaken(port, "the server of this process has failed"))
            return
        try:
            self._listeners = bind(self._listen_hosts, port)
        except OSError as error:
            self._tell_client(PortTaken(port, str(error)))
            return
        self._tell_client(PortBound(port, self._door(port)))

    def _greeting(self, reign: Reign, followers: int) -> Welcome:
        python = sys.version_info[:2]
        return Welcome(self._me.peer, self._me.name, python, reign, followers)

    def _step(self, event: ServerEvent) -> None:
        if isinstance(event, ReignBegan) and self._core is None:
            self._open_door()
        if self._core is not None:
            for effect in self._core.step(event, self.loop.time()):
                self._perform(effect)

    def _next_deadline(self) -> float | None:
        return None if self._core is None else self._core.next_deadline()

    def _on_deadline(self) -> None:
        self.take(DeadlineReached())

    def _open_door(self) -> None:
        self._core = ServerCore(self._settings)
        self._doorman = Doorman(
            self._listeners,
            self._security,
            self._settings.grid,
            self._greet,
            self._admit,
            name="grid-doorman",
            host_silence_seconds=self._settings.host_silence_seconds,
        )
        self._listeners = []
        self._doorman.start()

    def _perform(self, effect: ServerEffect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case CloseLink():
                if effect.reason:
                    log.warning("drops a peer: %s peer=%s", effect.reason, self._me.name)
                link = self._links.pop(effect.link, None)
                if link is not None:
                    link.close()
            case TellClient():
                self._tell_client(TermSurpassed(effect.seen))
            case Greet():
                self._welcome = self._greeting(effect.reign, effect.followers)
            case FreePort():
                self._free_port()
            case _:
                assert_never(effect)

    def _send(self, effect: Send) -> None:
        """Send; what cannot be sent costs its receiver the link, and nobody else anything."""
        link = self._links.get(effect.link)
        if link is None:
            return
        try:
            link.send(effect.message)
        except Exception:
            log.exception("cannot send a %s", type(effect.message).__name__)
            self._links.pop(effect.link).close()
            self.post(LinkLost(effect.link, "a message for it could not be sent"))

    def _free_port(self) -> None:
        log.info("frees the port peer=%s", self._me.name)
        self._core = None
        self._welcome = self._greeting(Reign(0, ""), 0)
        self._close_door()

    def _close_door(self) -> None:
        if self._doorman is not None:
            self._doorman.stop()
            self._doorman = None
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        for link in list(self._links.values()):
            link.close()
        self._links.clear()

    async def _shut(self) -> None:
        self._core = None
        self._close_door()
        await asyncio.sleep(0)  # whom the doorman has just admitted is sent away

    def _on_bug(self, bug: Bug) -> None:
        """Serve no more: the members, this process's client among them, find another server."""
        log.error("serves no more peer=%s: %s", self._me.name, type(bug).__name__)
        self._free_port()

    # -- links -------------------------------------------------------------------------

    def _greet(self, hello: Hello) -> Welcome | Refusal:
        """On the doorman's thread: answer with what was last decided."""
        if hello.role == "data":
            return Refusal("this is the grid's port, not a data port")
        return self._welcome

    def _admit(self, connection: Connection) -> None:
        """On the doorman's thread: hand a greeted connection over."""
        self.call(self._take_over, connection)

    def _take_over(self, connection: Connection) -> None:
        if self._core is None:
            connection.close()
            return
        number = next(self._numbers)
        self._links[number] = connection.attach(
            self.loop,
            lambda _, message: self._on_message(number, message),
            lambda _, reason: self._on_closed(number, reason),
        )
        self.take(LinkOpened(number, connection.hello, local=False))

    def _admit_local(self, number: int, link: LocalLink) -> None:
        if self._core is None:
            link.close()
            return
        self._links[number] = link
        hello = Hello(
            protocol=1,
            grid=self._settings.grid,
            peer=self._me.peer,
            name=self._me.name,
            python=sys.version_info[:2],
            role="peer",
            intended=self._me.data,
        )
        self.take(LinkOpened(number, hello, local=True))

    def _on_message(self, number: int, message: Message) -> None:
        self.take(Received(number, message))

    def _on_closed(self, number: int, reason: str) -> None:
        if self._links.pop(number, None) is not None:
            self.take(LinkLost(number, reason))
