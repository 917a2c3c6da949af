"""Doors of those who do not serve, with real threads and sockets: asking, pointing, passing on."""

import asyncio
import queue
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from grid import events as ev
from grid.effects import Ask, Reconnect
from grid.messages import PROTOCOL, Address, Claim, Hello, PeerRef, Reign
from grid.settings import Settings
from peers import Job, Peer
from peers.relay import Relay
from peers.security import Security, secure
from peers.server_thread import ServerThread
from peers.transport import DialFailed, dial, retry
from peers.voucher import Voucher
from peers.whereabouts import Following, Whereabouts
from tests.live.harness import Site, port_of, reserve_ports, until

pytestmark = pytest.mark.live

_REIGN = Reign(7, "a")
_NOWHERE = Address("127.0.0.1", 1)
_CLAIM = Claim("server", Address("192.0.2.1", 11235), _REIGN, 3)


class _Standby:
    """The server thread of a peer that follows another; ``told`` is what its client heard."""

    def __init__(self, security: Security, port: int) -> None:
        self.security = security
        self.address = Address("127.0.0.1", port)
        self.told: queue.SimpleQueue[ev.ClientEvent] = queue.SimpleQueue()
        self.whereabouts = Whereabouts()
        self.relay = Relay()
        self.me = PeerRef(security.peer_id, "standby", "h", Address("127.0.0.1", 9))
        self.thread = ServerThread(
            Settings(port=port),
            security,
            self.me,
            ("127.0.0.1",),
            lambda port: Address("127.0.0.1", port),
            self.told.put,
            self.relay,
            Voucher(security, "grid", "standby", self.whereabouts, self.relay),
        )
        self.thread.start()

    def hears(self, kind: type[Any]) -> Any:
        event = self.told.get(timeout=5)
        assert isinstance(event, kind)
        return event

    def point(self) -> None:
        """As the client does: bind, then point."""
        self.whereabouts.follow(Following(_CLAIM, _CLAIM.address))
        self.thread.bind(self.address.port)
        self.hears(ev.PortBound)
        self.thread.point(_CLAIM)

    def close(self) -> None:
        self.thread.stop()
        self.relay.close()


@pytest.fixture
def guest() -> Security:
    return secure("grid", password="a password", loopback_only=True, environ={})


@pytest.fixture
def standby() -> Iterator[_Standby]:
    held = reserve_ports()
    security = secure("grid", password="a password", loopback_only=True, environ={})
    found = _Standby(security, port_of(held[0]))
    yield found
    found.close()
    for sock in held:
        sock.close()


def _hello(standby: _Standby, guest: Security, role: str, **fields: Any) -> Hello:
    python = sys.version_info[:2]
    given = ("grid", guest.peer_id, "guest", python, role, standby.address)
    return Hello(PROTOCOL, *given, **fields)  # type: ignore[arg-type]


def _greet(standby: _Standby, guest: Security, role: str, **fields: Any) -> Any:
    """What the door answers: a welcome, or why not."""
    hello = _hello(standby, guest, role, **fields)

    async def scenario() -> Any:
        try:
            connection = await dial(standby.address, guest, hello, 5)
        except DialFailed as failed:
            return failed
        connection.close()
        return connection.welcome

    return asyncio.run(scenario())


def test_a_signpost_points_and_admits_nobody(standby: _Standby, guest: Security) -> None:
    standby.point()
    for role in ("probe", "ask", "peer", "visitor"):
        answer = _greet(standby, guest, role)
        assert (answer.follows, answer.reign) == (_CLAIM, _REIGN)
        assert answer.heard_seconds < 60
    assert _closed_after_welcome(standby, guest)
    assert "not follow" in _greet(standby, guest, "relay", wanted="another").reason
    standby.whereabouts.lose()
    assert _greet(standby, guest, "probe").follows is None  # nobody is sent to one who is lost


def _closed_after_welcome(standby: _Standby, guest: Security) -> bool:
    """Whether one who would join gets nothing but its welcome."""
    hello = _hello(standby, guest, "peer")

    async def scenario() -> bool:
        connection = await dial(standby.address, guest, hello, 5)
        try:
            return not await retry(connection.sock, lambda: connection.sock.recv(1))
        finally:
            connection.close()

    return asyncio.run(scenario())


def _is_refused(standby: _Standby, guest: Security) -> bool:
    """Whether nobody listens any more; one who still does is not told to stop at once."""
    answer = _greet(standby, guest, "probe")
    return isinstance(answer, DialFailed) and answer.kind == "refused"


def test_a_signpost_is_taken_down_put_up_and_changed(standby: _Standby, guest: Security) -> None:
    for _ in range(2):
        standby.point()
        assert _greet(standby, guest, "probe").follows == _CLAIM
        standby.thread.unpoint()
        until("the port is free", lambda: _is_refused(standby, guest))
    standby.point()
    other = Claim("server", Address("192.0.2.2", 11235), Reign(8, "b"), 1)
    standby.thread.point(other)
    until("it points elsewhere", lambda: _greet(standby, guest, "probe").follows == other)


def test_a_signpost_that_begins_to_serve_keeps_its_port(standby: _Standby, guest: Security) -> None:
    """The listeners stay: whoever knocks meanwhile is answered, by the one or the other."""
    standby.point()
    listeners = until("it points", lambda: standby.thread._doorman)
    standby.thread.bind(standby.address.port)
    standby.hears(ev.PortBound)
    standby.thread.serve(Reign(9, "c"), 0)
    answer = until("it serves", lambda: _serving(standby, guest))
    assert answer.reign == Reign(9, "c")
    assert standby.thread._doorman is listeners
    standby.thread.stop_serving(None)
    until("the port is free", lambda: _is_refused(standby, guest))
    standby.point()
    assert _greet(standby, guest, "probe").follows == _CLAIM


def _serving(standby: _Standby, guest: Security) -> Any:
    answer = _greet(standby, guest, "probe")
    assert not isinstance(answer, DialFailed)
    return answer if answer.follows is None and answer.reign.term else None


def test_a_server_hears_of_a_rival_that_finds_it(standby: _Standby, guest: Security) -> None:
    standby.thread.bind(standby.address.port)
    standby.hears(ev.PortBound)
    standby.thread.serve(Reign(9, "c"), 0)
    mine = Claim(guest.peer_id, Address("192.0.2.9", 11235), Reign(4, "x"), 2)
    _greet(standby, guest, "probe", claim=_CLAIM)  # in another's name: not believed
    _greet(standby, guest, "probe", claim=mine)
    assert standby.hears(ev.RivalHeard).claim == mine


# ------------------------------------------------------------------------------ whole peers


def _engine(peer: Peer) -> Any:
    return peer._started()


class _Heard:
    """What a client thread is told from now on."""

    def __init__(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[Any] = []
        take = client.take

        def noted(event: Any) -> None:
            self.events.append(event)
            take(event)

        monkeypatch.setattr(client, "take", noted)

    def of(self, kind: type[Any], count: int = 1) -> list[Any]:
        def found() -> list[Any]:
            events = [event for event in self.events if isinstance(event, kind)]
            return events if len(events) >= count else []

        return until(f"{kind.__name__}", found)


def test_peers_say_whom_they_follow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """``Ask``: an answer or a failure for each, and only of the peer that was meant."""
    server, asker, other = site.here("server"), site.here("asker"), site.here("other")
    for peer in (server, asker, other):
        peer.status()
    refs = [_engine(peer).me for peer in (server, other)]
    gone = PeerRef("0" * 32, "gone", "h", refs[1].data)
    client = _engine(asker).client
    heard = _Heard(client, monkeypatch)
    client.call(client._perform, Ask((*refs, gone)))
    answers = {event.peer: event.welcome for event in heard.of(ev.AskAnswered, 2)}
    assert {answers[ref.peer].follows.peer for ref in refs} == {refs[0].peer}
    assert {answers[ref.peer].reign for ref in refs} == {_engine(server).role.reign}
    (failed,) = heard.of(ev.AskFailed)
    assert failed.peer == gone.peer
    assert "another peer" in failed.reason


def test_a_server_is_dialled_through_a_peer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """``Reconnect`` with ``through``: the server wanted, or a reason."""
    server, voucher, lost = site.here("server"), site.here("voucher"), site.here("lost")
    for peer in (server, voucher, lost):
        peer.status()
    claim = _engine(voucher).whereabouts.following.claim
    client = _engine(lost).client
    heard = _Heard(client, monkeypatch)
    ref = _engine(voucher).me
    client.call(client._perform, Reconnect(_NOWHERE, 1, 2.0, ref, claim.peer))
    (connected,) = heard.of(ev.Connected)
    assert connected.welcome.peer == claim.peer
    assert connected.welcome.reign == claim.reign
    client.call(client._perform, Reconnect(_NOWHERE, 1, 2.0, ref, "0" * 32))
    (failed,) = heard.of(ev.ReconnectFailed)
    assert "does not follow the server that you want" in failed.reason


CUT_OFF = """
import socket
import sys
from grid.messages import Address
from peers import Peer, transport
from peers.bulk_server import BulkServer

BulkServer.address = property(lambda self: Address("127.0.0.1", 1))  # nobody can dial it
PORTS = range({port}, {port} + 3)
is_cut = False
connect, create_connection = transport.connect, socket.create_connection

async def try_connect(address, seconds):
    if is_cut and address.port in PORTS:
        raise TimeoutError("the way is cut")
    return await connect(address, seconds)

def try_create_connection(where, *others):
    if is_cut and where[1] in PORTS:
        raise TimeoutError("the way is cut")
    return create_connection(where, *others)

transport.connect, socket.create_connection = try_connect, try_create_connection

def cut(client):
    global is_cut
    is_cut = True
    for link in client._links.values():
        socket.socket.shutdown(link.connection.sock, socket.SHUT_RDWR)

with Peer(name="lost", slots=1, spool={spool!r}) as peer:
    print("joined", peer.status().term, flush=True)
    client = peer._started().client
    sys.stdin.readline()
    client.call(cut, client)
    sys.stdin.read()
"""


def test_a_peer_that_reaches_only_others_works_through_one_of_them(site: Site) -> None:
    """The way from one peer to the server is cut: it follows the same server, through a peer that
    still reaches it, and so do the items it fetches and the results that are fetched from it."""
    site.start("server", slots=0)
    voucher = site.here("voucher")
    voucher.status()
    script = CUT_OFF.format(port=site.port, spool=str(site.folder / "apart"))
    lost = site.run("lost", script)
    lost.said("joined")
    before = until("all are members", lambda: _three(voucher))
    through = _engine(voucher)._relay
    assert through.routes == 0
    lost.tell("cut")
    until("it follows through the voucher", lambda: through.routes == 1)
    until("it is a member again", lambda: _three(voucher))
    job = Job(dict.fromkeys(range(20), "x" * 5000), mapfn=_spread, reducefn=_total)
    assert voucher.submit(job).result(60) == job.run()
    after = voucher.status()
    assert (after.server, after.term) == (before.server, before.term)
    assert after.server == "server"


def _three(peer: Peer) -> Any:
    status = peer.status()
    return status if len(status.members) == 3 else None


def _spread(key: int, text: str) -> Iterator[tuple[int, str]]:
    yield key % 3, text


def _total(key: int, texts: list[str]) -> int:
    return sum(map(len, texts))
