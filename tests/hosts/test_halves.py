"""A grid that is cut in two, and grown together again: each half works, or only the bigger one if
that was wanted; afterwards there is one server, and every owner has one right result."""

import time
from pathlib import Path

from tests.hosts.grids import QUICK, at, follow, mapped, start, terms
from tests.hosts.network import Network
from tests.live.harness import until


def test_each_half_serves_its_own_and_what_both_did_counts(
    network: Network, tmp_path: Path
) -> None:
    a, b, c, d = network.hosts(4)
    members = start([a, b, c, d], "h1,h2,h3,h4", **QUICK)
    _, two, three, four = members
    two.ask("submit", name="before", items=150)
    four.ask("submit", name="before", items=150)
    at(two, "before", 30)
    at(four, "before", 30)
    before = time.monotonic()
    network.split([a, b], [c, d])
    other = follow([three, four], 1)
    print(f"the other half has a server after {time.monotonic() - before:.2f} s")
    assert other in ("on-h3", "on-h4")
    for member in (two, four):
        assert member.ask("result", name="before")
        member.ask("submit", name="within", items=20)
        assert member.ask("result", name="within")
        folder = str(tmp_path / member.name)
        member.ask("trace", name="across", items=300, folder=folder)
        at(member, "across", 50)
    assert follow([members[0], two], 0) == "one"
    healed = time.monotonic()
    network.mend()
    until("one server", lambda: len(terms(members)) == 1)
    server = follow(members, 1)
    print(f"one server, {server}, {time.monotonic() - healed:.2f} s after the cut was mended")
    for member in (two, four):
        assert member.ask("result", name="across")
        twice = len(mapped(tmp_path / member.name)) - 300
        again = member.ask("progress", name="across")["executed_again"]
        print(f"{member.name}: executed again {again}, items mapped twice {twice}")
        assert again == 0
    assert two.ask("status")["members"] == ["on-h2", "on-h3", "on-h4", "one"]
    assert sum(member.ask("follows")["serving"] for member in members) == 1


def test_with_a_quorum_only_the_bigger_half_works(network: Network) -> None:
    """Also where the server was in the smaller one."""
    hosts = network.hosts(5)
    members = start(hosts, "h1,h2,h3,h4,h5", quorum=3, **QUICK)
    small, big = members[:2], members[2:]
    small[1].ask("submit", name="job", items=200)
    at(small[1], "job", 40)
    network.split(hosts[:2], hosts[2:])
    follow(big, 1)
    big[0].ask("submit", name="job", items=60)
    assert big[0].ask("result", name="job")
    until("the smaller half says why", lambda: "less than its quorum" in small[1].err)
    done = small[1].ask("progress", name="job")["maps_done"]
    small[1].ask("submit", name="never", items=1)
    until("time passes", lambda: not small[1].ask("status")["members"][2:])
    assert small[1].ask("progress", name="job")["maps_done"] == done
    network.mend()
    for name in ("job", "never"):
        assert small[1].ask("result", name=name)
    # An output whose holder was out of reach for long may be made again; not more than that.
    assert small[1].ask("progress", name="job")["executed_again"] <= 2
    until("one server", lambda: len(terms(members)) == 1)


def test_who_was_alone_does_not_take_the_grid_away(network: Network) -> None:
    """A host cut off from all serves itself; what it submitted there is finished by all."""
    hosts = network.hosts(3)
    one, two, three = start(hosts, "h1,h2,h3", **QUICK)
    three.ask("submit", name="job", items=200)
    at(three, "job", 20)
    network.cut_host(hosts[2])
    follow([three], 1)
    until("it works alone", lambda: three.ask("status")["alone"])
    until("it says so", lambda: "serves alone, though hosts names others" in three.err)
    at(three, "job", 60)
    network.mend()
    healed = time.monotonic()
    until("it follows again", lambda: three.ask("follows")["server"] == "one")
    print(f"the lonely one follows again after {time.monotonic() - healed:.2f} s")
    assert three.ask("result", name="job")
    print("executed again:", three.ask("progress", name="job")["executed_again"])
    assert follow([one, two, three], 0) == "one"
