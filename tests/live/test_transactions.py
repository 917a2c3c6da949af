"""How a transaction can end other than well, and what is left of it: nothing."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.errors import (
    DeadlineExceeded,
    Misuse,
    PeerClosed,
    TaskError,
    TransactionCancelled,
    WorkerLost,
)
from peers import Job, Peer
from tests.live.harness import Site, until
from tests.live.jobs import answer, begin_and_never_end, forever, pairs_of, slow_job, total


def idle(peer: Peer) -> bool:
    """Whether nothing runs and nothing is known any more."""
    status = peer.status()
    return not status.transactions and not any(member.running for member in status.members)


@pytest.mark.parametrize("workers", ["process", "thread"])
def test_cancel_ends_an_endless_loop_and_frees_its_slot(site: Site, workers: str) -> None:
    peer = site.here(slots=1, workers=workers)
    begun = site.folder / "begun"
    txn = peer.submit(Job([str(begun)] * 2, begin_and_never_end))
    until("it runs", begun.exists)  # the function itself: an interrupted import leaves files open
    assert txn.cancel()
    assert txn.cancel(), "as of every future, once more is no harm"
    assert txn.cancelled()
    assert txn.done()
    with pytest.raises(TransactionCancelled):
        txn.result(60)
    with pytest.raises(TransactionCancelled):
        txn.exception(5)
    assert peer.submit(slow_job(4)).result(60) == answer(4)
    until("nothing is left", lambda: idle(peer))


def test_cancel_of_a_job_that_other_peers_run(site: Site) -> None:
    site.start("one", slots=1)
    site.start("two", slots=1)
    peer = site.here("three")
    txn = peer.submit(Job([1, 2, 3, 4], forever))
    until("both run", lambda: sum(m.running > 0 for m in peer.status().members) == 2)
    with pytest.raises(TimeoutError, match=r"not done within 0\.1 s: 0 of 4 items mapped"):
        txn.result(0.1)
    txn.cancel()
    until("nothing is left", lambda: idle(peer))
    assert peer.submit(slow_job(4)).result(60) == answer(4)


def test_a_deadline_ends_a_job(site: Site) -> None:
    peer = site.here(slots=1)
    began = time.monotonic()
    txn = peer.submit(Job([1], forever), deadline_seconds=0.5)
    with pytest.raises(DeadlineExceeded):
        txn.result(60)
    assert 0.4 < time.monotonic() - began < 30
    assert isinstance(txn.exception(), TimeoutError)
    until("nothing is left", lambda: idle(peer))
    assert peer.submit(slow_job(4), deadline_seconds=20).result(60) == answer(4)


def fails_at_three(key: int, value: int) -> Iterator[tuple[str, int]]:
    yield "first", value
    if value == 3:
        raise LookupError(f"no {value} here")


def test_what_user_code_raises_comes_with_all_that_is_known(site: Site) -> None:
    site.start("one", slots=1)
    peer = site.here("two")
    txn = peer.submit(Job(list(range(6)), fails_at_three, reducefn=total))
    with pytest.raises(TaskError) as caught:
        txn.result(60)
    error = caught.value
    assert isinstance(error.__cause__, LookupError)
    assert str(error.__cause__) == "no 3 here"
    assert (error.key, error.peer) == ("3", "one")
    assert "fails_at_three" in error.function or "mapfn" in error.function
    assert "raise LookupError" in error.traceback
    assert txn.exception() is error
    until("nothing is left", lambda: idle(peer))


class OddError(Exception):
    """Does not survive pickling."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def fails_oddly(key: int, value: int) -> Iterator[tuple[int, int]]:
    raise OddError(1, 2)
    yield  # type: ignore[unreachable]


def test_an_exception_that_does_not_pickle_is_told_as_text(site: Site) -> None:
    peer = site.here(slots=1)
    with pytest.raises(TaskError, match="OddError") as caught:
        peer.submit(Job([1], fails_oddly)).result(60)
    assert "fails_oddly" in caught.value.traceback


def fails_at_first(key: int, folder: str) -> Iterator[tuple[int, int]]:
    """Raises the first two times an item is tried."""
    tries = len(list(Path(folder).glob(f"{key}-*")))
    (Path(folder) / f"{key}-{tries}").touch()
    if tries < 2:
        raise OSError("try again")
    yield key, tries


def test_retries_count_exceptions(site: Site) -> None:
    peer = site.here(slots=2)
    folder = site.folder / "tries"
    folder.mkdir()
    job = Job([str(folder)] * 3, fails_at_first)
    with pytest.raises(TaskError, match="try again"):
        peer.submit(job).result(60)
    for path in folder.iterdir():
        path.unlink()
    assert peer.submit(job, retries=2).result(60) == {0: [2], 1: [2], 2: [2]}


def test_failing_items_are_skipped_as_a_whole_when_asked(site: Site) -> None:
    peer = site.here(slots=2)
    job = Job({f"k{n}": n % 5 for n in range(20)}, fails_at_three, reducefn=total)
    txn = peer.submit(job, on_error="skip")
    assert txn.result(60) == {"first": 4 * (0 + 1 + 2 + 4)} == job.run(on_error="skip")
    assert txn.skipped == ["k3", "k8", "k13", "k18"]


def dies_at_five(key: int, value: int) -> Iterator[tuple[int, int]]:
    if value == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    yield value, key


def test_a_poison_item_is_named_and_harms_no_other_job(site: Site) -> None:
    peer = site.here(slots=2)
    good = peer.submit(slow_job(100))
    poison = peer.submit(Job(list(range(10)), dies_at_five))
    with pytest.raises(WorkerLost, match="SIGKILL") as caught:
        poison.result(60)
    assert caught.value.key == "5"
    assert good.result(60) == answer(100)


def test_a_datasource_that_raises_fails_the_transaction(site: Site) -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

        def __getitem__(self, key: int) -> int:
            if key == 2:
                raise PermissionError("not for you")
            return key

    peer = site.here(slots=1)
    with pytest.raises(TaskError, match="not for you"):
        peer.submit(Job(Broken(), pairs_of)).result(60)

    class Unlistable(Broken):
        def __iter__(self) -> Iterator[int]:
            raise PermissionError("not even the keys")

    with pytest.raises(PermissionError, match="not even the keys"):
        peer.submit(Job(Unlistable(), pairs_of))


def test_what_is_asked_wrongly_is_refused_before_anything_happens(site: Site) -> None:
    peer = site.here(slots=1)
    job = slow_job(4)
    wrong: list[dict[str, Any]] = [
        {"on_error": "ignore"},
        {"retires": 2},
        {"deadline_seconds": 0},
        {"attempts_max": 0},
        {"name": 7},
    ]
    for options in wrong:
        with pytest.raises(Misuse):
            peer.submit(job, **options)
    with pytest.raises(Misuse, match="slots"):
        Peer(slots=-1)
    with pytest.raises(Misuse, match="prot"):
        Peer(prot=7)


def test_close_withdraws_what_is_open_and_says_so(site: Site) -> None:
    site.start("one", slots=1)
    watcher = site.here("watcher")
    peer = site.here("two", slots=1)
    txn = peer.submit(Job([1, 2], forever))
    until("it runs", lambda: any(m.running for m in watcher.status().members))
    began = time.monotonic()
    peer.close()
    assert time.monotonic() - began < 20
    with pytest.raises((PeerClosed, TransactionCancelled), match="closed"):
        txn.result(1)
    with pytest.raises(PeerClosed):
        peer.submit(slow_job(4))
    peer.close()
    until("nothing is left", lambda: idle(watcher))


def test_results_stay_readable_after_close(site: Site) -> None:
    with site.here(slots=1) as peer:
        txn = peer.submit(slow_job(10))
        opened = peer.submit(slow_job(10))
        opened.result(60)
        until("it is done", txn.done)
    assert opened.result() == answer(10)
    assert txn.result() == answer(10)
    assert dict(opened.items()) == answer(10)


def test_nothing_of_a_record_is_left_once_it_is_acknowledged(site: Site) -> None:
    site.start("one", slots=1)
    site.start("two", slots=1)
    peer = site.here("three", slots=1)
    for _ in range(3):
        txn = peer.submit(slow_job(30))
        assert txn.result(60) == answer(30)
        del txn

    def segments() -> list[Path]:
        return [p for p in site.spool.glob("*/*/*") if p.name != "lock"]

    until("the folders are empty", lambda: not segments(), 20.0)
    assert len(list(site.spool.glob("*/*/lock"))) == 3
    assert idle(peer)
