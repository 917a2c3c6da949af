"""A greeted connection, and the link it becomes once an event loop owns it.

``Connection`` is an established TLS socket whose far end has proved who it is and said hello. It
belongs to no loop and no thread, so it can be made on one (``dial``, ``Doorman``) and used on
another, or used as a blocking socket (``peers/bulk.py``). ``attach`` makes it a ``Link``: messages
in by callback, messages out by ``send``, which costs one encryption and one system call per loop
tick however many messages were sent in it.

Promises: messages arrive in the order they were sent, and those that arrived before an end of any
kind are delivered before it is told; ``on_closed`` is called at most once, never from inside
``send`` and never after one's own ``close``. A remote that breaks the protocol, or does not read,
loses this link and nothing else: at most ``UNSENT_BYTES_MAX`` wait for it. A dead process is
noticed by its closed socket at once, a dead host by the kernel (``tune``).

Everything here except ``Connection.close`` runs on the loop's thread. Does not reconnect and does
not judge silence: those are decisions.
"""

import asyncio
import logging
import socket
import ssl
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from grid.errors import ProtocolError
from grid.framing import Decoder, encode
from grid.messages import PATIENCE_SECONDS, PATIENT, Address, Hello, Message, Welcome

UNSENT_BYTES_MAX = 64 * 2**20
"""What may wait for a remote that does not read: minutes of messages, seconds of data."""

_CLOSED = "closed by the remote"
_WRITE_BYTES = 64 * 2**10  # frames are encrypted together, up to this much at once
_READ_BYTES = 16 * 2**10  # the most that one TLS record holds
_READS_PER_TICK = 16  # then other links have their turn
_MESSAGES_PER_TICK = 256  # so that a burst never keeps the loop from its timers

log = logging.getLogger(__name__)

OnMessage = Callable[["Link", Message], None]
OnClosed = Callable[["Link", str], None]


@dataclass(eq=False)
class Connection:
    """An established and greeted TLS connection that no loop reads yet.

    ``remote`` is the peer id at the far end, verified; ``hello`` and ``welcome`` are what the
    dialler and the doorman said; ``local`` and ``far`` the addresses of this socket's two ends;
    ``decoder`` may hold bytes that came with the greeting.
    """

    sock: ssl.SSLSocket
    remote: str
    hello: Hello
    welcome: Welcome
    decoder: Decoder
    local: Address
    far: Address

    def attach(
        self, loop: asyncio.AbstractEventLoop, on_message: OnMessage, on_closed: OnClosed
    ) -> "Link":
        """Let ``loop`` own this connection from now on. Call it on the loop's thread.

        ``on_message(link, message)`` may raise ``ProtocolError`` to end the link with that reason.
        ``on_closed(link, reason)`` tells the one end that was not our own ``close``. Neither is
        called before this returns.
        """
        return Link(self, loop, on_message, on_closed)

    def close(self) -> None:
        """Close the socket; the far end notices at once. Safe to repeat, and from any thread."""
        hang_up(self.sock)

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close."""
        return open_filenos(self.sock)


class Link:
    """One connection on one loop. Made by ``Connection.attach``."""

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        on_message: OnMessage,
        on_closed: OnClosed,
    ) -> None:
        self.connection = connection
        self.remote = connection.remote
        self.hello = connection.hello
        self.welcome = connection.welcome
        self.closed = False
        self._sock = connection.sock
        self._decoder = connection.decoder
        self._loop = loop
        self._on_message = on_message
        self._on_closed = on_closed
        self._end_reason = ""  # why no more will come, known before the last message is delivered
        self._backlog = False  # messages wait in the decoder: deliver them before reading more
        self._unsent = bytearray()
        self._writing = b""  # TLS wants exactly these bytes again after "would block"
        self._flush_due = False
        self._patience: asyncio.TimerHandle | None = None
        self._awaits_room = False
        self._sock.setblocking(False)
        loop.add_reader(self._sock.fileno(), self._on_readable)
        loop.call_soon(self._deliver)  # what came with the greeting

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Link remote={self.remote[:8]} far={self.connection.far} {state}>"

    @property
    def unsent_bytes(self) -> int:
        """Bytes of frames that the kernel has not taken yet."""
        return len(self._unsent) + len(self._writing)

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close."""
        return self.connection.filenos()

    # -------------------------------------------------------------------- out

    def send(self, message: Message) -> None:
        """Queue a message; all that were queued in one loop tick leave together.

        Does nothing on a link that has ended. Raises ``Bug`` for a message too large for a frame.
        """
        if self.closed or self._end_reason:
            return
        self._unsent += encode(message)
        if not self._flush_due and not self._awaits_room:
            self._see_off(message)
        if self.unsent_bytes > UNSENT_BYTES_MAX:
            reason = f"does not read: {self.unsent_bytes} bytes wait for it"
            self._loop.call_soon(self._end, reason)

    def _see_off(self, message: Message) -> None:
        """Have it flushed, soon; or with what comes next, if nobody waits for it."""
        if not isinstance(message, PATIENT):
            self._flush_due = True
            self._loop.call_soon(self._flush)
        elif self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._flush)

    def close(self) -> None:
        """Send what the socket takes at once and close. ``on_closed`` is not called."""
        if self.closed:
            return
        try:
            self._write()
        except OSError:
            pass  # the far end is gone, or full: either way there is no one to tell
        self._shut()

    def _flush(self) -> None:
        self._flush_due = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self.closed:
            return
        try:
            self._write()
        except ssl.SSLWantWriteError:
            self._await_room(True)
        except OSError as error:
            self._break_off(f"cannot send: {error}")
        else:
            self._await_room(False)

    def _break_off(self, reason: str) -> None:
        """Nothing can be sent any more: deliver what has arrived, then end."""
        self._await_room(False)
        self._on_readable()
        if self.closed or self._end_reason:
            return
        self._end_reason = reason
        self._loop.remove_reader(self._sock.fileno())
        if not self._backlog:
            self._deliver()

    def _write(self) -> None:
        """Write until nothing is left; raises ``SSLWantWriteError`` when the kernel is full."""
        while chunk := self._writing or self._next_chunk():
            self._writing = chunk
            sent = self._sock.send(chunk)
            self._writing = chunk[sent:]

    def _next_chunk(self) -> bytes:
        chunk = bytes(self._unsent[:_WRITE_BYTES])
        del self._unsent[:_WRITE_BYTES]
        return chunk

    def _await_room(self, awaits: bool) -> None:
        if awaits == self._awaits_room:
            return
        self._awaits_room = awaits
        if awaits:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._sock.fileno())

    # -------------------------------------------------------------------- in

    def _on_readable(self) -> None:
        if self._backlog or self._end_reason:
            return
        try:
            for _ in range(_READS_PER_TICK):
                data = self._sock.recv(_READ_BYTES)
                if not data:
                    self._end_reason = _CLOSED
                    break
                self._decoder.feed(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # read dry
        except OSError as error:
            self._end_reason = f"cannot receive: {error}"
        if self._end_reason:
            self._loop.remove_reader(self._sock.fileno())
        self._deliver()

    def _deliver(self) -> None:
        """Hand on complete messages, a bounded number at a time, then tell an end."""
        self._backlog = False
        try:
            for _ in range(_MESSAGES_PER_TICK):
                if self.closed:
                    return
                message = self._decoder.next()
                if message is None:
                    if self._end_reason:
                        self._end(self._end_reason)
                    return
                self._on_message(self, message)
        except ProtocolError as error:
            self._end(str(error))
        except BaseException:
            self._deliver_later()  # the loop reports the callback's mistake; the rest still counts
            raise
        else:
            self._deliver_later()

    def _deliver_later(self) -> None:
        self._backlog = True
        self._loop.call_soon(self._deliver)

    # -------------------------------------------------------------------- end

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self._shut()
        level = logging.DEBUG if reason == _CLOSED else logging.INFO
        log.log(level, "link ended: %s peer=%s far=%s", reason, self.remote, self.connection.far)
        self._on_closed(self, reason)

    def _shut(self) -> None:
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._await_room(False)
        if self._patience is not None:
            self._patience.cancel()
        self._unsent.clear()
        self._writing = b""
        self.connection.close()


def hang_up(sock: socket.socket) -> None:
    """Close ``sock`` so that the far end notices, even if a forked child still has a copy.

    What was written before is still delivered. ``SSLSocket.shutdown`` is passed by: it would turn a
    read in another thread into a read of plain bytes.
    """
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # never connected, or gone already
    sock.close()


def encrypt(raw: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> ssl.SSLSocket:
    """Put TLS on a plain socket, which is used up, also by an error; the handshake comes later.

    ``wrap_socket`` moves the descriptor into a new object before it looks whether the far end is
    still there, and when that fails leaves this object, open, to nobody but the traceback.
    """
    try:
        return context.wrap_socket(raw, server_side=server_side, do_handshake_on_connect=False)
    except BaseException as error:
        raw.close()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made = frame.f_locals.get("self")
            if isinstance(half_made, ssl.SSLSocket):
                half_made.close()
        raise


def tune(sock: socket.socket, host_silence_seconds: float) -> None:
    """Send at once, and let the kernel notice a dead host within ``host_silence_seconds``.

    The kernel answers for a busy process. It gives up on one whose receive buffer stays full that
    long, too, so bulk data, where a slow reader is no sign of death, goes without (0 seconds):
    then only a host that answers nothing at all is given up, in a minute or two.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    half = max(1, round(host_silence_seconds / 2))
    idle, pause, count = (half, 1, half) if host_silence_seconds > 0 else (40, 10, 5)
    for option, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", pause),
        ("TCP_KEEPCNT", count),
        ("TCP_USER_TIMEOUT", round(host_silence_seconds * 1000)),
    ):
        if hasattr(socket, option):  # Linux has all four
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def bear_with(sock: socket.socket) -> None:
    """Much is about to be sent: whoever is slow to take it is not dead."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def open_filenos(*socks: socket.socket) -> list[int]:
    """The descriptors of those that are open."""
    return [fd for fd in (sock.fileno() for sock in socks) if fd >= 0]
