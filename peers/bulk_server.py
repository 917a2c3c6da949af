"""Bulk data between peers, the answering side.

A ``Doorman`` greets whoever connects to the data port. Between requests a connection waits on the
doorman's loop, which costs no thread; when a request arrives, a thread of a small crew reads it,
asks the ``Provider``, and writes the answer with blocking calls. So a few hundred peers can stay
connected, and a few of them can be served at once. Connections that were made from here, through
the server, for those who cannot dial this port (``take``) are served like any other.

The data port is also where others ask whom this peer follows, and are connected with that server if
they cannot dial it (``peers/voucher.py``).

Promises: a request that cannot be answered is answered with ``Absent``, whatever the provider
raised; a malformed one costs its sender the connection. A reader that takes nothing for
``stall_seconds`` is hung up on. ``close`` frees the port at once and joins its threads.

Does not know what records and segments are; what it is given to keep it hands to its ``keeper``.
"""

import asyncio
import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from grid.errors import ProtocolError
from grid.framing import encode
from grid.messages import (
    Absent,
    Address,
    FetchItems,
    FetchKept,
    FetchRecord,
    FetchSegments,
    Hello,
    Keep,
    Message,
    Output,
    Refusal,
    Welcome,
)
from peers.bulk import Blob, NotHere, Request, pieces
from peers.crew import Crew
from peers.doorman import Doorman, bind
from peers.link import Connection, open_filenos
from peers.reach import read_exactly, wake
from peers.security import Security
from peers.segment import SegmentCorrupt, SegmentMissing
from peers.vitals import Traffic
from peers.voucher import Voucher

_READ_BYTES = 16 * 2**10

KEEP_BYTES_MAX = 2**29 + 2**20
"""What one ``Keep`` may bring: one item of the largest size, and a little around it."""

Keeper = Callable[[Keep | FetchKept, bytes], Sequence[Blob]]
"""Puts a part of a detached transaction on disk, or gives one. Raises ``NotHere``."""

log = logging.getLogger(__name__)


class Provider(Protocol):
    """What a peer can give. Called on the crew's threads, several at once; raises ``NotHere``."""

    def record(self, record: str, keys: bool) -> Sequence[Blob]:
        """The blobs of a record: its head and, with ``keys``, its key list."""
        ...

    def items(self, record: str, indices: Sequence[int], resolve: bool) -> Sequence[Blob]:
        """One blob for each of these items."""
        ...

    def segments(self, outputs: tuple[Output, ...], first: int, stop: int) -> Sequence[Blob]:
        """One blob for each of these segments: its partitions ``first..stop``."""
        ...


class BulkServer:
    """Serves ``provider`` on a port that the system chooses, on all of ``listen_hosts``.

    ``start`` it once, ``close`` it once. ``name`` is what it says in its welcome. Binds when it is
    made; raises ``OSError`` where it cannot. ``voucher`` answers those who look for the server.
    What it gives is counted in ``traffic``.
    """

    def __init__(
        self,
        security: Security,
        grid: str,
        name: str,
        provider: Provider,
        listen_hosts: Sequence[str] = ("127.0.0.1",),
        *,
        voucher: Voucher | None = None,
        keeper: Keeper | None = None,
        threads_max: int = 16,
        idle_seconds: float = 60.0,
        stall_seconds: float = 20.0,
        traffic: Traffic | None = None,
    ) -> None:
        self._traffic = traffic or Traffic()
        self._security = security
        self._name = name
        self._provider = provider
        self._voucher = voucher
        self._keeper = keeper
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._doorman = Doorman(
            bind(listen_hosts, 0),
            security,
            grid,
            self._greet,
            self._admit,
            name="data-door",
            host_silence_seconds=0,  # a slow reader of bulk data is not a dead host
        )
        self._crew: Crew[Connection] = Crew("data", self._serve, threads_max)
        self._parked: dict[Connection, asyncio.TimerHandle] = {}
        self._busy: dict[Connection, None] = {}
        self._closing = False

    @property
    def address(self) -> Address:
        """Where it listens: the first of ``listen_hosts``, and the port of all of them."""
        return self._doorman.addresses[0]

    def start(self) -> None:
        """Begin to serve."""
        self._doorman.start()

    def take(self, raw: socket.socket) -> None:
        """Serve the far end of this plain socket as if it had dialled this port."""
        self._doorman.bring(raw)

    def cut_off(self, seconds: float) -> None:
        """End every connection, and answer nobody for so long."""
        self._doorman.rest(seconds)
        try:
            self._doorman.loop.call_soon_threadsafe(self._hang_up)
        except RuntimeError:
            pass  # the loop is closed: stopped before

    def close(self) -> None:
        """Free the port, end every connection and join the threads. May be repeated."""
        self._closing = True
        self._doorman.stop()  # from here on nothing is parked or unparked
        for connection in list(self._parked):
            connection.close()
        self._parked.clear()
        for connection in list(self._busy):
            wake(connection.sock)
        self._crew.close()
        for connection in list(self._busy):  # answered, but there was no loop left to wait on
            connection.close()

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close. Takes no lock."""
        connections = list(self._parked) + list(self._busy)
        return self._doorman.filenos() + open_filenos(*(each.sock for each in connections))

    # -------------------------------------------------------------------- on the doorman's thread

    def _greet(self, hello: Hello) -> Welcome | Refusal:
        if hello.role in ("ask", "relay", "await") and self._voucher is not None:
            return self._voucher.greet(hello)
        if hello.role != "data":
            return Refusal(f"this is a data port, not for the role {hello.role!r}")
        return Welcome(self._security.peer_id, self._name, sys.version_info[:2])

    def _admit(self, connection: Connection) -> None:
        if connection.hello.role != "data" and self._voucher is not None:
            self._voucher.admit(connection)
            return
        self._busy[connection] = None
        if connection.decoder.unread_bytes:
            self._crew.give(connection)  # its first request came with its hello
        else:
            self._park(connection)

    def _park(self, connection: Connection) -> None:
        """Wait for the next request without a thread."""
        loop = self._doorman.loop
        self._parked[connection] = loop.call_later(self._idle_seconds, self._retire, connection)
        self._busy.pop(connection, None)
        loop.add_reader(connection.sock, self._unpark, connection)

    def _unpark(self, connection: Connection) -> None:
        self._doorman.loop.remove_reader(connection.sock)
        self._busy[connection] = None
        self._parked.pop(connection).cancel()
        self._crew.give(connection)

    def _hang_up(self) -> None:
        for connection, timer in list(self._parked.items()):
            timer.cancel()
            self._retire(connection)
        for connection in list(self._busy):
            wake(connection.sock)

    def _retire(self, connection: Connection) -> None:
        self._doorman.loop.remove_reader(connection.sock)
        self._parked.pop(connection)
        connection.close()

    # -------------------------------------------------------------------- on the crew's threads

    def _serve(self, connection: Connection) -> None:
        """Answer what has arrived, then park the connection again."""
        try:
            connection.sock.settimeout(self._stall_seconds)
            more = True
            while more and not self._closing:
                request = self._read(connection)
                self._answer(connection.sock, request, self._body(connection, request))
                more = bool(connection.decoder.unread_bytes or connection.sock.pending())
            self._doorman.loop.call_soon_threadsafe(self._park, connection)
        except (OSError, ProtocolError, RuntimeError, SegmentMissing, SegmentCorrupt) as error:
            # RuntimeError: the loop is closed, for the server is. A segment that went while it was
            # sent cannot be replaced by a reason any more: whoever asks again is told.
            log.debug("data connection ended: %s peer=%s", error, connection.remote)
            self._give_up(connection)
        except Exception:
            log.exception("cannot serve a data connection peer=%s", connection.remote)
            self._give_up(connection)

    def _give_up(self, connection: Connection) -> None:
        self._busy.pop(connection, None)
        connection.close()

    def _read(self, connection: Connection) -> Request:
        """Read one request, all of it within ``stall_seconds``."""
        deadline = time.monotonic() + self._stall_seconds
        message: Message | None
        while (message := connection.decoder.next()) is None:
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = connection.sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("closed by the remote")
            connection.decoder.feed(data)
        connection.sock.settimeout(self._stall_seconds)
        if not isinstance(message, Request):
            raise ProtocolError(f"asked for data with {type(message).__name__}")
        return message

    def _body(self, connection: Connection, request: Request) -> bytes:
        """Read what follows a request."""
        if not isinstance(request, Keep):
            return b""
        if request.size > KEEP_BYTES_MAX:
            raise ProtocolError(f"it wants {request.size} bytes kept at once")
        begun = connection.decoder.take(request.size)
        self._traffic.count(received=request.size)
        return begun + read_exactly(connection.sock, request.size - len(begun))

    def _answer(self, sock: ssl.SSLSocket, request: Request, body: bytes = b"") -> None:
        try:
            blobs = self._provided(request, body)
        except NotHere as absent:
            sock.sendall(encode(Absent(absent.reason, absent.missing, absent.failure)))
        except Exception as error:
            log.exception("cannot provide a %s", type(request).__name__)
            sock.sendall(encode(Absent(f"the holder failed: {type(error).__name__}")))
        else:
            for piece in pieces(blobs):
                sock.sendall(piece)
                self._traffic.count(sent=len(piece))

    def _provided(self, request: Request, body: bytes) -> Sequence[Blob]:
        match request:
            case FetchRecord():
                return self._provider.record(request.record, request.keys)
            case FetchItems():
                indices = request.indices or range(request.start, request.stop)
                return self._provider.items(request.record, indices, request.resolve)
            case FetchSegments():
                return self._provider.segments(request.outputs, request.first, request.stop)
            case Keep() | FetchKept():
                if self._keeper is None:
                    raise NotHere("this peer keeps nothing")
                return self._keeper(request, body)
            case _:
                assert_never(request)
