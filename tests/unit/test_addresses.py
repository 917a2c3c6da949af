"""Addresses: how they are written, and which are this host's own."""

import subprocess
import sys

import pytest

from grid.errors import Misuse
from peers.addresses import (
    LOOPBACK_HOSTS,
    Place,
    can_bind,
    host_id,
    is_loopback,
    listen_hosts,
    listens_on,
    local_host_towards,
    parse_place,
    probe_hosts,
)


def test_processes_of_one_host_have_one_id() -> None:
    script = "from peers.addresses import host_id; print(host_id())"
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == host_id()
    assert len(host_id()) == 16


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("node1", False),
        ("localhost.example.com", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_loopback_is_listened_on_and_is_ours() -> None:
    hosts = listen_hosts(loopback_only=True)
    assert hosts[0] == "127.0.0.1"
    assert set(hosts) <= set(LOOPBACK_HOSTS)
    assert all(can_bind(host) for host in hosts)
    assert not can_bind("192.0.2.1")
    assert local_host_towards("127.0.0.1") == "127.0.0.1"
    assert listen_hosts(loopback_only=False)[0] == "0.0.0.0"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("node1", Place("node1")),
        (" node-1.example.com:11300 ", Place("node-1.example.com", 11300)),
        ("my_service:1", Place("my_service", 1)),
        ("bücher.example", Place("bücher.example")),
        ("192.0.2.1", Place("192.0.2.1")),
        ("192.0.2.1:65535", Place("192.0.2.1", 65535)),
        ("::1", Place("::1")),
        ("[::1]", Place("::1")),
        ("[2001:DB8:0::1]:11300", Place("2001:db8::1", 11300)),
        ("fe80::1%eth0", Place("fe80::1%eth0")),
    ],
)
def test_a_host_is_written_as_people_do(text: str, place: Place) -> None:
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.256", "no IPv4 address"),
        ("12", "no IPv4 address"),
        ("fd00::1:2:3:4:5:6:7:8", r"\[ADDRESS\]:PORT"),
        ("[::1", "in brackets"),
        ("[::1]11300", "in brackets"),
        ("[node1]", "in brackets"),
        ("224.0.0.1", "no address of one host"),
        ("node1:", "port ''"),
        ("node1:0", "port '0'"),
        ("node1:65536", "65535"),
        ("node1:-1", "'-1'"),
        ("http://node1", "no address"),
        ("node1/x", "no name or address"),
        ("two words", "no name or address"),
        ("", "no name or address"),
        ("x" * 254, "no name or address"),
    ],
)
def test_what_is_no_host_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_place(text)


def test_what_is_given_is_listened_on_if_it_is_of_this_host() -> None:
    assert listen_hosts(("127.0.0.2",)) == ("127.0.0.2",)
    assert set(listen_hosts(("localhost", "127.0.0.1"))) <= set(LOOPBACK_HOSTS)
    with pytest.raises(Misuse, match=r"192\.0\.2\.1', which is no address of this host"):
        listen_hosts(("127.0.0.1", "192.0.2.1"))
    with pytest.raises(Misuse, match="cannot be looked up"):
        listen_hosts(("nowhere.invalid",))


@pytest.mark.parametrize(
    ("listening", "hosts"),
    [
        (("127.0.0.1", "::1"), ("127.0.0.1",)),
        (("0.0.0.0", "::"), ("127.0.0.1",)),
        (("::",), ("::1",)),
        (("192.0.2.1",), ("192.0.2.1",)),
        (("192.0.2.1", "2001:db8::1"), ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_own_listeners_are_dialled_where_they_listen(
    listening: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    assert probe_hosts(listening) == hosts
    assert all(listens_on(host, listening) for host in hosts)


def test_who_listens_on_one_address_is_not_found_at_another() -> None:
    assert listens_on("2001:db8::1", ("::",))
    assert not listens_on("192.0.2.1", ("::",))
    assert not listens_on("192.0.2.1", ("192.0.2.2", "127.0.0.1"))
