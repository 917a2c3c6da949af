"""From a peer to a greeted connection for its data: directly, or through the server. Blocking.

Direct is tried first. Where the data port cannot be dialled (a laptop that only dials out, a
firewall, an address that means something else here), the connection is made through the port that
everyone reaches: the server's (``peers/relay.py``). The holder is verified at its far end just as
at the end of a direct one, so neither the server nor whoever sits at the dead address learns or
changes anything. For a while after that the detour is taken at once, and the log says once for
each holder what would have to be open.

Promises: ends by a connection, or an error with the reasons of both ways; no step takes longer
than its timeout. A ``Line`` that is woken ends whatever it waits for.
"""

import logging
import socket
import ssl
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from grid.errors import ProtocolError
from grid.framing import (
    FRAME_BYTES_MAX,
    GREETING_BYTES_MAX,
    HEADER_BYTES,
    body_bytes,
    decode,
    encode,
)
from grid.messages import PROTOCOL, Address, Hello, Message, PeerRef
from peers.link import encrypt, hang_up, open_filenos, tune
from peers.security import Security
from peers.transport import (
    PAIRING_SECONDS,
    DialFailed,
    check_paired,
    check_welcome,
    explain,
    far_end,
    verified_id,
)
from peers.whereabouts import Following, Whereabouts

PIECE_BYTES = 256 * 2**10
"""What is read or written at once: large against a system call, small against a timeout."""

CONNECT_SECONDS = 5.0
"""At most, of a timeout, where there is no other way."""

FIRST_CONNECT_SECONDS = 1.0
"""For the kernel of the holder to answer, where there is another way: seconds are far away."""

FIRST_GREETING_SECONDS = 2.0
"""For its process to answer: it may be busy, but is not dead yet."""

SILENCE_SECONDS = 4.0
"""By when the kernel of a dead host, or of one that is cut off, is given up while its answer is
awaited: a datasource may take half a minute, its kernel takes none."""

DETOUR_SECONDS = 30.0
"""How long a holder that could not be reached directly is not tried so again."""

HOLDERS_MAX = 1024
"""Of how many holders it is remembered that they are hard to reach."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Line:
    """One connection to one holder, in whatever state it is."""

    sock: socket.socket | None = None
    idle_since: float = 0.0
    _woken: bool = field(default=False, repr=False)

    def use(self, sock: socket.socket) -> None:
        """From now on this is its socket. Raises ``ConnectionAbortedError`` if it was woken."""
        self.sock = sock
        if self._woken:
            raise ConnectionAbortedError("this peer is closing")

    @property
    def tls(self) -> ssl.SSLSocket:
        """The socket of a line that is connected."""
        assert isinstance(self.sock, ssl.SSLSocket)
        return self.sock

    def wake(self) -> None:
        """End the connection under a thread that is using it; that thread then closes the socket.

        Closing it here could hand its descriptor's number to another before that thread notices.
        """
        self._woken = True
        if self.sock is not None:
            wake(self.sock)

    def close(self) -> None:
        if self.sock is not None:
            hang_up(self.sock)

    def filenos(self) -> list[int]:
        return [] if self.sock is None else open_filenos(self.sock)


class Reach:
    """Connects lines. ``grid`` and ``name`` are what it says in its hello; may be used from any
    thread."""

    def __init__(
        self, security: Security, grid: str, name: str, whereabouts: Whereabouts | None = None
    ) -> None:
        self._security = security
        self._grid = grid
        self._name = name
        self._whereabouts = whereabouts or Whereabouts()
        self._lock = threading.Lock()
        self._detours: OrderedDict[str, float] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()

    def connect(self, line: Line, holder: PeerRef, timeout: float) -> None:
        """Connect ``line`` to ``holder``, verified and greeted; each step within ``timeout``.

        Raises ``OSError``, ``ProtocolError`` or ``DialFailed`` (``why`` tells the reason); the
        caller closes the line.
        """
        following = self._whereabouts.following
        if following is None:
            seconds = min(timeout, CONNECT_SECONDS)
            self._directly(line, holder, seconds, seconds)
            return
        reason = ""
        if not self._takes_detour(holder):
            try:
                self._directly(
                    line,
                    holder,
                    min(timeout, FIRST_CONNECT_SECONDS),
                    min(timeout, FIRST_GREETING_SECONDS),
                )
                return
            except (OSError, ProtocolError, DialFailed) as error:
                line.close()
                reason = why(error)
        try:
            self._through_server(line, holder, following, timeout)
        except (OSError, ProtocolError, DialFailed) as error:
            self._forget_detour(holder)
            direct = f"{reason}; and " if reason else ""
            reason = f"{direct}through the server: {why(error)}"
            raise DialFailed("unreachable", reason) from error
        if reason:
            self._remember_detour(holder, reason)

    # -------------------------------------------------------------------- the two ways

    def _directly(self, line: Line, holder: PeerRef, connecting: float, greeting: float) -> None:
        self._dial(line, holder.data, connecting)
        self._greet(line, greeting, holder.peer, holder.name, self._hello("data", holder.data))

    def _through_server(
        self, line: Line, holder: PeerRef, following: Following, timeout: float
    ) -> None:
        """As everyone dials the server, or as this peer does: through another peer."""
        seconds = min(timeout, CONNECT_SECONDS)
        server = following.claim.peer
        if following.through is None:
            self._dial(line, following.near, seconds)
        else:
            by = following.through
            self._dial(line, by.data, seconds)
            self._pass(line, seconds, by.peer, by.name, self._hello("relay", by.data, server))
        asking = self._hello("relay", following.near, holder.peer)
        self._pass(line, seconds, server, "the server", asking)
        self._greet(line, seconds, holder.peer, holder.name, self._hello("data", holder.data))

    def _hello(self, role: str, intended: Address, wanted: str = "") -> Hello:
        return Hello(
            protocol=PROTOCOL,
            grid=self._grid,
            peer=self._security.peer_id,
            name=self._name,
            python=sys.version_info[:2],
            role=role,  # type: ignore[arg-type]
            intended=intended,
            wanted=wanted,
        )

    # -------------------------------------------------------------------- steps

    def _dial(self, line: Line, address: Address, seconds: float) -> None:
        try:
            raw = socket.create_connection((address.host, address.port), seconds)
        except ValueError as error:  # a host name that cannot even be encoded
            raise OSError(f"{address} is no address") from error
        line.use(raw)
        tune(raw, SILENCE_SECONDS)  # only requests are sent, which nobody is slow to take

    def _greet(self, line: Line, seconds: float, expected: str, name: str, hello: Hello) -> None:
        """Over the plain socket of ``line``: TLS, the expected peer, hello and welcome."""
        assert line.sock is not None
        line.sock.settimeout(seconds)
        context = self._security.client_context
        line.use(encrypt(line.sock, context, server_side=False))
        tls = line.tls
        tls.do_handshake()
        remote = verified_id(tls)
        if remote != expected:
            raise ProtocolError(f"there is now another peer than {name}")
        tls.sendall(encode(hello))
        check_welcome(read_frame(tls, GREETING_BYTES_MAX), remote, far_end(tls))

    def _pass(self, line: Line, seconds: float, expected: str, name: str, hello: Hello) -> None:
        """Have ``expected`` connect us further: afterwards the socket of ``line`` is plain, and
        its far end is who ``hello`` wants."""
        self._greet(line, seconds, expected, name, hello)
        tls = line.tls
        tls.settimeout(PAIRING_SECONDS)
        check_paired(read_frame(tls, GREETING_BYTES_MAX))
        tls.unwrap()
        line.use(socket.socket(fileno=tls.detach()))

    # -------------------------------------------------------------------- what is remembered

    def _takes_detour(self, holder: PeerRef) -> bool:
        return self._detours.get(holder.peer, 0.0) > time.monotonic()

    def _forget_detour(self, holder: PeerRef) -> None:
        with self._lock:
            self._detours.pop(holder.peer, None)

    def _remember_detour(self, holder: PeerRef, reason: str) -> None:
        with self._lock:
            self._detours[holder.peer] = time.monotonic() + DETOUR_SECONDS
            self._detours.move_to_end(holder.peer)
            new = holder.peer not in self._told
            self._told[holder.peer] = None
            for known in (self._detours, self._told):
                while len(known) > HOLDERS_MAX:
                    known.popitem(last=False)
        if new:
            log.warning(
                "the data of %s goes through the server, which is slower: its data port cannot be "
                "reached from here (%s: %s). Open that port in its firewall, or have it advertise "
                "an address that other hosts reach",
                holder.name,
                holder.data,
                reason,
            )


def why(error: Exception) -> str:
    """The reason of a failed connection, for people."""
    if isinstance(error, DialFailed):
        return error.reason
    return explain(error)[1] if isinstance(error, OSError) else str(error)


# ------------------------------------------------------------------------------ on the wire


def read_frame(sock: ssl.SSLSocket, frame_bytes_max: int = FRAME_BYTES_MAX) -> Message:
    """Read one message from a blocking socket, and not a byte more."""
    header = read_exactly(sock, HEADER_BYTES)
    return decode(read_exactly(sock, body_bytes(header, frame_bytes_max)))


def read_exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    """Read ``size`` bytes. Raises ``ConnectionResetError`` if they end early.

    Room is made as they come: an announced size alone costs no memory.
    """
    data = sock.recv(min(size, PIECE_BYTES)) if size else b""
    if len(data) == size:
        return data
    if not data:
        raise ConnectionResetError("the connection was closed")
    buffer = bytearray(data)
    got = len(data)
    while got < size:
        buffer += bytes(min(size, max(2 * got, PIECE_BYTES)) - got)
        with memoryview(buffer) as view:
            while got < len(view):
                count = sock.recv_into(view[got : got + PIECE_BYTES])
                if not count:
                    reason = f"the connection was closed after {got} of {size} bytes"
                    raise ConnectionResetError(reason)
                got += count
    return bytes(buffer)


def read_pieces(sock: ssl.SSLSocket, size: int) -> Iterator[memoryview]:
    """Yield ``size`` bytes in pieces as they come; each is for until the next one is asked for.

    Raises ``ConnectionResetError`` if they end early.
    """
    piece = memoryview(bytearray(min(size, PIECE_BYTES)))
    left = size
    while left:
        count = sock.recv_into(piece, min(left, PIECE_BYTES))
        if not count:
            raise ConnectionResetError(f"the connection was closed {left} of {size} bytes early")
        left -= count
        yield piece[:count]


def wake(sock: socket.socket) -> None:
    """End the connection under a thread that is using it."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # gone already
