"""What a peer, its helper process and its workers say to each other, and how it is framed.

::

    peer --control socket--> helper        Configure, Fork (with two descriptors), Kill
    peer <--control socket-- helper        Forked, Exited, NotForked
    peer <--channel--> worker              tasks and code there; results, needs and prints back

Every message is a tagged Struct in msgpack behind its length (4 bytes, big-endian). User data
(code, items, exceptions) is ``bytes`` here: the peer passes it on unopened, the worker opens it.

``PoolEvent`` is what the pool tells its peer: the worker's own messages, and ``Died``.
"""

import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import Struct, structs

from grid.errors import ProtocolError
from grid.messages import Failure, Holding, Output

FRAME_BYTES_MAX = 1 << 30
"""Larger is nonsense: somebody wrote into the channel. Items beyond this are one huge value."""

CODES_KEPT = 8
"""Jobs whose code a worker keeps. Both ends count alike, so nobody asks who has what."""

_LENGTH = struct.Struct(">I")
RECEIVE_BYTES = 64 << 10
"""Read at once. Room of more than 128 KiB the C library has from the system, and gives back, each
time: that takes ten times as long as to read a small message."""


class Limits(Struct, frozen=True):
    """How much data a worker may hold, in bytes; the rest goes to disk. Its parts leave room for
    the copies that are made when data is written or read."""

    memory_bytes: int = 256 << 20

    @property
    def held_bytes_max(self) -> int:
        """By how much the process may grow before values are written out."""
        return self.memory_bytes * 5 // 8

    @property
    def values_max(self) -> int:
        """How many values may be held whatever the process says: a value is a pointer at least,
        and lists have room to grow."""
        return self.memory_bytes // 16

    @property
    def sealed_bytes_max(self) -> int:
        """How much of a segment may wait to be written."""
        return min(64 << 20, self.memory_bytes // 8)

    @property
    def chunk_bytes_max(self) -> int:
        """The largest chunk of a segment, unless one value is larger: it is opened at once."""
        return max(1, min(4 << 20, self.memory_bytes // 64))

    @property
    def piece_bytes(self) -> int:
        """The size of the pieces in which groups are kept on disk: many are open at a time."""
        return max(1, min(1 << 20, self.memory_bytes // 1024))


# ------------------------------------------------------------------------------ tasks


class MapTask(Struct, frozen=True, tag=True):
    """Map items ``output.start..output.stop``. ``items`` is the pickle of their list of
    ``(key, value or Reference)``; ``skip`` leaves out items whose function raises. These are the
    ``whole`` of the job's items: what fits into memory may be reduced at once."""

    attempt: str
    output: Output
    partitions: int
    items: bytes
    skip: bool = False
    whole: bool = False


def whole_output(task: MapTask) -> Output:
    """The output of a map of the whole that is reduced at once: that of all reduces."""
    return structs.replace(task.output, kind="reduce", start=0, stop=task.partitions)


class ReduceTask(Struct, frozen=True, tag=True):
    """Reduce partitions ``output.start..output.stop`` of the segments at ``inputs``, which are
    paths in datasource order."""

    attempt: str
    output: Output
    partitions: int
    inputs: tuple[str, ...]


class FinishTask(Struct, frozen=True, tag=True):
    """Finish all results in the segments at ``inputs``, paths in the order of partitions."""

    attempt: str
    output: Output
    inputs: tuple[str, ...]


class CallTask(Struct, frozen=True, tag=True):
    """Call the job's function once, without arguments; its value is the one result."""

    attempt: str
    output: Output


Task = MapTask | ReduceTask | FinishTask | CallTask


class Learn(Struct, frozen=True, tag=True):
    """The code of a record, sent before the first task that needs it."""

    record: str
    code: bytes


class Items(Struct, frozen=True, tag=True):
    """The answer to ``NeedItems``: the pickle of the list of values, in the order asked for."""

    attempt: str
    items: bytes


# ------------------------------------------------------------------------------ from a worker


class Succeeded(Struct, frozen=True, tag=True):
    """The output is sealed. ``sizes`` are its bytes by partition (map only); ``result`` is all of
    it, if it is small and may be all of a result."""

    attempt: str
    holding: Holding
    sizes: tuple[int, ...]
    seconds: float
    result: bytes = b""


class Raised(Struct, frozen=True, tag=True):
    """The user's code raised, or made something that cannot travel."""

    attempt: str
    failure: Failure


class Refused(Struct, frozen=True, tag=True):
    """The task could not be done here, without fault of the user. ``missing`` are positions in
    the task's ``inputs``."""

    attempt: str
    reason: Literal["module", "space", "inputs"]
    detail: str
    missing: tuple[int, ...] = ()


class NeedItems(Struct, frozen=True, tag=True):
    """These items (their indices in the datasource) name files that are not the same here: send
    the values themselves. The attempt waits."""

    attempt: str
    indices: tuple[int, ...]


class Printed(Struct, frozen=True, tag=True):
    """Lines that user code printed or logged."""

    attempt: str
    record: str
    stream: Literal["stdout", "stderr", "log"]
    text: str


class Stale(Struct, frozen=True, tag=True):
    """This process imported another version of a module than the record's: replace me. Seen by
    the pool only."""

    attempt: str
    detail: str


class Died(Struct, frozen=True, tag=True):
    """The worker process died on this attempt. ``item`` is the index of the item (map) or the
    partition (reduce) it was on, if it had begun one."""

    attempt: str
    failure: Failure
    item: int | None


# ------------------------------------------------------------------------------ helper


class Configure(Struct, frozen=True, tag=True):
    """The helper's first message: where modules are found, where workers write, when to spill; and
    the current folder and the variables that have changed since the helper was started."""

    paths: list[str]
    folder: str
    limits: Limits
    directory: bytes = b""
    environment: dict[bytes, bytes | None] = {}


class Fork(Struct, frozen=True, tag=True):
    """Start a worker. Its end of the channel and its page come along as descriptors."""

    worker: int


class Kill(Struct, frozen=True, tag=True):
    """Kill this worker and whatever it started. Unknown ones are dead already."""

    worker: int


class Forked(Struct, frozen=True, tag=True):
    """The worker runs."""

    worker: int
    pid: int


class Exited(Struct, frozen=True, tag=True):
    """The worker is gone: its exit code, or the negative of the signal that killed it.
    ``out_of_memory`` says that the kernel killed for want of memory about then."""

    worker: int
    code: int
    out_of_memory: bool


class NotForked(Struct, frozen=True, tag=True):
    """The worker could not be started."""

    worker: int
    reason: str


ToWorker = Learn | Items | MapTask | ReduceTask | FinishTask | CallTask
FromWorker = Succeeded | Raised | Refused | NeedItems | Printed | Stale
ToHelper = Configure | Fork | Kill
FromHelper = Forked | Exited | NotForked
PoolEvent = Succeeded | Raised | Refused | NeedItems | Printed | Died
Said = ToWorker | FromWorker | ToHelper | FromHelper

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)


# ------------------------------------------------------------------------------ framing


def frame(message: Said) -> bytes:
    """Return the bytes of ``message`` on a channel."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add received bytes; yield every body that is complete. Raises ``ProtocolError``."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > FRAME_BYTES_MAX:
                    raise ProtocolError(f"a frame of {length} bytes on a worker's channel")
                stop = start + _LENGTH.size + length
                if len(buffer) < stop:
                    break
                body = bytes(memoryview(buffer)[start + _LENGTH.size : stop])
                start = stop
                yield body
        finally:
            del buffer[:start]


class Channel:
    """The worker's end of its channel: blocking, and safe to send on from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()
        self._ready: list[ToWorker] = []
        self._sending = threading.RLock()  # a finaliser that prints may run inside send

    def fileno(self) -> int:
        """Return the descriptor, or -1 once closed."""
        return self._sock.fileno()

    def send(self, message: FromWorker) -> None:
        """Send, waiting for room. Raises ``OSError`` when the peer is gone."""
        data = frame(message)
        with self._sending:
            self._sock.sendall(data)

    def receive(self) -> ToWorker | None:
        """Return the next message, waiting for it; ``None`` when the peer is gone."""
        while not self._ready:
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except OSError:
                return None
            if not data:
                return None
            self._ready = [_to_worker.decode(body) for body in self._frames.feed(data)]
        return self._ready.pop(0)

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


V = TypeVar("V")


class Recent(Generic[V]):
    """The values of the last ``CODES_KEPT`` records used.

    Peer and worker each keep one and use it in the order of the messages between them, so both
    always agree about which records the worker knows.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, record: str) -> V | None:
        """Return the value of ``record``, which becomes the latest used."""
        if record not in self._values:
            return None
        self._values.move_to_end(record)
        return self._values[record]

    def put(self, record: str, value: V) -> None:
        """Keep ``value`` as the latest used; the one used longest ago may go."""
        self._values[record] = value
        self._values.move_to_end(record)
        if len(self._values) > CODES_KEPT:
            self._values.popitem(last=False)

    def __contains__(self, record: str) -> bool:
        return record in self._values
