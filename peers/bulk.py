"""Bulk data between peers, the asking side: records, items, segments over blocking TLS sockets.

A request is one frame: ``FetchRecord``, ``FetchItems`` or ``FetchSegments``. The answer is one
frame too: ``Parcel``, with sizes, followed by exactly so many raw bytes; or ``Absent``, with the
reason. ``Keep`` goes the other way: raw bytes follow the request. Bulk data stays off the event
loops, so a gigabyte on its way delays no heartbeat.
``peers/bulk_server.py`` is the answering side.

Promises: ``fetch`` may be called from any thread, and ends by an answer, ``NotHere`` or
``Unreachable``; it never waits longer than its timeout for the next piece. The answer is the
holder's: whoever else sits at its address now is found out by its certificate. Connections are
kept for the next fetch, and ``close`` wakes whoever waits.

Does not check what is inside: segments carry checksums of their own. Does not retry elsewhere.
"""

import errno
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from grid.errors import ProtocolError
from grid.framing import encode
from grid.messages import (
    Absent,
    Address,
    Failure,
    FetchItems,
    FetchKept,
    FetchRecord,
    FetchSegments,
    Keep,
    Output,
    Parcel,
    PeerRef,
)
from peers.chaos import Cut
from peers.link import bear_with
from peers.reach import PIECE_BYTES, Line, Reach, read_exactly, read_frame, read_pieces, why
from peers.security import Security
from peers.segment import SegmentSlice
from peers.segment_writer import write_file
from peers.transport import DialFailed
from peers.vitals import Traffic
from peers.whereabouts import Whereabouts

PARCEL_BYTES_MAX = 2**33
"""More than any peer should ask for at once: a larger number is a mistake."""

_IDLE_SECONDS = 30.0  # shorter than the server's, so that it is us who hang up
_IDLE_PER_HOLDER = 4

Blob = bytes | memoryview | SegmentSlice
"""What is given: at hand, or in a file that is read as it is sent."""

Request = FetchRecord | FetchItems | FetchSegments | Keep | FetchKept


class NotHere(Exception):
    """The holder answered, and cannot give it. The fields are those of ``Absent``."""

    def __init__(
        self, reason: str, missing: tuple[Output, ...] = (), failure: Failure | None = None
    ) -> None:
        super().__init__(reason, missing, failure)
        self.reason = reason
        self.missing = missing
        self.failure = failure

    def __str__(self) -> str:
        return self.reason


class Unreachable(OSError):
    """The holder could not be asked, or did not finish its answer."""


class BulkClient:
    """Fetches from other peers. ``grid`` and ``name`` are what it says in its hello;
    ``whereabouts`` tell whether there is a server to go through (``peers/reach.py``); while this
    peer is ``cut`` off, nobody can be reached. What it fetched is counted in ``traffic``."""

    def __init__(
        self,
        security: Security,
        grid: str,
        name: str,
        whereabouts: Whereabouts | None = None,
        cut: Cut | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self._cut = cut or Cut()
        self._traffic = traffic or Traffic()
        self._reach = Reach(security, grid, name, whereabouts)
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, Address], list[Line]] = {}
        self._lines: dict[Line, None] = {}  # all, idle or in use
        self._closed = False

    def fetch(
        self,
        holder: PeerRef,
        request: Request,
        timeout: float,
        count: int | None = None,
        body: bytes = b"",
        into: Sequence[Path] = (),
    ) -> list[bytes]:
        """Return the blobs that ``holder`` has for ``request``, in the order asked; or write them
        ``into`` these files, as they come, and return none. ``body`` is what follows a ``Keep``.

        ``timeout`` (seconds) is for each step: connecting, the first byte (a slow datasource may
        be read first) and every further piece. Raises ``NotHere`` or ``Unreachable``, the latter
        also where there are not as many as ``count`` says that there must be; ``SpoolFull``.
        """
        line = self._kept(holder)
        if line is not None:
            try:
                return self._ask(holder, line, request, timeout, count, body, into)
            except OSError as error:
                if not _lost(error):
                    raise self._unreachable(holder, error) from error
                # Kept too long, and closed by the holder or cut off: asking twice harms nothing.
        try:
            line = self._connect(holder, timeout)
            return self._ask(holder, line, request, timeout, count, body, into)
        except OSError as error:
            raise self._unreachable(holder, error) from error

    def close(self) -> None:
        """Close every connection; a fetch under way raises ``Unreachable``. May be repeated."""
        self._closed = True
        self.cut_off()

    def cut_off(self) -> None:
        """Close every connection; a fetch under way ends."""
        with self._lock:
            idle = [line for lines in self._idle.values() for line in lines]
            self._idle.clear()
            busy = [line for line in self._lines if line not in idle]
        for line in idle:
            self._discard(line)
        for line in busy:
            line.wake()

    def filenos(self) -> list[int]:
        """The open descriptors, for a forked child to close. Takes no lock."""
        return [fd for line in list(self._lines) for fd in line.filenos()]

    def _ask(
        self,
        holder: PeerRef,
        line: Line,
        request: Request,
        timeout: float,
        count: int | None,
        body: bytes,
        into: Sequence[Path],
    ) -> list[bytes]:
        try:
            sock = line.tls
            sock.settimeout(timeout)
            sock.sendall(encode(request))
            if body:
                bear_with(sock)
                sock.sendall(body)
            answer = read_frame(sock)
            match answer:
                case Absent():
                    blobs = None
                case Parcel():
                    blobs = _read_blobs(sock, answer.sizes, count, into)
                    self._traffic.count(received=sum(answer.sizes), sent=len(body))
                case _:
                    raise ProtocolError(f"it answered with {type(answer).__name__}")
        except ProtocolError as error:
            self._discard(line)
            raise self._unreachable(holder, error) from error
        except BaseException:
            self._discard(line)
            raise
        self._keep(holder, line)
        if blobs is None:
            assert isinstance(answer, Absent)
            raise NotHere(answer.reason, answer.missing, answer.failure)
        return blobs

    def _unreachable(self, holder: PeerRef, error: Exception) -> Unreachable:
        if isinstance(error, Unreachable):
            return error
        return Unreachable(f"cannot fetch from {holder.name} at {holder.data}: {why(error)}")

    # -------------------------------------------------------------------- connections

    def _connect(self, holder: PeerRef, timeout: float) -> Line:
        line = Line()
        with self._lock:
            self._lines[line] = None
            closed = self._closed
        try:
            if self._cut.active:
                raise DialFailed("unreachable", "this peer is cut off")
            if closed:
                raise ConnectionAbortedError("this peer is closing")
            self._reach.connect(line, holder, timeout)
        except (ProtocolError, DialFailed) as error:
            self._discard(line)
            raise self._unreachable(holder, error) from error
        except BaseException:
            self._discard(line)
            raise
        return line

    def _kept(self, holder: PeerRef) -> Line | None:
        """An idle connection to this holder, after closing all that idled too long."""
        with self._lock:
            stale = self._take_stale(time.monotonic() - _IDLE_SECONDS)
            lines = self._idle.get((holder.peer, holder.data))
            line = lines.pop() if lines else None
        for old in stale:
            self._discard(old)
        return line

    def _take_stale(self, before: float) -> list[Line]:
        stale: list[Line] = []
        for key, lines in list(self._idle.items()):
            stale += [line for line in lines if line.idle_since < before]
            self._idle[key] = [line for line in lines if line.idle_since >= before]
            if not self._idle[key]:
                del self._idle[key]
        return stale

    def _keep(self, holder: PeerRef, line: Line) -> None:
        line.idle_since = time.monotonic()
        with self._lock:
            lines = self._idle.setdefault((holder.peer, holder.data), [])
            keeps = not self._closed and len(lines) < _IDLE_PER_HOLDER
            if keeps:
                lines.append(line)
        if not keeps:
            self._discard(line)

    def _discard(self, line: Line) -> None:
        with self._lock:
            self._lines.pop(line, None)
        line.close()


def _lost(error: OSError) -> bool:
    """Whether it was the connection that ended, and not our patience."""
    gone = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
    return isinstance(error, (ConnectionError, ssl.SSLEOFError)) or error.errno in gone


# ------------------------------------------------------------------------------ on the wire


def _read_blobs(
    sock: ssl.SSLSocket, sizes: tuple[int, ...], count: int | None, into: Sequence[Path]
) -> list[bytes]:
    if count is not None and len(sizes) != count:
        raise ProtocolError(f"it announced {len(sizes)} blobs where {count} were asked for")
    if sum(sizes) > PARCEL_BYTES_MAX:
        raise ProtocolError(f"it announced {len(sizes)} blobs of impossible sizes")
    if not into:
        return [read_exactly(sock, size) for size in sizes]
    for path, size in zip(into, sizes, strict=True):
        write_file(path, read_pieces(sock, size))
    return []


def pieces(blobs: Sequence[Blob]) -> Iterator[bytes | memoryview]:
    """Yield a parcel and its blobs in writes of at most ``PIECE_BYTES``, small ones together."""
    sizes = [len(blob) if isinstance(blob, bytes) else blob.nbytes for blob in blobs]
    together: list[bytes | memoryview] = [encode(Parcel(tuple(sizes)))]
    size = len(together[0])
    for piece in (piece for blob in blobs for piece in _cut(blob)):
        if size and size + len(piece) > PIECE_BYTES:
            yield together[0] if len(together) == 1 else b"".join(together)
            together, size = [], 0
        together.append(piece)
        size += len(piece)
    if size:
        yield b"".join(together)


def _cut(blob: Blob) -> Iterator[bytes | memoryview]:
    if isinstance(blob, SegmentSlice):
        return blob.pieces(PIECE_BYTES)
    flat = memoryview(blob).cast("B") if len(blob) else memoryview(b"")
    return (flat[start : start + PIECE_BYTES] for start in range(0, flat.nbytes, PIECE_BYTES))
