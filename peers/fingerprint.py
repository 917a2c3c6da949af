"""Do two processes mean the same job? A fingerprint of its functions and keys.

It is made of names and sources, never of pickled bytes, which differ between processes: the same
script started anywhere, under any hash seed, has the same fingerprint; a change of one part shows
in that part alone. Functions are told by qualified name and source; lambdas, which share their
line, and functions without source by their byte code; partials also by their plain arguments.
Keys are told by number and as a set, so their order does not matter.

Not seen: what a function calls, and what it encloses.
"""

import functools
import hashlib
import inspect
from collections.abc import Iterable
from enum import Enum
from types import CodeType
from typing import Any

from grid.functions import Functions
from grid.job import Job
from grid.pickling import IMMUTABLE, qualname

_ROLES = ("mapfn", "collectfn", "combinefn", "reducefn", "finishfn")
_SET_BITS = 128


def fingerprint(job: Job, keys: Iterable[Any]) -> dict[str, str]:
    """Return the parts of the fingerprint: one for each function, ``keys`` and ``items``.

    ``keys`` is what ``job.keys()`` listed. A function that is not there is an empty string.
    """
    functions: Functions = job.functions
    parts = {role: _told(getattr(functions, role)) for role in _ROLES}
    total = count = 0
    for count, key in enumerate(keys, 1):  # noqa: B007
        total += int.from_bytes(_hash(describe(key))[: _SET_BITS // 8], "big")
    parts["keys"] = f"{total % (1 << _SET_BITS):032x}"
    parts["items"] = str(count)
    return parts


def _told(function: Any) -> str:
    return "" if function is None else f"{qualname(function)} {_hash(_source(function)).hex()[:32]}"


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _source(function: Any) -> str:
    """Return text that changes when the function does, and only then."""
    if isinstance(function, functools.partial):
        bound = describe((function.args, function.keywords))
        return f"partial {_source(function.func)} {bound}"
    if inspect.ismethod(function):
        return f"method of {qualname(type(function.__self__))} {_source(function.__func__)}"
    if not inspect.isfunction(function) and hasattr(function, "__wrapped__"):
        return _source(function.__wrapped__)  # functools.cache and its like
    if not (inspect.isfunction(function) or inspect.isclass(function)):
        return _source_of_object(function)
    if getattr(function, "__name__", "") != "<lambda>":
        try:
            return inspect.getsource(function)
        except (OSError, TypeError):
            pass  # typed in, or made by exec
    code = getattr(function, "__code__", None)
    return _describe_code(code) if code is not None else qualname(function)


def _source_of_object(function: Any) -> str:
    """Tell a callable object by its class and plain attributes, a builtin by its name."""
    if inspect.isroutine(function):
        return qualname(function)
    return f"{_source(type(function))} {describe(getattr(function, '__dict__', {}))}"


def _describe_code(code: CodeType) -> str:
    """Describe byte code without file names and line numbers."""
    constants = [
        _describe_code(constant) if isinstance(constant, CodeType) else describe(constant)
        for constant in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return f"{code.co_code.hex()} {constants} {names} {counts}"


def describe(value: Any) -> str:
    """Return text that is the same for the same value in every process: no order, no addresses."""
    if type(value) in IMMUTABLE:
        return repr(value)
    if isinstance(value, tuple | list):
        return f"{type(value).__qualname__}({', '.join(map(describe, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__qualname__}{{{', '.join(sorted(map(describe, value)))}}}"
    if isinstance(value, dict):
        items = sorted(f"{describe(key)}: {describe(item)}" for key, item in value.items())
        return f"{type(value).__qualname__}{{{', '.join(items)}}}"
    if isinstance(value, Enum):
        return f"{qualname(type(value))}.{value.name}"
    if inspect.isroutine(value) or isinstance(value, type | functools.partial):
        return _told(value)
    if not hasattr(value, "__dict__") and "0x" not in repr(value):
        return f"{qualname(type(value))} {value!r}"
    return f"{qualname(type(value))} {describe(getattr(value, '__dict__', {}))}"
