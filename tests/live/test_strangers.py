"""Who else may sit on the well-known port: a stranger, another grid, one of our own kind."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from grid.errors import BadKey, CannotJoin, Refused, WrongKey
from peers import Peer
from tests.live.harness import Site, until
from tests.live.jobs import PHASE, answer, gated_job, slow_job


@contextmanager
def stranger(port: int, says: bytes = b"") -> Iterator[None]:
    """Someone who listens on a port, takes connections and says something that is not ours."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def answer_all() -> None:
            while True:
                try:
                    taken, _ = listener.accept()
                except OSError:
                    return
                held.append(taken)
                if says:
                    taken.sendall(says)

        thread = threading.Thread(target=answer_all)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for taken in held:
                taken.close()


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_stranger_on_the_port_is_passed_over(site: Site, says: bytes) -> None:
    with stranger(site.port, says):
        peer = site.here("one", slots=1)
        assert peer.status().address == f"127.0.0.1:{site.port + 1}"
        site.start("two")
        assert len(peer.status().members) == 2
        assert peer.submit(slow_job(10)).result(60) == answer(10)


def test_a_stranger_takes_the_port_of_a_killed_server(site: Site) -> None:
    """It does so before the only standby can, which is stopped meanwhile."""
    site.start("one")
    two = site.start("two")
    peer = site.here("visitor", serves=False)
    gates = [site.folder / "gate0", site.folder / "gate1"]
    txn = peer.submit(gated_job(gates))
    gates[0].touch()
    until("work is done", lambda: txn.progress.maps_done)
    two.freeze()
    site.named("one").kill()
    with stranger(site.port, b"220 mail.example.org ESMTP\r\n"):
        two.thaw()
        gates[1].touch()
        assert txn.result(60) == answer(2 * PHASE)
        assert (txn.progress.term, txn.progress.executed_again) == (2, 0)
        assert peer.status().address == f"127.0.0.1:{site.port + 1}"


def test_strangers_on_all_ports_are_told(site: Site) -> None:
    first = site.port
    with (
        stranger(first),
        stranger(first + 1),
        stranger(first + 2),
        pytest.raises(CannotJoin, match=str(first)),
    ):
        Peer(slots=1, join_timeout=3.0)


def test_another_grid_with_another_password_is_no_stranger(site: Site) -> None:
    site.start("one", password="correct horse")
    with pytest.raises(WrongKey, match=str(site.port)):
        Peer(slots=1, password="battery staple")
    same = site.here("two", password="correct horse")
    assert len(same.status().members) == 2


def test_a_grid_of_the_users_own_key_moves_on_beside_another(site: Site) -> None:
    """Nobody configured a key here: two users of one host must not be in each other's way."""
    site.start("one", password="correct horse")
    peer = site.here("two", slots=1)
    assert peer.status().address != f"127.0.0.1:{site.port}"
    assert [member.name for member in peer.status().members] == ["two"]
    assert peer.submit(slow_job(10)).result(60) == answer(10)


def test_another_name_of_the_grid_is_another_grid(site: Site) -> None:
    site.start("one", password="correct horse", grid="here")
    with pytest.raises((WrongKey, Refused)):
        Peer(slots=1, password="correct horse", grid="there")


def test_a_key_is_never_made_silently_for_other_hosts(site: Site) -> None:
    with pytest.raises(BadKey, match="grid key --new"):
        Peer(hosts="192.0.2.1", slots=1)
    with pytest.raises(BadKey, match="shorter than 8"):
        Peer(hosts="192.0.2.1", slots=1, password="short")
