"""A Job is checked when built, lists its keys once, and ``check()`` finds what shows only later."""

import array
import collections
import dataclasses
import threading
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from grid.errors import BadJob, Misuse, NotPicklable
from grid.job import Job


def words(key: Any, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(key: Any, values: list[int]) -> int:
    return sum(values)


class Store:
    """Unique keys and a value for each; no length. Counts what is asked of it."""

    def __init__(self, keys: Any, value: Any = "a b") -> None:
        self.all = keys
        self.given = value
        self.listed = 0
        self.read: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        self.listed += 1
        return iter(self.all)

    def __getitem__(self, key: Any) -> Any:
        self.read.append(key)
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


class Sized(Store):
    def __len__(self) -> int:
        return len(self.all)


# ------------------------------------------------------------------------------ datasources


@pytest.mark.parametrize(
    ("datasource", "items"),
    [
        ({"x": 1, "y": 2}, {"x": 1, "y": 2}),
        (MappingProxyType({"x": 1}), {"x": 1}),
        (["p", "q"], {0: "p", 1: "q"}),
        (("p",), {0: "p"}),
        (range(5, 7), {0: 5, 1: 6}),
        (collections.deque("pq"), {0: "p", 1: "q"}),
        (array.array("i", [7]), {0: 7}),
        (np.array([3, 4]), {0: 3, 1: 4}),
        (Store(["k", "l"], 1), {"k": 1, "l": 1}),
        (Sized(["k", "l"], 1), {"k": 1, "l": 1}),
        ([], {}),
        ({}, {}),
    ],
)
def test_datasources(datasource: Any, items: dict[Any, Any]) -> None:
    job = Job(datasource, lambda k, v: [(k, v)], reducefn=lambda k, vs: vs[0])
    assert {key: job.value(key) for key in job.keys()} == items  # noqa: SIM118
    assert job.run() == items


def test_rows_of_an_array_are_values() -> None:
    rows = np.arange(6).reshape(3, 2)
    assert Job(rows, lambda k, row: [(k, int(row.sum()))]).run() == {0: [1], 1: [5], 2: [9]}


@pytest.mark.parametrize(
    ("datasource", "message"),
    [
        ("books/*.txt", r"the datasource is str: .* Files\('\*\.txt'\)"),
        (b"bytes", "the datasource is bytes"),
        ({1, 2}, "set has no __getitem__"),
        (iter([1]), "has no __getitem__"),
        ((x for x in [1]), "generator has no __getitem__"),
        (5, "int has no __iter__"),
        (None, "NoneType has no __iter__"),
        (dict, "the class dict; give an object"),
        (np.array(5), "without dimensions"),
    ],
)
def test_what_is_no_datasource(datasource: Any, message: str) -> None:
    with pytest.raises(BadJob, match=message):
        Job(datasource, words)


def test_keys_are_listed_once_and_values_read_one_by_one() -> None:
    store = Store(["k", "l"])
    job = Job(store, words, reducefn=total)
    assert (store.listed, store.read) == (0, [])
    assert job.run() == {"a": 2, "b": 2}
    assert (store.listed, store.read) == (1, ["k", "l"])
    job.keys()
    assert store.read == ["k", "l"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a", "b", "a"], "lists the key 'a' twice, 3 keys in all of which 2"),
        ([1, True], "lists the key True twice"),
        (["a", ["b"]], r"a bad key: \['b'\] cannot be a key: unhashable"),
        ([float("nan")], "a bad key: nan cannot be a key"),
    ],
)
def test_bad_keys(keys: list[Any], message: str) -> None:
    with pytest.raises(BadJob, match=message):
        Job(Store(keys), words).run()


def test_an_error_of_the_datasource_comes_with_the_key() -> None:
    job = Job(Store(["k"], OSError("gone")), words)
    with pytest.raises(OSError, match="gone") as raised:
        job.run()
    assert "value of key 'k'" in raised.value.__notes__[0]


def test_the_datasource_is_never_changed() -> None:
    data = [[3, 1], [2]]

    def consume(key: int, value: list[int]) -> list[tuple[int, int]]:
        return [(value.pop(), key) for _ in range(len(value))]

    assert Job(data, consume).run() == {1: [0], 3: [0], 2: [1]}
    assert data == [[3, 1], [2]]


# ------------------------------------------------------------------------------ building


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reducefnn": total}, "a Job has no 'reducefnn'; did you mean 'reducefn'"),
        ({"map": words}, "a Job has no 'map'"),
        ({"mapfn": None}, "nothing to do"),
        ({"mapfn": None, "finishfn": total}, "nothing to do"),
        ({"mapfn": 3}, "mapfn=3 is not a function"),
        ({"reducefn": sum}, r"reducefn=lambda k, vs: sum\(vs\)"),
        ({"resultfn": lambda: None}, "resultfn"),
        ({"partitions": 0}, "partitions=0"),
        ({"partitions": 2.5}, r"partitions=2\.5"),
        ({"partitions": True}, "partitions=True"),
        ({"ship": [3]}, "ship takes modules or their names, not 3"),
    ],
)
def test_bad_jobs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadJob, match=message) as raised:
        Job(["a"], **{"mapfn": words, **options})
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, Misuse)


def test_a_job_is_immutable() -> None:
    job = Job(["a"], words)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.partitions = 3  # type: ignore[misc]
    assert repr(job) == "<Job of list: mapfn>"
    assert Job(["a"], words, ship=threading).ship == (threading,)


def test_results_come_by_partition_then_first_appearance() -> None:
    texts = ["e d c b a", "f e d", "a g"]
    every = list(Job(texts, words, partitions=1).run())
    assert every == ["e", "d", "c", "b", "a", "f", "g"]
    parted = list(Job(texts, words, partitions=3).run())
    assert sorted(parted) == sorted(every)
    assert parted == list(Job(texts, words, partitions=3, reducefn=total).run())
    assert parted != every


def test_resultfn_is_called_once_in_its_form() -> None:
    calls: list[Any] = []
    results = Job(["a"], words, resultfn=lambda txn, results: calls.append((txn, results))).run()
    assert calls == [(None, results)]
    Job(["a"], words, resultfn=calls.append).run()
    assert calls == [(None, results), results]


def test_on_error_is_checked() -> None:
    with pytest.raises(BadJob, match="on_error='ignore' is not known"):
        Job(["a"], words).run(on_error="ignore")


# ------------------------------------------------------------------------------ check


def mean(key: Any, values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    "job",
    [
        Job(["a b a", "c"], words, reducefn=total),
        Job(["a b a", "c"], words, combinefn=total),
        Job(["a b a"], words, combinefn=lambda k, vs: max(vs), reducefn=total, finishfn=dict),
        Job([0.1, 0.2, 0.3], lambda k, v: [("x", v)], combinefn=total),
        Job([np.ones(3)] * 2, lambda k, v: [("x", v)], combinefn=lambda k, vs: np.sum(vs, axis=0)),
        Job(
            [[1], [2]], lambda k, v: [("x", v)], combinefn=lambda k, vs: [x for v in vs for x in v]
        ),
        Job([], words, combinefn=total),
        Job({"a": [], "b": [1]}, combinefn=total, reducefn=total),
    ],
)
def test_check_passes_what_is_right(job: Job) -> None:
    job.check()


@pytest.mark.parametrize(
    ("values", "combinefn"),
    [
        ([1, 2, 4], mean),
        ([1, 2, 4], lambda k, vs: len(vs)),
        ([1], lambda k, vs: len(vs)),
        ([1, 2], lambda k, vs: sum(vs) + 1),
        ([1, 2], lambda k, vs: vs),
        ([1, 2, 4], lambda k, vs: sum(vs) if len(vs) > 1 else min(*vs, 6)),
        ([1, 2, 3], lambda k, vs: vs[0] - sum(vs[1:])),
    ],
)
def test_check_finds_what_is_no_combiner(values: list[Any], combinefn: Any) -> None:
    job = Job(values, lambda k, v: [("x", v)], combinefn=combinefn)
    with pytest.raises(BadJob, match="combinefn is no combiner: for key 'x'"):
        job.check()


class Unequal:
    """Hashable, but a copy is another key."""


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (Job(Store([Unequal()]), words), BadJob, "datasource's key .* does not equal its own copy"),
        (Job([1], lambda k, v: [(Unequal(), 1)]), BadJob, "emitted key .* __eq__"),
        (
            Job([1], lambda k, v: [(1, 1)], reducefn=lambda ps: [(Unequal(), 1)]),
            BadJob,
            "the result's key",
        ),
        (
            Job([1], lambda k, v: [(1, 1)], reducefn=lambda k, vs: iter(vs.append)),
            TypeError,
            "not iterable",
        ),
        (
            Job([1], lambda k, v: [(1, 1)], reducefn=lambda k, vs: threading.Lock()),
            NotPicklable,
            "the result of key 1 cannot travel",
        ),
        (Job([threading.Lock()], words), NotPicklable, "the value of key 0 cannot travel"),
    ],
)
def test_check_finds_what_shows_only_later(job: Job, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        job.check()


def test_check_names_the_part_of_a_function_that_does_not_pickle() -> None:
    lock = threading.Lock()

    def locked(key: Any, value: Any) -> Any:
        with lock:
            return [(key, value)]

    with pytest.raises(NotPicklable, match=r"mapfn=.*the enclosed variable 'lock' \(lock\)"):
        Job([1], lambda key, value: locked(key, value)).check()


def test_check_reads_a_few_items_only() -> None:
    store = Store(range(1000))
    Job(store, words).check()
    assert len(store.read) <= 3


def test_the_same_job_over_another_datasource() -> None:
    job = Job([1, 2], lambda k, v: [(k, v)], partitions=3)
    other = job.over({"a": 5})
    assert other.run() == {"a": [5]}
    assert other.functions is job.functions
    assert (other.partitions, job.run()) == (3, {0: [1], 1: [2]})
    with pytest.raises(BadJob, match="datasource is str"):
        job.over("text")
