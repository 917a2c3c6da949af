"""``peer.executor()`` on a grid: results, failures, ends, and servers and workers that die."""

import concurrent.futures
import os
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grid.errors import BadJob, Misuse, NotPicklable, WorkerLost
from peers.call_outcomes import RemoteTraceback
from tests.live.harness import Site, until


class Odd(Exception):
    """An exception of the user's own, with a constructor that has two arguments."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(first, second)


def fail(number: int) -> None:
    raise Odd("no", number)


def wait_for(gate: str) -> str:
    while not Path(gate).exists():
        time.sleep(0.005)
    return gate


def open_gate(gate: Path) -> None:
    gate.touch()


def test_calls_of_every_kind_give_what_they_give_here(site: Site) -> None:
    offset = 7
    with site.here(slots=2).executor() as executor:
        singles = [executor.submit(pow, n, 2) for n in range(500)]
        by_value = executor.submit(lambda n: n + offset, 3)
        keywords: Any = executor.submit(dict, [("a", 1)], self=2, fn=3)
        failed = executor.submit(fail, 5)
        locked = executor.submit(len, threading.Lock())
        unsendable = executor.submit(threading.Lock)
        assert [single.result(60) for single in singles] == [n * n for n in range(500)]
        assert by_value.result(60) == 10
        assert keywords.result(60) == {"a": 1, "self": 2, "fn": 3}
        error = failed.exception(20)
        assert isinstance(error, Odd)
        assert error.args == ("no", 5)
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in fail" in error.__cause__.tb
        assert isinstance(locked.exception(20), NotPicklable)
        assert isinstance(unsendable.exception(20), NotPicklable)
        everything = [*singles, by_value, keywords, failed, locked, unsendable]
        assert concurrent.futures.wait(everything, 0).not_done == set()
        assert set(concurrent.futures.as_completed(everything, 0)) == set(everything)


def test_map_gives_results_in_order_whatever_the_chunks(site: Site) -> None:
    executor = site.here(slots=2).executor()
    wanted = [n**3 for n in range(300)]
    for chunksize, buffersize in ((1, None), (7, None), (1, 4), (50, 2), (1000, None)):
        results = executor.map(
            pow, range(300), [3] * 400, chunksize=chunksize, buffersize=buffersize, timeout=30
        )
        assert list(results) == wanted
    halves = executor.map(partial(divmod, 6), [1, 2, 3, 0, 5], chunksize=4)
    assert [next(halves) for _ in range(3)] == [(6, 0), (3, 0), (2, 0)]
    with pytest.raises(ZeroDivisionError):
        next(halves)
    taken: list[int] = []
    ahead = executor.map(abs, (taken.append(n) or n for n in range(100)), buffersize=3)  # type: ignore[func-returns-value]
    assert next(ahead) == 0
    assert len(taken) <= 5
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=0)
    with pytest.raises(TimeoutError):
        list(executor.map(time.sleep, [30], timeout=0.01))
    executor.shutdown(wait=False)


def test_results_do_not_wait_for_a_long_call(site: Site, tmp_path: Path) -> None:
    """A call that is known to be long goes alone, and others pass it by."""
    executor = site.here(slots=2).executor()
    gates = [tmp_path / f"gate{n}" for n in range(2)]
    long = executor.submit(wait_for, str(gates[0]))
    assert [f.result(60) for f in [executor.submit(pow, n, 2) for n in range(200)]][-1] == 199**2
    assert not long.done()
    gates[0].touch()
    assert long.result(60) == str(gates[0])
    executor.shutdown()


def test_what_was_not_sent_can_be_cancelled(site: Site, tmp_path: Path) -> None:
    executor = site.here(slots=2).executor(max_workers=1)
    gate = tmp_path / "gate"
    told: list[bool] = []
    futures = [executor.submit(wait_for, str(gate)) for _ in range(6)]
    until("the first is under way", futures[0].running)
    futures[2].add_done_callback(lambda future: told.append(future.cancelled()))
    assert not futures[0].cancel()
    assert futures[2].cancel()
    assert told == [True]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] + 5 * [True]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 2)
    gate.touch()
    assert futures[0].result(60) == str(gate)
    executor.shutdown()


def test_what_no_executor_takes_is_said_at_once(site: Site) -> None:
    peer = site.here()
    with pytest.raises(Misuse, match="priority"):
        peer.executor(priority=5000)
    with pytest.raises(BadJob, match="no_such_module"):
        peer.executor(ship="no_such_module")
    with pytest.raises(NotPicklable, match="lock"):
        peer.executor(initializer=threading.Lock().acquire)
    with pytest.raises(TypeError, match="initialiser"):
        peer.executor(initialiser=print)


def test_max_workers_bounds_how_many_run_at_once(site: Site, tmp_path: Path) -> None:
    def alone(path: Path) -> None:
        mine = path / "running"
        mine.touch(exist_ok=False)
        time.sleep(0.005)
        mine.unlink()

    with site.here(slots=3).executor(max_workers=1) as executor:
        list(executor.map(alone, [tmp_path] * 30))


def die_of(number: int, poison: int) -> int:
    if number == poison:
        os._exit(3)
    return number


def test_a_call_that_kills_its_worker_fails_alone(site: Site) -> None:
    """Whatever was sent together with it has its result."""
    executor = site.here(slots=2).executor()
    list(executor.map(die_of, range(100), [-1] * 100))  # they are short, and so go together
    futures = [executor.submit(die_of, n, 40) for n in range(80)]
    error = futures[40].exception(60)
    assert isinstance(error, WorkerLost)
    assert "exit code 3 while it ran this call" in str(error)
    del futures[40]
    assert [future.result(60) for future in futures] == [n for n in range(80) if n != 40]
    executor.shutdown()


def test_the_server_is_killed_and_futures_only_take_longer(site: Site) -> None:
    peers = [site.begin(f"p{n}", slots=n) for n in (1, 2)]
    for peer in peers:
        peer.said("joined")
    me = site.here()
    executor = me.executor()
    futures = [executor.submit(slow_square, n) for n in range(60)]
    futures[3].result(60)
    server = site.server(me)
    assert server in peers
    server.kill()
    assert [future.result(60) for future in futures] == [n * n for n in range(60)]
    executor.shutdown()


def slow_square(number: int) -> int:
    time.sleep(0.03)
    return number * number


def test_who_joins_later_gets_calls_too(site: Site, tmp_path: Path) -> None:
    """Also when all that was known until then are long calls."""
    gate = tmp_path / "gate"
    executor = site.here().executor()
    futures = [executor.submit(wait_for, str(gate)) for _ in range(3)]
    for peer in [site.begin(f"late{n}", slots=n) for n in (1, 2)]:
        peer.said("joined")
    until("all three are under way", lambda: all(future.running() for future in futures))
    gate.touch()
    assert [future.result(60) for future in futures] == 3 * [str(gate)]
    executor.shutdown()


def test_a_failing_initializer_breaks_the_executor(site: Site, caplog: Any) -> None:
    executor = site.here(slots=1).executor(initializer=partial(divmod, 1, 0))
    futures = [executor.submit(abs, n) for n in range(5)]
    for future in futures:
        error = future.exception(20)
        assert isinstance(error, BrokenExecutor)
        assert isinstance(error.__cause__, ZeroDivisionError)
    with pytest.raises(BrokenExecutor, match="initializer failed"):
        executor.submit(abs, 1)
    executor.shutdown()
    caplog.clear()


def test_the_peer_is_closed_under_an_executor(site: Site, tmp_path: Path, caplog: Any) -> None:
    peer = site.here(slots=1)
    executor = peer.executor()
    futures = [executor.submit(wait_for, str(tmp_path / "never")) for _ in range(4)]
    until("the first is under way", futures[0].running)
    futures[3].cancel()
    peer.close()
    for future in futures[:3]:
        assert isinstance(future.exception(20), BrokenExecutor)
    with pytest.raises(CancelledError):
        futures[3].result(60)
    with pytest.raises(BrokenExecutor):
        executor.submit(abs, 1)
    executor.shutdown()
    caplog.clear()


AT_EXIT = """
import atexit, os, time
from concurrent.futures import wait
from peers import Job, Peer

def slowly(text):
    time.sleep(0.2)
    return text

def late():
    try:
        executor.submit(slowly, "late")
    except RuntimeError as error:
        print(error, flush=True)

peer = Peer(slots=1)
unread = peer.submit(Job([1], lambda k, v: [(k, v)]))
wait([unread])
executor = peer.executor()
for n in range(3):
    executor.submit(slowly, n).add_done_callback(lambda f: print("done", f.result(), flush=True))
if os.fork() == 0:
    try:
        executor.submit(slowly, "child")
    except RuntimeError as error:
        print("child:", error, flush=True)
    os._exit(0)
os.wait()
atexit.register(late)
"""


def test_the_interpreter_ends_when_calls_have(site: Site) -> None:
    """Also with a result that nobody has read."""
    script = site.run("script", AT_EXIT)
    lines = script.ended().splitlines()
    assert "Traceback" not in script.err
    assert "forked" in lines[0]
    assert lines[1:] == [
        *(f"done {n}" for n in range(3)),
        "cannot schedule new futures after interpreter shutdown",
    ]
