"""Transport on real sockets: greetings, links, and what strangers cannot do."""

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from grid.framing import encode
from grid.messages import PROTOCOL, Address, Beat, Hello, Message, Printed, Refusal, Reign, Welcome
from peers import link as link_module
from peers.doorman import Doorman, PortTaken, bind
from peers.link import Connection, Link, open_filenos
from peers.security import Security, secure
from peers.transport import DialFailed, Patience, dial

pytestmark = pytest.mark.live

_PYTHON = sys.version_info[:2]
_NOWHERE = Address("127.0.0.1", 1)


def _security(password: str = "a password") -> Security:
    return secure("g", password=password, loopback_only=True, environ={})


@pytest.fixture(scope="module")
def host() -> Security:
    return _security()


@pytest.fixture(scope="module")
def guest() -> Security:
    return _security()


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208  (names are all that is wanted)


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """No thread and no descriptor is left by any test."""
    threads, before = set(threading.enumerate()), len(_descriptors())
    yield
    _until(lambda: set(threading.enumerate()) <= threads and len(_descriptors()) <= before)


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


async def _eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


def _hello(security: Security, intended: Address = _NOWHERE, **changes: object) -> Hello:
    values: dict[str, object] = {
        "protocol": PROTOCOL,
        "grid": "g",
        "peer": security.peer_id,
        "name": "guest",
        "python": _PYTHON,
        "role": "peer",
    }
    return Hello(**(values | changes), intended=intended)  # type: ignore[arg-type]


class _House:
    """A doorman whose guests are attached to the loop of the test, and what they said."""

    def __init__(self, security: Security, **settings: float) -> None:
        self.security = security
        self.hellos: list[Hello] = []
        self.answer: Welcome | Refusal = Welcome(
            security.peer_id, "host", _PYTHON, Reign(3, "abc"), followers=2
        )
        self.links: list[Link] = []
        self.heard: list[tuple[Link, Message]] = []
        self.ended: list[tuple[Link, str]] = []
        self.echoes = False
        self.thinks_seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self.doorman = Doorman(
            bind(["127.0.0.1"], 0),
            security,
            "g",
            self._greet,
            self._admit,
            **settings,  # type: ignore[arg-type]
        )
        self.doorman.start()

    @property
    def address(self) -> Address:
        return self.doorman.addresses[0]

    def __enter__(self) -> "_House":
        return self

    def __exit__(self, *_: object) -> None:
        self.doorman.stop()
        for each in self.links:
            each.close()

    def _greet(self, hello: Hello) -> Welcome | Refusal:
        self.hellos.append(hello)
        time.sleep(self.thinks_seconds)
        return self.answer

    def _admit(self, connection: Connection) -> None:
        self._loop.call_soon_threadsafe(self._attach, connection)

    def _attach(self, connection: Connection) -> None:
        self.links.append(
            connection.attach(
                self._loop, self._on_message, lambda link, why: self.ended.append((link, why))
            )
        )

    def _on_message(self, link: Link, message: Message) -> None:
        self.heard.append((link, message))
        if self.echoes:
            link.send(message)

    async def visit(self, guest: Security, timeout: float = 5.0) -> tuple[Link, "_Guest"]:
        """Dial, attach, and wait until the host has attached its end too."""
        came = len(self.links)
        connection = await dial(self.address, guest, _hello(guest, self.address), timeout)
        them = _Guest()
        link = connection.attach(self._loop, them.on_message, them.on_closed)
        await _eventually(lambda: len(self.links) == came + 1)
        return link, them


class _Guest:
    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.ended: list[str] = []

    def on_message(self, link: Link, message: Message) -> None:
        self.heard.append(message)

    def on_closed(self, link: Link, reason: str) -> None:
        self.ended.append(reason)


@contextmanager
def _server(serve: Callable[[socket.socket], None] | None) -> Iterator[Address]:
    """A listener of our own making: ``serve`` gets each connection; ``None`` never answers."""
    (listener,) = bind(["127.0.0.1"], 0)
    listener.setblocking(True)
    accepted: list[socket.socket] = []

    def work() -> None:
        while True:
            try:
                accepted.append(listener.accept()[0])
            except OSError:
                return
            if serve is not None:
                with suppress(OSError):
                    serve(accepted[-1])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield Address(*listener.getsockname())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for sock in accepted:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        for sock in [*accepted, listener]:
            sock.close()


async def _failure(
    address: Address, security: Security, timeout: float = 5.0, **changes: object
) -> DialFailed:
    with pytest.raises(DialFailed) as caught:
        await dial(address, security, _hello(security, address, **changes), timeout)
    return caught.value


# ------------------------------------------------------------------------------ greeting


def test_both_ends_know_whom_they_met(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            link, _ = await house.visit(guest)
            (theirs,) = house.links
            assert (link.remote, theirs.remote) == (host.peer_id, guest.peer_id)
            assert link.welcome == theirs.welcome == house.answer
            assert link.hello == theirs.hello == _hello(guest, house.address)
            assert link.connection.far == theirs.connection.local == house.address
            assert link.connection.local == theirs.connection.far
            assert set(link.filenos() + theirs.filenos() + house.doorman.filenos()) <= {
                int(name) for name in _descriptors()
            }
            link.close()

    asyncio.run(scenario())


def test_messages_arrive_in_order_both_ways(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            house.echoes = True
            link, them = await house.visit(guest)
            big = Printed("r", "p", "stdout", "x" * (1 << 18))  # as long as text may be
            sent: list[Message] = [Beat(n) for n in range(3000)]
            sent[500:2000:100] = [big] * 15
            for message in sent:
                link.send(message)
            await _eventually(lambda: len(them.heard) == len(sent))
            assert them.heard == sent
            assert link.unsent_bytes == 0
            link.close()

    asyncio.run(scenario())


def test_all_messages_of_a_tick_leave_in_one_write(
    host: Security, guest: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            link, _ = await house.visit(guest)
            writes: list[int] = []
            send = ssl.SSLSocket.send
            monkeypatch.setattr(
                ssl.SSLSocket,
                "send",
                lambda self, data: writes.append(len(data)) or send(self, data),  # type: ignore[func-returns-value]
            )
            for n in range(100):
                link.send(Beat(n))
            await _eventually(lambda: len(house.heard) == 100)
            assert len(writes) == 1
            link.close()

    asyncio.run(scenario())


def test_messages_sent_before_closing_arrive(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            link, them = await house.visit(guest)
            for n in range(1000):
                link.send(Beat(n))
            link.close()
            link.send(Beat())  # closed: nothing happens
            await _eventually(lambda: bool(house.ended))
            assert [message for _, message in house.heard] == [Beat(n) for n in range(1000)]
            assert [why for _, why in house.ended] == ["closed by the remote"]
            assert them.ended == []  # one's own close is no news

    asyncio.run(scenario())


def test_a_callback_that_raises_costs_no_message(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        reported: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(repr(context["exception"]))
        )
        with _House(host) as house:
            link, _ = await house.visit(guest)
            seen: list[Message] = []

            def on_message(_: Link, message: Message) -> None:
                seen.append(message)
                if message == Beat(1):
                    raise LookupError("a mistake")

            house.links[0]._on_message = on_message
            for n in range(4):
                link.send(Beat(n))
            await _eventually(lambda: len(seen) == 4)
            assert seen == [Beat(n) for n in range(4)]
            assert reported == ["LookupError('a mistake')"]
            link.close()

    asyncio.run(scenario())


# ------------------------------------------------------------------------------ why a dial fails


def test_refused_when_nobody_listens(guest: Security) -> None:
    (listener,) = bind(["127.0.0.1"], 0)
    address = Address(*listener.getsockname())
    listener.close()
    assert asyncio.run(_failure(address, guest)).kind == "refused"


def test_silent_when_nothing_answers(guest: Security) -> None:
    with _server(None) as address:
        started = time.monotonic()
        failure = asyncio.run(_failure(address, guest, timeout=0.2))
    assert failure.kind == "silent"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "say",
    [
        lambda sock: sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        lambda sock: sock.sendall(b"\0" * 4096),
        lambda sock: sock.sendall(sock.recv(65536)),
    ],
    ids=["banner", "garbage", "our own bytes reflected"],
)
def test_stranger_when_it_speaks_something_else(
    guest: Security, say: Callable[[socket.socket], None]
) -> None:
    with _server(say) as address:
        assert asyncio.run(_failure(address, guest)).kind == "stranger"


def test_unreachable_when_it_hangs_up(guest: Security) -> None:
    with _server(lambda sock: sock.shutdown(socket.SHUT_RDWR)) as address:
        failure = asyncio.run(_failure(address, guest))
    assert failure.kind == "unreachable"


def test_wrong_key_whichever_side_notices(host: Security) -> None:
    async def scenario() -> None:
        other = _security("another password")
        with _House(host) as house:
            assert (await _failure(house.address, other)).kind == "wrong_key"
            # In TLS 1.3 a client that trusts the server learns of its own rejection when it reads.
            other.client_context.verify_mode = ssl.CERT_NONE
            failure = await _failure(house.address, other)
            assert (failure.kind, "does not accept" in failure.reason) == ("wrong_key", True)
            assert house.hellos == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": PROTOCOL + 1}, "install the same version"),
        ({"grid": "other"}, "this is the grid 'g'"),
        ({"python": (3, 1)}, "you run 3.1"),
        ({"peer": "0" * 32}, "not that of your certificate"),
    ],
    ids=["protocol", "grid", "python", "claimed id"],
)
def test_refusals_say_what_differs(
    host: Security, guest: Security, changes: dict[str, Any], reason: str
) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            failure = await _failure(house.address, guest, **changes)
            assert failure.kind == "refusal"
            assert reason in failure.reason
            assert house.hellos == []

    asyncio.run(scenario())


def test_the_host_may_refuse_in_its_own_words(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            house.answer = Refusal("we are full")
            failure = await _failure(house.address, guest)
            assert (failure.kind, failure.reason) == ("refusal", "we are full")

    asyncio.run(scenario())


def test_a_host_that_claims_another_id_is_a_stranger(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        with _House(host) as house:
            house.answer = Welcome("0" * 32, "host", _PYTHON)
            failure = await _failure(house.address, guest)
            assert failure.kind == "stranger"
            assert "certificate" in failure.reason

    asyncio.run(scenario())


def test_our_own_stall_is_not_the_remotes_silence() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with Patience(0.1):
            time.sleep(0.4)  # the stall itself
            await asyncio.sleep(0.02)  # the steps that the remote had answered meanwhile
        with pytest.raises(TimeoutError):
            async with Patience(0.05):
                await loop.create_future()

    asyncio.run(scenario())


# ------------------------------------------------------------------------------ ends of links


def test_a_killed_process_is_noticed_at_once(host: Security) -> None:
    script = (
        "import asyncio, sys\n"
        "from grid.messages import Address, Hello\n"
        "from peers.security import secure\n"
        "from peers.transport import dial\n"
        "async def main():\n"
        "    us = secure('g', password='a password', loopback_only=True, environ={})\n"
        "    to = Address('127.0.0.1', int(sys.argv[1]))\n"
        "    hello = Hello(1, 'g', us.peer_id, 'n', sys.version_info[:2], 'peer', to)\n"
        "    kept = await dial(to, us, hello, 10)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def scenario() -> None:
        with _House(host) as house:
            process = subprocess.Popen([sys.executable, "-c", script, str(house.address.port)])
            try:
                await _eventually(lambda: bool(house.links), 30)
                os.kill(process.pid, signal.SIGKILL)
                await _eventually(lambda: bool(house.ended), 20)
            finally:
                process.kill()
                process.wait()

    asyncio.run(scenario())


def test_a_malformed_frame_ends_that_link_only(host: Security, guest: Security) -> None:
    """P8: one bad peer never harms another."""

    async def scenario() -> None:
        with _House(host) as house:
            bad, _ = await house.visit(guest)
            good, _ = await house.visit(guest)
            bad.connection.sock.send(encode(Beat(7)) + b"\xff\xff\xff\xff")
            await _eventually(lambda: bool(house.ended))
            ((ended, why),) = house.ended
            assert ended is house.links[0]
            assert "announced a frame of 4294967295 bytes" in why
            assert house.heard == [(house.links[0], Beat(7))]
            good.send(Beat(8))
            await _eventually(lambda: (house.links[1], Beat(8)) in house.heard)
            bad.close()
            good.close()

    asyncio.run(scenario())


def test_one_who_does_not_read_is_given_up(
    host: Security, guest: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: what waits for a peer is bounded."""

    async def scenario() -> None:
        monkeypatch.setattr(link_module, "UNSENT_BYTES_MAX", 2**20)
        with _House(host) as house:
            sleeper = await dial(house.address, guest, _hello(guest), 5)
            await _eventually(lambda: bool(house.links))
            line = Printed("r", "p", "stdout", "x" * 2**18)
            for _ in range(400):
                house.links[0].send(line)
                await asyncio.sleep(0)
                if house.ended:
                    break
            ((_, why),) = house.ended
            assert "does not read" in why
            assert house.links[0].unsent_bytes == 0
            sleeper.close()

    asyncio.run(scenario())


# ------------------------------------------------------------------------------ strangers


def test_500_idle_connections_keep_nobody_out(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        limits = {"handshake_seconds": 60.0, "pending_max": 256}
        with _House(host, **limits) as house, ExitStack() as idle:
            for _ in range(500):
                sock = idle.enter_context(socket.socket())
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    sock.connect((house.address.host, house.address.port))
            started = time.monotonic()
            link, _ = await house.visit(guest)
            assert time.monotonic() - started < 30
            assert len(house.doorman._pending) <= 256  # the others made room
            link.close()

    asyncio.run(scenario())


def test_a_crowd_does_not_push_itself_out(host: Security, guest: Security) -> None:
    """Many more than may wait at once: whoever is new waits in the kernel, nobody is dropped."""

    async def scenario() -> None:
        with _House(host, pending_max=4, yield_seconds=30) as house:
            hello = _hello(guest, house.address)
            dials = (dial(house.address, guest, hello, 20) for _ in range(60))
            came = await asyncio.gather(*dials)
            assert len(house.hellos) == 60
            for connection in came:
                connection.close()
            await _eventually(lambda: len(house.links) == 60)

    asyncio.run(scenario())


def test_one_that_says_nothing_yields_to_the_next(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        limits = {"handshake_seconds": 60.0, "pending_max": 1, "yield_seconds": 0.3}
        with _House(host, **limits) as house, socket.socket() as idle:
            idle.connect((house.address.host, house.address.port))
            await _eventually(lambda: len(house.doorman._pending) == 1)
            started = time.monotonic()
            link, _ = await house.visit(guest)
            assert 0.2 < time.monotonic() - started < 30
            link.close()

    asyncio.run(scenario())


def test_a_server_that_has_shown_life_gets_more_time(host: Security, guest: Security) -> None:
    """The handshake and the greeting may each take almost as long as one may be silent."""

    async def scenario() -> None:
        with _House(host) as house:
            house.thinks_seconds = 1.2
            house.doorman.rest(1.2)
            started = time.monotonic()
            connection = await dial(house.address, guest, _hello(guest, house.address), 2.0)
            assert time.monotonic() - started > 2.0
            connection.close()
            await _eventually(lambda: bool(house.links))

    asyncio.run(scenario())


def test_slow_strangers_are_dropped_in_time(host: Security, guest: Security) -> None:
    """One that says nothing, one that drips bytes, one that stops half way through a hello."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with _House(host, handshake_seconds=0.5) as house, ExitStack() as stack:
            where = (house.address.host, house.address.port)
            silent = stack.enter_context(socket.create_connection(where))
            dripping = stack.enter_context(socket.create_connection(where))
            half = stack.enter_context(await _greeted_socket(house, guest))
            await loop.run_in_executor(None, half.sendall, encode(_hello(guest))[:20])
            await _eventually(lambda: len(house.doorman._pending) == 3)
            deadline = time.monotonic() + 5
            while house.doorman._pending:
                assert time.monotonic() < deadline
                with suppress(OSError):
                    dripping.send(b"\x16\x03\x01\x02\x00"[:1])
                await asyncio.sleep(0.02)
            for sock in (silent, half):
                sock.settimeout(5)
                assert await loop.run_in_executor(None, sock.recv, 1) == b""
            assert house.hellos == []

    asyncio.run(scenario())


async def _greeted_socket(house: _House, guest: Security) -> ssl.SSLSocket:
    """A connection that has proved its key and not said hello."""
    raw = socket.create_connection((house.address.host, house.address.port))
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, guest.client_context.wrap_socket, raw)


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\3abc",
        encode(Beat()),
        b"\0\0\xff\xff",
    ],
    ids=["http", "huge length", "garbage", "not a hello", "longer than any hello"],
)
def test_members_that_do_not_say_hello_are_refused(
    host: Security, guest: Security, words: bytes
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with _House(host) as house:
            with await _greeted_socket(house, guest) as sock:
                sock.sendall(words)
                answer = await loop.run_in_executor(None, sock.recv, 4096)
                assert b"no hello" in answer
                assert await loop.run_in_executor(None, sock.recv, 4096) == b""
            assert house.hellos == []
            link, _ = await house.visit(guest)
            link.close()

    asyncio.run(scenario())


def test_garbage_instead_of_tls_reaches_no_one(host: Security, guest: Security) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with _House(host) as house:
            for words in (b"\0" * 70_000, b"GET / HTTP/1.0\r\n\r\n", encode(_hello(guest))):
                where = (house.address.host, house.address.port)
                with socket.create_connection(where) as sock, suppress(OSError):
                    sock.sendall(words)
                    while await loop.run_in_executor(None, sock.recv, 4096):
                        pass
            assert house.hellos == []
            link, _ = await house.visit(guest)
            link.close()

    asyncio.run(scenario())


def test_running_out_of_descriptors_does_not_spin(
    host: Security, guest: Security, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with _House(host) as house, ExitStack() as stack:
            socks = [stack.enter_context(socket.socket()) for _ in range(4)]
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, _descriptors())), limits[1]))
            try:
                with suppress(OSError):
                    while True:  # fill what is left under the limit
                        stack.callback(os.close, os.dup(0))
                for sock in socks:
                    sock.connect((house.address.host, house.address.port))
                await _eventually(lambda: len(caplog.records) >= 3)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            stamps = [record.created for record in caplog.records]
            assert "Too many open files" in caplog.text
            assert stamps[2] - stamps[0] > 0.3  # two rests
            link, _ = await house.visit(guest)
            link.close()

    with caplog.at_level(logging.WARNING, logger="peers.doorman"):
        asyncio.run(scenario())


# ------------------------------------------------------------------------------ ports


def test_a_stopped_doorman_frees_its_port_at_once(host: Security, guest: Security) -> None:
    """Even with connections that linger, half-greeted guests, and a copy of the socket."""

    async def scenario() -> None:
        for _ in range(3):
            with _House(host) as house:
                link, them = await house.visit(guest)
                copies = [os.dup(fd) for fd in open_filenos(*house.doorman._listeners)]
                where = (house.address.host, house.address.port)
                with socket.create_connection(where) as waiting:
                    await _eventually(lambda: bool(house.doorman._pending))
                    house.doorman.stop()
                    house.doorman.stop()
                    for sock in bind(["127.0.0.1"], house.address.port):
                        sock.close()
                    waiting.settimeout(5)
                    assert waiting.recv(1) == b""
                for fd in copies:
                    os.close(fd)
                assert (await _failure(house.address, guest)).kind == "refused"
                link.send(Beat(5))  # those who were admitted stay
                await _eventually(lambda: bool(house.heard))
                assert them.ended == []
                link.close()

    asyncio.run(scenario())


def test_a_doorman_never_started_still_frees_its_port(host: Security) -> None:
    listeners = bind(["127.0.0.1"], 0)
    port = listeners[0].getsockname()[1]
    Doorman(listeners, host, "g", lambda _: Refusal(""), lambda _: None).stop()
    for sock in bind(["127.0.0.1"], port):
        sock.close()


def test_a_port_is_bound_on_all_addresses_or_none() -> None:
    (taken,) = bind(["127.0.0.2"], 0)
    port = taken.getsockname()[1]
    with pytest.raises(PortTaken, match=rf"127\.0\.0\.2:{port}"):
        bind(["127.0.0.1", "127.0.0.2"], port)
    with pytest.raises(PortTaken):
        bind(["0.0.0.0"], port)
    (free,) = bind(["127.0.0.1"], port)
    free.close()
    taken.close()
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1") as caught:
        bind(["192.0.2.1"], 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert not isinstance(caught.value, PortTaken)


def test_one_port_is_chosen_for_all_addresses() -> None:
    socks = bind(["127.0.0.1", "127.0.0.2"], 0)
    assert socks[0].getsockname()[1] == socks[1].getsockname()[1]
    assert not any(sock.get_inheritable() for sock in socks)
    for sock in socks:
        sock.close()


def test_only_one_of_many_processes_gets_a_port() -> None:
    (probe,) = bind(["127.0.0.1"], 0)
    port = probe.getsockname()[1]
    probe.close()
    script = (
        "import sys\nfrom peers.doorman import bind, PortTaken\nsys.stdin.readline()\n"
        "try:\n    kept = bind(['127.0.0.1', '127.0.0.2'], int(sys.argv[1]))\n"
        "except PortTaken:\n    print('taken', flush=True)\n"
        "else:\n    print('bound', flush=True)\nsys.stdin.read()\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(4)
    ]
    try:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        answers = []
        for process in started:
            assert process.stdout is not None
            answers.append(process.stdout.readline().strip())
        assert sorted(answers) == ["bound", "taken", "taken", "taken"]
    finally:
        for process in started:
            process.communicate(timeout=60)
