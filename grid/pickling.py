"""How keys, values and functions become bytes, and independent copies of them.

A user function may change what it is given, so nothing mutable is ever handed to two of them.
Immutable builtins travel as they are; everything else is pickled on its own, one value at a time,
so that no two copies share a part. ``freeze`` and ``thaw`` turn a list of values into that form
and back: a plain list of immutable values stays a list, any other becomes a tuple of pickles.

Plain pickle is tried first, because it is fast, and cloudpickle where it refuses: classes made in
functions, lambdas. What neither takes is ``NotPicklable``, and says which part is to blame.
"""

import functools
import pickle
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

import cloudpickle

from grid.errors import NotPicklable

PROTOCOL = 5

IMMUTABLE = frozenset({int, float, complex, str, bytes, bool, type(None)})
"""Exact types that no user function can change, so that every function may see the same object."""


def show(value: object, limit: int = 120) -> str:
    """Return ``repr(value)``, clipped to ``limit`` characters, whatever its ``__repr__`` does."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    return plain(text, limit)


def plain(text: str, limit: int) -> str:
    """Return ``text`` clipped to ``limit`` characters, and such that it can be sent.

    Lone surrogates, as in file names that are not UTF-8, have no encoding; they are written out.
    """
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_immutable(value: object) -> bool:
    """Tell whether ``value`` is an immutable builtin, or a tuple of nothing else."""
    if type(value) is tuple:
        return all(map(is_immutable, value))
    return type(value) in IMMUTABLE


def dumps(value: object) -> bytes:
    """Return the pickle of ``value``; raise whatever cloudpickle raises if it has none."""
    try:
        return pickle.dumps(value, PROTOCOL)
    except Exception:
        # cloudpickle takes more, and says better what it does not take.
        return cloudpickle.dumps(value, PROTOCOL)  # type: ignore[no-any-return]


def pack(value: object, what: str, key: object) -> bytes:
    """Return the pickle of ``value``; raise ``NotPicklable`` that calls it ``what`` of ``key``."""
    try:
        return dumps(value)
    except Exception as error:
        raise NotPicklable(
            f"{what} {show(key)} cannot travel between processes: {show(value)} does not pickle "
            f"({type(error).__name__}: {error}); use plain data instead"
        ) from error


def copy_of(value: Any, what: str, key: object) -> Any:
    """Return ``value`` if immutable, else an independent copy; raise ``NotPicklable``."""
    return value if is_immutable(value) else pickle.loads(pack(value, what, key))


class FrozenList(list[bytes]):
    """Frozen values that may grow."""


class StoredValues(Sequence[Any]):
    """Values kept elsewhere than in memory. They can be walked any number of times, and mutable
    ones are new objects every time."""

    @abstractmethod
    def append_frozen(self, values: "Frozen") -> None:
        """Add these at the end."""


Frozen = list[Any] | tuple[bytes, ...] | FrozenList | StoredValues
"""Values apart from each other: a list of immutable ones, or else the pickle of each; or values
that are stored."""


def freeze(values: list[Any], what: str, key: object) -> Frozen:
    """Return ``values`` with every mutable one cut off from the rest of the world.

    Raises ``NotPicklable``, calling the value ``what`` of ``key``.
    """
    if IMMUTABLE.issuperset(map(type, values)) or all(map(is_immutable, values)):
        return values
    return tuple([pack(value, what, key) for value in values])


def thaw(values: Frozen) -> Sequence[Any]:
    """Return the values that were frozen; mutable ones are new objects every time. It is a list,
    unless they are stored: then they come as they are walked."""
    if type(values) is list or isinstance(values, StoredValues):
        return values
    return [pickle.loads(value) for value in values]


def joined(first: Frozen, second: Frozen) -> Frozen:
    """Return ``first`` followed by ``second``; ``first`` is used up."""
    if type(first) is list and type(second) is list:
        first += second
        return first
    if isinstance(first, StoredValues):
        first.append_frozen(second)
        return first
    if type(first) is not FrozenList:
        first = FrozenList(map(dumps, first) if type(first) is list else first)
    first.extend(map(dumps, second) if type(second) is list else second)
    return first


# ------------------------------------------------------------------------------ functions


def pack_functions(whole: object, functions: dict[str, Callable[..., Any]]) -> bytes:
    """Return the cloudpickle of ``whole``, which is made of the named ``functions``.

    Raises ``NotPicklable`` that says which function, which thing it refers to, and why.
    """
    try:
        return cloudpickle.dumps(whole, PROTOCOL)  # type: ignore[no-any-return]
    except Exception as error:
        for name, function in functions.items():
            if (reason := _refusal(function)) is not None:
                raise NotPicklable(
                    f"{name}={label(function)} cannot be sent to a worker: {_blame(function)} does "
                    f"not pickle ({reason}); make it inside the function instead"
                ) from error
        raise NotPicklable(f"the job's functions do not pickle: {error}") from error


def _refusal(value: object) -> str | None:
    """Return why ``value`` does not pickle, or None if it does."""
    try:
        cloudpickle.dumps(value, PROTOCOL)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _blame(value: object, depth: int = 4) -> str:
    """Describe the innermost part of ``value`` that does not pickle."""
    for what, part in _parts(value) if depth else ():
        if _refusal(part) is not None:
            inner = _blame(part, depth - 1)
            return what + (f" ({type(part).__name__})" if inner == "it" else f": {inner}")
    return "it"


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield what ``value`` refers to, with a description of each."""
    if isinstance(value, functools.partial):
        yield "the function of the partial", value.func
        yield from ((f"argument {n} of the partial", arg) for n, arg in enumerate(value.args))
        yield from ((f"argument {n!r} of the partial", arg) for n, arg in value.keywords.items())
    elif isinstance(value, MethodType):
        yield "the object it is bound to", value.__self__
    elif isinstance(value, FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, dict):
        yield from ((f"the entry {show(key, 40)}", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"element {n}", part) for n, part in enumerate(value))
    else:
        yield from ((f"its attribute {n!r}", part) for n, part in _attributes(value))


def _function_parts(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"the enclosed variable {name!r}", cell.cell_contents
        except ValueError:  # an empty cell: the variable is not bound yet
            continue
    for name in names_used(function.__code__):
        if name in function.__globals__:
            yield f"the global {name!r}", function.__globals__[name]
    yield from (("a default value", part) for part in function.__defaults__ or ())
    yield from (("a default value", part) for part in (function.__kwdefaults__ or {}).values())


def _attributes(value: object) -> Sequence[tuple[str, object]]:
    attributes = getattr(value, "__dict__", None)
    return list(attributes.items()) if isinstance(attributes, dict) else []


def names_used(code: CodeType) -> list[str]:
    """Return the global names that ``code``, or a function inside it, may read; in order."""
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.update(dict.fromkeys(names_used(constant)))
    return list(names)


def label(function: Callable[..., Any]) -> str:
    """Return module and qualified name, by which people know ``function``."""
    inner = _named(function)
    return f"{getattr(inner, '__module__', None) or 'builtins'}.{inner.__qualname__}"


def qualname(function: Callable[..., Any]) -> str:
    """Return the qualified name, the same whether the module was run or imported."""
    return str(_named(function).__qualname__)


def _named(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)
