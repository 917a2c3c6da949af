"""Grids over several hosts: they find each other however hosts are said, and outlive any host."""

import time
from pathlib import Path

import pytest

from tests.hosts.grids import REPLACED_SECONDS, at, follow, since, start
from tests.hosts.network import PORT, Network


def test_three_hosts_are_one_grid_and_outlive_the_one_that_serves(
    network: Network, tmp_path: Path
) -> None:
    """It dies without a FIN, at half of the job: nothing that living hosts hold is run again."""
    hosts = network.hosts(3)
    members = start(hosts, [host.address for host in hosts])
    status = members[2].ask("status")
    assert status["members"] == ["on-h2", "on-h3", "one"]
    assert status["address"] == f"{hosts[0].address}:{PORT}"
    assert not status["alone"]
    mapped = tmp_path / "mapped"
    members[1].ask("trace", name="job", items=240, folder=str(mapped))
    at(members[1], "job", 80)
    before = time.monotonic()
    hosts[0].die()
    assert members[1].ask("result", name="job")
    seconds = max(since(member, before, 1) for member in members[1:])
    print(f"silent server host replaced after {seconds:.2f} s")
    assert seconds <= REPLACED_SECONDS
    assert members[1].ask("progress", name="job")["executed_again"] == 0
    assert len(list(mapped.iterdir())) == 240
    assert network.carried(hosts[2], hosts[1]) > 0
    hosts[0].boot()
    again = hosts[0].start("again", hosts=[host.address for host in hosts])
    assert again.ask("follows") == members[2].ask("follows") | {"serving": False}


def test_two_hosts_by_name_and_the_one_left_finishes_alone(network: Network) -> None:
    hosts = network.hosts(2)
    _, two = start(hosts, "h1, h2")
    two.ask("submit", name="job", items=200)
    at(two, "job", 50)
    before = time.monotonic()
    hosts[0].die()
    assert two.ask("result", name="job")
    seconds = since(two, before, 1)
    print(f"silent server host of two replaced after {seconds:.2f} s")
    assert seconds <= REPLACED_SECONDS
    assert two.ask("progress", name="job")["executed_again"] == 0
    status = two.ask("status")
    assert (status["server"], status["alone"]) == ("on-h2", True)
    assert status["address"] == f"{hosts[1].address}:{PORT}"


def test_a_host_that_dies_with_outputs_costs_only_these(network: Network) -> None:
    hosts = network.hosts(3)
    members = start(hosts, "h1,h2,h3")
    members[0].ask("submit", name="job", items=200)
    at(members[0], "job", 100)
    hosts[2].die()
    assert members[0].ask("result", name="job")
    progress = members[0].ask("progress", name="job")
    assert progress["term"] == 1
    assert members[1].ask("follows")["term"] == 1


@pytest.mark.parametrize("said", ["one name", "exact ports"])
def test_ipv6_by_a_name_of_many_addresses_and_by_exact_ports(network: Network, said: str) -> None:
    hosts = network.hosts(2)
    network.name("grid", hosts[0].address6, hosts[1].address6)
    given = {
        "one name": "grid",
        "exact ports": ",".join(f"[{host.address6}]:11300" for host in hosts),
    }[said]
    port = 11300 if said == "exact ports" else PORT
    one, two = start(hosts, given)
    assert two.ask("status")["address"] == f"[{hosts[0].address6}]:{port}"
    two.ask("submit", name="job", items=20)
    assert two.ask("result", name="job")
    one.kill()
    assert follow([two], 1) == "on-h2"


def test_who_listens_on_one_address_of_two_is_found_there(network: Network) -> None:
    """The one that serves is on two networks, and says only one of its addresses to others."""
    (server,) = network.hosts(1, nets=(0, 1))
    (other,) = network.hosts(1, nets=(1,))
    near = server.addresses[1]
    one = server.start("one", hosts=near, listen=near, slots=0)
    two = other.start("two", hosts=f"nowhere.invalid,{near}")
    assert two.ask("follows")["server"] == "one"
    one.ask("submit", name="job", items=20)
    assert one.ask("result", name="job")
    one.leave()
    one.ended()
    assert follow([two], 1) == "two"
    three = server.start("three", hosts=other.address)
    assert three.ask("follows")["server"] == "two"
    assert "nobody knows the host nowhere.invalid" in two.err


def test_far_hosts_over_a_lossy_line_are_one_grid(network: Network) -> None:
    """300 ms there and back: greeting takes longer than a near host may keep silent."""
    a, b = network.hosts(2)
    network.delay(a, b, 0.15)
    network.loss(a, b, 0.01)
    one, two = start([a, b], "h1,h2")
    two.ask("submit", name="job", items=10)
    assert two.ask("result", name="job")
    for member in (one, two):
        assert member.ask("follows")["term"] == 1
