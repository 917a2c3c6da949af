"""Calls of an executor in a worker: opened, run one after the other, answered all together.

Everything is opened before anything is run: a worker that lacks a module hands the whole task back
(``ModuleUnavailable``), and no call has run twice for it. What a call raises, or returns that
cannot travel, is the outcome of that call alone. A task that takes much longer than it should is
cut: the calls it has not begun go back, so that one long call does not hold up others behind it.

An executor's initializer runs once in each worker, before its first call there; if it raises,
nothing is run and the executor is broken.

**Functions of ``__main__``** arrive by value, each task with copies of its own. They share one
namespace for each executor and worker, so a global that one sets the next finds. Of the owner's
globals that come along, a name is only set when the owner's value differs from what came before:
``STATE = None`` in the script does not undo what an initializer has put there.
"""

import hashlib
import io
import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from cloudpickle import cloudpickle

from grid.pickling import IMMUTABLE, PROTOCOL, dumps, is_immutable, show
from peers import worker_failures
from peers.shipping import ModuleUnavailable
from peers.worker import Killed

CUT_SECONDS = 0.25
"""A task that took this long begins no further call. Several times what tasks are made for."""

CUT_BYTES = 8 << 20
"""Nor does one whose results have become so large."""

EXECUTORS_MAX = 64
"""So many executors find their namespace again, and their initializer done."""

MAIN_MARK = "__grid_main__"
"""In the namespace of a function that comes from the owner's ``__main__``."""

Arguments = tuple[Any, ...] | bytes
"""A tuple of immutable values, or pickled ``(args, kwargs)``."""

VALUE, PACKED, RAISED, UNSENDABLE = range(4)
"""Outcomes: an immutable value as it is, a pickled one, ``Raised``, why it cannot travel."""

Raised = tuple[bytes, str, str]
"""The pickled exception (empty if it has none), its text, and the remote traceback."""

Cost = tuple[int, int, float, float]
"""Of one function, by its position: calls that ended, their seconds, those of the longest."""


class Chunked:
    """Calls ``function`` with each of several arguments, given as ``map`` takes them: a list for
    each parameter. Returns the results up to the first call that raises, and what that raised."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *columns: list[Any]) -> tuple[list[Any], Raised | None]:
        results: list[Any] = []
        try:
            for args in zip(*columns, strict=True):
                # To extend by them would end, unheard, at a StopIteration of the user's.
                results.append(self.function(*args))  # noqa: PERF401
        except Exception as error:
            return results, _raised(error)
        return results, None


def run(_key: Any, order: bytes) -> list[tuple[int, bytes]]:
    """Run the calls of one task: the mapfn of its job. Its one value is what ``answer`` opens."""
    executor, initializer, packed, calls = pickle.loads(order)
    home = _home(executor)
    functions = [home.opened(function) for function in packed]
    thunks = [(number, functions[number], home.arguments(given)) for number, given in calls]
    if initializer and not home.ready:
        try:
            home.opened(initializer)()
        except Killed:
            raise
        except BaseException as error:
            return [(0, pickle.dumps((_raised(error),), PROTOCOL))]
        home.ready = True
    return [(0, pickle.dumps(_run(thunks), PROTOCOL))]


Thunk = tuple[int, Callable[..., Any], "tuple[Sequence[Any], dict[str, Any]] | Raised"]


def _run(thunks: list[Thunk]) -> tuple[bytes, list[Any], list[Cost]]:
    """Return the kinds and things that are the outcomes of the first calls, at least of one."""
    kinds = bytearray()
    things: list[Any] = []
    costs: dict[int, Cost] = {}
    size = 0
    clock = time.perf_counter
    last = clock()
    end = last + CUT_SECONDS
    thunks.reverse()
    while thunks and (not things or (last < end and size < CUT_BYTES)):
        number, function, given = thunks.pop()  # arguments are let go as soon as they are used
        kind, thing = _outcome(function, given)
        kinds.append(kind)
        things.append(thing)
        if kind == PACKED:
            size += len(thing)
        now = clock()
        calls, seconds, longest = costs.get(number, (number, 0, 0.0, 0.0))[1:]
        took, last = now - last, now
        costs[number] = (number, calls + 1, seconds + took, max(longest, took))
    return bytes(kinds), things, list(costs.values())


def _outcome(
    function: Callable[..., Any], given: tuple[Sequence[Any], dict[str, Any]] | Raised
) -> tuple[int, Any]:
    if len(given) == 3:
        return RAISED, given
    try:
        value = function(*given[0], **given[1])
    except Killed:
        raise
    except BaseException as error:  # also SystemExit and its like: the next call is another's
        return RAISED, _raised(error)
    if is_immutable(value):
        return VALUE, value
    try:
        return PACKED, dumps(value)
    except Exception as error:
        return UNSENDABLE, (
            f"the result of {show(function)}, {show(value)}, cannot be sent to its owner "
            f"({type(error).__name__}: {error}); return plain data instead"
        )


def _raised(error: BaseException) -> Raised:
    failure = worker_failures.raised(error, "")
    return failure.exception, failure.message, failure.traceback


# ------------------------------------------------------------------------------ what stays


@dataclass
class _Home:
    """What a worker keeps for one executor: whether its initializer has run, the namespace of its
    ``__main__``, and what came into that from the owner."""

    ready: bool = False
    main: dict[str, Any] = field(default_factory=dict)
    came: dict[str, object] = field(default_factory=dict)

    def opened(self, packed: bytes) -> Any:
        """Open something packed. Raises ``ModuleUnavailable`` if a module of it is not here."""
        try:
            if MAIN_MARK.encode() in packed:
                return _Opener(io.BytesIO(packed), self).load()
            return pickle.loads(packed)
        except (ImportError, AttributeError) as error:
            raise ModuleUnavailable(getattr(error, "name", None) or "", str(error)) from error

    def arguments(self, given: Arguments) -> tuple[Sequence[Any], dict[str, Any]] | Raised:
        """Open what a call is given; if that raises, this is its outcome."""
        if isinstance(given, tuple):
            return given, {}
        try:
            args, kwargs = self.opened(given)
        except (ModuleUnavailable, Killed):
            raise
        except BaseException as error:
            return _raised(error)
        return args, kwargs

    def make_function(self, code: Any, namespace: dict[str, Any], *rest: Any) -> FunctionType:
        """As cloudpickle makes a function, but those of ``__main__`` in its one namespace."""
        if MAIN_MARK in namespace:
            for name, value in namespace.items():
                self.main.setdefault(name, value)
            namespace = self.main
        made: FunctionType = cloudpickle._make_function(code, namespace, *rest)
        return made

    def set_state(self, function: FunctionType, state: tuple[Any, dict[str, Any]]) -> None:
        """As cloudpickle sets what a function has, but only globals that the owner has changed."""
        slots = state[1]
        if function.__globals__ is self.main:
            slots["__globals__"] = dict(filter(self._is_news, slots["__globals__"].items()))
        cloudpickle._function_setstate(function, state)

    def _is_news(self, pair: tuple[str, Any]) -> bool:
        name, value = pair
        mark = _mark(value)
        known = name in self.main and name in self.came and self.came[name] == mark
        self.came[name] = mark
        return not known


class _Opener(pickle.Unpickler):
    """Opens functions of ``__main__`` into the namespace of their executor."""

    def __init__(self, file: io.BytesIO, home: _Home) -> None:
        super().__init__(file)
        self._home = home

    def find_class(self, module: str, name: str) -> Any:
        if module == cloudpickle.__name__:
            if name == "_make_function":
                return self._home.make_function
            if name == "_function_setstate":
                return self._home.set_state
        return super().find_class(module, name)


def _mark(value: Any) -> object:
    """Something that is equal for two values only if they are the same."""
    if type(value) in IMMUTABLE:
        return type(value), value
    try:
        return hashlib.blake2b(pickle.dumps(value, PROTOCOL)).digest()
    except Exception:
        return object()


class _Homes(threading.local):
    """By the ids of executors. A worker is a process, or a thread."""

    def __init__(self) -> None:
        self.homes: OrderedDict[str, _Home] = OrderedDict()


_here = _Homes()


def _home(executor: str) -> _Home:
    homes = _here.homes
    home = homes.setdefault(executor, _Home())
    homes.move_to_end(executor)
    if len(homes) > EXECUTORS_MAX:
        homes.popitem(last=False)
    return home
