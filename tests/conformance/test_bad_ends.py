"""Jobs that end badly: the same exception, function, item key and traceback on every engine."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peers import (
    BadJob,
    DeadlineExceeded,
    Files,
    GridError,
    Job,
    NotPicklable,
    TaskError,
    WorkerLost,
    run,
)
from peers.engines.shares import Shares
from tests.conformance.jobs import TEXTS, leave_a_mark, total, words

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("engines")]


class Unfit(Exception):
    """An exception of the user's that pickles."""


class Unsendable(Exception):
    """One that does not: nobody can make it again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_on(bad: Any) -> Callable[..., Any]:
    def check(key: Any, value: Any) -> Any:
        if key == bad:
            raise Unfit(f"no {key}")
        return value

    return check


def picky(key: str, text: str) -> Iterator[tuple[str, int]]:
    fail_on("second")(key, text)
    return words(key, text)


def unsendable(_key: Any, _value: Any) -> Any:
    raise Unsendable(1, 2)


def leave(_key: Any, _value: Any) -> Any:
    raise SystemExit(3)


def twice(pairs: Any) -> Iterator[tuple[str, int]]:
    yield from (("same", len(values)) for _, values in pairs)


class Broken:
    """A datasource, one of whose values cannot be read."""

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __getitem__(self, key: str) -> str:
        return str(fail_on("b")(key, key))


FAILING: dict[str, tuple[Callable[[], Job], str, str]] = {
    "mapfn": (lambda: Job(TEXTS, picky, reducefn=total), "mapfn", "'second'"),
    "collectfn": (lambda: Job({"a": "x y"}, words, collectfn=fail_on("y")), "collectfn", "'a'"),
    "combinefn": (lambda: Job({"a": "x x"}, words, combinefn=fail_on("x")), "combinefn", "'x'"),
    "reducefn": (lambda: Job(TEXTS, words, reducefn=fail_on("mat")), "reducefn", "'mat'"),
    "finishfn": (
        lambda: Job(TEXTS, words, reducefn=total, finishfn=fail_on("dog")),
        "finishfn",
        "'dog'",
    ),
    "datasource": (lambda: Job(Broken(), words), "the datasource", "'b'"),
}


@pytest.mark.parametrize("role", FAILING)
def test_what_a_function_raises(on: Any, role: str) -> None:
    make, function, key = FAILING[role]
    with pytest.raises(TaskError) as caught:
        run(make(), on=on)
    error = caught.value
    assert (error.function, error.key) == (function, key)
    assert str(error.args[0]).startswith(f"Unfit: no {key[1:-1]}".replace("no a", "no y"))
    assert "in check" in error.traceback
    assert "test_bad_ends.py" in error.traceback
    assert isinstance(error.__cause__, Unfit)


def test_an_exception_that_cannot_travel(on: Any) -> None:
    with pytest.raises(TaskError, match="Unsendable: 1 and 2 in mapfn at key 0") as caught:
        run(Job([0], unsendable), on=on)
    assert "raise Unsendable(1, 2)" in caught.value.traceback


def test_a_function_that_would_end_its_process(on: Any) -> None:
    if on == "local":
        pytest.skip("here it does end the process, as in Job.run()")
    with pytest.raises(TaskError, match="SystemExit: 3 in mapfn"):
        run(Job([0], leave), on=on)


BAD: dict[str, tuple[Callable[[], Job], type[GridError], str]] = {
    "a key twice": (
        lambda: Job(TEXTS, words, reducefn=twice),
        BadJob,
        "two results have the key 'same'",
    ),
    "a value that does not pickle": (
        lambda: Job([threading.Lock()], words),
        NotPicklable,
        "the value of key 0",
    ),
    "a key that is not one": (
        lambda: Job([0], lambda _key, _value: [(float("nan"), 1)]),
        TaskError,
        "NaN",
    ),
    "a result that is no pair": (
        lambda: Job([0], lambda _key, _value: [1]),
        TaskError,
        r"must give \(key, value\) pairs",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_job_must_not_do(on: Any, name: str) -> None:
    make, kind, text = BAD[name]
    with pytest.raises(kind, match=text):
        run(make(), on=on)


def test_what_cannot_be_emitted(on: Any) -> None:
    if on == "local":
        pytest.skip("nothing has to travel here")
    with pytest.raises(NotPicklable, match="lock"):
        run(Job([0], lambda key, _value: [(key, threading.Lock())]), on=on)


def test_a_function_that_cannot_travel(on: Any) -> None:
    if on == "local":
        pytest.skip("nothing has to travel here")
    lock = threading.Lock()
    with pytest.raises(NotPicklable, match=r"mapfn=.*the enclosed variable 'lock'"):
        run(Job([0], lambda key, _value: [(key, lock.locked())]), on=on)


def test_a_file_that_is_not_text(on: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TaskError, match="is not utf-8 text") as caught:
        run(Job(Files(f"{tmp_path}/*.txt"), words), on=on)
    assert caught.value.function in ("datasource", "the datasource")
    assert "bad.txt" in caught.value.key


def test_items_left_out(on: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "peers.engines"):
        left = run(Job(TEXTS, picky, reducefn=total), on=on, on_error="skip")
    expected = {key: text for key, text in TEXTS.items() if key != "second"}
    assert left == Job(expected, words, reducefn=total).run()
    assert "count=1 'second'" in caplog.text


def test_retries(on: Any, tmp_path: Path) -> None:
    """The engine's own: an item fails twice and then does not."""
    if on == "local":
        pytest.skip("what fails here fails again")
    folder = str(tmp_path)

    def at_third(key: int, value: int) -> list[tuple[int, int]]:
        leave_a_mark(folder, "tries")
        if os.stat(f"{folder}/tries").st_size < 3:  # noqa: PTH116 - travels without imports
            raise Unfit("not yet")
        return [(key, value)]

    assert run(Job([7], at_third), on=on, retries=2) == {0: [7]}


def test_a_worker_that_dies(on: Any) -> None:
    if on == "local":
        pytest.skip("it would be this process")

    def die(_key: Any, _value: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerLost, match=r"died|SIGKILL") as caught:
        run(Job({"the one": 0}, die), on=on)
    assert "key 'the one'" in str(caught.value)
    assert run(Job(TEXTS, words, reducefn=total), on=on) == Job(TEXTS, words, reducefn=total).run()


def test_how_the_items_of_a_task_are_called() -> None:
    """Of a dead worker a cluster knows the task, not the item."""
    many = [share.what for share in Shares(Job(range(48), words), (), 1, 4, skip=False)]
    assert many[0] == "one of 12 items, with the keys 0, 1, 2, 3, 4, 5, 6, 7, 8, ... 11"
    few = [share.what for share in Shares(Job({"a": 1, "b": 2}, words), (), 1, 4, skip=False)]
    assert few == ["the item with key 'a'", "the item with key 'b'"]


def test_a_deadline(on: Any) -> None:
    """Sleeps are short, since Dask lets a running task end."""
    if on == "local":
        pytest.skip("nobody watches here")
    job = Job(range(100), lambda _key, _value: time.sleep(0.1))
    with pytest.raises(DeadlineExceeded):
        run(job, on=on, deadline_seconds=0.5)
