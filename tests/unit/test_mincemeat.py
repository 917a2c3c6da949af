"""Programs for mincemeat: what is checked and changed before anything goes to a grid."""

import functools
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import cloudpickle
import pytest

from grid.errors import BadJob, Misuse, PeerClosed
from grid.job import Job
from peers import mincemeat
from peers.mincemeat import TaskManager, joining, oneshot
from peers.mincemeat.functions import finished, travelling
from peers.mincemeat.joining import as_password, check_port, warn_if_weak
from peers.mincemeat.source import Source, readable


def program(text: str, name: str) -> Any:
    """A function of a program: its module has no names but its own."""
    module: dict[str, Any] = {"__name__": "__main__", "functools": functools}
    exec(text, module)
    return module[name]


def arrived(function: Any) -> Any:
    """The function as a worker gets it."""
    return pickle.loads(cloudpickle.dumps(travelling(function)))


def test_every_name_of_the_package_is_there() -> None:
    assert all(hasattr(mincemeat, name) for name in mincemeat.__all__)
    assert set(mincemeat.__all__) <= set(dir(mincemeat))
    with pytest.raises(AttributeError, match="Servr"):
        _ = mincemeat.Servr


# -- functions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "def f(k, v): return hashlib.md5(v).hexdigest()",
        "f = lambda k, v: hashlib.md5(v).hexdigest()",
        "def g(v): return hashlib.md5(v).hexdigest()\ndef f(k, v): return g(v)",
        "def g(by, k, v): return hashlib.md5(v).hexdigest()\nf = functools.partial(g, 1)",
        "class C:\n def f(self, k, v): return hashlib.md5(v).hexdigest()\nf = C().f",
        "class C:\n def __call__(self, k, v): return hashlib.md5(v).hexdigest()\nf = C()",
    ],
)
def test_functions_are_lent_what_the_original_had_imported(text: str) -> None:
    function = program(text, "f")
    with pytest.raises(NameError):
        function(1, b"x")
    assert arrived(function)(1, b"x") == "9dd4e461268c8034f5c8564e155c67a6"


def test_what_a_program_defines_is_not_replaced() -> None:
    function = program("time = 'mine'\ndef f(k, v): return time, os.sep", "f")
    assert arrived(function)(1, 2) == ("mine", "/")


def test_a_function_stands_for_itself_where_it_is_checked() -> None:
    def sums(k: Any, vs: list[int], scale: int = 1) -> int:
        return sum(vs) * scale

    job = Job({"a": [1, 2]}, reducefn=travelling(sums))
    assert not job.functions.reduce_pairs
    assert job.run() == {"a": 3}


@pytest.mark.parametrize(
    "finishfn",
    [lambda k, v: v + 1, lambda pairs: ((k, v + 1) for k, v in pairs)],
)
def test_both_forms_of_finishfn(finishfn: Callable[..., Any]) -> None:
    assert finished(finishfn, {"a": 1, "b": 2}) == {"a": 2, "b": 3}


# -- datasources ---------------------------------------------------------------------------


class Owned:
    """A datasource that only the thread which made it may read."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __getitem__(self, key: int) -> int:
        assert threading.get_ident() == self.thread
        return 1 // key


class Pairs:
    def items(self) -> list[tuple[str, int]]:
        return [("a", 1)]


class OldPairs:
    def iteritems(self) -> Iterator[tuple[str, int]]:
        yield "a", 1


def test_values_are_read_by_the_thread_that_serves() -> None:
    source = Source(Job(Owned(), mapfn=lambda k, v: []))
    assert list(source) == [0, 1, 2]
    assert source[1] == 1  # by the thread itself, which waits for nobody
    done: Future[None] = Future()
    read: list[Any] = []

    def reader() -> None:
        try:
            read.extend(source[key] for key in (2, 1, 0))
        except ZeroDivisionError as error:
            read.append(error)
        done.set_result(None)

    thread = threading.Thread(target=reader)
    thread.start()
    source.serve(done)
    thread.join(30)
    assert read[:2] == [0, 1]
    assert isinstance(read[2], ZeroDivisionError)


def test_nobody_waits_for_a_datasource_whose_transaction_has_ended() -> None:
    source = Source(Job({1: 2}, mapfn=lambda k, v: []))
    done: Future[None] = Future()
    done.set_result(None)
    source.serve(done)
    caught: list[Exception] = []

    def reader() -> None:
        try:
            source[1]
        except PeerClosed as error:
            caught.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    thread.join(30)
    assert len(caught) == 1


def test_what_lists_only_pairs_is_a_datasource() -> None:
    assert readable(Pairs()) == readable(OldPairs()) == {"a": 1}
    given = {"a": 1}
    assert readable(given) is given
    assert readable(5) == 5  # for Job to refuse


# -- a server before it serves ---------------------------------------------------------------


def test_of_a_datasource_set_twice_the_last_counts() -> None:
    server = mincemeat.Server()
    server.datasource = {1: 1}
    server.datasource = {2: 2}
    assert server.datasource == {2: 2}
    server.set_datasource({3: 3}, allocation=TaskManager.ONESHOT)
    assert [one["datasource"] for one in server.taskmanager.deque] == [{2: 2}, {3: 3}]
    assert not server.finished()
    assert server.results() is None


def test_settings_that_do_not_exist_are_refused() -> None:
    server = mincemeat.Server()
    with pytest.raises(Misuse, match="no setting 'alocation'; did you mean 'allocation'"):
        server.set_datasource({1: 1}, alocation=TaskManager.ONESHOT)
    with pytest.raises(Misuse, match="cycle=7 is neither of TaskManager"):
        server.set_datasource({1: 1}, cycle=7)
    assert not server.taskmanager.deque
    with pytest.raises(Misuse, match="no 'data_source'; did you mean 'datasource'"):
        server.conn("changeme", 1, "localhost", data_source={1: 1})
    with pytest.raises(Misuse, match=r"threading\.Timer"):
        mincemeat.Client(schedule=[1])
    with pytest.raises(Misuse, match="needs cls="):
        mincemeat.Mincemeat_daemon({})


def test_a_client_with_functions_of_its_own_is_told() -> None:
    class Own(mincemeat.Client):
        def mapfn(self, k: Any, v: Any) -> Any: ...

    with pytest.raises(Misuse, match="set it on the Server"):
        Own().conn("localhost", 1)


def test_a_server_travels_as_what_its_program_has_set() -> None:
    class Scaling(mincemeat.Server):
        def __init__(self) -> None:
            mincemeat.Server.__init__(self)
            self.scale = 3
            self.datasource = {1: threading.Lock()}

        def mapfn(self, k: Any, v: Any) -> Any:
            return [(k, v * self.scale)]

    assert arrived(Scaling().mapfn)(1, 2) == [(1, 6)]


def test_oneshot_maps_the_item_of_the_place_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job({1: "a b", 2: "b"}, lambda k, v: ((w, k) for w in v.split()))
    both = oneshot.OneItem({("here", 1): (1, "a b"), ("there", 2): (2, "b")}, job)
    monkeypatch.setattr(oneshot, "here", lambda: ("here", 1))
    assert both() == {"a": [1], "b": [1]}
    monkeypatch.setattr(oneshot, "here", lambda: ("elsewhere", 3))
    assert both() == {}
    with pytest.raises(BadJob, match="no mapfn"):
        oneshot.map_once(None, Job({}, reducefn=max_of), lambda: False)  # type: ignore[arg-type]


def max_of(_key: Any, values: list[int]) -> int:
    return max(values)


# -- passwords and ports -----------------------------------------------------------------------


def test_passwords_and_ports_as_they_were_given() -> None:
    assert [as_password(given) for given in (None, "", "x", b"x", bytearray(b"x"))] == [
        "",
        "",
        "x",
        b"x",
        b"x",
    ]
    with pytest.raises(Misuse, match="the password is int; give text or bytes"):
        as_password(5)
    assert [check_port(given) for given in (1, "11235")] == [1, 11235]
    for bad in (0, 65536, True, "x", None):
        with pytest.raises(Misuse, match="is not a port"):
            check_port(bad)


def test_a_weak_password_is_warned_of_once_where_others_can_try_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(joining, "_warned", set())
    warn_if_weak("short", local=True)
    warn_if_weak("long enough", local=False)
    assert not caplog.records
    for _ in range(2):
        warn_if_weak("short", local=False)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "short" not in caplog.records[0].getMessage()
