"""The network of the tests themselves: what is cut is silent, and nothing else is."""

import subprocess
import sys

from tests.hosts.network import Host, Network

LISTEN = """
import socket, sys, threading

def serve():
    while True:
        link, _ = listener.accept()
        with link:
            try:
                while data := link.recv(65536):
                    link.sendall(data)
            except OSError:
                pass  # cut off in the middle

listener = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
threading.Thread(target=serve, daemon=True).start()
print("listens", flush=True)
sys.stdin.read()
"""

DIAL = """
import socket, sys, time
host, size, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
began = time.monotonic()
try:
    with socket.create_connection((host, 7000), seconds) as link:
        link.sendall(b"x" * size)
        left = size
        while left:
            left -= len(link.recv(65536))
    print("back", time.monotonic() - began)
except OSError as error:
    print(type(error).__name__, error)
"""


def listen(host: Host) -> None:
    host.run("listener", LISTEN).said("listens")


def dial(a: Host, where: str, size: int = 10, seconds: float = 5.0) -> str:
    """Have ``a`` connect, and send there and back so many bytes; return what it says."""
    command = [*a.inside, sys.executable, "-c", DIAL, where, str(size), str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_hosts_reach_each_other_by_number_and_name(network: Network) -> None:
    a, b = network.hosts(2)
    listen(b)
    network.name("grid", a.address, b.address)
    for where in (b.address, b.address6, "h2", "grid"):
        assert dial(a, where, 1_000_000).startswith("back"), where
    assert network.carried(a, b) > 4_000_000
    assert dial(b, a.address).startswith("ConnectionRefusedError")
    assert "not known" in dial(a, "h3") or "resolution" in dial(a, "h3")


def test_what_is_cut_is_silent_and_mends(network: Network) -> None:
    a, b, c = network.hosts(3)
    listen(b)
    for cut in (network.cut, lambda a, b: network.cut(b, a), network.part):
        cut(a, b)
        assert dial(a, b.address, seconds=0.2).startswith("TimeoutError")
        assert dial(c, b.address).startswith("back")
        network.mend()
        assert dial(a, b.address).startswith("back")
    network.cut_host(b)
    assert dial(c, b.address6, seconds=0.2).startswith("TimeoutError")


def test_links_may_be_slow_and_lossy(network: Network) -> None:
    a, b = network.hosts(2)
    listen(b)
    network.delay(a, b, 0.05)
    assert 0.2 <= float(dial(a, b.address).split()[1]) < 2.0
    network.delay(a, b, 0.0)
    network.loss(a, b, 0.2)
    assert dial(a, b.address, 300_000, 30.0).startswith("back")
    network.loss(a, b, 1.0)
    assert dial(a, b.address, seconds=0.2).startswith("TimeoutError")


def test_a_firewall_lets_out_and_not_in(network: Network) -> None:
    a, b = network.hosts(2)
    listen(a)
    listen(b)
    network.only_open(b)
    assert dial(a, b.address, seconds=0.2).startswith("TimeoutError")
    assert dial(a, b.address6, seconds=0.2).startswith("TimeoutError")
    assert dial(b, a.address).startswith("back")
    network.only_open(b, 7000)
    assert dial(a, b.address).startswith("back")


def test_a_host_that_dies_says_nothing_and_boots_empty(network: Network) -> None:
    a, b = network.hosts(2)
    listen(b)
    script = """
        import socket, sys
        link = socket.create_connection((sys.argv[1], 7000), 5)
        link.sendall(b"x")
        link.recv(1)
        print("connected", flush=True)
        link.settimeout(0.5)
        try:
            print("heard", link.recv(1))
        except TimeoutError:
            print("heard nothing")
        """
    dialler = a.run("dialler", script, b.address)
    dialler.said("connected")
    b.die()
    assert dialler.said("heard") == "nothing"
    b.boot()
    assert dial(a, b.address).startswith("ConnectionRefusedError")
