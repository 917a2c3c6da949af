"""One peer is a whole grid: it answers as ``Job.run()`` does, for every kind of job."""

import asyncio
import concurrent.futures
import functools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.errors import BadJob, NotPicklable, TaskError
from peers import Files, Job, Lines, Peer, Transaction
from tests.live.harness import Site, descendants, until
from tests.live.jobs import answer, pairs_of, slow_job, slowly, total, totals

NUMBERS = list(range(60))


class Squares:
    """A datasource of the user's own: no length, and values made when they are asked for."""

    def __iter__(self) -> Iterator[str]:
        return (f"n{number}" for number in range(25))

    def __getitem__(self, key: str) -> int:
        return int(key[1:]) ** 2


class Words:
    """A callable object as mapfn."""

    def __call__(self, key: Any, text: str) -> list[tuple[str, int]]:
        return [(word, 1) for word in text.split()]


def largest(key: Any, values: list[int], *, floor: int = 0) -> int:
    return max(floor, *values)


JOBS = {
    "map and reduce": Job(NUMBERS, pairs_of, reducefn=total),
    "iterator forms": Job(NUMBERS, pairs_of, reducefn=totals, finishfn=sorted),
    "collect": Job(NUMBERS, pairs_of, collectfn=lambda k, vs: [max(vs)], reducefn=total),
    "combine": Job(NUMBERS, pairs_of, combinefn=total, reducefn=total),
    "combine alone": Job(NUMBERS, pairs_of, combinefn=total),
    "value lists": Job(NUMBERS, pairs_of),
    "no map": Job({"a": [3, 1], "b": 5}, reducefn=largest),
    "finish": Job(NUMBERS, pairs_of, reducefn=total, finishfn=lambda k, v: (k, v * 2)),
    "finish once": Job(
        NUMBERS, pairs_of, reducefn=total, finishfn=lambda kvs: [("n", len([*kvs]))]
    ),
    "a mapping": Job({"x": 1, "y": 2}, lambda k, v: {v: k, 0: k}),
    "no pairs": Job(NUMBERS, lambda k, v: None),
    "nothing": Job([], pairs_of, reducefn=total, finishfn=dict),
    "partial": Job(NUMBERS, pairs_of, reducefn=functools.partial(largest, floor=9)),
    "callable": Job(["a b", "b c"], Words(), reducefn=total),
    "own datasource": Job(Squares(), lambda k, v: [(v % 3, k)]),
    "odd keys": Job({(1, "a"): 1, None: 2, 2.5: 3, b"x": 4}, lambda k, v: [(k, v), (v, k)]),
    "one partition": Job(NUMBERS, pairs_of, reducefn=total, partitions=1),
}


def test_every_kind_of_job_gives_what_it_gives_sequentially(site: Site) -> None:
    """In the same order, too."""
    peer = site.here(slots=2)
    open_ = {name: (job, peer.submit(job)) for name, job in JOBS.items()}
    for name, (job, txn) in open_.items():
        assert list(txn.result(60).items()) == list(job.run().items()), name
        assert list(txn.items()) == list(job.run().items()), name
        assert txn.progress.executed_again == 0


def mutate(key: int, values: list[int]) -> Iterator[tuple[int, list[int]]]:
    values.append(len(values))
    yield 0, values


def test_every_attempt_sees_fresh_values_in_threads_too(site: Site) -> None:
    data = [[n] for n in range(8)]
    peer = site.here(slots=2, workers="thread")
    job = Job(data, mutate, reducefn=lambda k, vs: [v.append(9) or v for v in vs])
    expected = {0: [[n, 1, 9] for n in range(8)]}
    assert peer.submit(job).result(60) == expected
    assert peer.submit(job).result(60) == expected
    assert data == [[n] for n in range(8)]
    assert peer.run_everywhere(os.getpid) == {"here": os.getpid()}


def test_files_and_lines_are_read_by_workers(site: Site) -> None:
    folder = site.folder / "texts"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text("ein Haus é\n" * (number + 1))
    words = Words()
    peer = site.here(slots=2)
    files = Job(Files(str(folder / "*.txt")), words, reducefn=total)
    assert peer.submit(files).result(60) == {"ein": 21, "Haus": 21, "é": 21}
    lines = Job(Lines(str(folder / "*.txt"), bytes_per_item=30), words, reducefn=total)
    assert peer.submit(lines).result(60) == {"ein": 21, "Haus": 21, "é": 21}
    paths = Job(Files(str(folder / "*.txt"), mode="path"), lambda k, path: [(path, os.getpid())])
    assert os.getpid() not in {
        pid for pids in peer.submit(paths).result(60).values() for pid in pids
    }


def test_a_file_that_changed_since_it_was_listed_is_an_error_that_says_so(site: Site) -> None:
    path = site.folder / "a.txt"
    path.write_text("one")
    files = Files(str(path))
    peer = site.here(slots=1)
    gate = site.folder / "gate"

    class Slow:
        """Lists, then lets the file change before its value is asked for."""

        def __iter__(self) -> Iterator[Any]:
            return iter(files)

        def __getitem__(self, key: Any) -> Any:
            until("the gate", gate.exists)
            return files[key]

    txn = peer.submit(Job(Slow(), Words()))
    path.write_text("one two three")
    gate.touch()
    with pytest.raises(TaskError, match=r"a\.txt"):
        txn.result(60)


def test_run_everywhere_and_status(site: Site) -> None:
    site.start("one", slots=2)
    site.start("two", slots=1)
    peer = site.here("three", slots=0)
    pids = peer.run_everywhere(os.getpid, timeout=20)
    assert sorted(pids) == ["one", "two"]
    assert os.getpid() not in pids.values()
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        peer.run_everywhere(lambda: 1 / 0, timeout=20)
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        peer.run_everywhere(lambda: time.sleep(60), timeout=0.2)
    until("the slots are free", lambda: not any(m.running for m in peer.status().members))
    status = peer.status()
    assert (status.server, status.term, status.serving) == ("one", 1, False)
    assert [(m.name, m.slots, m.serving) for m in status.members] == [
        ("one", 2, True),
        ("two", 1, False),
        ("three", 0, False),
    ]
    assert status.transactions == ()
    assert not peer.serving
    with pytest.raises(TypeError, match="run_everywhere"):
        peer.submit(len)  # type: ignore[arg-type]


def test_a_short_job_is_not_kept_waiting_by_a_long_one(site: Site) -> None:
    peer = site.here(slots=2)
    long = peer.submit(slow_job(600))
    until("the long one runs", lambda: long.progress.maps_done > 20)
    short = peer.submit(slow_job(20))
    assert short.result(60) == answer(20)
    assert not long.done()
    urgent = peer.submit(slow_job(20), priority=1)
    done, _ = concurrent.futures.wait([long, urgent], 20, concurrent.futures.FIRST_COMPLETED)
    assert done == {urgent}
    assert long.result(60) == answer(600)


def test_transactions_are_futures(site: Site) -> None:
    peer = site.here(slots=2)
    called: list[Any] = []
    transactions = [peer.submit(Job([n], slowly, reducefn=total)) for n in range(8)]
    transactions[0].add_done_callback(called.append)
    _done, open_ = concurrent.futures.wait(transactions, 20)
    assert not open_
    assert list(concurrent.futures.as_completed(transactions, 20))
    assert [txn.result() for txn in transactions] == [
        {f"by 7: {n % 7}": 0, f"by 3: {n % 3}": n} for n in range(8)
    ]
    until("the callback", lambda: called == [transactions[0]])
    assert transactions[0].exception() is None
    assert transactions[0].done()
    assert not transactions[0].cancel()


def test_transactions_can_be_awaited(site: Site) -> None:
    peer = site.here(slots=2)

    async def both() -> list[dict[Any, Any]]:
        first, second = peer.submit(slow_job(10)), peer.submit(slow_job(20))
        return [await first, await second]

    assert asyncio.run(both()) == [answer(10), answer(20)]


def test_an_await_that_is_given_up_harms_nothing(site: Site) -> None:
    """Its loop is closed when the result comes; the transaction goes on."""
    peer = site.here(slots=2)
    txn = peer.submit(slow_job(60))

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_awaited(txn), 0.02)

    asyncio.run(impatient())
    assert not txn.done()
    assert txn.result(60) == answer(60)


async def _awaited(txn: Transaction) -> dict[Any, Any]:
    return await txn


def test_resultfn_is_called_once_on_a_thread_of_its_own(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    peer = site.here(slots=1)
    calls: list[tuple[Any, Any, str]] = []

    def note(txn: Any, results: Any) -> None:
        calls.append((txn, results, threading.current_thread().name))

    txn = peer.submit(Job(NUMBERS, pairs_of, reducefn=total, resultfn=note))
    assert txn.result(60) == answer(60)
    until("resultfn", lambda: calls)
    failing = peer.submit(Job([1], pairs_of, resultfn=lambda results: 1 / 0))
    assert failing.result(60)
    until("the log", lambda: "a callback raised" in caplog.text)
    assert peer.submit(slow_job(4)).result(60) == answer(4)
    assert len(calls) == 1
    assert calls[0][0] is txn
    assert calls[0][2].startswith("grid-callbacks")
    caplog.clear()  # what the user's own function raised is rightly an error in the log


def test_what_cannot_travel_is_refused_at_once_and_says_what(site: Site) -> None:
    peer = site.here(slots=1)
    lock = threading.Lock()
    with pytest.raises(NotPicklable, match="lock"):
        peer.submit(Job([1], lambda k, v: [(k, lock)]))
    with pytest.raises(BadJob, match="twice"):
        peer.submit(Job(_Twice(), pairs_of))
    value = peer.submit(Job([lock], pairs_of))
    with pytest.raises(Exception, match="lock"):
        value.result(60)
    result = peer.submit(Job([1], lambda k, v: [(k, threading.Lock())]))
    with pytest.raises(Exception, match="lock"):
        result.result(60)
    assert peer.submit(slow_job(4)).result(60) == answer(4)


class _Twice:
    def __iter__(self) -> Iterator[int]:
        return iter([1, 1])

    def __getitem__(self, key: int) -> int:
        return key


def test_two_results_with_one_key_are_an_error_that_names_it(site: Site) -> None:
    peer = site.here(slots=2)
    job = Job(NUMBERS, pairs_of, reducefn=lambda groups: [("same", 1) for _ in groups])
    with pytest.raises(Exception, match="'same'"):
        job.run()
    with pytest.raises(Exception, match="'same'"):
        peer.submit(job).result(60)


def test_nothing_starts_before_first_use(site: Site, tmp_path: Path) -> None:
    threads = threading.active_count()
    peer = Peer(slots=1, start=False)
    site.peers.append(peer)
    assert threading.active_count() == threads
    assert not site.spool.exists()
    assert peer.submit(slow_job(4)).result(60) == answer(4)


def test_what_starts_workers_is_there_before_the_first_task(site: Site) -> None:
    """And gone with the peer that never had one; who runs nothing has none."""
    before = set(descendants(os.getpid()))
    site.here("idle", slots=0)
    assert set(descendants(os.getpid())) == before
    peer = site.here("busy", slots=1)
    until("its helper", lambda: set(descendants(os.getpid())) - before)
    (helper,) = set(descendants(os.getpid())) - before
    assert peer.executor().submit(os.getppid).result(60) == helper
    site.here("unused", slots=1).close()
    peer.close()
    assert set(descendants(os.getpid())) == before


def test_a_peer_made_by_a_thread_that_ends_keeps_its_workers(site: Site) -> None:
    """The kernel ends a helper with the thread that started it."""
    helpers: list[int] = []

    def ask(peer: Peer) -> None:
        helpers.append(peer.executor().submit(os.getppid).result(60))

    user = threading.Thread(target=lambda: ask(site.here(slots=1)))
    user.start()
    user.join()
    ask(site.peers[0])
    assert helpers[0] == helpers[1]
