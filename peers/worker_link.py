"""The peer's end of a channel, on the peer's asyncio loop.

Never blocks: what the socket does not take at once waits for it. Messages are handed to a
callback as they come, and the end of the stream to another, once, after everything that was sent
before it. All methods are called on the loop's thread.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from grid.errors import ProtocolError
from peers.worker_channel import (
    RECEIVE_BYTES,
    Frames,
    FromHelper,
    FromWorker,
    Said,
    frame,
)

from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
from_helper: msgspec.msgpack.Decoder[FromHelper] = msgspec.msgpack.Decoder(FromHelper)


class Link:
    """Frames over ``sock``, which it then owns, decoded by ``decoder``.

    ``on_end`` is told why: an empty text for a plain end of the stream, else what was wrong.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        decoder: msgspec.msgpack.Decoder[Any],
        on_message: Callable[[Any], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._decoder = decoder
        self._on_message = on_message
        self._on_end = on_end
        self._frames = Frames()
        self._unsent: list[memoryview] = []
        sock.setblocking(False)
        loop.add_reader(sock, self._readable)

    def fileno(self) -> int:
        """Return the descriptor, or -1 once closed."""
        return self._sock.fileno()

    def send(self, *messages: Said, fds: tuple[int, ...] = ()) -> None:
        """Send, now or as soon as there is room. ``fds`` go with small messages only.

        A broken stream is no error here: it ends, and ``on_end`` tells.
        """
        if self._sock.fileno() < 0:
            return
        data = b"".join(map(frame, messages))
        if fds:
            assert not self._unsent, "descriptors cannot wait"
            try:
                socket.send_fds(self._sock, [data], list(fds))
            except BrokenPipeError:
                pass  # the reader notices
            return
        self._unsent.append(memoryview(data))
        if len(self._unsent) == 1:
            self._write()

    def close(self) -> None:
        """Close without calling anybody back. A second call does nothing."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._unsent.clear()

    def close_descriptor(self) -> None:
        """Close from any thread, when the loop will not run again."""
        self._sock.close()

    def _write(self) -> None:
        """Write what there is room for; the rest when there is room."""
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent[0])
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                else:
                    self._unsent.pop(0)
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._writable)
        except OSError:
            self._unsent.clear()  # gone; the reader notices and tells

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._write()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end("")
            return
        try:
            for body in self._frames.feed(data):
                self._on_message(self._decoder.decode(body))
                if self._sock.fileno() < 0:
                    return  # closed by what the message led to
        except (ProtocolError, ValueError) as error:  # ValueError: msgspec's own, and broken UTF-8
            self._end(f"wrote garbage into its channel ({error})")

    def _end(self, why: str) -> None:
        self.close()
        self._on_end(why)
