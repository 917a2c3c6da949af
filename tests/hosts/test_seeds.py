"""Hosts that are listed, and hosts that are not; seeds that die and come back; grids of two."""

import time

from tests.hosts.grids import QUICK, REPLACED_SECONDS, at, follow, since, start
from tests.hosts.network import PORT, Network
from tests.live.harness import until


def test_who_is_in_nobodys_list_takes_over_and_seeds_find_it_again(network: Network) -> None:
    """All seeds die: the grid goes on, on hosts that nobody listed. The seeds come back while it
    does, or start a grid of their own: in the end there is one."""
    a, b, c, d = network.hosts(4)
    seeds = "h1,h2"
    one, _, three = start([a, b, c], seeds, slots=0, **QUICK)
    four = d.start("on-h4", hosts="h2", **QUICK)
    until("the seed, which follows, points to it", lambda: four.ask("follows")["server"] == "one")
    until("one grid", lambda: len(one.ask("status")["members"]) == 4)
    term = one.ask("follows")["term"]
    four.ask("submit", name="job", items=300)
    at(four, "job", 60)
    before = time.monotonic()
    a.die()
    b.die()
    server = follow([three, four], term)
    seconds = max(since(member, before, term) for member in (three, four))
    print(f"both seeds dead: {server}, listed nowhere, serves after {seconds:.2f} s")
    at(four, "job", 150)
    a.boot()
    b.boot()
    booted = time.monotonic()
    back = [host.begin(f"again-{host.name}", hosts=seeds, slots=0, **QUICK) for host in (a, b)]
    for member in back:
        member.joined()
    server = follow([three, four, *back], term)
    print(f"one grid under {server} {time.monotonic() - booted:.2f} s after the seeds booted")
    assert four.ask("result", name="job")
    assert four.ask("progress", name="job")["executed_again"] == 0
    assert len(four.ask("status")["members"]) == 4


def test_of_two_hosts_each_dies_in_turn(network: Network) -> None:
    """By default settings, without a word; the one left goes on, and takes the other in again."""
    a, b = network.hosts(2)
    _, two = start([a, b], "h1,h2")
    two.ask("submit", name="job", items=500)
    at(two, "job", 20)
    before = time.monotonic()
    a.die()
    follow([two], 1)
    first = since(two, before, 1)
    a.boot()
    three = a.start("three", hosts="h1,h2")
    assert three.ask("follows")["server"] == "on-h2"
    assert two.ask("result", name="job")
    three.ask("submit", name="job", items=100)
    at(three, "job", 20)
    before = time.monotonic()
    b.die()
    assert three.ask("result", name="job")
    second = since(three, before, 2)
    print(f"each of two replaced after {first:.2f} and {second:.2f} s")
    assert max(first, second) <= REPLACED_SECONDS
    assert three.ask("status")["address"] == f"{a.address}:{PORT}"


def test_what_is_wrong_is_said_plainly(network: Network) -> None:
    """Another key is an error that says what to do; being alone is a warning and in status."""
    a, b = network.hosts(2)
    one = a.start("one", hosts="h1,h2")
    until("it is warned", lambda: "serves alone, though hosts names others" in one.err)
    assert one.ask("status")["alone"]
    wrong = b.folder / "wrong-key"
    wrong.touch(mode=0o600)
    wrong.write_text("ab" * 32 + "\n")
    stranger = b.begin("stranger", hosts="h1,h2", key_file=str(wrong))
    assert stranger.process.wait(30) != 0
    assert f"{a.address}:{PORT} is held by a grid with another key" in stranger.err
    assert "Use that grid's key on this machine too, or another port" in stranger.err
    b.start("two", hosts="h1,h2").ask("follows")
    until("it is not alone", lambda: not one.ask("status")["alone"])
