"""Addresses: which are this host's own."""

import subprocess
import sys

import pytest

from peers.addresses import (
    LOOPBACK_HOSTS,
    host_id,
    is_loopback,
    is_own,
    listen_hosts,
    local_host_towards,
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
    assert all(is_own(host) for host in hosts)
    assert not is_own("192.0.2.1")
    assert local_host_towards("127.0.0.1") == "127.0.0.1"
    assert listen_hosts(loopback_only=False)[0] == "0.0.0.0"
