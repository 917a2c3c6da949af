"""The forms of user functions are told apart by what must be given."""

import functools
import operator
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid.errors import BadJob
from grid.functions import Functions, check_resultfn, takes_two


class Callables:
    def two(self, key: Any, values: Any) -> Any: ...
    def one(self, pairs: Any) -> Any: ...
    @staticmethod
    def static(key: Any, values: Any) -> Any: ...
    @classmethod
    def of_class(cls, pairs: Any) -> Any: ...


class CalledWithTwo:
    def __call__(self, key: Any, values: Any) -> Any: ...


class CalledWithOne:
    def __call__(self, pairs: Any) -> Any: ...


class MadeOfOne:
    def __init__(self, pairs: Any) -> None: ...


def scaled(key: Any, values: Any, scale: int = 2) -> Any: ...
def three(key: Any, values: Any, scale: int) -> Any: ...
def scale_first(scale: int, key: Any, values: Any) -> Any: ...
def top(pairs: Any, top: int = 10) -> Any: ...
def anything(*args: Any) -> Any: ...
def anything_at_all(*args: Any, **kwargs: Any) -> Any: ...
def option(key: Any, values: Any, *, option: int = 1) -> Any: ...
def perhaps(pairs: Any = ()) -> Any: ...


@functools.wraps(top)
def wrapper(*args: Any, **kwargs: Any) -> Any:
    return top(*args, **kwargs)


@pytest.mark.parametrize(
    "function",
    [
        lambda key, values: 0,
        lambda key=None, values=(): 0,
        scaled,
        anything,
        anything_at_all,
        option,
        functools.partial(scale_first, 3),
        functools.partial(three, scale=3),
        Callables().two,
        Callables.static,
        Callables().static,
        CalledWithTwo(),
        functools.lru_cache(scaled),
        operator.getitem,
        zip,
    ],
)
def test_two_that_must_be_given_are_a_key_and_values(function: Callable[..., Any]) -> None:
    assert takes_two(function, "reducefn")


@pytest.mark.parametrize(
    "function",
    [
        lambda pairs: pairs,
        top,
        perhaps,
        wrapper,
        lambda key, values=(): 0,
        functools.partial(scaled, "key"),
        functools.partial(top, top=3),
        functools.partial(map, len),
        functools.partial(filter, None),
        Callables().one,
        Callables.of_class,
        CalledWithOne(),
        MadeOfOne,
        dict,
        OrderedDict,
        list,
        set,
        iter,
        sorted,
    ],
)
def test_one_that_must_be_given_is_the_iterator(function: Callable[..., Any]) -> None:
    assert not takes_two(function, "reducefn")


@pytest.mark.parametrize("function", [three, lambda: 0, Callables.two])
def test_any_other_number_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(BadJob, match=r"it must be f\(k, vs\) or f\(pairs\)"):
        takes_two(function, "reducefn")


@pytest.mark.parametrize("function", [sum, len, max, min, any, all, str])
def test_builtins_that_fit_neither_form_say_how_to_write_them(function: Any) -> None:
    name = function.__name__
    for role in ("collectfn", "combinefn", "reducefn", "finishfn"):
        with pytest.raises(BadJob, match=rf"{role}=lambda k, vs: {name}\(vs\)"):
            Functions(**{role: function})


def test_a_builtin_without_signature_asks_for_a_lambda() -> None:
    with pytest.raises(BadJob, match="wrap it in a lambda"):
        takes_two(getattr, "reducefn")
    assert Functions(mapfn=getattr).mapfn is getattr  # where only one form exists it may be tried


def test_a_keyword_that_must_be_given_is_refused() -> None:
    def needs(key: Any, values: Any, *, scale: int) -> Any: ...

    with pytest.raises(BadJob, match="keyword argument 'scale'"):
        Functions(reducefn=needs)
    assert not Functions(reducefn=functools.partial(needs, scale=1)).reduce_pairs


@pytest.mark.parametrize("role", ["mapfn", "combinefn"])
def test_functions_of_one_form_must_take_two(role: str) -> None:
    with pytest.raises(BadJob, match=rf"{role}=.* takes 1 positional argument; it must be f\(k, v"):
        Functions(**{role: lambda values: 0})
    with pytest.raises(BadJob, match="takes 3 positional arguments"):
        Functions(**{role: three})
    Functions(**{role: scaled})
    Functions(**{role: lambda key, values=(): 0})
    Functions(**{role: anything})


def test_what_is_not_a_function_or_is_async_is_refused() -> None:
    async def later(key: Any, value: Any) -> Any: ...

    class Later:
        async def __call__(self, key: Any, value: Any) -> Any: ...

    with pytest.raises(BadJob, match="mapfn='words' is not a function"):
        Functions(mapfn="words")  # type: ignore[arg-type]
    for function in (later, Later(), functools.partial(later)):
        with pytest.raises(BadJob, match="is async"):
            Functions(mapfn=function)


def test_a_generator_is_no_value() -> None:
    def yields(key: Any, values: Any) -> Iterator[Any]:
        yield values

    for role in ("collectfn", "combinefn", "reducefn", "finishfn"):
        with pytest.raises(BadJob, match="yields; return the value"):
            Functions(**{role: yields})
    Functions(mapfn=yields)


def test_forms_travel_with_the_functions() -> None:
    functions = Functions(collectfn=dict, reducefn=scaled, finishfn=sorted)
    again = pickle.loads(pickle.dumps(functions))
    assert again == functions
    assert (again.collect_pairs, again.reduce_pairs, again.finish_pairs) == (True, False, True)
    assert list(again.named()) == ["collectfn", "reducefn", "finishfn"]


def test_resultfn_with_and_without_transaction() -> None:
    assert check_resultfn(lambda txn, results: None)
    assert check_resultfn(print)
    assert not check_resultfn(lambda results: None)
    assert not check_resultfn([].append)
    with pytest.raises(BadJob, match=r"f\(txn, results\) or f\(results\)"):
        check_resultfn(lambda: None)
