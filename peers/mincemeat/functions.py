"""A program's functions, made fit to travel, and applied where the server runs.

The original sent bare code, which ran among the globals of its own module: a function could say
``hashlib.md5`` or ``time.sleep`` without importing anything. So what travels here brings its own
module globals, as all functions of the grid do, and where it arrives is lent the modules that the
original had, under names that it does not define itself.
"""

import functools
import importlib
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType
from typing import Any

from grid.functions import takes_two

LENT = (
    "collections",
    "hashlib",
    "hmac",
    "logging",
    "marshal",
    "optparse",
    "os",
    "pickle",
    "random",
    "select",
    "socket",
    "sys",
    "threading",
    "time",
    "timeit",
    "traceback",
    "types",
)
"""What the original's module had imported, where this Python still has it."""


def lend(function: Any) -> Any:
    """Return the function itself, whose globals now have the modules in ``LENT`` too."""
    plain = _plain(function)
    if plain is not None:
        for name in LENT:
            if name not in plain.__globals__:
                plain.__globals__[name] = importlib.import_module(name)
    return function


class Travelling:
    """Stands for a function at its owner; pickled, it becomes the function, lent what it lacks."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return lend(self.function)(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return lend, (self.function,)


def travelling(function: Any) -> Any:
    """Return what to give to a ``Job`` for ``function``, or None for None."""
    return None if function is None else Travelling(function)


def finished(finishfn: Callable[..., Any], results: dict[Any, Any]) -> dict[Any, Any]:
    """Apply ``finishfn``, of either form, to all results; here, as the original's server did."""
    if takes_two(finishfn, "finishfn"):
        return {key: finishfn(key, value) for key, value in results.items()}
    pairs: Iterable[tuple[Any, Any]] = finishfn(iter(results.items()))
    return dict(pairs)


def _plain(function: Any) -> FunctionType | None:
    """The Python function inside a method, a partial, a decorator or a callable object."""
    for _ in range(20):  # more wrappings than anyone writes; a loop of them ends too
        if isinstance(function, FunctionType):
            return function
        if isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            call = getattr(type(function), "__call__", None)  # noqa: B004
            return call if isinstance(call, FunctionType) else None
    return None
