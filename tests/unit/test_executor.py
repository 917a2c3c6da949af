"""Calls of an executor without a grid: how many go together, how they are packed, run, opened."""

import pickle
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grid.errors import NotPicklable, TaskError
from grid.pacing import CALLS_MAX, GROWTH, Pacer
from peers import call_runner
from peers.call_outcomes import RemoteTraceback, exception_of, resolve
from peers.call_runner import PACKED, RAISED, UNSENDABLE, VALUE, Chunked, run
from peers.calls import Packer, encode, kind_of
from peers.shipping import ModuleUnavailable

# ------------------------------------------------------------------ how many


def test_a_function_that_nothing_is_known_of_is_called_alone() -> None:
    pacer = Pacer(0.05)
    pacer.note("f", 64, 0.0064, 0.0001)
    assert pacer.count(1000, 2, ["g", "g"]) == 1
    assert pacer.count(1000, 2, ["f", "f", "f", "g", "f"]) == 3


def test_short_calls_go_together_and_more_each_time() -> None:
    pacer = Pacer(0.05)
    counts: list[int] = []
    for _ in range(9):
        count = pacer.count(100_000, 2, ["f"] * 100_000)
        counts.append(count)
        pacer.note("f", count, count * 1e-6, 1e-6)
    assert counts[:4] == [1, GROWTH, GROWTH**2, GROWTH**3]
    assert counts[-1] == CALLS_MAX


def test_a_task_takes_tens_of_milliseconds() -> None:
    pacer = Pacer(0.05)
    pacer.note("f", 100, 1.0, 0.011)
    assert pacer.count(10_000, 2, ["f"] * 10_000) == 5


def test_what_is_left_is_shared_unless_that_costs_more_than_it_saves() -> None:
    pacer = Pacer(0.05)
    pacer.note("slow", 100, 0.2, 0.002)
    assert pacer.count(24, 4, ["slow"] * 24) == 3  # two would be the share, but cost too little
    pacer.note("quick", 100, 0.0001, 0.000001)
    assert pacer.count(24, 4, ["quick"] * 24) == 24


def test_one_long_call_is_remembered_for_a_while() -> None:
    pacer = Pacer(0.05)
    pacer.note("f", 1000, 0.001, 1e-6)
    pacer.note("f", 10, 2.0, 1.99)
    assert pacer.count(1000, 1, ["f"] * 1000) == 1
    assert pacer.tasks(4, "f") == 4
    for _ in range(40):
        pacer.note("f", 1, 1e-6, 1e-6)
    assert pacer.count(1000, 1, ["f"] * 1000) > 100
    assert pacer.tasks(4, "f") == 8


def test_functions_are_told_apart_by_their_code() -> None:
    def scale(by: int) -> Any:
        return lambda x: x * by

    assert kind_of(scale(2)) == kind_of(scale(3)) != kind_of(scale)
    assert kind_of(partial(partial(time.sleep), 1)) == kind_of(Chunked(time.sleep))
    assert kind_of([].append) == kind_of([1].append) != kind_of(pow)


# ------------------------------------------------------------------ packed and run


def in_new_worker(work: Any) -> Any:
    """What ``work()`` returns in a new thread, which knows no executor yet."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return future.result()


def order_of(*calls: tuple[Any, ...], initializer: Any = None) -> bytes:
    packer = Packer(())
    functions: list[bytes] = []
    given: list[Any] = []
    for function, *args in calls:
        packed = packer.function(function)[0]
        if packed not in functions:
            functions.append(packed)
        arguments = packer.arguments(function, tuple(args), {})[0]
        given.append((functions.index(packed), arguments))
    begin = packer.function(initializer)[0] if initializer else b""
    return encode("executor", begin, functions, given)


def outcomes_of(order: bytes) -> Any:
    [(_, answer)] = run(0, order)
    return pickle.loads(answer)


def test_each_call_has_an_outcome_of_its_own() -> None:
    def fail(text: str) -> None:
        raise SystemExit(text)

    order = order_of(
        (pow, 2, 5), (list, "ab"), (fail, "no"), (threading.Lock,), (pow, 2, 6), (len, [[]])
    )
    kinds, things, costs = in_new_worker(lambda: outcomes_of(order))
    assert list(kinds) == [VALUE, PACKED, RAISED, UNSENDABLE, VALUE, VALUE]
    assert things[0] == 32
    assert pickle.loads(things[1]) == ["a", "b"]
    assert "SystemExit: no" in things[2][2]
    assert "lock" in things[3]
    assert [cost[:2] for cost in costs] == [(0, 2), (1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_chunk_ends_with_the_first_call_that_raises() -> None:
    def choosy(number: int, other: str) -> str:
        if number == 3:
            raise StopIteration("enough")
        return other * number

    results, raised = Chunked(choosy)([1, 2, 3, 4], ["a", "b", "c", "d"])
    assert results == ["a", "bb"]
    assert raised is not None
    assert "enough" in raised[1]
    assert Chunked(choosy)([2], ["a"]) == (["aa"], None)


def test_calls_share_no_mutable_argument() -> None:
    def grow(things: list[int]) -> int:
        things.append(1)
        return len(things)

    shared: list[int] = []
    assert in_new_worker(lambda: outcomes_of(order_of((grow, shared), (grow, shared))))[1] == [1, 1]


def test_a_task_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_runner, "CUT_SECONDS", 0.0)
    calls = [(pow, 2, n) for n in range(5)]
    assert in_new_worker(lambda: outcomes_of(order_of(*calls)))[1] == [1]


def test_large_results_cut_a_task_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_runner, "CUT_BYTES", 2000)
    calls = [(bytearray, 800)] * 9
    assert len(in_new_worker(lambda: outcomes_of(order_of(*calls)))[1]) == 3


def test_what_cannot_be_opened_is_the_outcome_of_its_call() -> None:
    kinds, things, _ = in_new_worker(
        lambda: outcomes_of(order_of((len, Unopenable()), (len, "ab")))
    )
    assert list(kinds) == [RAISED, VALUE]
    assert "ZeroDivisionError" in things[0][1]


class Unopenable:
    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def test_a_missing_module_hands_the_task_back() -> None:
    """Before anything has run: another worker may have it."""
    ran: list[int] = []
    lost = pickle.dumps(pow).replace(b"builtins", b"buildins")
    order = encode("executor", b"", [pickle.dumps(ran.append), lost], [(0, (1,)), (1, (2, 3))])
    with pytest.raises(ModuleUnavailable, match="buildins"):
        in_new_worker(lambda: outcomes_of(order))


def test_an_initializer_runs_once_in_each_worker(tmp_path: Path) -> None:
    def begin() -> None:
        with (tmp_path / "begun").open("a") as file:
            file.write("x")

    order = order_of((pow, 2, 2), initializer=begin)
    for _ in range(2):
        in_new_worker(lambda: (outcomes_of(order), outcomes_of(order)))
    assert (tmp_path / "begun").read_text() == "xx"


def test_nothing_runs_after_an_initializer_has_failed() -> None:
    order = order_of((pow, 2, 2), initializer=partial(divmod, 1, 0))
    [raised] = in_new_worker(lambda: outcomes_of(order))
    assert isinstance(exception_of(raised), ZeroDivisionError)


MAIN = """
STATE = None
LIMIT = 1
def begin(state):
    global STATE
    STATE = state
def look():
    return STATE, LIMIT
"""


def test_functions_of_main_share_its_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an initializer has set stays, unless the owner sets another value."""
    main = ModuleType("__main__")
    monkeypatch.setitem(__import__("sys").modules, "__main__", main)
    exec(MAIN, main.__dict__)

    def work() -> list[Any]:
        looks = [outcomes_of(order_of((main.look,), initializer=partial(main.begin, 5)))[1]]
        looks.append(outcomes_of(order_of((main.look,)))[1])
        main.__dict__["LIMIT"] = 2
        exec("def more():\n    return STATE, LIMIT", main.__dict__)
        looks.append(outcomes_of(order_of((main.more,)))[1])
        main.__dict__["STATE"] = 8
        looks.append(outcomes_of(order_of((main.look,)))[1])
        return looks

    assert in_new_worker(work) == [[(5, 1)], [(5, 1)], [(5, 2)], [(8, 2)]]


# ------------------------------------------------------------------ told


def test_what_cannot_be_packed_is_named() -> None:
    packer = Packer(())
    with pytest.raises(NotPicklable, match=r"argument 1 of <built-in function pow>, .*lock"):
        packer.arguments(pow, (1, threading.Lock()), {})
    with pytest.raises(NotPicklable, match=r"argument 'mod' of .*pow"):
        packer.arguments(pow, (1, 2), {"mod": threading.Lock()})
    lock = threading.Lock()
    with pytest.raises(NotPicklable, match="enclosed variable 'lock'"):
        packer.function(lambda: lock)


def test_modules_that_a_call_refers_to_are_noted() -> None:
    packer = Packer(())
    assert packer.arguments(len, (1, "a"), {}) == ((1, "a"), frozenset())
    assert "tests.unit.test_executor" in packer.arguments(len, ([Unopenable],), {})[1]
    assert (
        "tests.unit.test_executor"
        in packer.function(test_functions_are_told_apart_by_their_code)[1]
    )
    code = packer.code(packer.function(in_new_worker)[1])
    assert "tests.unit.test_executor" in code.modules
    assert packer.code(packer.function(in_new_worker)[1]) is code


def test_what_a_call_raised_says_where() -> None:
    def fail() -> None:
        raise ValueError("here")

    _, [raised], _ = in_new_worker(lambda: outcomes_of(order_of((fail,))))
    error = exception_of(raised)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert 'raise ValueError("here")' in str(error.__cause__)
    assert isinstance(exception_of((b"", "Odd: it", "where")), TaskError)


def test_a_result_that_does_not_open_is_the_trouble_of_its_future() -> None:
    future: Future[Any] = Future()
    resolve(future, PACKED, pickle.dumps(Unopenable()))
    assert "ZeroDivisionError" in str(future.exception())


def test_a_future_that_its_user_has_set_harms_no_other() -> None:
    future: Future[Any] = Future()
    future.set_result("mine")
    resolve(future, VALUE, 5)
    assert future.result() == "mine"
