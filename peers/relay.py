"""Connections passed on: for peers that cannot reach each other, or the server, directly.

Two ways, and one thing they end in. *At the server*: one peer cannot dial another's data port, so
it dials the well-known port as ``relay`` and waits; the server tells the wanted peer to call back
(``CallBack``), which dials the well-known port as ``answer``, with the token it was given. *At any
follower*: a peer that cannot dial the server dials the data port of one that can, as ``relay``;
that one dials the server plainly. Then the far ends are told ``Paired``, the TLS of each ends, and
what is left are two plain connections whose bytes are passed on. The far ends verify and encrypt
between themselves, over a connection that is now as good as a direct one.

Promises: what passes is not readable here. A token is good once, for one peer, for
``WAIT_SECONDS``. Waiting connections and routes are bounded in number; the route that was idle
longest makes room. One slow end holds up the other, and nobody else: all of this has a thread and
a loop of its own, begun at first use, so that no gigabyte on its way delays a heartbeat. ``close``
leaves no thread and no descriptor.

Does not know who is a member or where the server is: who hands connections over here has checked.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from grid.errors import ProtocolError
from grid.messages import Paired, Refusal
from peers.forking import loop_filenos
from peers.link import Connection, hang_up, open_filenos, tune
from peers.transport import DialFailed, Patience, end_tls, explain, write_message

WAIT_SECONDS = 5.0
"""How long a peer may take to call back: a few heartbeats, less than any fetch waits."""

WAITING_MAX = 64

ROUTES_MAX = 128
"""Each costs two descriptors and two buffers."""

IDLE_SECONDS = 90.0
"""Longer than data connections are kept for their next use, so that it is their ends who close."""

ROOM_IDLE_SECONDS = 2.0
"""A route as idle as this may be closed to make room: its ends ask again when they need it."""

SILENCE_SECONDS = 8.0
"""By when an end is given up whose kernel does not answer, or whose process takes nothing of what
is sent to it. A slow reader of bulk data is not a dead one, and has this long for each piece."""

_GREETING_SECONDS = 5.0  # for telling both ends, ending their TLS, and for dialling the server
_BUFFER_BYTES = 128 * 2**10
_FULL = f"{ROUTES_MAX} connections are passed on here already"

log = logging.getLogger(__name__)

Dial = Callable[[], Coroutine[None, None, socket.socket]]
"""Makes a plain connection."""


@dataclass(eq=False)
class _Waiting:
    """One who waits for the peer ``wanted``, or for a reason why it does not come."""

    connection: Connection
    wanted: str
    arrived: asyncio.Future[Connection | str]

    def settle(self, outcome: Connection | str) -> bool:
        """Tell what came of it, once; False if something came of it before."""
        if self.arrived.done():
            return False
        self.arrived.set_result(outcome)
        return True


@dataclass(eq=False)
class _Route:
    """Two plain connections whose bytes are passed on, and when they last were."""

    touched: float


class Relay:
    """What one process passes on. All methods may be called from any thread.

    Connections that are handed over belong to the relay from then on.
    """

    def __init__(self) -> None:
        self.bytes_passed = 0
        self._open: dict[socket.socket, None] = {}  # all that belong to this relay
        self._waiting: dict[str, _Waiting] = {}
        self._routes: dict[asyncio.Task[None], _Route] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()

    # -------------------------------------------------------------------- from any thread

    def wait(self, connection: Connection, wanted: str, token: str) -> None:
        """Let it wait until the peer ``wanted`` answers with ``token``."""
        self._take(connection, lambda: self._expect(connection, wanted, token))

    def answer(self, connection: Connection) -> None:
        """One came who says that it was called back: pair it, or turn it away."""
        self._take(connection, lambda: self._answer(connection))

    def forward(self, connection: Connection, dial: Dial) -> None:
        """Connect it with the far end of what ``dial()`` gives."""
        self._take(connection, lambda: self._do(self._forward(connection, dial)))

    def refuse(self, connection: Connection, reason: str) -> None:
        """Tell it why not, and hang up."""
        self._take(connection, lambda: self._do(self._refuse(connection, reason)))

    def dismiss(self, reason: str, peer: str = "") -> None:
        """Nobody waits any longer for this peer, nor this peer for others; by default nobody at
        all. What passes already goes on."""
        loop = self._loop
        if loop is not None:
            self._soon(loop, lambda: self._dismiss(reason, peer))

    def close(self) -> None:
        """End every connection and the thread. May be repeated."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            self._soon(loop, loop.stop)
            if thread is not threading.current_thread():
                thread.join()
        for sock in list(self._open):
            self._hang_up(sock)

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close. Takes no lock."""
        own = loop_filenos(self._loop) if self._loop is not None else []
        return own + open_filenos(*list(self._open))

    @property
    def routes(self) -> int:
        """How many routes there are now."""
        return len(self._routes)

    @property
    def waiting(self) -> int:
        """How many wait for their other end now."""
        return len(self._waiting)

    def _take(self, connection: Connection, then: Callable[[], None]) -> None:
        self._open[connection.sock] = None
        with self._lock:
            if self._loop is None and not self._closed:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, name="grid-relay", daemon=True)
                self._thread.start()
            loop = self._loop
        if loop is None or not self._soon(loop, then):
            self._hang_up(connection.sock)

    @staticmethod
    def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> bool:
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            return False
        return True

    # -------------------------------------------------------------------- on its thread

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            loop.run_forever()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            loop.close()

    def _do(self, work: Coroutine[None, None, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a connection could not be passed on", exc_info=task.exception())

    def _hang_up(self, sock: socket.socket) -> None:
        self._open.pop(sock, None)
        hang_up(sock)

    def _dismiss(self, reason: str, peer: str) -> None:
        for waiting in list(self._waiting.values()):
            if not peer or peer in (waiting.wanted, waiting.connection.remote):
                waiting.settle(reason)

    def _answer(self, connection: Connection) -> None:
        waiting = self._waiting.get(connection.hello.token)
        expected = waiting is not None and waiting.wanted == connection.remote
        if waiting is None or not expected or not waiting.settle(connection):
            self._do(self._refuse(connection, "nobody waits here for you, or not any more"))

    def _expect(self, connection: Connection, wanted: str, token: str) -> None:
        """At once, not in a task: whom it waits for may be the next that this thread hears of."""
        if len(self._waiting) >= WAITING_MAX:
            reason = f"{WAITING_MAX} others wait here to be connected"
            self._do(self._refuse(connection, reason))
            return
        assert self._loop is not None
        waiting = _Waiting(connection, wanted, self._loop.create_future())
        self._waiting[token] = waiting
        self._do(self._wait(waiting, token))

    async def _wait(self, waiting: _Waiting, token: str) -> None:
        connection = waiting.connection
        loop = asyncio.get_running_loop()
        # It has nothing to say while it waits, so if there is something, it has hung up.
        loop.add_reader(connection.sock, waiting.settle, "it did not wait")
        try:
            other = await asyncio.wait_for(asyncio.shield(waiting.arrived), WAIT_SECONDS)
        except TimeoutError:
            waiting.settle(f"it did not call back within {WAIT_SECONDS:g} s")
            other = waiting.arrived.result()
        finally:
            loop.remove_reader(connection.sock)
            del self._waiting[token]
        if isinstance(other, str):
            await self._refuse(connection, other)
        else:
            await self._pair(connection, other)

    async def _refuse(self, connection: Connection, reason: str) -> None:
        log.debug("does not relay: %s peer=%s", reason, connection.remote)
        try:
            async with Patience(_GREETING_SECONDS):
                await write_message(connection.sock, Refusal(reason))
        except OSError:
            pass  # it did not wait for the reason
        finally:
            self._hang_up(connection.sock)

    async def _pair(self, one: Connection, other: Connection) -> None:
        if not self._has_room():
            await asyncio.gather(self._refuse(one, _FULL), self._refuse(other, _FULL))
            return
        ends = await asyncio.gather(
            self._lay_open(one), self._lay_open(other), return_exceptions=True
        )
        near, far = ends
        if isinstance(near, socket.socket) and isinstance(far, socket.socket):
            await self._pass_on(near, far)
            return
        log.debug("an end of a relay was lost: %s", ends)
        for sock in (one.sock, other.sock, *ends):
            if isinstance(sock, socket.socket):
                self._hang_up(sock)

    async def _forward(self, connection: Connection, dial: Dial) -> None:
        if not self._has_room():
            await self._refuse(connection, _FULL)
            return
        try:
            async with Patience(WAIT_SECONDS):
                far = await dial()
        except OSError as error:
            await self._refuse(connection, f"the server cannot be dialled: {explain(error)[1]}")
            return
        except (DialFailed, ProtocolError) as error:
            await self._refuse(connection, f"the server cannot be dialled: {error}")
            return
        self._open[far] = None
        try:
            near = await self._lay_open(connection)
        except OSError as error:
            log.debug("an end of a relay was lost: %s", error)
            self._hang_up(connection.sock)
            self._hang_up(far)
            return
        await self._pass_on(near, far)

    async def _lay_open(self, connection: Connection) -> socket.socket:
        """Tell it that it is paired and end its TLS; return the plain socket, still of ours."""
        async with Patience(_GREETING_SECONDS):
            await write_message(connection.sock, Paired())
            raw = await end_tls(connection.sock)
        self._open.pop(connection.sock, None)
        self._open[raw] = None
        return raw

    # -------------------------------------------------------------------- routes

    def _has_room(self) -> bool:
        """Whether there may be one more route, after closing an idle one if need be."""
        if len(self._routes) < ROUTES_MAX:
            return True
        assert self._loop is not None
        task, route = min(self._routes.items(), key=lambda pair: pair[1].touched)
        if self._loop.time() - route.touched < ROOM_IDLE_SECONDS:
            return False
        del self._routes[task]
        task.cancel()
        return True

    async def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """Pass bytes on in both directions until both have ended, or one is lost."""
        task = asyncio.current_task()
        assert task is not None
        route = _Route(asyncio.get_running_loop().time())
        self._routes[task] = route
        try:
            for sock in (near, far):
                tune(sock, SILENCE_SECONDS)
            async with asyncio.timeout(IDLE_SECONDS) as limit, asyncio.TaskGroup() as both:
                both.create_task(self._pump(near, far, route, limit))
                both.create_task(self._pump(far, near, route, limit))
        except* OSError as lost:  # TimeoutError is one, too
            log.debug("a relay ended: %s", lost.exceptions)
        finally:
            self._routes.pop(task, None)
            self._hang_up(near)
            self._hang_up(far)

    async def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        route: _Route,
        limit: asyncio.Timeout,
    ) -> None:
        """One direction; its end is passed on as well, while the other direction may go on."""
        loop = asyncio.get_running_loop()
        with memoryview(bytearray(_BUFFER_BYTES)) as buffer:
            while count := await loop.sock_recv_into(source, buffer):
                await loop.sock_sendall(sink, buffer[:count])
                self.bytes_passed += count
                route.touched = loop.time()
                limit.reschedule(route.touched + IDLE_SECONDS)
        sink.shutdown(socket.SHUT_WR)
