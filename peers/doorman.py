"""The door of a port: binds it, and turns whoever knocks into a greeted connection, or away.

A ``Doorman`` has a thread and a loop of its own, apart from the loop that serves members, so that
strangers can cost members nothing but a little processor time. Whoever knocks gets a TLS handshake
and must say hello; a callback answers with a welcome or a refusal; those who are welcome are handed
over, the others are told why and hung up on.

Promises: those not yet greeted have a budget: ``pending_max`` at once, ``handshake_seconds`` each,
and one small frame. So hundreds of idle connections delay a member by milliseconds, and of
thousands the one waiting longest makes room for the next. But not before ``yield_seconds``: until
then the next waits in the kernel, for a crowd that comes at once, all of them honest, would
otherwise push each other out, knock again, and none would ever get in. When ``stop`` returns the
port is free, even if a forked child still has a copy of the socket. Running out of descriptors
slows the answering down, and does not make it spin. ``bind`` takes all addresses of one port or
none, and never shares a port with another listener.

Does not know reigns, rosters or roles: ``greet`` does.
"""

import asyncio
import errno
import logging
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence

from grid.errors import ProtocolError
from grid.framing import FRAME_BYTES_MAX, GREETING_BYTES_MAX, Decoder
from grid.messages import PROTOCOL, Address, Hello, Refusal, Welcome
from peers.forking import loop_filenos
from peers.link import Connection, encrypt, hang_up, open_filenos, tune
from peers.security import Security
from peers.transport import (
    Patience,
    far_end,
    near_end,
    read_message,
    ready,
    retry,
    verified_id,
    write_message,
)

_BACKLOG = 1024  # knocks the kernel keeps while the doorman is busy; the system may allow fewer
_KNOCKS_PER_TICK = 16
_REST_SECONDS = 0.2  # after running out of descriptors
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BIND_ATTEMPTS = 8  # for an OS-chosen port that must be free on several addresses

log = logging.getLogger(__name__)

Greet = Callable[[Hello], Welcome | Refusal]
Admit = Callable[[Connection], None]


class PortTaken(OSError):
    """Someone listens on one of the addresses."""


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Bind *and listen* on ``port`` of all ``hosts`` (numbers or names), all or none.

    Port 0 lets the system choose one port for all. Raises ``PortTaken``, or another ``OSError``
    for addresses that are not this host's or ports that need privileges.
    """
    for attempt in range(_BIND_ATTEMPTS):
        try:
            return _bind_all(hosts, port)
        except PortTaken:
            if port != 0 or attempt == _BIND_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


class Doorman:
    """Greets whoever connects to ``listeners``. ``start`` it once, ``stop`` it once.

    ``listeners`` are listening sockets (``bind``) and belong to the doorman from now on.
    ``greet(hello)`` answers and ``admit(connection)`` takes over; both run on the doorman's thread,
    must not block, and usually do no more than ``call_soon_threadsafe``. Before ``greet`` is
    asked, protocol, grid, Python version and the claimed id have been checked.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        security: Security,
        grid: str,
        greet: Greet,
        admit: Admit,
        *,
        name: str = "doorman",
        pending_max: int = 512,
        handshake_seconds: float = 3.0,
        yield_seconds: float = 0.5,
        host_silence_seconds: float = 2.0,
    ) -> None:
        self.addresses = [near_end(listener) for listener in listeners]
        self._listeners = list(listeners)
        self._security = security
        self._grid = grid
        self._greet = greet
        self._admit = admit
        self._name = name
        self._pending_max = pending_max
        self._handshake_seconds = handshake_seconds
        self._yield_seconds = yield_seconds
        self._host_silence_seconds = host_silence_seconds
        self._pending: dict[asyncio.Task[bool], tuple[ssl.SSLSocket, float]] = {}
        """Who is being greeted, in the order of coming, and since when."""
        self._full = False
        self._listens_again: asyncio.TimerHandle | None = None
        self._brought: deque[socket.socket] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the doorman's thread, from ``start`` to ``stop``."""
        assert self._loop is not None, "the doorman was not started"
        return self._loop

    def start(self) -> None:
        """Begin to answer the door."""
        assert self._thread is None, "a doorman is started once"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Free the port and hang up on everyone not yet admitted. May be repeated.

        Waits for the doorman's thread, unless called on it.
        """
        if self._loop is None or self._thread is None:
            self._close_listeners()
            return
        try:
            self._loop.call_soon_threadsafe(self._loop.stop)
        except RuntimeError:
            pass  # the loop is closed: stopped before
        if self._thread is not threading.current_thread():
            self._thread.join()

    def bring(self, raw: socket.socket) -> None:
        """Answer one who came another way, as if it had knocked. ``raw`` belongs to the doorman
        from now on. For any thread."""
        self._brought.append(raw)
        try:
            self.loop.call_soon_threadsafe(self._let_brought_wait)
        except RuntimeError:  # the loop is closed: stopped before
            self._turn_brought_away()

    def rest(self, seconds: float) -> None:
        """Answer nobody for so long; who knocks meanwhile is left to the kernel. For any thread."""
        try:
            self.loop.call_soon_threadsafe(self._answer_nobody, seconds)
        except RuntimeError:
            pass  # the loop is closed: stopped before

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close. Takes no lock."""
        own = loop_filenos(self._loop) if self._loop is not None else []
        pending = [tls for tls, _ in list(self._pending.values())]
        return own + open_filenos(*self._listeners, *pending, *list(self._brought))

    # -------------------------------------------------------------------- on its thread

    def _run(self) -> None:
        loop = self.loop
        self._listen()
        try:
            loop.run_forever()
        finally:
            self._full = False
            self._listen_not()
            self._close_listeners()
            left = list(self._pending)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.close()
            self._turn_brought_away()

    def _let_brought_wait(self) -> None:
        while self._brought:
            self._let_wait(self._brought.popleft())

    def _turn_brought_away(self) -> None:
        while self._brought:
            hang_up(self._brought.popleft())

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            hang_up(listener)

    def _listen(self) -> None:
        for listener in self._listeners:
            self.loop.add_reader(listener, self._on_knock, listener)

    def _listen_later(self, seconds: float) -> None:
        self._listen_not()
        self._listens_again = self.loop.call_later(seconds, self._listen)

    def _listen_not(self) -> None:
        """Leave knocks to the kernel."""
        for listener in self._listeners:
            self.loop.remove_reader(listener)
        if self._listens_again is not None:
            self._listens_again.cancel()

    def _on_knock(self, listener: socket.socket) -> None:
        for _ in range(_KNOCKS_PER_TICK):
            if not self._made_room():
                return
            try:
                raw, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            self._let_wait(raw)

    def _made_room(self) -> bool:
        """Whether one more may come in; else listen again when one has left, or waited enough."""
        if len(self._pending) < self._pending_max:
            return True
        _, since = next(iter(self._pending.values()))
        left = since + self._yield_seconds - self.loop.time()
        if left > 0:
            self._full = True
            self._listen_later(left)
        return left <= 0

    def _rest(self, error: OSError) -> None:
        """Leave knocks to the kernel for a moment, and make room if descriptors ran out."""
        log.warning("cannot accept connections for a moment: %s", error)
        if error.errno in _EXHAUSTED and self._pending:
            self._drop_oldest()
        self._listen_later(_REST_SECONDS)

    def _answer_nobody(self, seconds: float) -> None:
        self._full = False
        self._listen_later(seconds)
        while self._pending:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        task = next(iter(self._pending))
        del self._pending[task]
        task.cancel()  # one that is done already has found its way in or out

    def _let_wait(self, raw: socket.socket) -> None:
        try:
            raw.setblocking(False)
            tune(raw, self._host_silence_seconds)
            tls = encrypt(raw, self._security.server_context, server_side=True)
        except (OSError, ValueError) as error:
            raw.close()
            log.debug("a connection ended before its handshake: %s", error)
            return
        if len(self._pending) >= self._pending_max:
            self._drop_oldest()
        task = self.loop.create_task(self._receive(tls))
        self._pending[task] = (tls, self.loop.time())
        task.add_done_callback(lambda done: self._after(done, tls))

    def _after(self, task: asyncio.Task[bool], tls: ssl.SSLSocket) -> None:
        self._pending.pop(task, None)
        if task.cancelled() or not task.result():
            hang_up(tls)
        if self._full:
            self._full = False
            self._listen_later(0)

    async def _receive(self, tls: ssl.SSLSocket) -> bool:
        """Greet one that knocked. True if it was handed over."""
        try:
            async with Patience(self._handshake_seconds):
                connection = await self._introduce(tls)
            if connection is None:
                return False
            self._admit(connection)
        except (OSError, ProtocolError) as error:
            log.debug("turned away: %s", error)
            return False
        except Exception:
            log.exception("the door could not be answered")
            return False
        return True

    async def _introduce(self, tls: ssl.SSLSocket) -> Connection | None:
        try:
            await retry(tls, tls.do_handshake)
        except ssl.SSLError:
            await _last_word(tls)  # the alert that tells a peer with another key
            raise
        decoder = Decoder(GREETING_BYTES_MAX)
        remote = verified_id(tls)
        hello, answer = await self._answer(tls, decoder, remote)
        await write_message(tls, answer)
        if hello is None or isinstance(answer, Refusal):
            await _last_word(tls)
            return None
        decoder.frame_bytes_max = FRAME_BYTES_MAX
        return Connection(tls, remote, hello, answer, decoder, near_end(tls), far_end(tls))

    async def _answer(
        self, tls: ssl.SSLSocket, decoder: Decoder, remote: str
    ) -> tuple[Hello | None, Welcome | Refusal]:
        try:
            hello = await read_message(tls, decoder)
        except ProtocolError as error:
            return None, Refusal(f"no hello: {error}")
        if not isinstance(hello, Hello):
            return None, Refusal(f"no hello: the first frame is {type(hello).__name__}")
        reason = why_not(hello, self._grid, remote)
        if reason:
            log.info("refused: %s name=%s peer=%s", reason, hello.name, remote)
            return hello, Refusal(reason)
        return hello, self._greet(hello)


def why_not(hello: Hello, grid: str, remote: str) -> str:
    """Return why this process cannot talk to the one that said ``hello``, or an empty string.

    ``remote`` is the id that its certificate proves.
    """
    python = sys.version_info[:2]
    if hello.protocol != PROTOCOL:
        return (
            f"this grid speaks protocol {PROTOCOL}, you speak {hello.protocol}: "
            "install the same version of peergrid everywhere"
        )
    if hello.grid != grid:
        return f"this is the grid {grid!r}, you asked for {hello.grid!r}"
    if hello.python != python:
        return (
            f"this grid runs Python {python[0]}.{python[1]}, you run "
            f"{hello.python[0]}.{hello.python[1]}: functions do not travel between them; use "
            "one minor version everywhere"
        )
    if hello.peer != remote:
        return "the peer id in your hello is not that of your certificate"
    return ""


async def _last_word(tls: ssl.SSLSocket) -> None:
    """Wait until the far end has read what we wrote and hung up.

    Closing with its bytes unread would reset the connection and might lose our answer.
    """
    socket.socket.shutdown(tls, socket.SHUT_WR)
    while True:
        await ready(tls)
        try:
            if not socket.socket.recv(tls, 65536):  # plainly: these bytes interest nobody
                return
        except BlockingIOError:
            continue


def _bind_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            chosen = port or (near_end(bound[0]).port if bound else 0)
            for family, _, _, _, where in socket.getaddrinfo(
                host, chosen, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                bound.append(socket.socket(family, socket.SOCK_STREAM))
                _listen(bound[-1], Address(*where[:2]), where)
    except BaseException:
        for sock in bound:
            hang_up(sock)
        raise
    return bound


def _listen(sock: socket.socket, address: Address, where: tuple[object, ...]) -> None:
    # REUSEADDR passes over connections that linger after their listener died; two sockets that
    # listen it still keeps apart, which is why binding counts only together with listening.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setblocking(False)
    try:
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        kind = PortTaken if error.errno == errno.EADDRINUSE else OSError
        raise kind(error.errno, f"cannot listen on {address}: {error.strerror}") from error
