"""The serving peer is killed in each phase of a job: one right result, and nothing is repeated.

In each test something the test controls holds the job in its phase: a gate (a file) in the user's
function or datasource, a process that is stopped, or an event at the owner. The server is killed
when the job has been seen to wait there, and let go on when the next server reigns.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from grid.messages import RIDING_BYTES_MAX, Finished, Holding, PeerRef
from grid.ownership import Ownership
from peers import Job, Peer, Transaction
from peers.results import Fetcher
from tests.live.gates import HELD_KEY, ITEMS, held_answer, held_job, reached
from tests.live.harness import Site, until

PATIENT = {"silence_seconds": 20.0}
"""For tests that stop a process: it is not to be taken for dead."""


@dataclass
class Trial:
    """One job that is held somewhere while its server is killed."""

    site: Site
    owner: Peer
    gate: Path
    delivered: list[dict[Any, Any]] = field(default_factory=list)

    def job(self, phase: str = "", source: object = None) -> Job:
        return held_job(phase, self.gate, lambda _, got: self.delivered.append(got), source)

    def await_gate(self) -> None:
        until("somebody waits at the gate", reached(self.gate).exists)

    def kill_server(self) -> None:
        """Kill it, and wait for the next reign."""
        self.site.named("one").kill()
        until("the next reign", lambda: self.owner.term == 2 and self.owner.server)

    def ends_well(self, txn: Transaction) -> None:
        """Once, right, and with no finished task executed again."""
        assert txn.result(60) == held_answer()
        until("delivered", lambda: self.delivered)
        status = self.owner.status()
        assert status.term == 2
        until("acknowledged", lambda: not self.owner.status().transactions)
        assert self.delivered == [held_answer()]
        assert txn.progress.executed_again == 0


def trial(site: Site, **settings: Any) -> Trial:
    """The server is the process ``one``; the owner, here, runs no tasks."""
    site.start("one", **{"slots": 1, **settings})
    owner = site.here("owner", **settings)
    return Trial(site, owner, site.folder / "gate")


class Gated:
    """A datasource that lets its owner, or whoever asks for a value, wait."""

    def __init__(self, at: str) -> None:
        self._at = at
        self.reached = threading.Event()
        self.gate = threading.Event()

    def __iter__(self) -> Iterator[int]:
        yield from range(HELD_KEY)
        self._wait("keys")
        yield from range(HELD_KEY, ITEMS)

    def __getitem__(self, key: int) -> int:
        if key == HELD_KEY:
            self._wait("values")
        return key

    def _wait(self, at: str) -> None:
        if at == self._at:
            self.reached.set()
            assert self.gate.wait(60)


def unread_bytes(port: int) -> int:
    """What has been sent to those who listen at a local port and was not read by them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [row[4] for row in rows if int(row[1].rpartition(":")[2], 16) == port]
    return sum(int(queue.rpartition(":")[2], 16) for queue in queues)


@pytest.mark.parametrize("phase", ["mapping", "reducing", "finishing"])
def test_the_server_is_killed_while_user_code_runs(site: Site, phase: str) -> None:
    here = trial(site)
    site.start("two", slots=2)
    txn = here.owner.submit(here.job(phase))
    here.await_gate()
    done = txn.progress
    here.kill_server()
    here.gate.touch()
    here.ends_well(txn)
    assert (done.maps_done < ITEMS) == (phase == "mapping")


def test_the_server_is_killed_while_keys_are_listed(site: Site) -> None:
    """The user's thread is inside ``submit``; nobody has heard of the job."""
    here = trial(site)
    site.start("two")
    source = Gated("keys")
    submitted: list[Transaction] = []
    job = here.job(source=source)
    user = threading.Thread(target=lambda: submitted.append(here.owner.submit(job)))
    user.start()
    assert source.reached.wait(60)
    here.kill_server()
    source.gate.set()
    user.join(10)
    here.ends_well(submitted[0])


def test_the_server_is_killed_before_it_has_read_the_submission(site: Site) -> None:
    """It is stopped when the submission is sent, and never wakes."""
    here = trial(site, **PATIENT)
    site.start("two")
    one = site.named("one")
    one.freeze()
    before = unread_bytes(site.port)
    txn = here.owner.submit(here.job())
    until("it is sent", lambda: unread_bytes(site.port) > before + 1000)
    here.kill_server()
    here.ends_well(txn)


def test_the_server_is_killed_while_workers_get_their_items(site: Site) -> None:
    """The first tasks are given; the owner is being asked for values."""
    here = trial(site)
    site.start("two", slots=2)
    source = Gated("values")
    txn = here.owner.submit(here.job(source=source))
    assert source.reached.wait(60)
    here.kill_server()
    source.gate.set()
    here.ends_well(txn)


def test_the_server_is_killed_while_a_reducer_fetches(site: Site) -> None:
    """``two`` has mapped everything, shares its spool with nobody, and is stopped; a newcomer is
    given reduces, and waits for it to answer."""
    here = trial(site, slots=0, **PATIENT)
    two = site.start("two", spool=str(site.folder / "apart"), **PATIENT)
    txn = here.owner.submit(here.job("reducing"))
    here.await_gate()
    assert txn.progress.maps_done == ITEMS
    two.freeze()
    site.start("three", **PATIENT)

    def fetching() -> bool:
        return any(m.name == "three" and m.running for m in here.owner.status().members)

    until("a reduce is given to the newcomer", fetching)
    here.kill_server()
    assert txn.progress.reduces_done < txn.progress.reduces_total
    two.thaw()
    here.gate.touch()
    here.ends_well(txn)


def test_the_server_is_killed_while_the_owner_fetches(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is finished, and its result, too large for a message, on the way to its owner."""
    fetching, go_on = threading.Event(), threading.Event()
    fetch = Fetcher.fetch

    def held(self: Fetcher, holdings: tuple[tuple[Holding, PeerRef], ...]) -> None:
        fetching.set()
        assert go_on.wait(60)
        fetch(self, holdings)

    monkeypatch.setattr(Fetcher, "fetch", held)
    here = trial(site)
    site.start("two")
    job = Job(range(ITEMS), lambda key, _: [(key, bytes(RIDING_BYTES_MAX))])
    txn = here.owner.submit(job)
    assert fetching.wait(60)
    here.kill_server()
    go_on.set()
    assert txn.result(60) == job.run()
    assert txn.progress.executed_again == 0


def test_the_server_is_killed_while_a_small_result_comes_in_a_message(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner does not hear that it is finished; the next server says where the result is."""
    came = threading.Event()
    finished = Ownership.finished

    def unheard(self: Ownership, message: Finished) -> Any:
        if message.result and not came.is_set():
            came.set()
            return [], []
        return finished(self, message)

    monkeypatch.setattr(Ownership, "finished", unheard)
    here = trial(site)
    site.start("two")
    txn = here.owner.submit(here.job("finishing"))
    here.await_gate()
    here.gate.touch()
    assert came.wait(60)
    here.kill_server()
    here.ends_well(txn)


def test_the_server_is_killed_while_the_result_is_given_to_the_user(site: Site) -> None:
    """``resultfn`` runs; that it does so again would be a second delivery."""
    here = trial(site)
    site.start("two")
    inside, go_on = threading.Event(), threading.Event()
    count = here.delivered.append

    def resultfn(_txn: object, results: dict[Any, Any]) -> None:
        count(results)
        inside.set()
        assert go_on.wait(60)

    txn = here.owner.submit(held_job("", here.gate, resultfn))
    assert inside.wait(60)
    here.kill_server()
    go_on.set()
    here.ends_well(txn)
