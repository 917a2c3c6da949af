"""Servers die, freeze and leave while a job runs: it goes on, and repeats nothing that was kept."""

import random
import time

import pytest

from peers import Job, Transaction
from tests.live.harness import Site, until
from tests.live.jobs import (
    GATE,
    PHASE,
    answer,
    gated_job,
    job_to_gate,
    slow_job,
    total,
    trace_to_gate,
)


def at(txn: Transaction, share: float, items: int = 200) -> None:
    """Wait until about so much of the maps is done."""
    until(f"{share:.0%} of the maps", lambda: txn.progress.maps_done >= share * items)


def past(txn: Transaction, gate: int) -> None:
    """Wait until some of what is behind this gate is done; the next is closed yet."""
    until(f"past gate {gate}", lambda: txn.progress.maps_done >= PHASE * gate + 8)


def resumed(txn: Transaction, term: int) -> bool:
    """Whether a server after ``term`` has had a task done."""
    now = txn.progress
    return now.term > term and now.tasks_this_term > 0


@pytest.mark.parametrize("seed", range(2))
def test_the_server_is_killed_at_any_time_and_no_finished_work_is_repeated(
    site: Site, seed: int
) -> None:
    site.start("one", slots=2)
    site.start("two", slots=2)
    peer = site.here("three")
    gate = site.folder / "gate"
    txn = peer.submit(job_to_gate(gate))
    at(txn, random.Random(seed).uniform(0.0, 0.9))
    before = txn.progress
    site.named("one").kill()
    killed = time.monotonic()
    gate.touch()
    until("a task of the new server", lambda: resumed(txn, 1) or txn.done())
    seconds = time.monotonic() - killed
    assert txn.result(60) == answer()
    print(f"killed at {before.maps_done}/200, work resumed after {1000 * seconds:.0f} ms")
    assert txn.progress.executed_again == 0
    assert txn.progress.term == 2
    assert seconds < 10.0, "far more than it takes; a silence would not be noticed sooner"
    assert peer.status().server in ("two", "three")


def test_when_only_the_server_dies_every_item_is_mapped_once(site: Site) -> None:
    """It had no slots. The owner takes over, has a free slot at once, and yet waits for what its
    ledger says others hold or run; they join a moment later."""
    site.start("one", slots=0)
    peer = site.here("owner", slots=1)
    for _ in range(3):
        site.start(slots=1)
    folder = site.folder / "mapped"
    folder.mkdir()
    items = [(str(folder), number == 159) for number in range(160)]
    txn = peer.submit(Job(items, trace_to_gate, reducefn=total))
    at(txn, 0.5, 160)
    site.named("one").kill()
    (folder / GATE).touch()
    assert txn.result(60) == {"items": 160}
    assert peer.serving
    assert txn.progress.executed_again == 0
    assert sorted(int(p.name.partition("-")[0]) for p in folder.glob("*-*")) == list(range(160))


def test_server_after_server_is_killed_and_the_last_peer_finishes_alone(site: Site) -> None:
    """New peers join meanwhile; in the end only the owner is left, with a worker of its own."""
    helpers = [site.start() for _ in range(3)]
    peer = site.here("owner", slots=1)
    gates = [site.folder / f"gate{number}" for number in range(5)]
    txn = peer.submit(gated_job(gates))
    for number, gate in enumerate(gates[:-1]):
        gate.touch()
        past(txn, number)
        status = peer.status()
        victim = next(h for h in helpers if status.serving or h.name == status.server)
        helpers.remove(victim)
        victim.kill()
        if number < 2:
            helpers.append(site.start())
    for helper in helpers:
        helper.kill()
    gates[-1].touch()
    assert txn.result(60) == answer(PHASE * 5)
    assert txn.progress.executed_again == 0
    assert [member.name for member in peer.status().members] == ["owner"]


def test_four_servers_are_killed_within_one_job(site: Site) -> None:
    """The owner never serves here, and new peers join between the deaths."""
    for _ in range(2):
        site.start()
    peer = site.here("owner", serves=False)
    gates = [site.folder / f"gate{number}" for number in range(5)]
    txn = peer.submit(gated_job(gates))
    gates[0].touch()
    for reign in range(1, 5):
        past(txn, reign - 1)
        site.start()
        site.server(peer).kill()
        gates[reign].touch()
        until("the next reign", lambda r=reign: txn.progress.term > r)  # type: ignore[misc]
    assert txn.result(60) == answer(PHASE * 5)
    assert txn.progress.term == 5
    assert txn.progress.executed_again == 0


def test_a_frozen_server_is_replaced_and_abdicates_when_it_wakes(site: Site) -> None:
    site.start("one", slots=2)
    site.start("two", slots=2)
    peer = site.here("three")
    status = peer.status()
    assert (status.server, status.term) == ("one", 1)
    gate = site.folder / "gate"
    txn = peer.submit(job_to_gate(gate))
    at(txn, 0.2)
    site.named("one").freeze()
    frozen = time.monotonic()
    gate.touch()
    until("a task of the new server", lambda: resumed(txn, 1))
    print(f"replaced after {time.monotonic() - frozen:.1f} s")
    assert peer.status().address == f"127.0.0.1:{site.port + 1}"
    assert txn.result(60) == answer()
    site.named("one").thaw()

    def followed() -> bool:
        status = peer.status()
        return status.term > 1 and "one" in [member.name for member in status.members]

    until("the old server follows the new one", followed)
    assert sorted(m.name for m in peer.status().members) == ["one", "three", "two"]
    gates = [site.folder / "again"]
    again = peer.submit(gated_job(gates))

    def working() -> int:
        return sum(member.running > 0 for member in peer.status().members)

    until("the one that woke works again", lambda: working() == 2)
    gates[0].touch()
    assert again.result(60) == answer(PHASE)


def test_a_server_that_wakes_within_the_job_doubles_nothing(site: Site) -> None:
    quick = {"silence_seconds": 1.5, "heartbeat_seconds": 0.25}
    site.start("one", slots=2, **quick)
    site.start("two", slots=2, **quick)
    peer = site.here("three", **quick)
    gate = site.folder / "gate"
    txn = peer.submit(job_to_gate(gate, 400))
    at(txn, 0.1, 400)
    site.named("one").freeze()
    until("a task of the new server", lambda: resumed(txn, 1))
    site.named("one").thaw()
    until("one server for all", lambda: len(peer.status().members) == 3)
    gate.touch()
    assert txn.result(60) == answer(400)


def test_a_frozen_peer_is_dropped_and_wakes_within_the_job(site: Site) -> None:
    """Its tasks were given to another, its worker went on meanwhile, and it brings back all it has:
    nothing of it counts twice."""
    quick = {"silence_seconds": 1.5, "heartbeat_seconds": 0.25}
    site.start("one", slots=2, **quick)
    two = site.start("two", slots=2, **quick)
    peer = site.here("three", **quick)
    gates = [site.folder / f"gate{number}" for number in range(2)]
    delivered: list[object] = []
    txn = peer.submit(gated_job(gates, resultfn=lambda _, results: delivered.append(results)))
    gates[0].touch()
    past(txn, 0)
    until("both work", lambda: len(txn.progress.peers) == 2)

    def members() -> list[str]:
        return sorted(member.name for member in peer.status().members)

    two.freeze()
    until("it is dropped", lambda: members() == ["one", "three"])
    two.thaw()
    until("it is back", lambda: members() == ["one", "three", "two"])
    gates[1].touch()
    assert txn.result(60) == answer(2 * PHASE)
    until("delivered", lambda: delivered)
    assert peer.submit(slow_job(40)).result(60) == answer(40)
    assert delivered == [answer(2 * PHASE)]
    assert peer.status().term == 1


def test_a_worker_peer_is_killed_and_its_neighbour_adopts_its_outputs(site: Site) -> None:
    site.start("one", slots=1)
    site.start("two", slots=1)
    peer = site.here("three")
    gate = site.folder / "gate"
    txn = peer.submit(job_to_gate(gate))
    at(txn, 0.5)
    site.named("two").kill()
    gate.touch()
    assert txn.result(60) == answer()
    assert txn.progress.executed_again == 0
    assert txn.progress.term == 1


def test_peers_with_finished_outputs_leave_well_in_the_middle(site: Site) -> None:
    """``one`` is the server; that it leaves is a change of reign, not of results."""
    site.start("one", slots=1)
    site.start("two", slots=1)
    peer = site.here("three", slots=1)
    gate = site.folder / "gate"
    txn = peer.submit(job_to_gate(gate))
    for name, share, term in (("two", 0.3, 1), ("one", 0.6, 2)):
        at(txn, share)
        site.named(name).leave()
        site.named(name).ended()
        until("the others go on", lambda s=share: txn.progress.maps_done > s * 200 + 8)  # type: ignore[misc]
        assert txn.progress.term == term
    gate.touch()
    assert txn.result(60) == answer()
    assert txn.progress.executed_again == 0


def test_the_work_of_peers_that_all_died_while_a_new_one_joins(site: Site) -> None:
    """Every worker dies at once; the owner alone is left, and a newcomer finishes the job."""
    site.start("one", slots=1)
    site.start("two", slots=1)
    peer = site.here("three")
    gate = site.folder / "gate"
    txn = peer.submit(job_to_gate(gate))
    at(txn, 0.3)
    site.named("one").kill()
    site.named("two").kill()
    gate.touch()
    site.start("four", slots=2)
    assert txn.result(60) == answer()
    assert txn.progress.executed_again == 0, "the owner adopted what the dead had finished"


CROWD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from peers import Peer

with ThreadPoolExecutor(5) as threads:
    peers = list(threads.map(lambda n: Peer(name=f"{sys.argv[1]}.{n}", slots=0), range(5)))
print("joined", flush=True)
sys.stdin.read()
for peer in peers:
    peer.close()
"""
"""Five peers that start at the same moment, in one process: a fifth of the cost of starting."""


def test_many_peers_started_at_the_same_moment_agree(site: Site) -> None:
    began = time.monotonic()
    for process in [site.run(f"crowd{n}", CROWD, f"crowd{n}") for n in range(6)]:
        process.said("joined")
    print(f"joined after {time.monotonic() - began:.1f} s")
    peer = site.here("visitor", serves=False)
    until("all thirty follow one server", lambda: len(peer.status().members) == 31)
    assert sum(member.serving for member in peer.status().members) == 1
