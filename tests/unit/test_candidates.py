"""What a user says of hosts, made into candidates: every address of every name, in order."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from grid.errors import Misuse
from grid.messages import Address
from peers.candidates import Candidates, Resolver, reachable_as
from peers.configuration import Configuration, configure

LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")

Names = dict[str, list[str] | Exception | threading.Event]


def configured(**given: Any) -> Configuration:
    return configure(given, environ={})


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What names mean; an event is a name server that does not answer until it is set."""
    known: Names = {}
    look_up = socket.getaddrinfo

    def answer(host: str, *rest: Any, **options: Any) -> Any:
        meant = known.get(host)
        if isinstance(meant, threading.Event):
            meant.wait(30.0)
            meant = ["192.0.2.99"]
        if isinstance(meant, Exception):
            raise meant
        if meant is None:
            return look_up(host, *rest, **options)
        return [entry for number in meant for entry in look_up(number, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    yield known
    for meant in known.values():
        if isinstance(meant, threading.Event):
            meant.set()


def resolve(configuration: Configuration, listening: tuple[str, ...] = EVERYWHERE) -> Candidates:
    return Resolver(configuration, listening).resolve()


def shown(found: Candidates) -> list[str]:
    return [str(address) for address in found.addresses]


# ------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    "hosts", ["node1, node2:11300,,[::1]", ["node1", "node2:11300", "::1", "node1"]]
)
def test_a_list_and_a_text_say_the_same(hosts: Any) -> None:
    assert configured(hosts=hosts).hosts == ("node1", "node2:11300", "::1")


def test_variables_say_it_too() -> None:
    environ = {"GRID_HOSTS": "node1,node2", "GRID_LISTEN": "::,0.0.0.0", "GRID_ADVERTISE": "me:9"}
    configuration = configure({}, environ)
    assert configuration.listen == ("::", "0.0.0.0")
    assert str(configuration.advertise) == "me:9"
    assert configure({"listen": "127.0.0.1", "hosts": "::1"}, {}).loopback_only


@pytest.mark.parametrize(
    ("given", "alone"),
    [
        ({}, True),
        ({"hosts": "localhost:11300,127.0.0.2"}, True),
        ({"hosts": "node1"}, False),
        ({"listen": "0.0.0.0"}, False),
        ({"listen": "::1"}, True),
    ],
)
def test_who_can_be_reached_by_others_needs_a_key_to_share(given: Any, alone: bool) -> None:
    assert configured(**given).loopback_only is alone


def test_the_port_said_with_every_host_is_the_well_known_one() -> None:
    same = configured(hosts="node1:11300,node2:11300").settings
    assert list(same.ports) == [11300]
    differ = configured(hosts="router:11301,router:11302").settings
    assert list(differ.ports) == [11235, 11236, 11237]
    own = configured(hosts="node1:11300", port=5000).settings
    assert own.port == 5000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hosts": "node1,10.0.0.256"}, "hosts has '10.0.0.256', which is no IPv4 address"),
        ({"hosts": "node1:x"}, "its port 'x'"),
        ({"hosts": "0.0.0.0"}, "hosts has 0.0.0.0, which nobody can dial"),
        ({"hosts": 5}, "hosts=5 is neither"),
        ({"hosts": [5]}, "not 5"),
        ({"listen": "two words"}, "listen has 'two words'"),
        ({"listen": "0.0.0.0:11300"}, "port=11300 says which"),
        ({"listen": "127.0.0.1", "hosts": "node1"}, "cannot be reached by node1"),
        ({"advertise": "::", "hosts": "node1"}, "nobody can dial"),
        ({"advertise": "a,b", "hosts": "node1"}, "names several"),
        ({"advertise": "http://me", "hosts": "node1"}, "advertise has 'http://me'"),
        ({"advertise": "localhost", "hosts": "node1"}, "would dial themselves"),
        ({"advertise": "203.0.113.1"}, "listens on loopback only"),
    ],
)
def test_what_cannot_be_meant_is_said(given: Any, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        configured(**given)
    assert said in str(caught.value)


def test_who_only_visits_may_listen_where_nobody_dials() -> None:
    configured(listen="127.0.0.1", hosts="node1", serves=False)
    configured(listen="127.0.0.1", hosts="node1", advertise="tunnel:5000")


def test_doors_are_where_others_find_it() -> None:
    plain = configured(hosts="node1", port=5000, port_span=2)
    assert plain.doors("192.0.2.1") == (Address("192.0.2.1", 5000), Address("192.0.2.1", 5001))
    mapped = configured(hosts="node1", port=5000, port_span=2, advertise="router:80")
    assert mapped.doors("router") == (Address("router", 80),)
    assert mapped.door("router", 5001) == Address("router", 5001)


# ------------------------------------------------------------------------------ looked up


def test_every_address_of_every_name_is_a_candidate(names: Names) -> None:
    names["many"] = ["192.0.2.1", "2001:db8::1", "192.0.2.1"]
    found = resolve(configured(hosts="many,192.0.2.2:80,192.0.2.1", port=5000, port_span=2))
    assert shown(found) == [
        "192.0.2.1:5000",
        "[2001:db8::1]:5000",
        "192.0.2.2:80",
        "192.0.2.1:5001",
        "[2001:db8::1]:5001",
    ]
    assert found.own == ()
    assert found.unknown == ()


def test_alone_on_a_host_the_candidates_are_where_one_listens() -> None:
    alone = configured(port=5000, port_span=2)
    assert shown(resolve(alone, LOOPBACK)) == ["127.0.0.1:5000", "127.0.0.1:5001"]
    assert shown(resolve(alone, ("::1",))) == ["[::1]:5000", "[::1]:5001"]


def test_own_is_what_this_host_can_bind_and_listens_on() -> None:
    two = configured(hosts="127.0.0.1,127.0.0.2,127.0.0.1:6000,192.0.2.1", port=5000, port_span=1)
    assert resolve(two).own == (Address("127.0.0.1", 5000), Address("127.0.0.2", 5000))
    assert resolve(two, ("127.0.0.2",)).own == (Address("127.0.0.2", 5000),)


def test_an_unknown_name_is_said_and_looked_up_again(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    names["node1"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    resolver = Resolver(configured(hosts="node1,192.0.2.2", port_span=1), EVERYWHERE)
    for _ in range(2):
        found = resolver.resolve()
        assert shown(found) == ["192.0.2.2:11235"]
        assert found.unknown == ("nobody knows the host node1 (Name or service not known)",)
    assert len(caplog.records) == 1
    names["node1"] = ["192.0.2.1"]
    assert shown(resolver.resolve()) == ["192.0.2.1:11235", "192.0.2.2:11235"]
    assert resolver.resolve().unknown == ()
    names["node1"] = UnicodeError("label too long")
    found = resolver.resolve()
    assert shown(found) == ["192.0.2.1:11235", "192.0.2.2:11235"]
    assert "label too long" in found.unknown[0]


def test_a_name_server_that_hangs_holds_up_nobody_for_long(names: Names) -> None:
    names["slow"] = hanging = threading.Event()
    resolver = Resolver(configured(hosts="slow,192.0.2.2", port_span=1), EVERYWHERE)
    before = threading.active_count()
    for _ in range(3):
        began = time.monotonic()
        found = resolver.resolve(0.05)
        assert time.monotonic() - began < 20.0
        assert shown(found) == ["192.0.2.2:11235"]
        assert "slow" in found.unknown[0]
    assert threading.active_count() == before + 1
    hanging.set()
    assert shown(resolver.resolve(30.0)) == ["192.0.2.99:11235", "192.0.2.2:11235"]


# ------------------------------------------------------------------------------ how it is reached


def reached(*others: str, own: tuple[str, ...] = (), ways: dict[str, str]) -> str:
    """How a host is reached that has these ways to others."""

    def way(host: str) -> str:
        if host not in ways:
            raise OSError("no route")
        return ways[host]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peers.candidates.local_host_towards", way)
        addresses = tuple(Address(host, 5000) for host in (*others, *own))
        mine = tuple(Address(host, 5000) for host in own)
        return reachable_as(Candidates(addresses, mine, ()), EVERYWHERE)


def test_it_is_reached_at_the_interface_that_leads_to_the_others() -> None:
    ways = {"10.1.0.1": "10.1.0.9", "10.2.0.1": "10.2.0.9", "192.0.2.1": "10.3.0.9"}
    assert reached("10.2.0.1", "10.1.0.1", ways=ways) == "10.2.0.9"
    assert reached("10.9.0.1", "10.1.0.1", ways=ways) == "10.1.0.9"
    assert reached("10.9.0.1", own=("10.1.0.9",), ways=ways) == "10.1.0.9"
    assert reached("127.0.0.1", ways=ways) == "10.3.0.9"
    assert reached("fd00::1", ways={"fd00::1": "fe80::2", **ways}) == "10.3.0.9"
    assert reached(ways={}) == "127.0.0.1"


def test_it_is_reached_only_where_it_listens() -> None:
    nowhere = Candidates((), (), ())
    assert reachable_as(nowhere, LOOPBACK) == "127.0.0.1"
    assert reachable_as(nowhere, ("::1",)) == "::1"
    assert reachable_as(nowhere, ("127.0.0.1", "198.51.100.7")) == "198.51.100.7"
