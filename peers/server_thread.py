"""The standby server thread: binds the well-known port when its client says so, and serves.

Performs what ``grid.server_core`` decides. While it is standing by it costs a sleeping thread. A
``Doorman`` greets whoever connects, apart from this loop; greeted links are handed over here.
Members that cannot reach each other are connected through the port as well (``peers/relay.py``).
A standby may hold the port of its host, too, to point to the server that its client follows.
"""

import asyncio
import itertools
import logging
import secrets
import socket
import sys
from collections.abc import Callable
from typing import assert_never

from msgspec import structs

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
    RivalHeard,
    ServerEvent,
    TermSurpassed,
)
from grid.messages import (
    PROTOCOL,
    Address,
    CallBack,
    Claim,
    Failover,
    Hello,
    Message,
    PeerRef,
    Refusal,
    Reign,
    Serves,
    Welcome,
)
from grid.server_core import ServerCore
from grid.settings import Settings
from peers.chaos import Cut
from peers.core_thread import CoreThread
from peers.doorman import Doorman, bind
from peers.link import Connection, Link
from peers.local_link import LocalLink
from peers.relay import Relay
from peers.security import Security
from peers.voucher import Voucher

_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where all interfaces are dialled

AWAITING_MAX = 1024
"""So many are kept for a reign of this peer: more than a grid has, less than what descriptors and
memory allow."""

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
        relay: Relay,
        voucher: Voucher,
        cut: Cut | None = None,
    ) -> None:
        super().__init__("grid-server")
        self._settings = settings
        self._security = security
        self._me = me
        self._listen_hosts = listen_hosts
        self._door = door
        self._tell_client = tell_client
        self._relay = relay
        self._voucher = voucher
        self._cut = cut or Cut()
        self._pointer: Claim | None = None
        self._port = 0
        self._core: ServerCore | None = None
        self._listeners: list[socket.socket] = []
        self._doorman: Doorman | None = None
        self._links: dict[int, Link | LocalLink] = {}
        self._awaiting: dict[int, Link] = {}
        """Members of another's grid that want to be ours the moment we serve."""
        self._numbers = itertools.count(1)
        self._welcome = self._greeting(Reign(0, ""), 0)
        self._shutting = False

    # -- what the client thread orders ---------------------------------------------------

    def bind(self, port: int) -> None:
        """Bind and listen; the client hears ``PortBound`` or ``PortTaken``."""
        self.call(self._bind, port)

    def serve(self, reign: Reign, expected: int, failovers: tuple[Failover, ...] = ()) -> None:
        self.post(ReignBegan(reign, self._me, expected, failovers))

    def point(self, claim: Claim) -> None:
        """Answer greetings on the bound port with the server to go to; admit nobody."""
        self.call(self._point, claim)

    def unpoint(self) -> None:
        """Free the port that was bound to point from."""
        self.call(self._unpoint)

    def stop_serving(self, redirect: Address | None) -> None:
        self.post(ReignEnded(redirect))

    def cut_off(self) -> None:
        """Lose every connection, and answer nobody for as long as this peer is cut off."""
        self.call(self._cut_off)

    def connect_locally(self, client: CoreThread, client_number: int) -> LocalLink:
        """Link the client of this process; return its end. Called on the client's thread."""
        number = next(self._numbers)
        theirs, mine = LocalLink.pair(client, client_number, self, number)
        self.call(self._admit_local, number, mine)
        return theirs

    def near(self, port: int) -> Address:
        """Where this process dials a port of its own; the advertised address may lead elsewhere."""
        host = self._listen_hosts[0]
        return Address(_NEAR.get(host, host), port)

    def let_wait(self, connection: Connection) -> None:
        """Keep one who came to ``await`` a reign of this peer. From any thread."""
        try:
            self.loop.call_soon_threadsafe(self._let_wait, connection)
        except RuntimeError:  # the loop is closed: this peer reigns no more
            connection.close()

    @property
    def welcome(self) -> Welcome:
        """What is answered to greetings now."""
        return self._welcome

    def filenos(self) -> list[int]:
        fds = [s.fileno() for s in list(self._listeners)]
        links = [*self._links.values(), *self._awaiting.values()]
        fds += [fd for link in links for fd in link.filenos()]
        if self._doorman is not None:
            fds += self._doorman.filenos()
        return [*super().filenos(), *(fd for fd in fds if fd >= 0)]

    # -- on the thread -----------------------------------------------------------------

    def _bind(self, port: int) -> None:
        if self._broken:
            self._tell_client(PortTaken(port, "the server of this process has failed"))
            return
        try:
            if self._pointer is None or self._port != port:
                self._unpoint()
                self._listeners = bind(self._listen_hosts, port)
                self._port = port
        except OSError as error:
            self._tell_client(PortTaken(port, str(error)))
            return
        self._tell_client(PortBound(port, self._door(port)))

    def _point(self, claim: Claim) -> None:
        if self._core is not None or not (self._doorman or self._listeners):
            return  # serving by now, or freed
        self._pointer = claim
        self._open_door()

    def _unpoint(self) -> None:
        if self._core is None:
            self._pointer = None
            self._close_door()

    def _greeting(self, reign: Reign, followers: int) -> Welcome:
        python = sys.version_info[:2]
        return Welcome(self._me.peer, self._me.name, python, reign, followers)

    def _step(self, event: ServerEvent) -> None:
        if isinstance(event, ReignBegan) and self._core is None:
            self._core = ServerCore(self._settings)
            if self.trace is not None:
                self.trace.server_began(self._settings)
            self._open_door()
            self._pointer = None  # whoever knocks meanwhile is greeted by one or the other
        if self._core is not None:
            for effect in self.decide("server", self._core, event):
                self._perform(effect)

    def _next_deadline(self) -> float | None:
        return None if self._core is None else self._core.next_deadline()

    def _on_deadline(self) -> None:
        self.take(DeadlineReached())

    def _open_door(self) -> None:
        """Answer the bound port, from now on or still."""
        if self._doorman is not None:
            return
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
        if self._cut.active:
            self._doorman.rest(self._cut.seconds_left)

    def _perform(self, effect: ServerEffect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case CloseLink():
                if effect.reason:
                    log.warning("drops a peer: %s peer=%s", effect.reason, self._me.name)
                self._dismiss(effect.link)
                link = self._links.pop(effect.link, None)
                if link is not None:
                    link.close()
            case TellClient():
                self._tell_client(TermSurpassed(effect.seen))
            case Greet():
                anew = self._welcome.reign != effect.reign
                self._welcome = self._greeting(effect.reign, effect.followers)
                if anew:
                    self._summon()
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

    def _cut_off(self) -> None:
        self._send_awaiting_away()
        if self._doorman is not None:
            self._doorman.rest(self._cut.seconds_left)
        for number, link in list(self._links.items()):
            if isinstance(link, Link):
                link.close()
                self._on_closed(number, "this peer is cut off")

    def _free_port(self) -> None:
        log.info("frees the port peer=%s", self._me.name)
        self._core = None
        self._welcome = self._greeting(Reign(0, ""), 0)
        self._relay.dismiss("this server has just ended its reign")
        self._send_awaiting_away()
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
        self._shutting = True
        self._send_awaiting_away()
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
        pointer = self._pointer
        if pointer is not None:
            return self._greet_as_signpost(hello, pointer)
        if hello.claim is not None and hello.claim.peer == hello.peer:
            self._tell_client(RivalHeard(hello.claim))
        return self._welcome

    def _greet_as_signpost(self, hello: Hello, pointer: Claim) -> Welcome | Refusal:
        """Whoever comes is told where to go, if this peer still hears from there."""
        answer = self._voucher.greet(hello)
        if isinstance(answer, Refusal) or answer.follows is None:
            return answer
        return structs.replace(answer, reign=pointer.reign, follows=pointer)

    def _admit(self, connection: Connection) -> None:
        """On the doorman's thread: hand a greeted connection over."""
        if connection.welcome.follows is not None:
            self._voucher.admit(connection)
        else:
            self.call(self._take_over, connection)

    def _take_over(self, connection: Connection) -> None:
        if self._core is None or self._cut.active or connection.hello.role == "ask":
            connection.close()
            return
        if connection.hello.role in ("relay", "answer"):
            self._connect_members(connection)
            return
        number = next(self._numbers)
        self._links[number] = connection.attach(
            self.loop,
            lambda _, message: self._on_message(number, message),
            lambda _, reason: self._on_closed(number, reason),
        )
        self.take(LinkOpened(number, connection.hello, local=False))

    def _let_wait(self, connection: Connection) -> None:
        """At most so many: each costs some memory, and who is not kept greets when it seeks."""
        unfit = self._shutting or self._broken or self._cut.active
        if unfit or len(self._awaiting) >= AWAITING_MAX:
            connection.close()
            return
        number = next(self._numbers)
        self._awaiting[number] = connection.attach(
            self.loop,
            lambda _, message: self._on_awaiting(number, message),
            lambda _, reason: self._on_closed(number, reason),
        )
        if self._core is not None and self._welcome.reign.term:
            self._awaiting[number].send(Serves(self._welcome, self._door(self._port)))

    def _summon(self) -> None:
        serves = Serves(self._welcome, self._door(self._port))
        for link in self._awaiting.values():
            link.send(serves)

    def _on_awaiting(self, number: int, message: Message) -> None:
        """Whoever says something wants to be a member, as one that the doorman admitted."""
        link = self._awaiting.pop(number, None)
        if link is not None:
            if self._core is None:
                link.close()
                return
            self._links[number] = link
            self.take(LinkOpened(number, link.hello, local=False))
        self._on_message(number, message)

    def _send_awaiting_away(self) -> None:
        for link in self._awaiting.values():
            link.close()
        self._awaiting.clear()

    def _connect_members(self, connection: Connection) -> None:
        """One of them waits for the other, whom its client has call back here with a token."""
        assert self._core is not None
        hello, roster = connection.hello, self._core.state.roster
        if hello.role == "answer":
            self._relay.answer(connection)
            return
        wanted = roster.named(hello.wanted)
        if roster.named(connection.remote) is None:
            self._relay.refuse(connection, "only members are connected with each other")
        elif wanted is None or wanted.link not in self._links:
            self._relay.refuse(connection, "the peer that you want is no member of this grid now")
        else:
            token = secrets.token_hex(16)
            self._relay.wait(connection, hello.wanted, token)
            self._links[wanted.link].send(CallBack(token))

    def _admit_local(self, number: int, link: LocalLink) -> None:
        if self._core is None:
            link.close()
            return
        self._links[number] = link
        hello = Hello(
            protocol=PROTOCOL,
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
        self._awaiting.pop(number, None)
        if self._links.pop(number, None) is not None:
            self._dismiss(number)
            self.take(LinkLost(number, reason))

    def _dismiss(self, number: int) -> None:
        """A link is gone: nobody need wait for the member at its end."""
        member = None if self._core is None else self._core.state.roster.at(number)
        if member is not None:
            self._relay.dismiss("the peer that you want has just gone", member.ref.peer)
