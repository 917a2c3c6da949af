"""The functions of a job, and which of its two forms each of them has.

=============  ===================================================================================
``mapfn``      ``f(k, v)`` -> iterable of (key, value) pairs, or a Mapping, or None for no pairs
``collectfn``  ``f(k, vs) -> v`` or ``f(iterator of (k, vs))`` -> iterable of pairs, or a Mapping
``combinefn``  ``f(k, vs) -> v``, associative, run any number of times
``reducefn``   like ``collectfn``
``finishfn``   like ``collectfn``, where ``vs`` is the result of the key
``resultfn``   ``f(txn, results)`` or ``f(results)``
=============  ===================================================================================

**Forms are told apart by the positional arguments that must be given**: two make it ``f(k, vs)``,
one makes it the iterator form. So ``f(k, vs, scale=2)`` takes a key and values, ``f(pairs,
top=10)`` takes the iterator, and ``f(k, vs=())`` takes the iterator too. If none must be given,
what counts is how many can be: ``f(*args)`` takes a key and values, ``f(pairs=())`` the iterator.
Decorated functions that keep ``__wrapped__`` count as what they wrap.

``dict``, ``set``, ``list``, ``sorted`` and their like are iterator forms. ``sum``, ``len``,
``max`` and their like are refused, since they fit neither form: write ``lambda k, vs: sum(vs)``.
A builtin that does not tell its signature is refused likewise where its form must be known.
"""

import collections
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from grid.errors import BadJob
from grid.pickling import label

Function = Callable[..., Any]

FOLDS = frozenset({sum, len, max, min, any, all, math.fsum, math.prod, str, int, float, bool})
"""Take values alone, so they fit neither form: as iterator form they would get pairs."""

KNOWN: dict[Any, tuple[int, float]] = {
    dict: (1, 1),
    set: (1, 1),
    frozenset: (1, 1),
    list: (1, 1),
    tuple: (1, 1),
    iter: (1, 1),
    collections.OrderedDict: (1, 1),
    map: (2, math.inf),
    filter: (2, 2),
    zip: (0, math.inf),
}
"""Builtins that do not tell their signature in every Python version."""


def positional(function: Function) -> tuple[int, float] | None:
    """Return how many positional arguments must and can be given, or None if it cannot be told.

    Raises ``BadJob`` if a keyword-only argument must be given too.
    """
    try:
        if function in KNOWN:
            return KNOWN[function]
    except TypeError:
        pass  # an unhashable callable is none of them
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return _positional_of_partial(function)
    required, most = 0, 0.0
    for parameter in parameters:
        must = parameter.default is parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            required, most = required + must, most + 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind is parameter.KEYWORD_ONLY and must:
            raise BadJob(
                f"{label(function)} needs the keyword argument {parameter.name!r}, which the grid "
                f"does not give; use functools.partial or give it a default"
            )
    return required, most


def _positional_of_partial(function: Function) -> tuple[int, float] | None:
    """Count for a partial of a builtin in ``KNOWN``, which has no signature of its own."""
    if not isinstance(function, functools.partial):
        return None
    counts = positional(function.func)
    given = len(function.args)
    return counts and (max(0, counts[0] - given), max(0, counts[1] - given))


def takes_two(function: Function, role: str, forms: str = "f(k, vs) or f(pairs)") -> bool:
    """Tell whether ``function`` has the form of two arguments rather than that of one.

    Raises ``BadJob``, naming ``role`` and ``forms``, if it has neither or it cannot be told.
    """
    counts = positional(function)
    if counts is None:
        raise BadJob(
            f"{role}={label(function)} does not tell its signature; wrap it in a lambda with the "
            f"arguments you mean, as in {forms}"
        )
    required, most = counts
    if required == 2 or (required == 0 and most >= 2):
        return True
    if required == 1 or (required == 0 and most == 1):
        return False
    raise BadJob(f"{role}={label(function)} {_needs(required, most)}; it must be {forms}")


def _needs(required: int, most: float) -> str:
    return f"takes {required or most:.0f} positional argument{'s' * ((required or most) != 1)}"


def _check_callable(function: Any, role: str) -> None:
    if not callable(function):
        raise BadJob(f"{role}={function!r} is not a function")
    code_owner = function if inspect.isroutine(function) else getattr(function, "__call__", None)  # noqa: B004
    for candidate in (function, code_owner):
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise BadJob(f"{role}={label(function)} is async; workers call plain functions only")


def _check_two(function: Function, role: str, form: str) -> None:
    counts = positional(function)
    if counts is not None and not counts[0] <= 2 <= counts[1]:
        raise BadJob(f"{role}={label(function)} {_needs(*counts)}; it must be {form}")


def _check_returns(function: Function, role: str) -> None:
    """Refuse ``yield`` where one value is meant: the generator would be that value."""
    if inspect.isgeneratorfunction(function):
        raise BadJob(
            f"{role}={label(function)} takes a key and values but yields; return the value, or "
            f"take one argument, the iterator of pairs, and yield pairs"
        )


@dataclass(frozen=True)
class Functions:
    """What a worker needs to run a job: its functions, checked, and their forms.

    ``collect_pairs``, ``reduce_pairs`` and ``finish_pairs`` say that the function has the iterator
    form. They travel with the functions, so that all peers agree. Raises ``BadJob``.
    """

    mapfn: Function | None = None
    collectfn: Function | None = None
    combinefn: Function | None = None
    reducefn: Function | None = None
    finishfn: Function | None = None
    collect_pairs: bool = field(init=False, default=False)
    reduce_pairs: bool = field(init=False, default=False)
    finish_pairs: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        for role, function in self.named().items():
            _check_callable(function, role)
            if role == "mapfn":
                _check_two(function, role, "f(k, v)")
            elif role == "combinefn":
                _check_folds(function, role)
                _check_two(function, role, "f(k, vs)")
                _check_returns(function, role)
            else:
                object.__setattr__(self, f"{role[:-2]}_pairs", _takes_pairs(function, role))

    def named(self) -> dict[str, Function]:
        """Return the functions that are there, by role, in the order in which they run."""
        roles = ("mapfn", "collectfn", "combinefn", "reducefn", "finishfn")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}


def _takes_pairs(function: Function, role: str) -> bool:
    _check_folds(function, role)
    if takes_two(function, role):
        _check_returns(function, role)
        return False
    return True


def _check_folds(function: Function, role: str) -> None:
    if (inspect.isbuiltin(function) or isinstance(function, type)) and function in FOLDS:
        name = function.__name__
        raise BadJob(
            f"{role}={name} would be given keys too, which {name} does not take; "
            f"write {role}=lambda k, vs: {name}(vs)"
        )


def check_resultfn(function: Any) -> bool:
    """Tell whether ``resultfn`` wants ``(txn, results)`` rather than ``(results)``."""
    _check_callable(function, "resultfn")
    return takes_two(function, "resultfn", "f(txn, results) or f(results)")
