"""Bad jobs, as a user meets them: one clear error each, and the next job is well.

Every error says what happened, where (function, key, peer) and what to do. One peer works, another
submits, so whatever is told has crossed the grid.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from peers import (
    BadJob,
    Files,
    Job,
    Lines,
    Misuse,
    ModuleMissing,
    NotPicklable,
    Peer,
    TaskError,
    TransactionCancelled,
    WorkerLost,
)
from tests.live.harness import Site, until
from tests.live.jobs import answer, forever, pairs_of, slow_job, total


@pytest.fixture
def peer(site: Site) -> Peer:
    """The one who submits; ``worker`` works."""
    site.start("worker", slots=2)
    return site.here("asker")


def is_well(peer: Peer) -> bool:
    """Whether a job still comes out right, and nothing of the others is left."""
    assert peer.submit(slow_job(8)).result(60) == answer(8)
    status = until("all is told", lambda: _settled(peer))
    return status.term == 1 and len(status.members) == 2


def _settled(peer: Peer) -> Any:
    status = peer.status()
    busy = status.transactions or any(member.running for member in status.members)
    return None if busy else status


class Source:
    """A datasource that raises for one key."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[str]:
        return iter(["good", "bad"])

    def __getitem__(self, key: str) -> int:
        if key == "bad":
            raise self.error
        return 1


class Listed:
    """A datasource that lists what it is told."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys)

    def __getitem__(self, key: Any) -> int:
        return 1


class OddError(Exception):
    """Pickles, but cannot be made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


class LeavingError(Exception):
    """Ends whoever opens its pickle."""

    def __reduce__(self) -> Any:
        return sys.exit, (7,)


class Unopenable:
    """Pickles, and raises or ends whoever opens it. No exception: packages that other tests import
    (Dask's) have exceptions pickled in a way of their own."""

    def __init__(self, call: Any, argument: Any) -> None:
        self._made_by = call, (argument,)

    def __reduce__(self) -> Any:
        return self._made_by


class LockedError(Exception):
    """Does not pickle."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def same(key: Any, value: Any) -> list[tuple[Any, Any]]:
    return [(key, value)]


def raising(kind: type[BaseException], *arguments: Any) -> Callable[[Any, Any], Any]:
    def fails(key: Any, value: Any) -> Any:
        if value == 2:
            raise kind(*arguments)
        return [(key, value)]

    return fails


def deeper(key: Any, value: Any) -> Any:
    return deeper(key, value)


def hungry(key: Any, value: Any) -> Any:
    return [(key, bytearray(1 << 60))]


def divides(key: Any, values: Any) -> Any:
    return 1 // 0


# ------------------------------------------------------------------------- before it starts

REFUSED: dict[str, tuple[Callable[[], Job], str]] = {
    "no function": (lambda: Job([1]), "give one of them"),
    "mapfn not callable": (lambda: Job([1], 7), "mapfn=7 is not a function"),  # type: ignore[arg-type]
    "wrong arguments": (lambda: Job([1], lambda k: []), r"1 positional argument.*f\(k, v\)"),
    "misspelt": (lambda: Job([1], same, reducfn=total), "did you mean 'reducefn'"),
    "text": (lambda: Job("a.txt", same), r"Files\("),
    "no datasource": (lambda: Job(7, same), "cannot list its keys"),
    "sum": (lambda: Job([1], same, reducefn=sum), r"lambda k, vs: sum\(vs\)"),
    "misspelt mode": (lambda: Job(Files("*.txt", mode="txt"), same), "mode"),  # type: ignore[arg-type]
    "misspelt option": (lambda: Job(Files("*", encodin="x"), same), "encodin.*did you mean"),
    "misspelt option of Lines": (
        lambda: Job(Lines("*", byte_per_item=9), same),
        "byte_per_item.*did you mean 'bytes_per_item'",
    ),
}

UNSUBMITTED: dict[str, tuple[Job, str]] = {
    "duplicate": (Job(Listed(["a", "b", "a"]), same), "'a' twice.*key of its own"),
    "equal numbers": (Job(Listed([1, True]), same), "twice"),
    "unhashable": (Job(Listed([["a"]]), same), r"\['a'\] cannot be a key.*tuple"),
    "not a number": (Job(Listed([float("nan")]), same), "nan"),
    "lock in a closure": (
        Job([1], (lambda lock: lambda k, v: [(k, lock)])(threading.Lock())),
        "mapfn=.*enclosed variable 'lock'.*inside the function",
    ),
}

MISSPELT: dict[str, str] = {
    "retires": "did you mean 'retries'",
    "deadline": "did you mean 'deadline_seconds'",
    "nmae": "did you mean 'name'",
}

WRONG_VALUES: dict[str, Any] = {
    "priority": 1.5,
    "retries": "3",
    "attempts_max": 0,
    "fresh": 1,
    "speculate": "no",
    "deadline_seconds": float("nan"),
    "name": "x" * 300,
    "on_error": "ignore",
}


WRONG_SETTINGS: dict[str, Any] = {
    "port": "many",
    "port_span": 2.0,
    "slots": "2",
    "serves": 1,
    "grid": 7,
    "join_timeout": True,
    "silence_seconds": "4",
    "name": "x" * 300,
    "hosts": "x" * 300,
    "workers": "fork",
}


def test_what_can_be_seen_before_is_refused_at_once(site: Site) -> None:
    for make, text in REFUSED.values():
        with pytest.raises((BadJob, Misuse), match=text):
            make()
    peer = site.here(slots=1)
    for job, text in UNSUBMITTED.values():
        with pytest.raises((BadJob, NotPicklable), match=f"(?s){text}"):
            peer.submit(job)
    for option, text in MISSPELT.items():
        with pytest.raises(Misuse, match=text):
            peer.submit(slow_job(1), **{option: 1})
    for option, value in WRONG_VALUES.items():
        with pytest.raises(Misuse, match=option):
            peer.submit(slow_job(1), **{option: value})
    with pytest.raises(Misuse, match="did you mean 'password'"):
        Peer(pasword="x")
    for setting, value in WRONG_SETTINGS.items():
        with pytest.raises(Misuse, match=setting):
            Peer(**{setting: value})
    assert peer.submit(slow_job(4)).result(60) == answer(4)
    assert peer.status().transactions == ()


def test_an_empty_datasource_has_an_empty_result(site: Site) -> None:
    peer = site.here(slots=1)
    called: list[Any] = []
    empty: tuple[Any, ...] = ([], {}, range(0), Listed([]))
    for nothing in empty:
        job = Job(nothing, same, reducefn=total, finishfn=dict, resultfn=called.append)
        txn = peer.submit(job)
        assert txn.result(60) == {}
    until("resultfn", lambda: len(called) == 4)
    assert called == [{}] * 4


# ------------------------------------------------------------------------- while it runs


@dataclass
class Bad:
    """A job that fails, and how it must be told."""

    job: Job
    text: str
    function: str
    key: str
    cause: type[BaseException] | None = None
    peer: str = "worker"
    options: dict[str, Any] = field(default_factory=dict)


ITEMS = {"one": 1, "two": 2}

LONG = "long" * 1_000_000
"""Far longer than what a message carries."""

FAILING: dict[str, Bad] = {
    "mapfn": Bad(Job(ITEMS, raising(KeyError, "x")), "KeyError", "mapfn", "'two'", KeyError),
    "collectfn": Bad(
        Job(ITEMS, same, collectfn=divides), "division", "collectfn", "'", ZeroDivisionError
    ),
    "combinefn": Bad(
        Job(ITEMS, lambda k, v: [("k", v), ("k", v)], combinefn=divides),
        "division",
        "combinefn",
        "'k'",
        ZeroDivisionError,
    ),
    "reducefn": Bad(
        Job(ITEMS, same, reducefn=divides), "division", "reducefn", "'", ZeroDivisionError
    ),
    "finishfn": Bad(
        Job(ITEMS, same, finishfn=divides), "division", "finishfn", "'", ZeroDivisionError
    ),
    "datasource": Bad(
        Job(Source(PermissionError("not yours")), same),
        "not yours",
        "the datasource",
        "'bad'",
        PermissionError,
        peer="asker",
    ),
    "datasource that exits": Bad(
        Job(Source(SystemExit(4)), same), "SystemExit: 4", "the datasource", "'bad'", peer="asker"
    ),
    "datasource with an odd exception": Bad(
        Job(Source(LeavingError("gone")), same), "gone", "the datasource", "'bad'", peer="asker"
    ),
    "not an iterable": Bad(Job(ITEMS, lambda k, v: 5), "must return an iterable", "mapfn", "'"),
    "text": Bad(Job(ITEMS, lambda k, v: "ab"), "not 'ab'", "mapfn", "'"),
    "not pairs": Bad(Job(ITEMS, lambda k, v: [v]), r"\(key, value\) pairs; it gave", "mapfn", "'"),
    "unhashable key": Bad(
        Job(ITEMS, lambda k, v: [([k], v)]), "cannot be a key.*use a tuple", "mapfn", "'"
    ),
    "not a number as key": Bad(
        Job(ITEMS, lambda k, v: [(float("nan"), v)]), "nan", "mapfn", "'", BadJob
    ),
    "fails half-way": Bad(
        Job(ITEMS, lambda k, v: ((k, 1 // (2 - n)) for n in range(5))),
        "ZeroDivisionError",
        "mapfn",
        "'",
    ),
    "recursion": Bad(Job(ITEMS, deeper), "RecursionError", "mapfn", "'", RecursionError),
    "memory": Bad(Job(ITEMS, hungry), "MemoryError", "mapfn", "'", MemoryError),
    "exit": Bad(Job(ITEMS, raising(SystemExit, 3)), "SystemExit: 3", "mapfn", "'two'"),
    "interrupt": Bad(Job(ITEMS, raising(KeyboardInterrupt)), "KeyboardInterrupt", "mapfn", "'"),
    "odd exception": Bad(Job(ITEMS, raising(OddError, 1, 2)), "OddError: odd", "mapfn", "'two'"),
    "exception that exits": Bad(
        Job(ITEMS, raising(LeavingError, "bye")), "LeavingError: bye", "mapfn", "'two'"
    ),
    "text without encoding": Bad(
        Job(ITEMS, raising(OSError, "name \udcff")), r"name \\udcff", "mapfn", "'two'", OSError
    ),
    "very long text": Bad(Job(ITEMS, raising(ValueError, LONG)), "longlong", "mapfn", "'two'"),
    "very long text of the datasource": Bad(
        Job(Source(ValueError(LONG)), same),
        "longlong",
        "the datasource",
        "'bad'",
        peer="asker",
    ),
}


def test_what_fails_says_what_where_and_what_to_do(peer: Peer) -> None:
    """All at once, so that none of them is in the others' way."""
    good = peer.submit(slow_job(60))
    open_ = {name: peer.submit(bad.job, **bad.options) for name, bad in FAILING.items()}
    for name, bad in FAILING.items():
        with pytest.raises(TaskError, match=f"(?s){bad.text}") as caught:
            open_[name].result(60)
        error = caught.value
        assert error.function == bad.function, name
        assert error.key.startswith(bad.key), name
        assert error.peer == bad.peer, name
        assert bad.peer in str(error), name
        assert "job.run()" in str(error), name
        assert error.traceback, name
        assert len(str(error)) < 50_000, name
        if bad.cause is not None:
            assert isinstance(error.__cause__, bad.cause), name
    assert good.result(60) == answer(60)
    assert is_well(peer)


def test_code_that_cannot_be_opened_is_told_as_that(peer: Peer) -> None:
    """Its closure pickles, and raises where it is opened."""
    odd = Unopenable(int, "no number")
    with pytest.raises(ModuleMissing, match=r"does not load here.*invalid literal for int"):
        peer.submit(Job([1], lambda k, v: [(k, odd)])).result(60)
    leaving = Unopenable(sys.exit, 7)
    with pytest.raises(TaskError, match="SystemExit: 7"):
        peer.submit(Job([1], lambda k, v: [(k, leaving)])).result(60)
    assert is_well(peer)


def test_an_exception_that_does_not_pickle_is_told_as_text(peer: Peer) -> None:
    def fails(key: Any, value: Any) -> Any:
        raise LockedError("cannot travel")

    with pytest.raises(TaskError, match="cannot travel") as caught:
        peer.submit(Job([1], fails)).result(60)
    assert caught.value.__cause__ is None
    assert "raise LockedError" in caught.value.traceback
    assert is_well(peer)


UNPICKLABLE: dict[str, tuple[Job, str]] = {
    "value": (Job({"a": threading.Lock()}, same), "value of key 'a'.*lock"),
    "emitted value": (Job({"a": 1}, lambda k, v: [("x", threading.Lock())]), "key 'x'.*lock"),
    "emitted key": (Job({"a": 1}, lambda k, v: [(threading.Lock(), 1)]), "the key <.*lock"),
    "result": (
        Job({"a": 1}, same, reducefn=lambda k, vs: threading.Lock()),
        "value <.*lock.*key 'a'",
    ),
    "result for finishfn": (
        Job({"a": 1}, same, reducefn=lambda k, vs: threading.Lock(), finishfn=lambda k, v: v),
        "result of key 'a'.*lock",
    ),
}


def test_what_does_not_pickle_is_named(peer: Peer) -> None:
    open_ = {name: peer.submit(job) for name, (job, _) in UNPICKLABLE.items()}
    for name, (_, text) in UNPICKLABLE.items():
        with pytest.raises(NotPicklable, match=f"(?s){text}") as caught:
            open_[name].result(60)
        assert "plain data" in str(caught.value), name
    assert is_well(peer)


def test_two_results_with_one_key_are_told_with_what_to_do(peer: Peer) -> None:
    txn = peer.submit(Job([1, 2], same, reducefn=lambda groups: [("same", 1) for _ in groups]))
    for _ in range(2):
        with pytest.raises(BadJob, match=r"'same'.*yield each key once"):
            txn.result(60)
    assert is_well(peer)


def test_a_resultfn_that_exits_stops_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    peer = site.here(slots=1)

    def leaves(results: Any) -> None:
        raise SystemExit(3)

    first = peer.submit(Job([1], same, resultfn=leaves))
    assert first.result(60) == {0: [1]}
    until("the log", lambda: "a callback raised" in caplog.text)
    called: list[Any] = []
    peer.submit(Job([1], same, resultfn=called.append)).result(60)
    until("the next resultfn", lambda: called == [{0: [1]}])
    caplog.clear()  # what the user's own function raised is rightly an error in the log


# ------------------------------------------------------------------------- what kills workers


def kills(how: str) -> Callable[[Any, Any], Any]:
    def poison(key: Any, value: Any) -> Any:
        if value != 5:
            return [(key, value)]
        if how == "exit":
            os._exit(3)
        if how == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    return poison


@pytest.mark.parametrize(
    ("how", "text"),
    [("exit", "exit code 3"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL")],
)
def test_an_item_that_kills_its_worker_is_named(peer: Peer, how: str, text: str) -> None:
    """After so many deaths, with a line that reproduces it; nothing else of anyone is harmed."""
    good = peer.submit(slow_job(60))
    data = {f"item {n}": n for n in range(20)}
    job = Job(data, kills(how))
    txn = peer.submit(job, attempts_max=3)
    with pytest.raises(WorkerLost, match=text) as caught:
        txn.result(60)
    error = caught.value
    assert (error.key, error.peer) == ("'item 5'", "worker")
    assert "3 workers died" in str(error)
    line = "key = 'item 5'; list(job.functions.mapfn(key, job.value(key)))"
    assert line in str(error)
    names: dict[str, Any] = {"job": Job(data, same)}
    exec(line.replace("; list(", "; pairs = list("), names)  # the line is right as it stands
    assert names["pairs"] == [("item 5", 5)]
    assert good.result(60) == answer(60)
    assert is_well(peer)


def dies_alone(key: str, path: str) -> Any:
    """Kill the worker at the first two tries; leave a mark at every start."""
    with open(path, "a") as marks:  # noqa: PTH123 - light for workers
        marks.write(f"{key}\n")
    with open(path) as marks:  # noqa: PTH123
        if key == "k7" and marks.read().count("k7\n") <= 2:
            os.kill(os.getpid(), signal.SIGKILL)
    yield key, 1


def test_an_item_that_kills_now_and_then_is_done_in_the_end(peer: Peer, site: Site) -> None:
    path = site.folder / "marks"
    path.touch()
    job = Job({f"k{n}": str(path) for n in range(12)}, dies_alone)
    assert peer.submit(job).result(60) == {f"k{n}": [1] for n in range(12)}
    assert path.read_text().splitlines().count("k7") == 3


def test_an_endless_item_is_cancelled_and_its_slots_work_again(peer: Peer) -> None:
    txn = peer.submit(Job([1, 2, 3], forever))
    until("it runs", lambda: any(m.running for m in peer.status().members))
    assert txn.cancel()
    with pytest.raises(TransactionCancelled):
        txn.result(1)
    assert is_well(peer)


def test_prints_and_logs_without_encoding_arrive(
    peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    def speaks(key: Any, value: Any) -> Any:
        print("a name: \udcff")
        logging.getLogger("user").warning("another: \udcfe")
        return [(key, value)]

    assert peer.submit(Job([1], speaks)).result(60) == {0: [1]}
    said: list[str] = []

    def both() -> bool:
        read = capsys.readouterr()
        said.append(read.out + read.err)
        text = "".join(said)
        return "a name: \\udcff" in text and "another: \\udcfe" in text

    until("both are shown", both)
    assert peer.submit(Job([1, 2], pairs_of, reducefn=total)).result(60)
