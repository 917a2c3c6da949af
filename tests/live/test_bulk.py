"""Bulk data on real sockets: what is asked for arrives whole, or an error says why not."""

import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.framing import Decoder, encode
from grid.messages import (
    PROTOCOL,
    Address,
    Beat,
    Failure,
    FetchItems,
    FetchRecord,
    FetchSegments,
    Hello,
    Output,
    Parcel,
    PeerRef,
    Refusal,
    Welcome,
)
from peers import bulk, reach
from peers.bulk import Blob, BulkClient, NotHere, Unreachable, pieces
from peers.bulk_server import BulkServer
from peers.doorman import bind
from peers.security import Security, secure
from peers.segment import SegmentSlice, segment_name
from peers.segment_writer import SegmentWriter, SpoolFull

pytestmark = pytest.mark.live

_OUTPUT = Output("r", "map", 0, 4, "p", 1)
_BIG = os.urandom(5_000_001)


def _security(password: str = "a password") -> Security:
    return secure("g", password=password, loopback_only=True, environ={})


@pytest.fixture(scope="module")
def holder() -> Security:
    return _security()


@pytest.fixture(scope="module")
def asker() -> Security:
    return _security()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (names are all that is wanted)


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """No thread and no descriptor is left by any test."""
    threads, before = set(threading.enumerate()), _descriptors()
    yield
    _until(lambda: set(threading.enumerate()) <= threads and _descriptors() <= before)


class _Shelf:
    """A provider of known things."""

    def __init__(self) -> None:
        self.wait = threading.Event()
        self.wait.set()
        self.served = 0

    def record(self, record: str, keys: bool) -> Sequence[Blob]:
        if record == "missing":
            raise NotHere("no such record here")
        if record == "broken":
            raise ZeroDivisionError("secret detail")
        return [b"head", b"keys"] if keys else [b"head"]

    def items(self, record: str, indices: Sequence[int], resolve: bool) -> Sequence[Blob]:
        self.wait.wait(60)
        if 13 in indices:
            raise NotHere("unlucky", failure=Failure("raised", "item 13", key="13"))
        self.served += 1
        return [f"{record}{index}{resolve}".encode() for index in indices]

    def segments(self, outputs: tuple[Output, ...], first: int, stop: int) -> Sequence[Blob]:
        if stop > 256:
            raise NotHere("gone", missing=outputs)
        return [b"", memoryview(_BIG)[first:stop], b"", _BIG, b"tail"]


class _Pair:
    def __init__(self, server: BulkServer, shelf: _Shelf, client: BulkClient, ref: PeerRef) -> None:
        self.server = server
        self.shelf = shelf
        self.client = client
        self.ref = ref

    def items(self, *indices: int, timeout: float = 10) -> list[bytes]:
        return self.client.fetch(self.ref, FetchItems("r", indices), timeout)


@contextmanager
def _pair(holder: Security, asker: Security, **settings: float) -> Iterator[_Pair]:
    shelf = _Shelf()
    server = BulkServer(holder, "g", "holder", shelf, **settings)  # type: ignore[arg-type]
    client = BulkClient(asker, "g", "asker")
    server.start()
    try:
        yield _Pair(server, shelf, client, PeerRef(holder.peer_id, "holder", "h", server.address))
    finally:
        shelf.wait.set()
        client.close()
        server.close()


def _connections(server: BulkServer) -> int:
    return len(server._parked) + len(server._busy)


def test_records_items_and_segments_arrive_whole(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair:
        fetch = pair.client.fetch
        assert fetch(pair.ref, FetchRecord("r", keys=True), 10) == [b"head", b"keys"]
        assert fetch(pair.ref, FetchRecord("r", keys=False), 10) == [b"head"]
        assert pair.items(3, 1, 2) == [b"r3False", b"r1False", b"r2False"]
        ranged = FetchItems("r", start=5, stop=7, resolve=True)
        assert fetch(pair.ref, ranged, 10) == [b"r5True", b"r6True"]
        assert pair.items() == []
        parts = fetch(pair.ref, FetchSegments((_OUTPUT,), 10, 20), 10)
        assert parts == [b"", _BIG[10:20], b"", _BIG, b"tail"]
        assert _connections(pair.server) == 1  # one connection served them all
        assert len(pair.client.filenos()) == 1
        assert len(pair.server.filenos()) == 5  # that, the listener, three of the loop's own


def test_blobs_come_into_files_as_they_are_sent(
    holder: Security, asker: Security, tmp_path: Path
) -> None:
    """And a disk without room is told as that, not as a holder who cannot be reached."""
    request = FetchSegments((_OUTPUT,), 10, 20)
    with _pair(holder, asker) as pair:
        paths = [tmp_path / str(number) for number in range(5)]
        assert pair.client.fetch(pair.ref, request, 10, 5, into=paths) == []
        assert [path.read_bytes() for path in paths] == [b"", _BIG[10:20], b"", _BIG, b"tail"]
        size = sum(path.stat().st_size for path in paths)
        assert pair.client._traffic.received == size, "what moves is counted, at both ends"
        assert size <= pair.server._traffic.sent < size + 1000
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(_BIG) // 2, before[1]))
        try:
            with pytest.raises(SpoolFull, match="GRID_SPOOL"):
                pair.client.fetch(pair.ref, request, 10, 5, into=paths)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert pair.client.fetch(pair.ref, request, 10, 5, into=paths) == []
        assert sorted(tmp_path.iterdir()) == paths


def test_a_segment_that_goes_while_it_is_sent(
    holder: Security, asker: Security, tmp_path: Path
) -> None:
    """Its size was announced, so the connection ends; the next one is told why."""
    path = tmp_path / segment_name(_OUTPUT)
    with SegmentWriter(tmp_path, _OUTPUT, 4) as writer:
        writer.add(0, _BIG)
        writer.seal()
    with _pair(holder, asker) as pair:
        whole = SegmentSlice(path, 0, 4)
        pair.shelf.segments = lambda *_: [whole]  # type: ignore[method-assign]
        into = [tmp_path / "fetched"]
        pair.client.fetch(pair.ref, FetchSegments((_OUTPUT,), 0, 4), 10, 1, into=into)
        assert into[0].read_bytes() == path.read_bytes()
        path.unlink()
        with pytest.raises(Unreachable):
            pair.client.fetch(pair.ref, FetchSegments((_OUTPUT,), 0, 4), 10, 1, into=into)


def test_what_is_not_there_is_said_and_the_connection_goes_on(
    holder: Security, asker: Security
) -> None:
    with _pair(holder, asker) as pair:
        with pytest.raises(NotHere, match="no such record") as absent:
            pair.client.fetch(pair.ref, FetchRecord("missing", False), 10)
        assert (absent.value.missing, absent.value.failure) == ((), None)
        with pytest.raises(NotHere) as gone:
            pair.client.fetch(pair.ref, FetchSegments((_OUTPUT,), 0, 300), 10)
        assert gone.value.missing == (_OUTPUT,)
        with pytest.raises(NotHere) as raised:
            pair.items(12, 13)
        assert raised.value.failure == Failure("raised", "item 13", key="13")
        assert pair.items(1) == [b"r1False"]
        assert _connections(pair.server) == 1


def test_a_provider_that_raises_harms_no_one(
    holder: Security, asker: Security, caplog: pytest.LogCaptureFixture
) -> None:
    with _pair(holder, asker) as pair:
        with pytest.raises(NotHere, match="the holder failed: ZeroDivisionError") as caught:
            pair.client.fetch(pair.ref, FetchRecord("broken", False), 10)
        assert "secret" not in str(caught.value)
        assert "cannot provide a FetchRecord" in caplog.text
        assert pair.items(1) == [b"r1False"]


def test_more_askers_than_threads_are_all_served(holder: Security, asker: Security) -> None:
    with _pair(holder, asker, threads_max=2) as pair:
        answers: list[list[bytes]] = []

        def ask() -> None:
            answers.extend(pair.items(1) for _ in range(5))

        askers = [threading.Thread(target=ask) for _ in range(8)]
        for thread in askers:
            thread.start()
        for thread in askers:
            thread.join(30)
        assert answers == [[b"r1False"]] * 40
        assert len(pair.server._crew._threads) == 2
        assert sum(len(lines) for lines in pair.client._idle.values()) <= 4


def test_a_connection_that_the_holder_closed_meanwhile_is_made_again(
    holder: Security, asker: Security
) -> None:
    with _pair(holder, asker, idle_seconds=0.05) as pair:
        assert pair.items(1) == [b"r1False"]
        _until(lambda: _connections(pair.server) == 0)
        assert pair.items(2) == [b"r2False"]


def test_idle_connections_are_closed_in_time(
    holder: Security, asker: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _pair(holder, asker) as pair:
        pair.items(1)
        monkeypatch.setattr(bulk, "_IDLE_SECONDS", -1)
        before = pair.client.filenos()
        pair.items(2)
        assert len(pair.client.filenos()) == len(before) == 1
        _until(lambda: _connections(pair.server) == 1)


# ------------------------------------------------------------------------------ unreachable holders


def test_nobody_listens_any_more(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair:
        pair.items(1)
        pair.server.close()
        with pytest.raises(Unreachable, match=f"from holder at {pair.ref.data}: nobody listens"):
            pair.items(1)


def test_another_peer_at_that_address_is_not_the_holder(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair:
        former = PeerRef("0" * 32, "former", "h", pair.ref.data)
        with pytest.raises(Unreachable, match="now another peer than former"):
            pair.client.fetch(former, FetchItems("r", (1,)), 10)
        assert pair.shelf.served == 0


def test_another_key_gets_nothing(holder: Security) -> None:
    with (
        _pair(holder, _security("another password")) as pair,
        pytest.raises(Unreachable, match="of another grid or key"),
    ):
        pair.items(1)


def test_another_grid_version_is_told_so(
    holder: Security, asker: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "PROTOCOL", PROTOCOL + 1)
    with _pair(holder, asker) as pair, pytest.raises(Unreachable, match="same version"):
        pair.items(1)


def test_a_holder_that_takes_too_long(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair:
        pair.shelf.wait.clear()
        started = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            pair.items(1, timeout=0.2)
        assert time.monotonic() - started < 20
        pair.shelf.wait.set()
        assert pair.items(2) == [b"r2False"]


def test_a_frozen_holder_does_not_hold_up_its_askers(holder: Security, asker: Security) -> None:
    (listener,) = bind(["127.0.0.1"], 0)  # accepts, as the kernel does for a stopped process
    client = BulkClient(asker, "g", "asker")
    ref = PeerRef(holder.peer_id, "frozen", "h", Address(*listener.getsockname()))
    with pytest.raises(Unreachable, match="no answer in time"):
        client.fetch(ref, FetchItems("r", (1,)), 0.2)
    client.close()
    listener.close()


@pytest.mark.parametrize(
    "answer",
    [encode(Parcel((-1,))), encode(Parcel((2**60,))), encode(Beat()), b"\xff\xff\xff\xff"],
    ids=["negative size", "impossible size", "another message", "huge length"],
)
def test_a_holder_that_talks_nonsense(holder: Security, asker: Security, answer: bytes) -> None:
    (listener,) = bind(["127.0.0.1"], 0)
    listener.setblocking(True)

    def serve() -> None:
        raw, _ = listener.accept()
        with holder.server_context.wrap_socket(raw, server_side=True) as sock:
            sock.recv(65536)
            sock.sendall(encode(Welcome(holder.peer_id, "h", sys.version_info[:2])))
            sock.recv(65536)
            sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    client = BulkClient(asker, "g", "asker")
    ref = PeerRef(holder.peer_id, "liar", "h", Address(*listener.getsockname()))
    with pytest.raises(Unreachable, match="cannot fetch from liar"):
        client.fetch(ref, FetchItems("r", (1,)), 10)
    assert client.filenos() == []
    thread.join()
    client.close()
    listener.close()


def test_a_holder_killed_while_sending(asker: Security) -> None:
    script = (
        "import sys\n"
        "from peers.bulk_server import BulkServer\n"
        "from peers.security import secure\n"
        "class Shelf:\n"
        "    def segments(self, outputs, first, stop):\n"
        "        return [bytes(2**27)]\n"
        "us = secure('g', password='a password', loopback_only=True, environ={})\n"
        "server = BulkServer(us, 'g', 'h', Shelf())\n"
        "server.start()\n"
        "print(us.peer_id, server.address.port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    client = BulkClient(asker, "g", "asker")
    try:
        assert process.stdout is not None
        peer, port = process.stdout.readline().split()
        ref = PeerRef(peer, "victim", "h", Address("127.0.0.1", int(port)))
        received = ssl.SSLSocket.recv_into

        def kill_first(sock: ssl.SSLSocket, into: memoryview) -> int:
            process.kill()
            process.wait()
            return received(sock, into)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ssl.SSLSocket, "recv_into", kill_first)
            with pytest.raises(Unreachable, match="cannot fetch from victim"):
                client.fetch(ref, FetchSegments((_OUTPUT,), 0, 1), 10)
    finally:
        client.close()
        process.kill()
        process.communicate()


# ------------------------------------------------------------------------------ bad askers


@contextmanager
def _raw(pair: _Pair, asker: Security, role: str = "data") -> Iterator[ssl.SSLSocket]:
    """A greeted data connection that says what it likes."""
    raw = socket.create_connection((pair.ref.data.host, pair.ref.data.port), 10)
    with asker.client_context.wrap_socket(raw) as sock:
        hello = Hello(
            PROTOCOL,
            "g",
            asker.peer_id,
            "raw",
            sys.version_info[:2],
            role,  # type: ignore[arg-type]
            pair.ref.data,
        )
        sock.sendall(encode(hello))
        decoder = Decoder()
        decoder.feed(sock.recv(4096))
        assert isinstance(decoder.next(), Refusal if role != "data" else Welcome)
        yield sock


@pytest.mark.parametrize(
    "words", [b"\xff\xff\xff\xff", encode(Beat()), b"\0\0\0\3abc"], ids=["huge", "wrong", "garbage"]
)
def test_a_malformed_request_costs_its_sender_the_connection(
    holder: Security, asker: Security, words: bytes
) -> None:
    """P8: one bad peer never harms another."""
    with _pair(holder, asker) as pair:
        with _raw(pair, asker) as sock:
            sock.sendall(words)
            assert sock.recv(4096) == b""
        assert pair.items(1) == [b"r1False"]


def test_only_data_is_served_on_a_data_port(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair, _raw(pair, asker, role="peer") as sock:
        assert sock.recv(4096) == b""


def test_requests_sent_together_are_all_answered(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair, _raw(pair, asker) as sock:
        sock.sendall(encode(FetchItems("r", (1,))) * 50)
        answer = encode(Parcel((7,))) + b"r1False"
        got = b""
        while len(got) < 50 * len(answer):
            got += sock.recv(65536)
        assert got == answer * 50


def test_half_a_request_and_one_who_does_not_read_are_hung_up_on(
    holder: Security, asker: Security
) -> None:
    with _pair(holder, asker, stall_seconds=0.2, threads_max=2) as pair:
        with _raw(pair, asker) as half, _raw(pair, asker) as deaf:
            half.sendall(encode(FetchItems("r", (1,)))[:9])
            deaf.sendall(encode(FetchSegments((_OUTPUT,), 0, 1)) * 8)
            _until(lambda: _connections(pair.server) == 0)
        assert pair.items(1) == [b"r1False"]


def test_idle_strangers_keep_nobody_out(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair, ExitStack() as idle:
        for _ in range(200):
            where = (pair.ref.data.host, pair.ref.data.port)
            idle.enter_context(socket.create_connection(where))
        started = time.monotonic()
        assert pair.items(1) == [b"r1False"]
        assert time.monotonic() - started < 20


# ------------------------------------------------------------------------------ closing


def test_closing_the_client_wakes_a_fetch(holder: Security, asker: Security) -> None:
    with _pair(holder, asker) as pair:
        pair.shelf.wait.clear()
        reasons: list[str] = []

        def ask() -> None:
            try:
                pair.items(1, timeout=60)
            except Unreachable as error:
                reasons.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        _until(lambda: bool(pair.server._busy))
        pair.client.close()
        thread.join(5)
        assert not thread.is_alive()
        assert len(reasons) == 1
        with pytest.raises(Unreachable, match="closing"):
            pair.items(1)


def test_closing_the_server_ends_idle_and_busy_connections(
    holder: Security, asker: Security
) -> None:
    with _pair(holder, asker) as pair, _raw(pair, asker) as idle, _raw(pair, asker) as deaf:
        deaf.sendall(encode(FetchSegments((_OUTPUT,), 0, 1)) * 8)
        _until(lambda: bool(pair.server._busy))
        started = time.monotonic()
        pair.server.close()
        pair.server.close()
        assert time.monotonic() - started < 20
        assert idle.recv(1) == b""
        assert pair.server.filenos() == []
        for sock in bind(["127.0.0.1"], pair.ref.data.port):
            sock.close()


@given(st.lists(st.integers(0, 9) | st.integers(0, 700_000), max_size=6))
def test_pieces_are_the_parcel_and_never_large(sizes: list[int]) -> None:
    blobs = [_BIG[:size] for size in sizes]
    written = list(pieces(blobs))
    assert b"".join(written) == encode(Parcel(tuple(map(len, blobs)))) + b"".join(blobs)
    assert all(0 < len(piece) <= reach.PIECE_BYTES for piece in written)
