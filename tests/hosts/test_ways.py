"""What little must be open between hosts: one port. The rest goes through the server's."""

import pytest

from tests.hosts.grids import QUICK, follow, start
from tests.hosts.network import PORT, Network
from tests.live.harness import until

FORWARD = """
import socket, sys, threading

def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        a.close(), b.close()

def serve(listener, where):
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(where, 5)
        except OSError:
            near.close()
            continue
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()

for said in sys.argv[1:]:
    outside, port, host = said.split(",")
    listener = socket.create_server((outside, int(port)))
    threading.Thread(target=serve, args=(listener, (host, 11235)), daemon=True).start()
print("forwards", flush=True)
sys.stdin.read()
"""
"""Published ports, as containers have them: each argument an address, a port, and who has it."""


@pytest.mark.parametrize("kind", ["a laptop", "only the port"])
def test_one_open_port_is_enough(network: Network, kind: str) -> None:
    """A laptop can only dial out, or every host has all but the well-known port closed: what is
    mapped there is reduced elsewhere all the same, whoever owns the job."""
    hosts = network.hosts(3)
    if kind == "a laptop":
        network.only_open(hosts[1])
    else:
        for host in hosts:
            network.only_open(host, PORT)
    members = start(hosts, "h1,h2,h3" if kind == "only the port" else "h1", slots=1, **QUICK)
    for member in members[:2]:
        member.ask("shuffle", name="job", items=30)
        assert member.ask("result", name="job", timeout=60.0)
    through = [member.name for member in members if "goes through the server" in member.err]
    print(f"{kind}: data went through the server for {through}")
    assert through
    assert all(member.ask("follows")["term"] == 1 for member in members)
    if kind == "only the port":
        members[1].ask("submit", name="next", items=200)
        hosts[0].die()
        follow(members[1:], 1)
        assert members[1].ask("result", name="next")
        assert members[1].ask("progress", name="next")["executed_again"] <= 4


def test_a_server_behind_a_published_port(network: Network) -> None:
    """It knows no way out, and others only the port that its host publishes for it."""
    (gate,) = network.hosts(1, nets=(0, 1))
    (inner,) = network.hosts(1, nets=(1,))
    outer, other = network.hosts(2)
    published = f"{gate.address},7000,{inner.address}"
    gate.run("gate", FORWARD, published).said("forwards")
    told = f"{gate.address}:7000"
    server = inner.start("inner", hosts=told, advertise=told, port=PORT, slots=1, **QUICK)
    rest = [host.start(f"on-{host.name}", hosts=told, **QUICK) for host in (outer, other)]
    status = rest[0].ask("status")
    assert (status["server"], status["address"]) == ("inner", told)
    for member in (server, rest[0]):
        member.ask("shuffle", name="job", items=12)
        assert member.ask("result", name="job")
    server.kill()
    follow(rest, 1)
    until("they go on", lambda: rest[0].ask("status")["members"] == ["on-h3", "on-h4"])
