"""How the client thread reaches others: probing and asking while it seeks, joining, keeping ready.

Every way goes out as a coroutine on the client thread's loop and comes back as an event of the
core, or as a link: then the client thread is told whom it has ``joined`` and how to hear it. A peer
that is cut off (``peers.chaos``) reaches nobody. Decides nothing: whom to dial, how often and what
an answer means is the core's.

Connections that may save a handshake are kept: those of one round of seeking (``peers.knocks``),
and one to the peer that would serve next (``peers.ready_link``).
"""

import logging
import sys
from collections.abc import Callable
from typing import Protocol

from msgspec import structs

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.errors import ProtocolError
from grid.messages import PROTOCOL, Address, Claim, Hello, Message, PeerRef, Serves, Welcome
from peers.bulk_server import BulkServer
from peers.chaos import Cut
from peers.core_thread import CoreThread
from peers.knocks import Knocks
from peers.link import Connection, Link
from peers.ready_link import ReadyLink
from peers.security import Security
from peers.transport import DialFailed, connect, dial, explain, part
from peers.whereabouts import Whereabouts

SUMMONS_SECONDS = 0.15
"""From binding the port to serving there, for a successor on a busy host."""

log = logging.getLogger(__name__)

Attach = Callable[[Callable[[Message], None], Callable[[str], None]], Link]
"""Given who hears its messages and why it ended, returns the link."""


class Joined(Protocol):
    """Told of a server that was dialled, and through whom, if through another peer."""

    def __call__(
        self, address: Address, welcome: Welcome, through: PeerRef | None, attach: Attach
    ) -> None: ...


class Dialler:
    """Dials for the client thread ``thread``, on its loop; every method is called there."""

    def __init__(
        self,
        thread: CoreThread,
        core: ClientCore,
        security: Security,
        whereabouts: Whereabouts,
        bulk_server: BulkServer,
        cut: Cut,
        joined: Joined,
    ) -> None:
        self._thread = thread
        self._core = core
        self._me = core.me
        self._settings = core.settings
        self._security = security
        self._whereabouts = whereabouts
        self._bulk_server = bulk_server
        self._cut = cut
        self._joined = joined
        self._knocks = Knocks()
        self._ready_for = ""
        self._ready_link: ReadyLink | None = None

    def filenos(self) -> list[int]:
        kept = self._ready_link
        return [*self._knocks.filenos(), *([] if kept is None else kept.filenos())]

    def close(self) -> None:
        """Close what is kept."""
        self._knocks.clear()
        self._release_ready()

    def cut_off(self) -> None:
        """What is kept is lost."""
        self._knocks.clear()
        if self._ready_link is not None:
            self._ready_link.close()
            self._lost_ready(self._ready_link)

    # -- seeking -----------------------------------------------------------------------

    async def probe(self, address: Address, claim: Claim | None) -> None:
        """A server looks for rivals (``claim``); whoever seeks greets as one who would join."""
        hello = self._hello("probe" if claim is not None else self._as_member(), address)
        try:
            ready = await self._summons(address) if claim is None else None
            if ready is not None:
                self._thread.take(ev.ProbeAnswered(address, ready))
                return
            connection = await self._dial(structs.replace(hello, claim=claim))
        except DialFailed as failed:
            self._thread.take(ev.ProbeFailed(address, failed.kind, failed.reason))
            return
        if claim is None:
            self._knocks.keep(address, connection)
        else:
            connection.close()
        self._thread.take(ev.ProbeAnswered(address, connection.welcome))
        if self._core.election.joined:
            self._knocks.clear()  # it came too late

    async def ask(self, peer: PeerRef) -> None:
        """Ask another peer whom it follows."""
        try:
            connection = await self._dial(self._hello("ask", peer.data), wanted=peer.peer)
        except DialFailed as failed:
            self._thread.take(ev.AskFailed(peer.peer, failed.reason))
            return
        connection.close()
        self._thread.take(ev.AskAnswered(peer.peer, connection.welcome))

    def forget_seeking(self) -> None:
        """The port is this peer's to grab: nobody who answered is joined."""
        self._knocks.clear()

    # -- joining -----------------------------------------------------------------------

    async def reconnect(self, effect: fx.Reconnect) -> None:
        """As often and as long as the core says; who refuses is not asked again."""
        if effect.through is None and self._join_ready(effect.address):
            return
        knocked = self._knocks.take(effect.address) if effect.through is None else None
        self._knocks.clear()
        try:
            connection = knocked or await self._dial_often(effect)
        except DialFailed as failed:
            gone = ev.ReconnectFailed(effect.address, failed.kind, failed.reason)
            self._thread.take(gone)
            return

        def attach(on_message: Callable[[Message], None], on_closed: Callable[[str], None]) -> Link:
            return connection.attach(
                self._thread.loop,
                lambda _, message: on_message(message),
                lambda _, reason: on_closed(reason),
            )

        self._knocks.clear()
        self._joined(effect.address, connection.welcome, effect.through, attach)

    async def _dial_often(self, effect: fx.Reconnect) -> Connection:
        import tenacity  # takes 5 ms, and most who join have knocked before

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(effect.attempts)
            | tenacity.stop_after_delay(effect.seconds),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=0.5),
            retry=tenacity.retry_if_exception(_worth_trying_again),
            reraise=True,
        )
        hello = self._hello(self._as_member(), effect.address)
        connection: Connection = await retrying(
            self._dial, hello, wanted=effect.wanted, through=effect.through
        )
        return connection

    # -- being ready -------------------------------------------------------------------

    def keep_ready(self, peer: PeerRef | None) -> None:
        """Keep a greeted connection to this successor, or to nobody."""
        self._release_ready()
        if peer is not None:
            self._ready_for = peer.peer
            self._thread.do_later(self._make_ready(peer))

    async def _make_ready(self, peer: PeerRef) -> None:
        """Greet a successor, to be its member the moment it serves."""
        try:
            connection = await self._dial(self._hello("await", peer.data), wanted=peer.peer)
        except DialFailed as failed:
            log.debug("nothing ready to join %s: %s peer=%s", peer.name, failed, self._me.name)
            self._thread.take(ev.ReadinessLost(peer.peer))
            return
        if self._ready_for != peer.peer or self._ready_link is not None:
            connection.close()  # another is wanted by now
            return
        self._ready_link = ReadyLink(
            connection, self._thread.loop, self._summoned, self._lost_ready
        )

    async def _summons(self, address: Address) -> Welcome | None:
        """If the peer that will probably serve is about to, there: its summons, which comes sooner
        than a greeting is over, and costs it none. Raises ``DialFailed`` if nobody listens."""
        kept = self._ready_link
        if kept is None:
            return None
        if kept.welcome(address) is None and address in self._doors_of(kept.remote):
            self._check_cut()
            try:
                raw = await connect(address, self._settings.probe_seconds)
            except OSError as error:
                raise DialFailed(*explain(error)) from error
            raw.close()
            await kept.settled(SUMMONS_SECONDS)
        return kept.welcome(address)

    def _doors_of(self, peer: str) -> tuple[Address, ...]:
        """Where a successor would be found if it served."""
        successors = self._core.election.successors
        return next((s.doors for s in successors if s.ref.peer == peer), ())

    def _summoned(self, serves: Serves) -> None:
        self._thread.take(ev.Summoned(serves.address, serves.welcome))

    def _lost_ready(self, lost: ReadyLink) -> None:
        if lost is self._ready_link:
            self._ready_link = None
            self._thread.take(ev.ReadinessLost(lost.remote))

    def _release_ready(self) -> None:
        self._ready_for = ""
        if self._ready_link is not None:
            self._ready_link.close()
            self._ready_link = None

    def _join_ready(self, address: Address) -> bool:
        """Join over the connection that was kept ready, if the peer at its end serves there."""
        kept = self._ready_link
        welcome = None if kept is None else kept.welcome(address)
        if kept is None or welcome is None:
            return False
        self._ready_link = None
        self._ready_for = ""
        self._knocks.clear()
        self._joined(address, welcome, None, kept.take)
        return True

    # -- serving who waits -------------------------------------------------------------

    async def call_server(self, token: str) -> None:
        """Who waits at the server is served like one who dialled the data port."""
        following = self._whereabouts.following
        if following is None:
            return
        hello = structs.replace(self._hello("answer", following.near), token=token)
        try:
            connection = await self._dial(
                hello, wanted=following.claim.peer, through=following.through
            )
            try:
                raw = await part(connection)
            except BaseException:
                connection.close()
                raise
        except (DialFailed, ProtocolError, OSError) as error:
            log.info("cannot serve one who waits at the server: %s peer=%s", error, self._me.name)
        else:
            self._bulk_server.take(raw)

    # -- dialling ----------------------------------------------------------------------

    def _hello(self, role: str, address: Address) -> Hello:
        return Hello(
            protocol=PROTOCOL,
            grid=self._settings.grid,
            peer=self._me.peer,
            name=self._me.name,
            python=sys.version_info[:2],
            role=role,  # type: ignore[arg-type]
            intended=address,
            seen=self._core.election.seen,
        )

    def _as_member(self) -> str:
        return "peer" if self._settings.serves else "visitor"

    async def _dial(
        self, hello: Hello, *, wanted: str = "", through: PeerRef | None = None
    ) -> Connection:
        self._check_cut()
        connection = await dial(
            hello.intended,
            self._security,
            hello,
            self._settings.probe_seconds,
            host_silence_seconds=self._settings.host_silence_seconds,
            wanted=wanted,
            through=through,
        )
        try:
            self._check_cut()
        except DialFailed:
            connection.close()
            raise
        return connection

    def _check_cut(self) -> None:
        if self._cut.active:
            raise DialFailed("unreachable", "this peer is cut off")


def _worth_trying_again(error: BaseException) -> bool:
    return isinstance(error, DialFailed) and error.kind in ("silent", "unreachable")
