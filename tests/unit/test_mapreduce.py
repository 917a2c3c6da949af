"""What a job means: grouping, order, copies, forms and faults, whoever runs it (P3)."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import mapreduce
from grid.errors import BadJob, NotPicklable
from grid.functions import Functions
from grid.job import Job
from grid.mapreduce import (
    Grouper,
    UserFault,
    assemble,
    columns_of,
    finish,
    map_items,
    merged,
    reduce_partition,
)
from grid.partition import partition_of
from grid.pickling import thaw
from peers.chunks import encode_columns, open_groups


def words(key: Any, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(key: Any, values: list[int]) -> int:
    return sum(values)


def by_bytes(chunks: Iterable[mapreduce.Columns]) -> mapreduce.Chunk:
    """Merge chunks as a reduce does, by way of their bytes."""
    return merged(*(open_groups(encode_columns(chunk)) for chunk in chunks))


def drained(grouper: Grouper, partitions: int) -> list[tuple[int, mapreduce.Chunk]]:
    """All that a grouper held, as dicts."""
    return [(partition, merged(chunk)) for partition, chunk in grouper.drain(partitions)]


def in_pieces(
    functions: Functions, items: list[tuple[Any, Any]], cuts: list[int], partitions: int
) -> dict[Any, Any]:
    """Run as a grid would: ranges mapped apart, drained now and then, merged by partition."""
    stored: dict[int, list[mapreduce.Columns]] = {}
    edges = sorted({0, len(items), *(cut % (len(items) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        grouper = Grouper(functions)
        for index in range(start, stop):
            grouper.add_items([(index, *items[index])])
            if index % 3 == 0:
                for partition, chunk in grouper.drain(partitions):
                    stored.setdefault(partition, []).append(chunk)
        for partition, chunk in grouper.drain(partitions):
            stored.setdefault(partition, []).append(chunk)
    pairs = [
        pair
        for _, chunks in sorted(stored.items())
        for pair in reduce_partition(functions, by_bytes(chunks))
    ]
    return assemble(finish(functions, pairs))


def job_of(data: Any, functions: Functions, partitions: int = 256) -> Job:
    named: dict[str, Any] = dict(functions.named())
    return Job(data, **named, partitions=partitions)


def groups_of(functions: Functions, *values: Any) -> dict[Any, list[Any]]:
    """Map numbered values and return the groups, thawed."""
    grouper = map_items(functions, [(n, n, value) for n, value in enumerate(values)])
    return {
        key: list(thaw(held)) for _, chunk in drained(grouper, 1) for key, held in chunk.items()
    }


# ------------------------------------------------------------------------------ map

SAME_PAIRS: list[Callable[[Any, Any], Any]] = [
    words,
    lambda key, text: [(word, 1) for word in text.split()],
    lambda key, text: ((word, 1) for word in text.split()),
    lambda key, text: [[word, 1] for word in text.split()],
    functools.partial(lambda by, key, text: [(word, by) for word in text.split()], 1),
]


@pytest.mark.parametrize("mapfn", SAME_PAIRS)
def test_mapfn_may_give_pairs_in_many_ways(mapfn: Callable[[Any, Any], Any]) -> None:
    assert groups_of(Functions(mapfn), "b a b", "a c") == {"b": [1, 1], "a": [1, 1], "c": [1]}


def test_mapfn_may_give_a_mapping_or_nothing() -> None:
    assert groups_of(Functions(lambda k, v: Counter(v.split())), "b b", "b a") == {
        "b": [2, 1],
        "a": [1],
    }
    assert groups_of(Functions(lambda k, v: None), "b", "c") == {}


def test_without_mapfn_a_list_is_the_values_and_all_else_is_one() -> None:
    assert groups_of(Functions(reducefn=total), [1, 2], 3, (4, 5), []) == {
        0: [1, 2],
        1: [3],
        2: [(4, 5)],
        3: [],
    }


def test_keys_come_by_first_appearance_and_values_in_datasource_order() -> None:
    grouper = map_items(
        Functions(lambda k, v: [(letter, k) for letter in v]), [(0, 0, "zaz"), (1, 1, "maz")]
    )
    (chunk,) = [chunk for _, chunk in drained(grouper, 1)]
    assert list(chunk.items()) == [("z", [0, 0, 1]), ("a", [0, 1]), ("m", [1])]


def test_equal_keys_of_many_types_are_one_key() -> None:
    assert groups_of(Functions(lambda k, v: [(v, k)]), 1, 1.0, True) == {1: [0, 1, 2]}


def test_more_pairs_than_one_batch() -> None:
    def many(key: Any, count: int) -> Iterator[tuple[int, int]]:
        for n in range(count):
            yield n % 7, n

    groups = groups_of(Functions(many), 5000)
    assert groups == {r: list(range(r, 5000, 7)) for r in range(7)}


def test_size_counts_pairs_until_drained() -> None:
    grouper = Grouper(Functions(words))
    grouper.add_items([(0, 0, "a b a")])
    assert grouper.size == 3
    grouper.add_items([(1, 1, "")])
    assert grouper.size == 3
    chunks = drained(grouper, 16)
    assert chunks == sorted(
        ((partition_of(key, 16), {key: values}) for key, values in [("a", [1, 1]), ("b", [1])]),
        key=lambda chunk: chunk[0],
    )
    assert grouper.size == 0
    assert drained(grouper, 16) == []


def test_an_item_is_asked_for_when_the_one_before_is_mapped() -> None:
    log: list[Any] = []

    def items() -> Iterator[tuple[int, Any, Any]]:
        for index in (4, 5):
            log.append(index)
            yield index, "k", f"mapped {index}"

    map_items(Functions(lambda k, v: log.append(v)), items())
    assert log == [4, "mapped 4", 5, "mapped 5"]


# ------------------------------------------------------------------------------ collect


def test_collectfn_runs_once_an_item_over_its_pairs() -> None:
    calls: list[Any] = []

    def collect(key: Any, values: list[int]) -> int:
        calls.append((key, list(values)))
        return len(values)

    assert groups_of(Functions(words, collect), "a b a", "a") == {"a": [2, 1], "b": [1]}
    assert calls == [("a", [1, 1]), ("b", [1]), ("a", [1])]


@pytest.mark.parametrize(
    ("collectfn", "expected"),
    [
        (lambda k, vs: [v * 10 for v in vs], {"a": [10, 10], "b": [10]}),
        (lambda k, vs: [], {"a": [], "b": []}),
        (lambda k, vs: tuple(vs), {"a": [(1, 1)], "b": [(1,)]}),
        (lambda k, vs: None, {"a": [None], "b": [None]}),
        (lambda pairs: [(k, sum(vs)) for k, vs in pairs], {"a": [2], "b": [1]}),
        (lambda pairs: {k: [k, *vs] for k, vs in pairs}, {"a": ["a", 1, 1], "b": ["b", 1]}),
        (lambda pairs: [("n", 1) for _ in pairs], {"n": [1, 1]}),
        (lambda pairs: ((k, v) for k, vs in pairs for v in vs), {"a": [1, 1], "b": [1]}),
        (dict, {"a": [1, 1], "b": [1]}),
    ],
)
def test_forms_of_collectfn(collectfn: Any, expected: dict[Any, Any]) -> None:
    assert groups_of(Functions(words, collectfn), "a b a") == expected


def test_collectfn_without_mapfn() -> None:
    functions = Functions(collectfn=lambda k, vs: sum(vs), reducefn=total)
    assert groups_of(functions, [1, 2], 3) == {0: [3], 1: [3]}


# ------------------------------------------------------------------------------ combine


def test_combinefn_bounds_what_is_held() -> None:
    grouper = Grouper(Functions(lambda k, v: [("a", 1)] * v, combinefn=total))
    for index in range(30):
        grouper.add_items([(index, index, 10_000)])
        assert grouper.size <= mapreduce.COMBINE_PAIRS
    assert drained(grouper, 1) == [(0, {"a": [300_000]})]


def test_combinefn_makes_the_final_value_also_of_one() -> None:
    functions = Functions(words, combinefn=lambda k, vs: sum(vs) + 0.0)
    assert dict(reduce_partition(functions, {"a": [1], "b": [2, 3]})) == {"a": 1.0, "b": 5.0}
    assert isinstance(dict(reduce_partition(functions, {"a": [1]}))["a"], float)


def test_combinefn_before_reducefn() -> None:
    functions = Functions(words, combinefn=total, reducefn=lambda k, vs: (k, vs))
    assert dict(reduce_partition(functions, {"a": [1], "b": [2, 3]})) == {
        "a": ("a", [1]),
        "b": ("b", [5]),
    }


# ------------------------------------------------------------------------------ reduce, finish


@pytest.mark.parametrize(
    ("reducefn", "expected"),
    [
        (total, {"a": 3, "b": 3}),
        (None, {"a": [1, 2], "b": [3]}),
        (dict, {"a": [1, 2], "b": [3]}),
        (lambda pairs: {k: sum(vs) for k, vs in pairs}, {"a": 3, "b": 3}),
        (lambda pairs: ((k, sum(vs)) for k, vs in pairs if k != "a"), {"b": 3}),
        (lambda pairs: [[k * 2, vs] for k, vs in pairs], {"aa": [1, 2], "bb": [3]}),
        (lambda pairs: [], {}),
    ],
)
def test_forms_of_reducefn(reducefn: Any, expected: dict[Any, Any]) -> None:
    functions = Functions(words, reducefn=reducefn)
    assert dict(reduce_partition(functions, {"a": [1, 2], "b": [3]})) == expected


def test_a_lazy_reducefn_is_reduced_lazily() -> None:
    taken: list[str] = []

    def groups(pairs: Iterable[Any]) -> Iterator[Any]:
        for key, values in pairs:
            taken.append(key)
            yield key, len(values)

    results = reduce_partition(Functions(words, reducefn=groups), {"a": [1], "b": [1]})
    assert next(results) == ("a", 1)
    assert taken == ["a"]


@pytest.mark.parametrize(
    ("finishfn", "expected"),
    [
        (lambda k, v: f"{k}{v}", {"a": "a3", "b": "b3"}),
        (sorted, {"a": 3, "b": 3}),
        (dict, {"a": 3, "b": 3}),
        (lambda pairs: {"all": dict(pairs)}, {"all": {"a": 3, "b": 3}}),
        (lambda pairs: [max(pairs)], {"b": 3}),
    ],
)
def test_forms_of_finishfn(finishfn: Any, expected: dict[Any, Any]) -> None:
    functions = Functions(words, reducefn=total, finishfn=finishfn)
    reduced = list(reduce_partition(functions, {"a": [1, 2], "b": [3]}))
    assert assemble(finish(functions, reduced)) == expected


def test_finishfn_gets_everything_in_one_call() -> None:
    calls: list[Any] = []

    def everything(pairs: Iterable[Any]) -> list[Any]:
        calls.append(sorted(pairs))
        return []

    assert Job(["a b c d e f", "g h a"], words, reducefn=total, finishfn=everything).run() == {}
    assert len(calls) == 1
    assert len(calls[0]) == 8


def test_two_results_with_one_key_are_an_error() -> None:
    with pytest.raises(BadJob, match="two results have the key 'a'"):
        Job(["a"], words, reducefn=lambda pairs: [("a", 1), ("a", 2)]).run()
    with pytest.raises(BadJob, match="two results have the key True"):
        Job(["a"], words, finishfn=lambda pairs: [(1, 1), (True, 2)]).run()
    with pytest.raises(BadJob, match="unhashable"):
        Job(["a"], words, finishfn=lambda pairs: [([], 1)]).run()


# ------------------------------------------------------------------------------ the same answer


def chained(key: Any, lists: list[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


texts = st.lists(st.text("abcd ", max_size=12), max_size=12)
FUNCTIONS = [
    Functions(words, reducefn=total),
    Functions(words, combinefn=total),
    Functions(words, combinefn=total, reducefn=total),
    Functions(words, lambda k, vs: len(vs), reducefn=total),
    Functions(lambda k, v: [(letter, [k]) for letter in v]),
    Functions(lambda k, v: [(letter, [k]) for letter in v], combinefn=chained),
    Functions(lambda k, v: [(letter, k) for letter in v], finishfn=lambda k, vs: [*vs, "end"]),
    Functions(lambda k, v: [(n, letter) for n, letter in enumerate(v)], reducefn=dict),
    Functions(words, finishfn=lambda pairs: sorted((k, len(vs)) for k, vs in pairs)),
]


@pytest.mark.parametrize("functions", FUNCTIONS)
@given(texts=texts, cuts=st.lists(st.integers(0, 12), max_size=4), partitions=st.integers(1, 9))
def test_the_answer_does_not_depend_on_the_cuts(
    functions: Functions, texts: list[str], cuts: list[int], partitions: int
) -> None:
    job = job_of(texts, functions, partitions)
    here = job.run()
    there = in_pieces(functions, list(enumerate(texts)), cuts, partitions)
    assert list(there.items()) == list(here.items())


def test_mixed_values_of_one_key_merge_in_order() -> None:
    functions = Functions(lambda k, v: [("x", v)])
    items: list[Any] = [1, [2], "3", {"4": 4}, (5,), [6]]
    assert in_pieces(functions, list(enumerate(items)), [1, 2, 3, 4, 5], 3) == {"x": items}


# ------------------------------------------------------------------------------ copies


def test_functions_may_change_what_they_get() -> None:
    shared = [0]

    def mapfn(key: Any, value: list[int]) -> Iterator[tuple[str, Any]]:
        value.append(99)
        yield "a", shared
        yield "b", shared
        yield "c", (1, shared)

    def reducefn(key: Any, values: list[Any]) -> Any:
        for value in values:
            (value[1] if isinstance(value, tuple) else value).append(key)
        return values

    def finishfn(key: Any, values: list[Any]) -> Any:
        values.append("end")
        return values

    data = {"k": [1], "l": [2]}
    for cuts in ([], [1]):
        functions = Functions(mapfn, reducefn=reducefn, finishfn=finishfn)
        expected = {
            "a": [[0, "a"], [0, "a"], "end"],
            "b": [[0, "b"], [0, "b"], "end"],
            "c": [(1, [0, "c"]), (1, [0, "c"]), "end"],
        }
        copies = [(key, list(value)) for key, value in data.items()]
        assert in_pieces(functions, copies, cuts, 1) == expected
        assert job_of(data, functions).run() == expected
    assert (data, shared) == ({"k": [1], "l": [2]}, [0])


def test_collectfn_and_combinefn_get_copies_too() -> None:
    shared = [1]

    def grow(key: Any, values: list[list[int]]) -> Any:
        values[0].extend(x for value in values[1:] for x in value)
        return (values[0],)

    def join(key: Any, values: list[tuple[list[int]]]) -> Any:
        first = values.pop(0)
        for value in values:
            first[0].extend(value[0])
        return first

    job = Job([0, 0], lambda k, v: [("a", shared), ("b", shared), ("a", shared)], collectfn=grow)
    assert job.run() == {"a": [([1, 1],), ([1, 1],)], "b": [([1],), ([1],)]}
    job = Job(
        [0, 0], lambda k, v: [("a", (shared,)), ("b", (shared,))], combinefn=join, finishfn=dict
    )
    assert job.run() == {"a": ([1, 1],), "b": ([1, 1],)}
    assert shared == [1]


def test_a_value_that_cannot_travel_is_named_with_its_key() -> None:
    with pytest.raises(NotPicklable, match=r"a value of key 'word' cannot travel.*<generator"):
        Job([1], lambda k, v: [("word", (x for x in "ab"))]).run()
    with pytest.raises(NotPicklable, match="the value of key 'item' cannot travel"):
        Job({"item": (x for x in "ab")}, words).run()


# ------------------------------------------------------------------------------ faults


def fails_on(bad: str) -> Callable[[Any, str], Iterator[tuple[str, int]]]:
    def mapfn(key: Any, text: str) -> Iterator[tuple[str, int]]:
        for word in text.split():
            if word == bad:
                raise ZeroDivisionError(word)
            yield word, 1

    return mapfn


def test_a_fault_says_function_key_and_item() -> None:
    grouper = Grouper(Functions(fails_on("x")))
    with pytest.raises(UserFault, match=r"mapfn failed on key 'k': ZeroDivisionError: x") as raised:
        grouper.add_items([(7, "k", "a x")])
    assert (raised.value.function, raised.value.key, raised.value.index) == ("mapfn", "'k'", 7)
    assert isinstance(raised.value.cause, ZeroDivisionError)


@pytest.mark.parametrize(
    ("functions", "role", "key"),
    [
        (Functions(words, collectfn=lambda k, vs: 1 / 0), "collectfn", "0"),
        (Functions(words, collectfn=lambda pairs: 1 / 0), "collectfn", "0"),
        (Functions(words, combinefn=lambda k, vs: 1 / 0), "combinefn", "'a'"),
        (Functions(words, reducefn=lambda k, vs: 1 / 0), "reducefn", "'a'"),
        (Functions(words, reducefn=lambda ps: [1 / 0 for _ in ps]), "reducefn", "'a'"),
        (Functions(words, reducefn=lambda ps: (1 / 0 for _ in ps)), "reducefn", "'a'"),
        (
            Functions(words, combinefn=lambda k, vs: 1 / 0, reducefn=lambda ps: list(ps)),
            "combinefn",
            "'a'",
        ),
        (Functions(words, finishfn=lambda k, vs: 1 / 0), "finishfn", "'a'"),
        (Functions(words, finishfn=lambda ps: (1 / 0 for _ in ps)), "finishfn", "'a'"),
    ],
)
def test_a_fault_in_any_function(functions: Functions, role: str, key: str) -> None:
    with pytest.raises(UserFault) as raised:
        in_pieces(functions, [(0, "a a")], [], 1)
    assert isinstance(raised.value.cause, ZeroDivisionError)
    assert (raised.value.function, raised.value.key) == (role, key)
    with pytest.raises(ZeroDivisionError) as here:
        job_of(["a a"], functions).run()
    assert here.value.__notes__ == [f"raised by {role} on key {key}"]
    assert here.traceback[-1].name in ("<lambda>", "<listcomp>", "<genexpr>")


@pytest.mark.parametrize(
    ("mapfn", "message"),
    [
        (lambda k, v: 5, "mapfn must return an iterable of .* pairs, not 5"),
        (lambda k, v: "text", "mapfn must return an iterable of .* pairs, not 'text'"),
        (lambda k, v: [1], "mapfn must give .* pairs; it gave 1"),
        (lambda k, v: [(1, 2, 3)], r"mapfn must give .* pairs; it gave \(1, 2, 3\)"),
        (lambda k, v: [("fine", 1), ([1], 2)], r"mapfn gave a bad key: \[1\] cannot be a key"),
        (lambda k, v: [(float("nan"), 2)], "mapfn gave a bad key: nan .* NaN"),
        (lambda k, v: [((1, float("nan")), 2)], "NaN"),
    ],
)
def test_what_mapfn_must_not_give(mapfn: Any, message: str) -> None:
    with pytest.raises(BadJob, match=message) as raised:
        Job({"item": 1}, mapfn).run()
    assert raised.value.__notes__ == ["raised by mapfn on key 'item'"]


@pytest.mark.parametrize(
    ("reducefn", "message"),
    [
        (lambda pairs: None, "reducefn must return an iterable of .* pairs, not None"),
        (lambda pairs: 5, "reducefn must return an iterable of .* pairs, not 5"),
        (lambda pairs: [len(vs) for _, vs in pairs], "reducefn must give .* pairs; it gave 1"),
        (lambda pairs: [([], vs) for _, vs in pairs], "reducefn gave a bad key: .* unhashable"),
    ],
)
def test_what_an_iterator_form_must_not_give(reducefn: Any, message: str) -> None:
    with pytest.raises(BadJob, match=message):
        Job(["a"], words, reducefn=reducefn).run()


def test_stop_iteration_of_a_user_is_no_end() -> None:
    def stops(key: Any, values: Any) -> Any:
        raise StopIteration("mine")

    for functions in (Functions(stops), Functions(words, reducefn=stops)):
        with pytest.raises(StopIteration, match="mine"):
            job_of(["a"], functions).run()


def test_skip_leaves_out_whole_items() -> None:
    texts = ["a b", "a x b", "b", "x"]
    grouper = Grouper(Functions(fails_on("x")), skip=True)
    for index, text in enumerate(texts, 10):
        grouper.add_items([(index, index, text)])
    assert grouper.skipped == [11, 13]
    assert grouper.size == 3
    assert drained(grouper, 1) == [(0, {"a": [1], "b": [1, 1]})]
    job = Job(texts, fails_on("x"), reducefn=total)
    assert job.run(on_error="skip") == {"a": 1, "b": 2}


def test_skip_covers_collectfn_and_bad_pairs_but_not_reducefn() -> None:
    def collect(key: Any, values: list[int]) -> int:
        if key == "x":
            raise ValueError("x")
        return sum(values)

    assert Job(["a", "a x"], words, collectfn=collect).run(on_error="skip") == {"a": [1]}
    nan = float("nan")
    pairs = [[("a", 1)], [("a", 2), (nan, 1)], 7, [("a", 3)]]
    assert Job(pairs, lambda k, v: v).run(on_error="skip") == {"a": [1, 3]}
    with pytest.raises(ZeroDivisionError):
        Job(["a"], words, reducefn=lambda k, vs: 1 / 0).run(on_error="skip")


def test_merge_of_nothing() -> None:
    assert merged() == {}
    empty = columns_of([], [])
    assert merged(empty, columns_of(["a"], [[1]]), empty) == {"a": [1]}
