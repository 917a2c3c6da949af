"""Calls of an executor on their way out: packed where they were submitted.

Arguments are packed when ``submit`` is called, each call on its own, so that no two calls share a
mutable part and what the caller changes later changes nothing. Functions are packed when their
task is sent, once for all its calls. While something is packed the modules that it refers to are
noted; the user's own among them travel as names and digests, as those of a job do.

Functions of ``__main__`` go by value and find, in a worker, one namespace that all functions of
the executor share there (``peers.call_runner``): what an initializer sets as a global, calls see.
"""

import io
import os
import pickle
import sys
from collections.abc import Hashable, Iterable, Set
from contextlib import nullcontext
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from grid.errors import NotPicklable
from grid.functions import Functions
from grid.job import Ship
from grid.pickling import IMMUTABLE, PROTOCOL, is_immutable, pack_functions, show
from peers import modules
from peers.call_runner import MAIN_MARK, Arguments, Chunked, run
from peers.shipping import Code, by_value, code_of, shipped_names

CODES_MAX = 256
"""Sets of modules whose code is remembered."""

_FROM_MAIN = ("__package__", "__name__", "__path__", "__file__")
"""What cloudpickle takes along from the namespace of a function that goes by value."""

_CLOUDPICKLE = "cloudpickle.cloudpickle"

NO_NAMES: frozenset[str] = frozenset()

Stamps = dict[str, tuple[int, int]]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles, and notes in ``names`` the modules that whoever opens it has to import."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, PROTOCOL)
        self.names: set[str] = set()
        main = sys.modules["__main__"].__dict__
        base = {name: main[name] for name in _FROM_MAIN if name in main}
        self.globals_ref[id(main)] = {**base, MAIN_MARK: True}

    def reducer_override(self, obj: Any) -> Any:
        name = obj.__name__ if isinstance(obj, ModuleType) else getattr(obj, "__module__", None)
        if isinstance(name, str):
            self.names.add(name)
        if isinstance(obj, FunctionType) and name in ("__main__", None):
            # The source of a module tells what its functions import when they run; this has none.
            self.names.update(modules.imported_by_code(obj.__code__))
        if name == _CLOUDPICKLE:
            return NotImplemented  # its own functions go by name, as everything of a module
        return super().reducer_override(obj)


class Packer:
    """Packs the calls of one executor. ``ship`` is as for a job; raises ``BadJob``."""

    def __init__(self, ship: Iterable[Ship]) -> None:
        self._shipped = shipped_names(ship)
        self._runner = pack_functions(Functions(mapfn=run), {})
        self._codes: dict[frozenset[str], tuple[Code, Stamps]] = {}

    def arguments(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Arguments, frozenset[str]]:
        """Pack what one call is given; return it, and the modules it refers to. Raises
        ``NotPicklable`` saying which argument it is."""
        if not kwargs and (IMMUTABLE.issuperset(map(type, args)) or is_immutable(args)):
            return args, NO_NAMES
        try:
            return self._packed((args, kwargs))
        except Exception as error:
            raise self._blame(function, args, kwargs, error) from error

    def function(self, function: Any) -> tuple[bytes, frozenset[str]]:
        """Pack a function; return it, and the modules it refers to. Raises ``NotPicklable`` saying
        which part of it is to blame."""
        try:
            return self._packed(function)
        except Exception as error:
            inner = function.function if isinstance(function, Chunked) else function
            pack_functions(inner, {"function": inner})  # raises, with what is to blame
            raise NotPicklable(f"{show(inner)} cannot be sent to a worker: {error}") from error

    def code(self, names: Set[str]) -> Code:
        """Return the code of a task whose calls refer to these modules.

        To find out which are the user's, and what they import, takes longer than a call: it is
        done again only when one of their files has changed.
        """
        key = frozenset(names)
        known = self._codes.get(key)
        if known is not None and known[1] == _stamps(known[1]):
            return known[0]
        code, files = code_of(self._runner, names, self._shipped)
        if len(self._codes) >= CODES_MAX:
            self._codes.clear()
        self._codes[key] = code, _stamps(files)
        return code

    def _packed(self, thing: Any) -> tuple[bytes, frozenset[str]]:
        # Whoever ships nothing need not wait for the lock that shipping takes.
        with by_value(self._shipped) if self._shipped else nullcontext(), io.BytesIO() as file:
            pickler = _Pickler(file)
            pickler.dump(thing)
            return file.getvalue(), frozenset(pickler.names)

    def _blame(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
    ) -> NotPicklable:
        what = f"the arguments of {show(function)} together"
        for name, value in [*enumerate(args), *kwargs.items()]:
            try:
                self._packed(value)
            except Exception as why:
                what, error = f"argument {name!r} of {show(function)}, {show(value)},", why
                break
        return NotPicklable(
            f"{what} cannot be sent to a worker ({type(error).__name__}: {error}); give plain "
            "data, and make it inside the function"
        )


def encode(
    executor: str,
    initializer: bytes,
    functions: list[bytes],
    calls: list[tuple[int, Arguments]],
) -> bytes:
    """One task's calls for ``peers.call_runner.run``: each is a position in ``functions``, and
    arguments."""
    return pickle.dumps((executor, initializer, functions, calls), PROTOCOL)


def kind_of(function: Any) -> Hashable:
    """What tells functions apart whose calls may take differently long; keeps nothing of the
    user's alive but code."""
    for _ in range(20):  # more wrappings than anyone writes; a loop of them ends too
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, Chunked):
            function = function.function
        else:
            break
    code: Hashable = getattr(function, "__code__", None)
    if code is not None:
        return code
    name = getattr(function, "__qualname__", None)
    if name is None:
        name = type(function).__qualname__
    return str(getattr(function, "__module__", "")), str(name)


def _stamps(files: Iterable[str]) -> Stamps:
    """What tells that a file has changed; one that is gone has none."""
    stamps: Stamps = {}
    for file in files:
        try:
            stat = os.stat(file)  # noqa: PTH116 - before every task
        except OSError:
            continue
        stamps[file] = stat.st_mtime_ns, stat.st_size
    return stamps
