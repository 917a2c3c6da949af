"""Whoever knocks: strangers, other versions, broken members. A job that runs meanwhile ends well.

The attackers are this test's own sockets; the attacked is a peer in a process of its own, which
serves and works. Afterwards it must serve the same term still.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid.framing import encode
from grid.messages import (
    PROTOCOL,
    Address,
    Announce,
    Beat,
    Drop,
    FetchItems,
    FetchSegments,
    Held,
    Hello,
    Holding,
    Join,
    Joined,
    Message,
    NewReign,
    Output,
    PeerRef,
    RecordMeta,
    Redirect,
    Reign,
    Running,
    Submit,
    TaskDone,
    TaskReturned,
)
from peers import Peer, Refused, Transaction
from peers.link import Connection, hang_up
from peers.security import Security, secure
from peers.transport import DialFailed, dial
from tests.live.harness import Site, until
from tests.live.jobs import answer, slow_job

IDLE = 500
PYTHON = sys.version_info[:2]


class Attacked:
    """A serving worker, a peer that watches it, and a job that runs while the test does."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.start("server", slots=2)
        self.peer: Peer = site.here("asker")
        self.job: Transaction = self.peer.submit(slow_job(150))
        self.port = Address("127.0.0.1", site.port)
        self.security: Security = secure("grid", loopback_only=True)

    @property
    def data_port(self) -> Address:
        """Where the server gives data: a link's other end tells, and so does its own word."""
        (server,) = [m for m in self.peer.status().members if m.serving]
        joined = self.converse([self.join()])
        ref = next(message.server for message in joined if isinstance(message, Joined))
        assert ref.peer == server.peer
        return ref.data

    def hello(self, **changes: Any) -> Hello:
        values: dict[str, Any] = {
            "protocol": PROTOCOL,
            "grid": "grid",
            "peer": self.security.peer_id,
            "name": "evil",
            "python": PYTHON,
            "role": "peer",
            "intended": self.port,
        }
        return Hello(**(values | changes))

    def join(self, **changes: Any) -> Join:
        me = PeerRef(self.security.peer_id, "evil", "elsewhere", self.port)
        values: dict[str, Any] = {
            "me": me,
            "slots": 0,
            "serves": False,
            "seen": Reign(1, ""),
            "held": (),
            "running": (),
        }
        return Join(**(values | changes))

    def dial(self, address: Address, **changes: Any) -> Connection:
        return asyncio.run(dial(address, self.security, self.hello(**changes), 5.0))

    def converse(self, messages: list[Message], then: bytes = b"") -> list[Message]:
        """Say these and raw bytes; return what was answered until the far end hung up, or, if it
        does not, until it sends a beat."""
        connection = self.dial(self.port)
        try:
            connection.sock.settimeout(10)
            connection.sock.sendall(b"".join(map(encode, messages)) + then)
            return list(_answers(connection, len(messages)))
        finally:
            connection.close()

    def is_cut_off(self, messages: list[Message], then: bytes = b"") -> bool:
        """Whether the server hangs up on one who says this after joining."""
        connection = self.dial(self.port)
        try:
            connection.sock.settimeout(10)
            connection.sock.sendall(b"".join(map(encode, [self.join(), *messages])) + then)
            while connection.sock.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        finally:
            connection.close()
        return True

    def is_well(self) -> bool:
        """The job is right, the term the same, and the strangers are forgotten."""
        assert self.job.result(60) == answer(150)
        assert self.peer.submit(slow_job(8)).result(60) == answer(8)
        until("they are gone", lambda: len(self.peer.status().members) == 2)
        status = self.peer.status()
        return (status.term, status.server) == (1, "server")


def _answers(connection: Connection, wanted: int) -> Iterator[Message]:
    while True:
        message = connection.decoder.next()
        if message is not None:
            yield message
            if isinstance(message, Joined) and wanted == 1:
                return
            continue
        data = connection.sock.recv(65536)
        if not data:
            return
        connection.decoder.feed(data)


@pytest.fixture
def attacked(site: Site) -> Attacked:
    return Attacked(site)


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(address: Address) -> socket.socket:
    return socket.create_connection((address.host, address.port), 10)


# ------------------------------------------------------------------------- strangers


@pytest.mark.parametrize("door", ["port", "data port"])
def test_500_idle_connections_keep_nobody_out(attacked: Attacked, door: str) -> None:
    address = attacked.port if door == "port" else attacked.data_port
    with many_descriptors(4 * IDLE), contextlib.ExitStack() as held:
        for _ in range(IDLE):
            held.enter_context(connect(address))
        late = attacked.site.here("late")  # still gets in, and its data too
        assert late.submit(slow_job(20)).result(60) == answer(20)
        late.close()
        assert attacked.is_well()


GARBAGE: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "a huge length": b"\xff\xff\xff\xff" * 64,
    "half a TLS record": b"\x16\x03\x01\x40\x00\x01",
    "a pickle": b"\x80\x05c__builtin__\nexit\n)R.",
}


def test_garbage_and_slow_strangers_reach_no_one(attacked: Attacked) -> None:
    """Among them a slow-loris: a byte now and then is no reason to wait for longer."""
    data_port = attacked.data_port
    held: list[socket.socket] = []
    for address in (attacked.port, data_port):
        for garbage in GARBAGE.values():
            held.append(connect(address))
            with contextlib.suppress(OSError):
                held[-1].sendall(garbage)
    slow = [connect(address) for address in (attacked.port, data_port)]

    def dripped_on(sock: socket.socket) -> bool:
        """Drip one more byte of a handshake; whether that is too late."""
        try:
            sock.sendall(b"\x16")
            sock.settimeout(0.05)
            return not sock.recv(4096)
        except TimeoutError:
            return False
        except OSError:
            return True

    def hung_up() -> bool:
        over = [dripped_on(sock) for sock in slow]
        return all(over)

    until("the slow are hung up on", hung_up)
    for sock in (*held, *slow):
        sock.close()
    assert attacked.is_well()


def test_members_that_greet_with_half_a_frame_are_turned_away(attacked: Attacked) -> None:
    """With the right key, but without a hello: neither in time nor whole."""
    said = (b"\x00", b"\x00\x00\x40\x00abc", struct.pack("!I", 2**31))
    waiting = []
    for address in (attacked.port, attacked.data_port):
        for half in said:
            waiting.append(attacked.security.client_context.wrap_socket(connect(address)))
            waiting[-1].sendall(half)
    for tls in waiting:
        tls.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while tls.recv(4096):
                pass  # a refusal, then the end
        hang_up(tls)
    assert attacked.is_well()


# ------------------------------------------------------------------------- other versions

DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "protocol": ({"protocol": PROTOCOL + 1}, "same version of peergrid"),
    "python": ({"python": (3, PYTHON[1] + 1)}, "one minor version everywhere"),
    "grid": ({"grid": "other"}, "this is the grid 'grid'"),
    "id": ({"peer": "somebody-else"}, "not that of your certificate"),
}


def test_those_who_differ_are_told_what_and_what_to_do(attacked: Attacked) -> None:
    for changes, text in DIFFERENT.values():
        for address in (attacked.port, attacked.data_port):
            role = "peer" if address == attacked.port else "data"
            with pytest.raises(DialFailed, match=text) as caught:
                attacked.dial(address, role=role, **changes)
            assert caught.value.kind == "refusal"
    for changes in ({"role": "data"}, {"name": "x" * 300}):
        with pytest.raises(DialFailed):
            attacked.dial(attacked.port, **changes)
    assert attacked.is_well()


def test_a_peer_of_another_version_raises_refused(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its user meets it."""
    monkeypatch.setattr("peers.dialler.PROTOCOL", PROTOCOL + 7)
    with pytest.raises(Refused, match=rf"{attacked.port}.*protocol {PROTOCOL}.*same version"):
        Peer(slots=0)
    monkeypatch.undo()
    assert attacked.job.result(60) == answer(150)


# ------------------------------------------------------------------------- reflections


@contextlib.contextmanager
def relay(port: int, target: Callable[[socket.socket], socket.socket]) -> Iterator[None]:
    """Take connections on ``port`` and send what comes to what ``target`` makes of each."""
    with socket.create_server(("127.0.0.1", port)) as listener, contextlib.ExitStack() as held:
        threads: list[threading.Thread] = []

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            for each in (source, sink):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

        def serve() -> None:
            while True:
                try:
                    near = held.enter_context(listener.accept()[0])
                except OSError:
                    return
                try:
                    far = target(near)
                except OSError:  # nobody is there yet: as when nobody listened
                    near.close()
                    continue
                if far is not near:
                    held.enter_context(far)
                    threads.append(threading.Thread(target=pump, args=(far, near)))
                    threads[-1].start()
                threads.append(threading.Thread(target=pump, args=(near, far)))
                threads[-1].start()

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join(10)
            for thread in threads:
                thread.join(10)


def test_what_a_peer_says_sent_back_to_it_is_not_believed(site: Site) -> None:
    """An echo on the port is a stranger; and a mirror to its own server is itself."""
    with relay(site.port, lambda near: near):
        peer = site.here("one", slots=1)
        assert peer.status().address == f"127.0.0.1:{site.port + 1}"
        assert peer.submit(slow_job(8)).result(60) == answer(8)
        peer.close()
    own = site.port + 1
    with relay(site.port, lambda near: connect(Address("127.0.0.1", own))):
        mirrored = site.here("two", slots=1, rival_seconds=0.1)
        assert mirrored.submit(slow_job(60)).result(60) == answer(60)
        status = mirrored.status()
        assert (status.term, len(status.members), status.serving) == (1, 1, True)
        mirrored.close()


def test_a_server_gets_nothing_from_its_own_words(attacked: Attacked) -> None:
    """What one handshake was answered, said in another: both ends of TLS are bound to theirs."""
    with connect(attacked.port) as first, connect(attacked.port) as second:
        first.sendall(_client_hello(attacked.security))
        first.settimeout(10)
        challenge = first.recv(65536)
        assert challenge
        second.sendall(challenge)
        second.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while second.recv(65536):
                pass  # an alert, then nothing more
    assert attacked.is_well()


def _client_hello(security: Security) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = security.client_context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


# ------------------------------------------------------------------------- broken members


def held(record: str, of: str) -> Held:
    return Held(record, (Holding(Output(of, "map", 0, 1, "evil", 1), 1),))


def test_a_member_that_breaks_the_rules_is_cut_off_alone(attacked: Attacked) -> None:
    """Malformed, out of range, or not its to say: that link is closed, and nothing else."""
    running = tuple(Running(f"a{n}", "r", "map", n, n + 1) for n in range(1000))
    output = Output("r", "map", 0, 1, "another", 1)
    said: dict[str, tuple[list[Message], bytes]] = {
        "no message": ([], b"\x00\x00\x00\x03abc"),
        "a huge length": ([Beat()], struct.pack("!I", 2**32 - 1)),
        "a server's message": ([Drop("r")], b""),
        "a reign": ([NewReign(Reign(9, "x"))], b""),
        "a negative number": ([FetchItems("r", (-1,))], b""),
        "no partitions": ([Submit("t", RecordMeta("r", "mapreduce", 1, 0, False))], b""),
        "a huge count": ([Submit("t", RecordMeta("r", "mapreduce", 2**63, 4, False))], b""),
        "an absurd term": ([attacked.join(seen=Reign(2**47, "x"))], b""),
        "joining twice": ([attacked.join(running=running)], b""),
        "another's name": ([attacked.join(me=PeerRef("o", "o", "h", attacked.port))], b""),
        "a mixed record": ([Announce((held("r", "s"),))], b""),
        "another's output": ([TaskDone("a", Holding(output, 1), 0.1)], b""),
        "no port": ([Redirect(Address("h", 70000))], b""),
        "a long name": ([Submit("t" * 5000, RecordMeta("r", "mapreduce", 1, 1, False))], b""),
        "not a number": ([TaskDone("a", Holding(output, 1), float("nan"))], b""),
    }
    for name, (messages, then) in said.items():
        assert attacked.is_cut_off(messages, then), name
    assert attacked.is_well()


def test_large_and_misfitting_values_of_a_member_harm_no_job(attacked: Attacked) -> None:
    """Well formed, allowed, and wrong for every record there is."""
    record = attacked.peer.status().transactions[0].record
    me = attacked.security.peer_id
    outputs = tuple(Output(record, "map", n * 3, n * 3 + 2, me, n) for n in range(50_000))
    ghosts = tuple(Output("ghost", "reduce", 0, 2**50, me, n) for n in range(50_000))
    with contextlib.closing(attacked.dial(attacked.port)) as connection:
        connection.sock.settimeout(20)
        messages: list[Message] = [
            attacked.join(
                running=tuple(Running("same", record, "map", n, n + 1) for n in range(5000)),
                held=(Held(record, tuple(Holding(output, 2**48) for output in outputs)),),
            ),
            TaskReturned("none", "inputs", "", outputs),
            TaskReturned("none", "space", "", ghosts),
            Submit("t", RecordMeta("huge", "mapreduce", 2**53, 65536, True)),
        ]
        for message in messages:
            connection.sock.sendall(encode(message))
        until("it is a member", lambda: len(attacked.peer.status().members) == 3)
    assert attacked.is_well()


def test_odd_requests_on_the_data_port_are_answered_or_hung_up_on(attacked: Attacked) -> None:
    record = attacked.peer.status().transactions[0].record
    output = Output(record, "map", 0, 1, "x", 1)
    requests: list[Message] = [
        FetchItems(record, start=0, stop=2**53),
        FetchItems(record, (2**53,)),
        FetchItems("../../etc/passwd", (0,)),
        FetchSegments((output,), 2**53, 0),
        FetchSegments((Output("../x", "map", 0, 1, "../y", 1),), 0, 1),
        FetchSegments((), 0, 0),
        Beat(),
    ]
    for request in requests:
        connection = attacked.dial(attacked.data_port, role="data")
        connection.sock.settimeout(10)
        connection.sock.sendall(encode(request))
        while (data := connection.sock.recv(65536)) and not connection.decoder.unread_bytes:
            connection.decoder.feed(data)
            assert connection.decoder.next() is not None
            break
        connection.close()
    assert attacked.is_well()
