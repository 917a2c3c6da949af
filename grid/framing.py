"""Bytes to messages and back: the frames that every connection of the grid speaks.

A frame is four bytes of length, big-endian, then one ``Message`` in msgpack. ``encode`` makes one;
``Decoder`` is fed whatever the network delivered, in pieces of any size, and gives the messages
out one at a time, so that those before a broken frame are still delivered.

Promises: whatever bytes come in, the only error that comes out is ``ProtocolError``; a length that
is not allowed is refused from its four bytes, before anything is kept for it. After an error
the stream has no meaning any more, and the decoder keeps refusing.

Does not read, write, time or authenticate anything. Text that fails to parse is never quoted in an
error, since it may be the user's data.
"""

import struct

import msgspec

from grid.errors import Bug, ProtocolError
from grid.messages import Message

FRAME_BYTES_MAX = 32 * 2**20
"""Of a member. Messages carry names and small values; a frame this large is a mistake."""

GREETING_BYTES_MAX = 32 * 2**10
"""Of anyone not yet greeted. A ``Hello`` takes a few hundred bytes."""

HEADER_BYTES = 4

_HEADER = struct.Struct("!I")
_COMPACT_BYTES = 64 * 2**10  # consumed bytes are cut off in strides, not once a message
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the frame of ``message``.

    Raises ``Bug`` if it exceeds ``FRAME_BYTES_MAX``: whoever built it had to cut it.
    """
    body = _ENCODER.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise Bug(
            f"a {type(message).__name__} of {len(body)} bytes does not fit into a frame of "
            f"{FRAME_BYTES_MAX} bytes; it should have been split or clipped where it was built"
        )
    return _HEADER.pack(len(body)) + body


def body_bytes(header: bytes | bytearray, frame_bytes_max: int = FRAME_BYTES_MAX) -> int:
    """Return how many bytes follow this four-byte header.

    Raises ``ProtocolError`` if that is none, or more than ``frame_bytes_max``.
    """
    size = int(_HEADER.unpack_from(header)[0])
    if not 0 < size <= frame_bytes_max:
        raise ProtocolError(
            f"the remote announced a frame of {size} bytes, allowed are 1 to {frame_bytes_max}; "
            "it does not speak this protocol"
        )
    return size


def decode(body: bytes | bytearray | memoryview) -> Message:
    """Return the message in the body of one frame. Raises ``ProtocolError``."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        # The parser's own text may quote the bytes, so only the kind of failure is told.
        raise ProtocolError(
            f"the remote sent a frame of {len(body)} bytes that holds no known message "
            f"({type(error).__name__}); its version may differ, or it is broken"
        ) from None


class Decoder:
    """Feed it bytes, take messages: ``feed(data)``, then ``next()`` until it returns ``None``."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        """May be raised once the remote is trusted with more."""
        self._buffer = bytearray()
        self._start = 0
        self._broken: str | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append what the network delivered."""
        self._buffer += data

    @property
    def unread_bytes(self) -> int:
        """How many bytes are kept: whole frames not yet taken, and the piece of the next one."""
        return len(self._buffer) - self._start

    def take(self, size: int) -> bytes:
        """Take at most ``size`` unread bytes that are no frame, but follow one as they are."""
        end = min(self._start + size, len(self._buffer))
        raw = bytes(self._buffer[self._start : end])
        self._start = end
        self._compact()
        return raw

    def next(self) -> Message | None:
        """Return the next message, or ``None`` if its frame is not complete.

        Raises ``ProtocolError`` at the first frame that is not allowed, and at every call after.
        """
        if self._broken is not None:
            raise ProtocolError(self._broken)
        try:
            return self._take()
        except ProtocolError as error:
            self._broken = str(error)
            self._buffer.clear()
            self._start = 0
            raise

    def _take(self) -> Message | None:
        begin = self._start + HEADER_BYTES
        if len(self._buffer) < begin:
            self._compact()
            return None
        end = begin + body_bytes(self._buffer[self._start : begin], self.frame_bytes_max)
        if len(self._buffer) < end:
            self._compact()
            return None
        with memoryview(self._buffer)[begin:end] as body:
            message = decode(body)
        self._start = end
        if end > _COMPACT_BYTES:
            self._compact()
        return message

    def _compact(self) -> None:
        del self._buffer[: self._start]
        self._start = 0
