"""Bulk data: what peers ask each other for and answer, segments, and what workers say.

Every run has a spool of its own with one good segment in it; sockets are replaced by ones whose
other end has said all it will say. Chunks inside segments are pickles, which only workers and
owners open, after their checksums: they run what they hold, so nothing here opens one.
"""

import asyncio
import functools
import random
import socket
import ssl
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import structs

from grid.errors import ProtocolError
from grid.framing import Decoder
from grid.messages import (
    Absent,
    Address,
    Announce,
    Assign,
    FetchItems,
    FetchRecord,
    FetchSegments,
    FromData,
    Hello,
    Holding,
    Output,
    Parcel,
    PeerRef,
    Riding,
    Source,
    Welcome,
)
from peers import worker_channel
from peers.bulk import BulkClient
from peers.bulk_server import BulkServer
from peers.inputs import Inputs, InputsAbsent
from peers.keys import Key
from peers.link import Connection
from peers.records import Head, OwnedRecord, Records
from peers.results import Fetcher
from peers.security import Security, issue
from peers.segment import (
    Header,
    Segment,
    SegmentCorrupt,
    SegmentSlice,
    encode_header,
    parse,
    segment_name,
)
from peers.segment_writer import SegmentWriter, write_file
from peers.shipping import Code
from peers.store import Store
from peers.worker_link import Link, from_helper, from_worker
from tests.fuzz.rigs import HINTS, RECORD, WHERE, check_sent, hello, ref
from tests.fuzz.target import Bytewise, Target, memory_bounded
from tests.fuzz.wire import Talk, joined

PARTITIONS = 4
GOOD = Output(RECORD, "map", 0, 2, "honest", 1)
"""The segment that is in every spool."""

FED = Output(RECORD, "map", 2, 4, "evil", 1)
HEAD = Head(Code(b"pickled", {"m": "digest"}, ("/path",), ()).encode(), PARTITIONS, False)
_HINTS = {**HINTS, "counter": (1,), "first": (0, 1, 4), "indices": ((), (0,), (5, 6))}
_OVERHEAD_BYTES = 4 << 20  # of a run: caches, a spool, what is read at once


class _Said(socket.socket):
    """A socket at whose other end somebody has said ``data`` and hung up."""

    def __init__(self, data: bytes) -> None:
        super().__init__(socket.AF_UNIX)
        self._unread = memoryview(data)
        self.answered = bytearray()

    def recv(self, size: int, flags: int = 0) -> bytes:
        taken, self._unread = self._unread[:size], self._unread[size:]
        return bytes(taken)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer)
        taken = self.recv(nbytes or view.nbytes)
        view[: len(taken)] = taken
        return len(taken)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.answered += data


@functools.cache
def _security() -> Security:
    return issue("grid", Key("made for a fuzz", bytes(32)))


@contextmanager
def _spool() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="peergrid-fuzz-") as folder:
        store = Store(folder, "tag", "honest")
        try:
            write_file(store.folder / segment_name(GOOD), [segment_of(GOOD)])
            yield store
        finally:
            store.leave()


@functools.cache
def segment_of(output: Output) -> bytes:
    """Return a segment of three chunks in two partitions."""
    with tempfile.TemporaryDirectory(prefix="peergrid-fuzz-") as folder:
        with SegmentWriter(folder, output, PARTITIONS) as writer:
            for partition, chunk in ((0, b"first"), (2, b"second"), (2, b"third")):
                writer.add(partition, chunk)
            writer.seal()
        return (Path(folder) / segment_name(output)).read_bytes()


# ------------------------------------------------------------------------------ segments


def run_segment(content: bytes) -> None:
    """A file, or a blob, is a segment whose parts fit together, or ``SegmentCorrupt``."""
    with memory_bounded(len(content), _OVERHEAD_BYTES), _spool() as store:
        header = _header_of(content)
        output = header.output if header is not None else FED
        path = store.folder / segment_name(output)
        write_file(path, [content])
        _read_all(path, header)
        _keep(store, output, content)
        for held in store.holdings():
            check_sent(Announce((held,)))


def _header_of(content: bytes) -> Header | None:
    try:
        header, chunks = parse(content)
    except SegmentCorrupt:
        return None
    kept = sum(len(chunk) for _, some in chunks for chunk in some)
    assert header.holding.bytes == sum(header.sizes) == kept
    return header


def _read_all(path: Path, header: Header | None) -> None:
    """Read the file in all ways there are; they agree with what was read in memory."""
    try:
        with Segment(path) as segment:
            part = segment.part(0, 2)
            list(part.sizes()), list(part.walk(0, 2))
            segment.read(0, segment.header.partitions)
            assert segment.header == header
        sliced, _ = parse(b"".join(SegmentSlice(path, 1, 3).pieces(100)))
        assert sliced.output == segment.header.output
    except SegmentCorrupt:
        assert header is None


def _keep(store: Store, output: Output, content: bytes) -> None:
    """Keep it as one fetched, and as one of a neighbour's."""
    source = store.folder / "neighbour"
    write_file(source, [content])
    try:
        incoming = store.incoming(output)
        write_file(incoming, [content])
        store.take(output, incoming)
        store.link(output, source)
    except SegmentCorrupt:
        pass  # as documented


def _mutate_segment(content: bytes, rng: random.Random, bytewise: Bytewise) -> bytes:
    """Change a header by its types, or any bytes; mostly so that the checksums are right."""
    try:
        header, _ = parse(content)
    except Exception:
        return bytewise(content)
    start = len(encode_header(header))
    match rng.randrange(4):
        case 0:
            return bytewise(content)
        case 1:
            return sealed_header(bytewise(content[16:start])) + content[start:]
        case 2:
            data = bytewise(content[start:])
            return encode_header(_describing(header, data, rng)) + data
        case _:
            return sealed_header(_odd(header, rng)) + content[start:]


def sealed_header(header: bytes) -> bytes:
    """Return this as the encoded header of a segment, with the right length and checksum."""
    prefix = encode_header(parse(segment_of(GOOD))[0])[:8]
    return b"".join(
        (
            prefix,
            len(header).to_bytes(4, "little"),
            zlib.crc32(header).to_bytes(4, "little"),
            header,
        )
    )


def _describing(header: Header, data: bytes, rng: random.Random) -> Header:
    """Return a header under which these bytes are one whole chunk."""
    return structs.replace(
        header,
        partitions=rng.choice((1, PARTITIONS, 9)),
        chunk_partitions=[rng.choice((0, 0, 3))],
        chunk_bytes=[len(data)],
        chunk_crcs=[zlib.crc32(data)],
    )


_ODD: tuple[object, ...] = (
    -1,
    0,
    1,
    3,
    5,
    2**16 + 1,
    2**31,
    2**62,
    2**63 - 1,
    "x",
    None,
    [],
    [0, 0],
    1.5,
)


def _odd(header: Header, rng: random.Random) -> bytes:
    """Return the header's msgpack with one value of it anything at all."""
    fields: list[Any] = msgspec.msgpack.decode(encode_header(header)[16:])
    inside = rng.choice([fields, *(field for field in fields if isinstance(field, list) and field)])
    inside[rng.randrange(len(inside))] = rng.choice(_ODD)
    return msgspec.msgpack.encode(fields)


SEGMENT = Target(
    run_segment,
    lambda: [segment_of(FED), segment_of(GOOD)],
    _mutate_segment,
    bounded=True,
)


# ------------------------------------------------------------------------------ bulk, answering


def run_answering(data: bytes) -> None:
    """To whatever a member asks there is an answer, never for want of a check."""
    with memory_bounded(len(data), _OVERHEAD_BYTES), _spool() as store, _Said(data) as sock:
        tls = cast(ssl.SSLSocket, sock)
        records = Records(store, "honest")
        values = {f"key{n}": n for n in range(6)}
        records.add(RECORD, OwnedRecord(HEAD, list(values), values.get, None, (), True))
        server = BulkServer(_security(), "grid", "honest", records, ())
        try:
            connection = Connection(tls, "evil", _HELLO, _WELCOME, Decoder(), WHERE, WHERE)
            while True:
                server._answer(tls, server._read(connection))
        except (ProtocolError, ConnectionResetError):
            pass  # as documented: it costs its sender the connection
        finally:
            server.close()
        _check_answers(bytes(sock.answered))


_HELLO: Hello = hello("evil")
_WELCOME = Welcome("honest", "honest", (3, 11))


def _check_answers(stream: bytes) -> None:
    decoder = Decoder()
    while stream:
        decoder.feed(stream[: 4 + int.from_bytes(stream[:4], "big")])
        answer = decoder.next()
        stream = stream[4 + int.from_bytes(stream[:4], "big") :]
        match answer:
            case Parcel(sizes=sizes):
                assert sum(sizes) <= len(stream)
                stream = stream[sum(sizes) :]
            case Absent(reason=reason):
                assert not reason.startswith("the holder failed"), reason
            case _:
                raise AssertionError(f"answered with {answer}")


_QUESTIONS = Talk(FetchRecord | FetchItems | FetchSegments, _HINTS)
ANSWERING = Target(
    run_answering,
    lambda: [
        joined(FetchRecord(RECORD, keys=True)),
        joined(FetchItems(RECORD, (0, 5)), FetchItems(RECORD, start=1, stop=3, resolve=True)),
        joined(FetchSegments((GOOD,), 0, 2), FetchSegments((GOOD, FED), 2, 4)),
        *(joined(each) for each in _QUESTIONS.one_of_each()),
    ],
    _QUESTIONS.mutate,
    bounded=True,
)


# ------------------------------------------------------------------------------ bulk, asking


@dataclass(eq=False)
class _ToldLine:
    """Such a connection."""

    sock: ssl.SSLSocket
    idle_since: float = 0.0

    @property
    def tls(self) -> ssl.SSLSocket:
        return self.sock

    def close(self) -> None:
        self.sock.close()


class _Told(BulkClient):
    """A bulk client that reaches somebody who has said all it will say."""

    def __init__(self, data: bytes) -> None:
        super().__init__(_security(), "grid", "honest")
        self._data = data

    def _connect(self, holder: PeerRef, timeout: float) -> Any:
        line: Any = _ToldLine(cast(ssl.SSLSocket, _Said(self._data)))
        self._data = b""
        self._lines[line] = None
        return line


_AWAY = PeerRef("evil", "evil", "another host", Address("192.0.2.1", 4000))
_SOURCE = Source(_AWAY, (FED,))


def run_asking(data: bytes) -> None:
    """Whatever the answer, a task's inputs are at hand or ``InputsAbsent``; so with results.

    The first byte says what is asked for.
    """
    question, answer = (data[0] % 4, data[1:]) if data else (0, b"")
    with memory_bounded(len(data), _OVERHEAD_BYTES), _spool() as store:
        bulk = _Told(answer)
        inputs = Inputs(ref("honest"), Records(store, "honest"), store, bulk)
        fetcher = Fetcher(ref("honest"), store, bulk)
        try:
            match question:
                case 0:
                    inputs.prepare(Assign("a", RECORD, "map", 0, 2, (_AWAY,)))
                case 1:
                    riding = Riding(HEAD.encode())
                    inputs.prepare(
                        Assign("a", RECORD, "reduce", 0, 2, (_AWAY,), (_SOURCE,), riding=riding)
                    )
                case 2:
                    fetcher.fetch(((Holding(FED, 3), _AWAY),))
                case _:
                    inputs.prepare(Assign("a", RECORD, "call", 0, 1, (), riding=Riding(answer)))
        except InputsAbsent:
            pass  # as documented
        finally:
            bulk.close()
        for held in store.holdings():
            check_sent(Announce((held,)))


def parcel(*blobs: bytes) -> bytes:
    """Return the answer that gives these blobs."""
    return joined(Parcel(tuple(map(len, blobs)))) + b"".join(blobs)


_ANSWERS = Talk(FromData, _HINTS)


def _mutate_asking(data: bytes, rng: random.Random, bytewise: Bytewise) -> bytes:
    """Change the answer; or the segment in it, so that it arrives as the segment it says it is."""
    question, answer = data[:1], data[1:]
    if rng.random() < 0.1:
        question = bytes([rng.randrange(4)])
    if question in b"\1\2" and rng.random() < 0.5:
        return question + parcel(_mutate_segment(segment_of(FED), rng, bytewise))
    return question + _ANSWERS.mutate(answer, rng, bytewise)


ASKING = Target(
    run_asking,
    lambda: [
        b"\0" + parcel(HEAD.encode()) + parcel(b"pickled items"),
        b"\1" + parcel(segment_of(FED)),
        b"\2" + parcel(segment_of(FED)),
        b"\3" + HEAD.encode(),
        *(b"\0" + joined(each) for each in _ANSWERS.one_of_each()),
    ],
    _mutate_asking,
    bounded=True,
)


# ------------------------------------------------------------------------------ workers


@dataclass
class _NoLoop:
    """Takes the place of an event loop: the target says when there is something to read."""

    def add_reader(self, *_: object) -> None: ...
    def remove_reader(self, *_: object) -> None: ...
    def remove_writer(self, *_: object) -> None: ...


def run_channel(data: bytes) -> None:
    """User code that writes into its worker's channel ends that worker, once, with a reason."""
    for decoder in (from_worker, from_helper):
        said: list[msgspec.Struct] = []
        ends: list[str] = []
        sock = _Said(data)
        loop = cast(asyncio.AbstractEventLoop, _NoLoop())
        with memory_bounded(len(data), _OVERHEAD_BYTES):
            link = Link(loop, sock, decoder, said.append, ends.append)
            while not ends:
                link._readable()
        assert len(ends) == 1
        assert sock.fileno() < 0


_WORKER = Talk(worker_channel.FromWorker | worker_channel.FromHelper, _HINTS)
CHANNEL = Target(
    run_channel,
    lambda: [joined(each, each) for each in _WORKER.one_of_each()],
    _WORKER.mutate,
    bounded=True,
)
