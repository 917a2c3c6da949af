"""A connection kept ready to the first successor: the next server is joined without greeting it."""

import socket
import ssl

import pytest

from grid.messages import Hello
from peers import Job, dialler
from peers.engine import Engine
from peers.link import Connection, encrypt
from peers.peer import Peer
from peers.transport import DialFailed
from tests.live.harness import Site, agree, until

pytestmark = pytest.mark.live


def engine(peer: Peer) -> Engine:
    return peer._started()


def stands_ready(peer: Peer, successor: Peer) -> None:
    """Wait until this peer keeps a connection to that one."""
    successor.status()
    peer.status()
    until(f"{peer.name} waits for {successor.name} to serve", lambda: waiting(successor) == 1)


def waiting(peer: Peer) -> int:
    """How many wait for this peer to serve."""
    return len(engine(peer).server._awaiting)


def test_the_next_server_is_joined_over_the_connection_that_was_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = site.start("first")
    second = site.here("second", slots=1)
    third = site.here("third", serves=False)
    stands_ready(third, second)
    dialled: list[str] = []

    async def nobody_answers(hello: Hello, **_: object) -> Connection:
        dialled.append(str(hello.intended))
        raise DialFailed("silent", "no other connection can be made")

    monkeypatch.setattr(dialler, "SUMMONS_SECONDS", 30.0)
    monkeypatch.setattr(engine(third).client._dialler, "_dial", nobody_answers)
    first.kill()
    until("the second serves them", lambda: agree([second, third]))
    assert f"127.0.0.1:{site.port}" not in dialled, "it was not greeted a second time"
    assert third.submit(Job(range(3), lambda key, value: [(key, value)])).result(60) == {
        0: [0],
        1: [1],
        2: [2],
    }
    assert waiting(second) == 0


def test_one_who_waits_is_let_go_when_it_is_told_of_another(site: Site) -> None:
    site.start("first")
    second = site.here("second")
    third = site.here("third")
    stands_ready(third, second)
    second.close()
    until("it knows", lambda: engine(third).client._dialler._ready_link is None)


def test_a_connection_that_ends_before_it_is_encrypted_leaves_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()  # a reset
        until("the reset has come", lambda: _is_reset(near))
        descriptor = near.fileno()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            made = encrypt(near, context, server_side=False)
        except OSError:
            pass
        else:
            made.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            socket.socket(fileno=descriptor)


def _is_reset(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return True
    return False
