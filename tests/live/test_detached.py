"""Detached transactions: they outlive their submitter, their keepers, every process."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.errors import NoResult, NotKept, TaskError, TransactionCancelled, WorkerLost
from peers import Job, Peer
from tests.live.harness import Process, Site, alive, descendants, until
from tests.live.jobs import PHASE, answer, gated_job, job_to_gate, slow_job, total
from tests.live.test_cli import JOBS, end_peers, ends, grid, up


def transaction(peer: Peer, record: str) -> str:
    """How far it is, as its server sees it."""
    return "".join(t.state for t in peer.status().transactions if t.record == record)


def mapped(peer: Peer, record: str) -> int:
    return sum(t.maps_done for t in peer.status().transactions if t.record == record)


def marked(key: int, item: tuple[str, str]) -> Iterator[tuple[str, int]]:
    """A mark for each time an item is mapped; those of the second half wait for a gate."""
    folder, gate = item
    while key >= PHASE and not Path(gate).exists():
        time.sleep(0.005)  # a test that spins here starves the peers it waits for
    with Path(folder, str(key)).open("a") as file:
        file.write("x")
    yield "items", 1


class Marks:
    """A job that counts how often each of its items was mapped, and can be held at its half."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "marks"
        self.folder.mkdir()
        self.gate = folder / "gate"
        items = [(str(self.folder), str(self.gate))] * (2 * PHASE)
        self.job = Job(items, marked, reducefn=total)
        self.answer = {"items": 2 * PHASE}

    def repeated(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.read_text() != "x"]


def refuses(key: int, _value: int) -> Iterator[tuple[int, int]]:
    if key == 3:
        raise ValueError("three is too many")
    yield key, 1


def dies(key: int, _value: int) -> Iterator[tuple[int, int]]:
    if key == 3:
        os.kill(os.getpid(), 9)
    yield key, 1


def visitor(site: Site, name: str) -> Peer:
    return site.here(name, serves=False)


def kill(*processes: Process) -> None:
    """Kill them, and wait until their workers are gone too: one that waits at a gate would map an
    item of nobody's, if the gate opened just then."""
    workers = [pid for process in processes for pid in descendants(process.pid)]
    for process in processes:
        process.kill()
    until("their workers are gone", lambda: not any(map(alive, workers)))


def test_the_submitter_leaves_and_another_peer_has_the_result(site: Site) -> None:
    for name in "abc":
        site.start(name)
    submitter = visitor(site, "submitter")
    gate = site.folder / "gate"
    txn = submitter.submit(job_to_gate(gate), detached=True)
    submitter.close()
    other = visitor(site, "other")
    with pytest.raises(NoResult, match="not finished yet"):
        other.fetch(txn.id).result(60)
    gate.touch()
    assert other.fetch(txn.id, wait=True).result(60) == answer()
    assert transaction(other, txn.id) == "retained"
    assert other.fetch(txn.id).result(60) == answer(), "as often as one likes"
    with pytest.raises(NoResult, match="no finished result"):
        other.fetch("0" * 32, wait=True).result(60)


def test_its_submitter_may_also_stay(site: Site) -> None:
    peer = site.here("one", slots=1)
    txn = peer.submit(slow_job(50), detached=True)
    assert txn.result(60) == answer(50)
    assert txn.progress.maps_done == 50


def test_every_process_is_killed_and_one_goes_on_with_what_was_finished(
    site: Site, tmp_path: Path
) -> None:
    keepers = [site.start(name) for name in "ab"]
    marks = Marks(tmp_path)
    submitter = visitor(site, "submitter")
    txn = submitter.submit(marks.job, detached=True)
    until("half is mapped", lambda: mapped(submitter, txn.id) == PHASE, 60)
    submitter.close()
    kill(*keepers)
    marks.gate.touch()
    site.start("c", slots=2)
    other = visitor(site, "other")
    assert other.fetch(txn.id, wait=True).result(60) == marks.answer
    assert marks.repeated() == []


def test_the_last_peer_leaves_well_and_the_next_goes_on(site: Site, tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    first = site.here("first", slots=1)
    txn = first.submit(marks.job, detached=True)
    until("half is mapped", lambda: mapped(first, txn.id) == PHASE, 60)
    first.close()
    visitor_too_early = site.begin("early", serves=False, join_timeout=1)
    until("it has given up", lambda: visitor_too_early.process.poll())
    marks.gate.touch()
    second = site.here("second", slots=1)
    assert second.fetch(txn.id, wait=True).result(60) == marks.answer
    assert marks.repeated() == []


def test_keepers_are_killed_and_others_deliver(site: Site, tmp_path: Path) -> None:
    """Also when all who kept it are gone: a peer of their host takes over, and repeats nothing."""
    processes = [site.start(name) for name in "abcd"]
    marks = Marks(tmp_path)
    peer = visitor(site, "watcher")
    txn = peer.submit(marks.job, detached=True)
    until("half is mapped", lambda: mapped(peer, txn.id) == PHASE, 60)
    found = [t.owners for t in peer.status().transactions]
    keepers = [process for process in processes if process.name in found[0]]
    assert len(keepers) == 3
    kill(*keepers)
    marks.gate.touch()
    assert txn.result(60) == marks.answer
    assert marks.repeated() == []


def test_a_result_is_there_after_everyone_was_killed(site: Site) -> None:
    keepers = [site.start(name) for name in "ab"]
    peer = visitor(site, "submitter")
    txn = peer.submit(slow_job(20), detached=True)
    assert txn.result(60) == answer(20)
    peer.close()
    kill(*keepers)
    site.start("c")
    other = visitor(site, "other")
    assert other.fetch(txn.id, wait=True).result(60) == answer(20)
    (shown,) = other.status().transactions
    assert (shown.state, shown.detached) == ("retained", True)
    assert 0 < shown.began < shown.ended


def test_a_failure_is_kept_too(site: Site) -> None:
    keeper = site.start("a")
    peer = visitor(site, "submitter")
    txn = peer.submit(Job(list(range(8)), refuses), detached=True)
    with pytest.raises(TaskError, match="three is too many"):
        txn.result(60)
    poison = peer.submit(Job(list(range(8)), dies), detached=True, attempts_max=1)
    peer.close()
    kill(keeper)
    site.start("b")
    other = visitor(site, "other")
    with pytest.raises(TaskError, match="three is too many"):
        other.fetch(txn.id, wait=True).result(60)
    assert transaction(other, txn.id) == "failed"
    with pytest.raises(WorkerLost, match="item 3"):  # no keeper opens the keys
        other.fetch(poison.id, wait=True).result(60)


def test_a_cancelled_one_is_not_revived(site: Site, tmp_path: Path) -> None:
    keepers = [site.start(name) for name in "ab"]
    peer = visitor(site, "submitter")
    txn = peer.submit(gated_job([tmp_path / "never"]), detached=True)
    until("it runs", lambda: transaction(peer, txn.id) == "running")
    visitor(site, "other").end(txn.id)
    with pytest.raises(TransactionCancelled):
        txn.result(60)
    kill(*keepers)
    site.start("c")
    with pytest.raises(TransactionCancelled):
        peer.fetch(txn.id, wait=True).result(60)
    assert transaction(peer, txn.id) == "failed"


def test_its_submitter_cancels_it_for_everyone(site: Site, tmp_path: Path) -> None:
    site.start("a")
    peer = visitor(site, "submitter")
    txn = peer.submit(gated_job([tmp_path / "never"]), detached=True)
    until("it runs", lambda: transaction(peer, txn.id) == "running")
    assert txn.cancel()
    until("it has ended", lambda: transaction(peer, txn.id) == "failed")


def test_hosts_that_share_nothing_keep_a_copy_each(site: Site, tmp_path: Path) -> None:
    """Peers with spools and journals of their own are to each other like other hosts."""
    places = {name: (str(tmp_path / f"s{name}"), str(tmp_path / f"j{name}")) for name in "abc"}
    hosts = [site.start(n, spool=spool, journal=j) for n, (spool, j) in places.items()]
    peer = visitor(site, "submitter")
    gate = tmp_path / "gate"
    txn = peer.submit(job_to_gate(gate), detached=True)
    until("it is under way", lambda: mapped(peer, txn.id) > 20)
    kill(hosts[0], hosts[1])
    gate.touch()
    assert txn.result(60) == answer()
    kill(hosts[2])
    spool, journal = places["c"]
    site.start("again", spool=spool, journal=journal)
    assert peer.fetch(txn.id, wait=True).result(60) == answer()


def owners(peer: Peer, record: str) -> set[str]:
    return {name for t in peer.status().transactions if t.record == record for name in t.owners}


def place(folder: Path, name: str) -> dict[str, Any]:
    """A host of its own, as it looks to others, and settings that are in a hurry."""
    spool, journal = str(folder / name), str(folder / f"journal-{name}")
    return {"spool": spool, "journal": journal, "copies": 2, "replace_seconds": 0.5}


def test_a_keeper_that_stays_away_is_replaced(site: Site, tmp_path: Path) -> None:
    """Three hosts, two copies. Host after host dies, and each time another one keeps a copy in its
    place: first of the job, then of its result."""
    hosts = {name: site.start(name, **place(tmp_path, name)) for name in "abc"}
    gate = tmp_path / "gate"
    peer = site.here("submitter", serves=False, copies=2)
    txn = peer.submit(gated_job([gate]), detached=True)
    until("two keep it", lambda: len(owners(peer, txn.id)) == 2)
    first, second = sorted(owners(peer, txn.id))
    (third,) = set(hosts) - {first, second}
    kill(hosts[first])
    until("another keeps a copy", lambda: owners(peer, txn.id) == {second, third})
    kill(hosts[second])
    until("it goes on with the copy alone", lambda: owners(peer, txn.id) == {third})
    gate.touch()
    assert txn.result(60) == answer(PHASE)
    site.start("d", **place(tmp_path, "d"))
    until("its result is there too", lambda: owners(peer, txn.id) == {third, "d"})
    kill(hosts[third])
    until("it is kept there alone", lambda: owners(peer, txn.id) == {"d"})
    assert peer.fetch(txn.id, wait=True).result(60) == answer(PHASE)


def test_what_cannot_be_kept_does_not_run(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    peer = site.here("one", slots=1, journal=str(tmp_path / "file"))
    with pytest.raises(NotKept, match="GRID_JOURNAL"):
        peer.submit(slow_job(10), detached=True)
    assert peer.status().transactions == ()
    assert peer.submit(slow_job(10)).result(60) == answer(10), "others are not harmed"


def test_a_datasource_that_raises_leaves_nothing_behind(site: Site) -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            return iter(range(10))

        def __getitem__(self, key: int) -> int:
            raise LookupError("not today")

    peer = site.here("one", slots=1)
    with pytest.raises(LookupError, match="not today"):
        peer.submit(Job(Broken(), refuses), detached=True)
    assert peer.status().transactions == ()


def test_a_damaged_journal_is_told_and_keeps_nobody_from_joining(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journals = tmp_path / "journals"
    first = site.start("first", journal=str(journals))
    peer = visitor(site, "submitter")
    peer.submit(gated_job([tmp_path / "never"]), detached=True)
    kill(first)
    (database,) = journals.glob("*/journal.db")
    for left in journals.glob("*/journal.db-*"):
        left.unlink()
    database.write_bytes(b"not a database" * 1000)
    second = site.here("second", slots=1, journal=str(journals))
    until("it is told", lambda: f"{database}: file is not a database" in caplog.text)
    assert "move it away" in caplog.text
    assert second.submit(slow_job(10)).result(60) == answer(10)


def test_the_command_detaches_waits_shows_and_cancels(site: Site) -> None:
    (site.folder / "jobs.py").write_text(JOBS)
    up(site, "peer")
    (shown,) = json.loads(f"[{ends(grid(site, 'submit', 'jobs:job', '--detach', '--json'))}]")
    printed = ends(grid(site, "result", shown["id"][:6], "--wait"))
    assert printed == ends(grid(site, "submit", "jobs:job"))
    table = ends(grid(site, "jobs"))
    row = next(line for line in table.splitlines() if shown["id"][:12] in line)
    assert row.split()[1:3] == ["(detached)", "retained"]
    assert "began" in table
    endless = ends(grid(site, "submit", "jobs:endless", "--detach")).strip()
    running = grid(site, "result", endless)
    ends(running, 1)
    assert "not finished yet" in running.err
    ends(grid(site, "cancel", endless[:8]))
    cancelled = grid(site, "result", endless, "--wait")
    ends(cancelled, 1)
    assert "cancelled" in cancelled.err
    wrong = grid(site, "submit", "jobs:job", "--detach", "--name", "two names")
    ends(wrong, 2)
    assert "leave out name" in wrong.err
    end_peers(site)
