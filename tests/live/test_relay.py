"""Relaying on real sockets: who cannot be dialled is reached through the server, by members only,
and nobody on the way can read what passes."""

import asyncio
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from grid.messages import (
    PROTOCOL,
    Address,
    FetchItems,
    FetchSegments,
    Hello,
    Output,
    Paired,
    PeerRef,
    Refusal,
)
from peers import Job, Peer, reach, relay
from peers.bulk import Blob, BulkClient, NotHere, Unreachable
from peers.doorman import bind
from peers.link import Connection
from peers.security import Security, secure
from peers.transport import DialFailed, dial, read_message, verified_id
from tests.live.harness import Process, Site, until

pytestmark = pytest.mark.live

_OUTPUT = Output("r", "map", 0, 4, "p", 1)
_SECRET = b"nobody on the way may read this "
_BIG = _SECRET * 2**21  # 64 MiB

UNREACHABLE = """
import sys
from grid.messages import Address
from peers import Peer
from peers.bulk_server import BulkServer
BulkServer.address = property(lambda self: Address("127.0.0.1", {port}))  # leads nowhere
with Peer({arguments}) as peer:
    print("joined", peer.status().term, flush=True)
    sys.stdin.read()
"""


class _Shelf:
    """A provider of known things."""

    def __init__(self) -> None:
        self.big = _BIG

    def record(self, record: str, keys: bool) -> Sequence[Blob]:
        raise NotHere("no records here")

    def items(self, record: str, indices: Sequence[int], resolve: bool) -> Sequence[Blob]:
        return [_SECRET + str(index).encode() for index in indices]

    def segments(self, outputs: tuple[Output, ...], first: int, stop: int) -> Sequence[Blob]:
        return [self.big]


def _refused() -> Iterator[Address]:
    """Nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", sock.getsockname()[1])


def _silent() -> Iterator[Address]:
    """The kernel accepts, and nobody ever says a word."""
    (listener,) = bind(["127.0.0.1"], 0)
    yield Address("127.0.0.1", listener.getsockname()[1])
    listener.close()


def _dropped() -> Iterator[Address]:
    """Not even the kernel answers, as behind a firewall: the queue of the listener is full."""
    with socket.socket() as listener, socket.socket() as one, socket.socket() as two:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (one, two):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield Address("127.0.0.1", listener.getsockname()[1])


def _stranger() -> Iterator[Address]:
    """Something else listens there: it closes whatever connects."""
    (listener,) = bind(["127.0.0.1"], 0)
    listener.setblocking(True)

    def turn_away() -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=turn_away)
    thread.start()
    yield Address("127.0.0.1", listener.getsockname()[1])
    socket.socket.shutdown(listener, socket.SHUT_RDWR)
    thread.join()
    listener.close()


class _Trio:
    """A server, one who asks and one who holds, all of this process; the holder cannot be dialled
    at the address it gives. ``shelf`` is what it has."""

    def __init__(self, site: Site, address: Address) -> None:
        self.server = site.here("server")
        self.server.status()
        self.asker = site.here("asker")
        self.holder = site.here("holder")
        assert {self.asker.status().server, self.holder.status().server} == {"server"}
        self.shelf = _Shelf()
        _engine(self.holder)._bulk_server._provider = self.shelf
        me = _engine(self.holder).me
        self.ref = PeerRef(me.peer, me.name, "elsewhere", address)

    def items(self, *indices: int, timeout: float = 60.0) -> list[bytes]:
        client: BulkClient = _engine(self.asker)._bulk_client
        return client.fetch(self.ref, FetchItems("r", indices), timeout)

    def segments(self, timeout: float = 60.0) -> list[bytes]:
        client: BulkClient = _engine(self.asker)._bulk_client
        return client.fetch(self.ref, FetchSegments((_OUTPUT,), 0, 1), timeout)

    def forget_lines(self) -> None:
        """Have the next fetch connect anew."""
        client: BulkClient = _engine(self.asker)._bulk_client
        for lines in client._idle.values():
            for line in lines:
                client._discard(line)
        client._idle.clear()

    @property
    def relay(self) -> relay.Relay:
        found: relay.Relay = _engine(self.server)._relay
        return found


def _engine(peer: Peer) -> Any:
    return peer._started()


@contextmanager
def _somewhere(kind: Callable[[], Iterator[Address]]) -> Iterator[Address]:
    made = kind()
    try:
        yield next(made)
    finally:
        next(made, None)


@pytest.fixture
def nowhere() -> Iterator[Address]:
    yield from _refused()


# ------------------------------------------------------------------------------ whole jobs


@pytest.mark.parametrize("serves", ["another", "the asker", "the holder"])
def test_a_holder_that_cannot_be_dialled_still_serves_its_data(
    site: Site, nowhere: Address, caplog: pytest.LogCaptureFixture, serves: str
) -> None:
    """Its results go through the server's port, whoever serves. Spools of their own make the
    peers strangers to each other's files, as hosts are."""
    arguments = f"name='holder', slots=1, spool={str(site.folder / 'apart')!r}"
    script = UNREACHABLE.format(port=nowhere.port, arguments=arguments)

    def begin_holder() -> None:
        site.run("holder", script).said("joined")

    if serves == "the holder":
        begin_holder()
    elif serves == "another":
        site.start("another", slots=0)
    asker = site.here("asker")
    assert asker.status().server == {"another": "another", "the asker": "asker"}.get(
        serves, "holder"
    )
    if serves != "the holder":
        begin_holder()
    until("the holder is a member", lambda: len(asker.status().members) > 1)
    job = Job(dict.fromkeys(range(20), "x" * 5000), mapfn=_spread, reducefn=_total)
    with caplog.at_level(logging.WARNING):
        assert asker.submit(job).result(60) == job.run()
    told = [r.getMessage() for r in caplog.records if "goes through the server" in r.getMessage()]
    assert len(told) == 1
    assert "the data of holder goes through the server, which is slower: its data port " in told[0]
    assert f"(127.0.0.1:{nowhere.port}: nobody listens)" in told[0]


def _spread(key: int, text: str) -> Iterator[tuple[int, str]]:
    yield key % 3, text


def _total(key: int, texts: list[str]) -> int:
    return sum(map(len, texts))


# ------------------------------------------------------------------------------ one fetch


@pytest.mark.parametrize("kind", [_refused, _silent, _dropped, _stranger])
def test_however_the_holder_cannot_be_reached_the_first_fetch_waits_little_and_the_next_not_at_all(
    site: Site, kind: Callable[[], Iterator[Address]]
) -> None:
    with _somewhere(kind) as address:
        trio = _Trio(site, address)
        began = time.monotonic()
        assert trio.items(1) == [_SECRET + b"1"]
        first = time.monotonic() - began
        trio.forget_lines()
        began = time.monotonic()
        assert trio.items(2) == [_SECRET + b"2"]
        assert time.monotonic() - began < reach.FIRST_GREETING_SECONDS
        assert first < reach.FIRST_GREETING_SECONDS + 5.0


def test_64_megabytes_pass_whole_and_unreadable(
    site: Site, nowhere: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: what the server passes on is encrypted between the two ends."""
    seen: list[bytes] = []
    send = asyncio.SelectorEventLoop.sock_sendall

    async def watched(loop: Any, sock: socket.socket, data: memoryview) -> None:
        if len(seen) < 500:
            seen.append(bytes(data))
        await send(loop, sock, data)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_sendall", watched)
    trio = _Trio(site, nowhere)
    began = time.monotonic()
    assert trio.segments() == [_BIG]
    seconds = time.monotonic() - began
    print(f"64 MiB through the server in {seconds:.2f} s")
    assert seconds < 20
    assert trio.relay.bytes_passed > len(_BIG)
    assert sum(map(len, seen)) > 2**22
    assert not any(_SECRET[:16] in piece for piece in seen)
    assert all(piece[:1] in b"\x16\x14\x17" for piece in seen[:2])  # TLS records


def test_the_ends_verify_each_other_and_not_the_server(site: Site, nowhere: Address) -> None:
    trio = _Trio(site, nowhere)
    trio.items(1)
    (line,) = _engine(trio.asker)._bulk_client._lines
    assert verified_id(line.tls) == _engine(trio.holder).me.peer
    parked = _engine(trio.holder)._bulk_server._parked
    until("it waits for the next request", lambda: parked)
    (guest,) = parked
    assert guest.remote == _engine(trio.asker).me.peer
    assert trio.relay.routes == 1


def test_who_can_be_dialled_is_dialled(site: Site, nowhere: Address) -> None:
    """Direct is preferred, and tried again when the time of the detour is over."""
    trio = _Trio(site, nowhere)
    me = _engine(trio.holder).me
    client = _engine(trio.asker)._bulk_client
    trio.items(1)
    trio.forget_lines()
    open_again = PeerRef(me.peer, me.name, "elsewhere", me.data)
    client.fetch(open_again, FetchItems("r", (1,)), 10)
    until("the detour is taken again", lambda: trio.relay.routes == 1)
    trio.forget_lines()
    until("it is closed", lambda: trio.relay.routes == 0)
    client._reach._detours[me.peer] = time.monotonic()
    client.fetch(open_again, FetchItems("r", (1,)), 10)
    assert trio.relay.routes == 0


# ------------------------------------------------------------------------------ ends that die


def _holding_process(site: Site, port: int) -> Process:
    """A holder in a process of its own, with much to give."""
    script = UNREACHABLE.format(port=port, arguments="name='holder', slots=0")
    script = script.replace(
        "with Peer",
        "from peers.records import Records\n"
        "Records.segments = lambda *_: [bytes(2**28)]\n"
        "with Peer",
    )
    process = site.run("holder", script)
    process.said("joined")
    return process


class _Fetch(threading.Thread):
    """Fetches from the process ``holder``; ``error`` is how that ended."""

    def __init__(self, asker: Peer, nowhere: Address) -> None:
        super().__init__()
        self._client: BulkClient = _engine(asker)._bulk_client
        (peer,) = (row for row in asker.status().members if row.name == "holder")
        self._ref = PeerRef(peer.peer, "holder", "elsewhere", nowhere)
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._client.fetch(self._ref, FetchSegments((_OUTPUT,), 0, 1), 5)
        except Exception as error:
            self.error = error

    def ended(self, seconds: float) -> str:
        self.join(seconds)
        assert not self.is_alive()
        assert isinstance(self.error, Unreachable)
        return str(self.error)


def test_a_holder_that_is_killed_while_it_sends(site: Site, nowhere: Address) -> None:
    server = site.here("server")
    server.status()
    holder = _holding_process(site, nowhere.port)
    fetch = _Fetch(server, nowhere)
    passed = _engine(server)._relay
    until("bytes pass", lambda: passed.bytes_passed > 2**20)
    holder.kill()
    assert "cannot fetch from holder" in fetch.ended(20)
    until("the route is gone", lambda: passed.routes == 0)


def test_a_holder_that_does_not_call_back(
    site: Site, nowhere: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "WAIT_SECONDS", 0.5)
    server = site.here("server")
    server.status()
    holder = _holding_process(site, nowhere.port)
    holder.freeze()
    assert "it did not call back within 0.5 s" in _Fetch(server, nowhere).ended(20)
    holder.thaw()


def test_a_holder_that_dies_before_it_calls_back(site: Site, nowhere: Address) -> None:
    """The server knows at once that nobody will come."""
    server = site.here("server")
    server.status()
    holder = _holding_process(site, nowhere.port)
    holder.freeze()
    fetch = _Fetch(server, nowhere)
    until("it waits", lambda: _engine(server)._relay.waiting == 1)
    began = time.monotonic()
    holder.kill()
    assert "has just gone" in fetch.ended(20)
    assert time.monotonic() - began < relay.WAIT_SECONDS


# ------------------------------------------------------------------------------ who may not


def _outsider() -> Security:
    """One who has the key, and is no member."""
    return secure("grid", loopback_only=True)


def _hello(security: Security, **fields: Any) -> Hello:
    given = {"protocol": PROTOCOL, "grid": "grid", "peer": security.peer_id, "name": "outsider"}
    return Hello(**given, python=sys.version_info[:2], intended=Address("", 0), **fields)  # type: ignore[arg-type]


async def _answer(address: Address, security: Security, **fields: Any) -> Any:
    """What is said after the welcome, to one with this hello."""
    connection = await dial(address, security, _hello(security, **fields), 5)
    try:
        return await asyncio.wait_for(read_message(connection.sock, connection.decoder), 5)
    finally:
        connection.close()


def test_only_members_are_connected_and_only_with_members(site: Site, nowhere: Address) -> None:
    trio = _Trio(site, nowhere)
    address = Address("127.0.0.1", site.port)
    outsider = _outsider()
    member = _engine(trio.asker)._security

    async def scenario() -> None:
        refused = await _answer(address, outsider, role="relay", wanted=trio.ref.peer)
        assert refused == Refusal("only members are connected with each other")
        refused = await _answer(address, member, role="relay", wanted=outsider.peer_id)
        assert refused == Refusal("the peer that you want is no member of this grid now")

    asyncio.run(scenario())
    assert trio.relay.routes == trio.relay.waiting == 0


def test_a_token_is_good_for_one_peer_once(
    site: Site, nowhere: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio = _Trio(site, nowhere)
    address = Address("127.0.0.1", site.port)
    outsider = _outsider()
    tokens: list[str] = []
    wait = relay.Relay.wait

    def overheard(self: relay.Relay, connection: Connection, wanted: str, token: str) -> None:
        tokens.append(token)
        wait(self, connection, wanted, token)

    monkeypatch.setattr(relay.Relay, "wait", overheard)
    nobody = Refusal("nobody waits here for you, or not any more")
    holder = _engine(trio.holder)
    called: list[object] = []
    monkeypatch.setattr(holder.client._dialler, "call_server", _called(called))
    client = _engine(trio.asker)._bulk_client
    fetching = threading.Thread(
        target=lambda: client.fetch(trio.ref, FetchItems("r", (1,)), 10), daemon=True
    )

    async def intrude() -> None:
        assert await _answer(address, outsider, role="answer", token="0" * 32) == nobody
        assert await _answer(address, outsider, role="answer", token=tokens[0]) == nobody
        member = _engine(trio.asker)._security
        assert await _answer(address, member, role="answer", token=tokens[0]) == nobody
        wanted = holder._security
        assert await _answer(address, wanted, role="answer", token=tokens[0]) == Paired()
        assert await _answer(address, wanted, role="answer", token=tokens[0]) == nobody

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)  # that fetch is meant to fail
        fetching.start()
        until("it waits", lambda: trio.relay.waiting == 1 and called)
        asyncio.run(intrude())
        fetching.join(10)
    assert not fetching.is_alive()
    assert len(tokens) == 1


def _called(calls: list[object]) -> Any:
    async def call_server(token: str) -> None:
        calls.append(token)

    return call_server


def test_those_who_wait_and_those_connected_are_bounded(
    site: Site, nowhere: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio = _Trio(site, nowhere)
    monkeypatch.setattr(relay, "ROUTES_MAX", 1)
    trio.items(1)
    client = _engine(trio.asker)._bulk_client
    kept = client._idle.copy()
    client._idle.clear()  # as if in use
    with pytest.raises(Unreachable, match="connections are passed on here already"):
        trio.items(2)
    monkeypatch.setattr(relay, "ROOM_IDLE_SECONDS", 0.0)
    assert trio.items(3) == [_SECRET + b"3"]  # the idle one made room
    assert trio.relay.routes == 1
    for lines in kept.values():
        client._discard(*lines)
    trio.forget_lines()
    monkeypatch.setattr(relay, "WAITING_MAX", 0)
    with pytest.raises(Unreachable, match="0 others wait here"):
        trio.items(4)


def test_who_is_called_back_for_may_come_before_the_relay_has_looked(
    site: Site, nowhere: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all is busy, the relay's thread hears of both at the same moment."""
    trio = _Trio(site, nowhere)
    trio.items(1)
    trio.forget_lines()
    until("the first is over", lambda: trio.relay.routes == 0)
    came = threading.Event()
    answer = trio.relay.answer

    def answered(connection: Connection) -> None:
        answer(connection)
        came.set()

    monkeypatch.setattr(trio.relay, "answer", answered)
    loop = trio.relay._loop
    assert loop is not None
    loop.call_soon_threadsafe(came.wait, 20)
    assert trio.items(2) == [_SECRET + b"2"]


# ------------------------------------------------------------------------------ through a peer


def test_a_data_port_says_whom_its_peer_follows(site: Site, nowhere: Address) -> None:
    trio = _Trio(site, nowhere)
    outsider = _outsider()

    async def scenario() -> None:
        at = _engine(trio.asker).me.data
        connection = await dial(at, outsider, _hello(outsider, role="ask"), 5)
        connection.close()
        claim = connection.welcome.follows
        assert claim is not None
        assert claim.peer == _engine(trio.server).me.peer
        assert claim.address == Address("127.0.0.1", site.port)
        assert claim.reign == connection.welcome.reign == _engine(trio.server).role.reign
        assert claim.followers == 2
        assert 0 <= connection.welcome.heard_seconds < 60

    until("it heard how many there are", lambda: _followers(trio.asker) == 2)
    asyncio.run(scenario())


def _followers(peer: Peer) -> int:
    following = _engine(peer).whereabouts.following
    return -1 if following is None else following.claim.followers


def test_a_server_is_reached_through_a_peer_that_follows_it(site: Site, nowhere: Address) -> None:
    """The voucher connects with the server it follows, and with nobody else."""
    trio = _Trio(site, nowhere)
    outsider = _outsider()
    voucher = _engine(trio.asker).me
    wanted = _engine(trio.server).me.peer

    async def scenario() -> None:
        hello = _hello(outsider, role="probe")
        connection = await dial(nowhere, outsider, hello, 5, through=voucher, wanted=wanted)
        assert connection.remote == wanted
        assert connection.welcome.reign == _engine(trio.server).role.reign
        assert _engine(trio.asker)._relay.routes == 1
        connection.close()
        with pytest.raises(DialFailed, match="does not follow the server that you want"):
            await dial(nowhere, outsider, hello, 5, through=voucher, wanted=trio.ref.peer)
        other = PeerRef("0" * 32, "other", "", voucher.data)
        with pytest.raises(DialFailed, match="now another peer than the one expected"):
            await dial(nowhere, outsider, hello, 5, through=other, wanted=wanted)

    asyncio.run(scenario())
    until("the route is gone", lambda: _engine(trio.asker)._relay.routes == 0)
