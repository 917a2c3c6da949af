"""The same script on every node: named transactions with several owners are one job."""

import pytest

from grid.errors import NameConflict
from peers import Job, Peer
from tests.live.gates import reached
from tests.live.harness import Process, Site, until
from tests.live.jobs import answer, pairs_of, slow_job, slowly, total

SCRIPT = """
import sys, time
from peers import Job, Peer

def slowly(key, value):
    time.sleep(0.01)
    yield f"by 7: {value % 7}", key
    yield f"by 3: {value % 3}", value

def total(key, values):
    return sum(values)

with Peer(name=sys.argv[1], slots=2) as peer:
    print("joined", flush=True)
    txn = peer.submit(Job(list(range(200)), slowly, reducefn=total), name="count")
    result = txn.result(60)
    print("result", sorted(result.items()), flush=True)
    print("again", txn.progress.executed_again, flush=True)
    sys.stdin.read()
"""

HELD = """
import sys
from pathlib import Path
from peers import Peer
from tests.live.gates import held_answer, held_job

delivered = []
with Peer(name=sys.argv[1], slots=1) as peer:
    print("joined", flush=True)
    job = held_job("reducing", Path(sys.argv[2]), lambda _, results: delivered.append(results))
    txn = peer.submit(job, name="held")
    print("right", txn.result(60) == held_answer(), flush=True)
    print("again", txn.progress.executed_again, flush=True)
    sys.stdin.read()
print("delivered", len(delivered))
"""
"""A named job that waits in its reduces, and an owner that counts what it is given."""

RIGHT = str(sorted(answer().items()))


def copies(site: Site, *names: str) -> list[Process]:
    """Copies of one script, each a peer that submits the same named job."""
    return [site.run(name, SCRIPT, name) for name in names]


def test_five_copies_of_a_script_get_one_result_each_and_repeat_nothing(site: Site) -> None:
    five = copies(site, *"abcde")
    for process in five:
        assert process.said("result") == RIGHT
        assert process.said("again") == "0"
        process.leave()
    for process in five:
        process.ended()


def test_a_late_copy_gets_the_finished_result_at_once(site: Site) -> None:
    first, second = copies(site, "a", "b")
    first.said("again")
    second.said("again")
    peer = site.here("late")
    job = Job(list(range(200)), slowly, reducefn=total)
    conflicting = peer.submit(job, name="count")
    with pytest.raises(NameConflict, match="mapfn, reducefn"):
        conflicting.result(60)
    site.named("a").leave()
    site.named("a").ended()
    (third,) = copies(site, "c")
    assert third.said("result") == RIGHT
    assert peer.status().transactions[0].state == "retained"


def test_a_finished_result_outlives_the_server_and_most_of_its_holders(site: Site) -> None:
    for process in copies(site, "a", "b", "c"):
        process.said("again")
    peer = site.here("watcher")
    until("retained", lambda: [t.state for t in peer.status().transactions] == ["retained"])
    site.server(peer).kill()
    (late,) = copies(site, "d")
    assert late.said("result") == RIGHT
    assert late.said("again") == "0"


def owning(peer: Peer) -> set[str]:
    """The names of those who own a transaction."""
    return {name for transaction in peer.status().transactions for name in transaction.owners}


@pytest.mark.parametrize("victims", ["a", "bc", "sab"])
def test_owners_are_killed_while_others_go_on(site: Site, victims: str) -> None:
    """``a`` is the first owner, whose record is everyone's; ``s`` is the server, and owns nothing.
    Whoever is left gets the result, once."""
    site.start("s")
    peer = site.here("watcher")
    gate = site.folder / "gate"
    for owners in ("a", "bc"):
        for name in owners:
            site.run(name, HELD, name, str(gate))
        until("they own it", lambda last=owners: set(last) <= owning(peer))  # type: ignore[misc]
    until("the reduces wait", reached(gate).exists)
    for name in victims:
        site.named(name).kill()
    until("a reign", lambda: peer.term == (2 if "s" in victims else 1) and peer.server)
    gate.touch()
    for owner in [site.named(name) for name in "abc" if name not in victims]:
        assert owner.said("right") == "True"
        assert owner.said("again") == "0"
        owner.leave()
        assert "delivered 1\n" in owner.ended()


def test_the_first_owner_dies_before_the_next_has_the_record(site: Site) -> None:
    """Whether the second adopts or starts anew, it gets the right result."""
    for round_ in range(2):
        first, second = f"first{round_}", f"second{round_}"
        site.run(first, SCRIPT, first).said("joined")
        process = site.run(second, SCRIPT, second)
        process.said("joined")
        site.named(first).kill()
        assert process.said("result") == RIGHT
        process.leave()
        process.ended()


def test_another_job_of_that_name_is_refused_and_told_what_differs(site: Site) -> None:
    peer = site.here("one", slots=1)
    other = site.here("two")
    first = peer.submit(slow_job(50), name="job")
    until("it is accepted", lambda: peer.status().transactions)
    wrong_code = other.submit(Job(list(range(50)), pairs_of, reducefn=total), name="job")
    with pytest.raises(NameConflict, match=r"'job'.*mapfn"):
        wrong_code.result(60)
    wrong_keys = other.submit(slow_job(51), name="job")
    with pytest.raises(NameConflict, match=r"'job'.*keys"):
        wrong_keys.result(60)
    same = other.submit(slow_job(50), name="job")
    assert same.result(60) == first.result(60) == answer(50)
    assert other.submit(slow_job(50), name="job").result(60) == answer(50)
    assert other.submit(slow_job(50), name="job", fresh=True).result(60) == answer(50)


def test_cancel_withdraws_one_owner_and_all_ends_the_job(site: Site) -> None:
    peer = site.here("one", slots=1)
    other = site.here("two")
    first, second = (p.submit(slow_job(100), name="job") for p in (peer, other))
    until("two owners", lambda: [len(t.owners) for t in peer.status().transactions] == [2])
    first.cancel()
    assert second.result(60) == answer(100)
    third, fourth = (p.submit(slow_job(500), name="next") for p in (peer, other))

    def owned() -> bool:
        return [len(t.owners) for t in peer.status().transactions if t.name == "next"] == [2]

    until("two owners", owned)
    third.cancel(all=True)
    with pytest.raises(Exception, match="another owner"):
        fourth.result(60)
