"""A job's functions as bytes: frozen at the owner, loaded by workers.

Functions of ``__main__``, lambdas, closures and partials travel by value (cloudpickle). What lives
in a module travels by reference: its name, and the digest of its source if it is one of the user's
own, so that a worker never runs another version than the owner's. The folders in which those
modules live at the owner go along; where a worker has them too, they come first on its path.
Modules named in ``ship`` travel by value with all their submodules.

Not here: installing anything, or sending modules that nobody asked to ship.
"""

import importlib
import os
import pickle
import pickletools
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle
import msgspec

from grid.errors import BadJob, GridError, ProtocolError
from grid.functions import Functions
from grid.job import Ship
from grid.pickling import PROTOCOL, is_immutable, names_used, pack, pack_functions
from peers import modules

_registering = threading.Lock()  # cloudpickle's list of modules to send by value is global
_REMEMBERED_BYTES = 16 << 10  # longer ones carry data, and are seldom the same again
_loaded_digests: dict[str, str] = {}  # user modules as this process first saw them


class ModuleUnavailable(GridError):
    """This process cannot run the job: a module it needs is not here, or is another version."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why

    def __str__(self) -> str:
        return f"module {self.name} {self.why}"


class StaleModule(ModuleUnavailable):
    """This process has imported another version; a fresh worker process may run the job."""


class Code(msgspec.Struct, frozen=True, array_like=True):
    """Frozen functions. ``modules`` maps the names of the user's own modules to their digests,
    ``paths`` are the owner's folders of those, ``shipped`` the modules sent by value."""

    pickled: bytes
    modules: dict[str, str]
    paths: tuple[str, ...]
    shipped: tuple[str, ...]

    def encode(self) -> bytes:
        """Return this as bytes."""
        return msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> "Code":
        """Return the ``Code`` that was encoded. Raises ``ProtocolError`` for anything else."""
        try:
            return msgspec.msgpack.decode(data, type=Code)
        except ValueError as error:  # msgspec's own, and text that is not UTF-8
            raise ProtocolError(f"the code of a record makes no sense: {error}") from error


# ------------------------------------------------------------------------------ at the owner


def freeze(functions: Functions, ship: Iterable[Ship] = ()) -> Code:
    """Freeze ``functions``. Raises ``NotPicklable``, ``BadJob`` for a module not to be shipped."""
    shipped = shipped_names(ship)
    with by_value(shipped):
        pickled = pack_functions(functions, functions.named())
    names = set(_names_in(pickled)) | set(_names_imported_in(functions))
    return code_of(pickled, names, shipped)[0]


def shipped_names(ship: Iterable[Ship]) -> tuple[str, ...]:
    """Return the names of modules to ship, imported. Raises ``BadJob``."""
    return tuple(sorted(_name_of(module) for module in ship))


def code_of(
    pickled: bytes, names: Iterable[str], shipped: tuple[str, ...]
) -> tuple[Code, tuple[str, ...]]:
    """Return the ``Code`` of pickled functions that refer to these modules, by themselves or by
    what they are given; and the files of those that are the user's own."""
    needed = modules.needed(name for name in names if not _is_shipped(name, shipped))
    needed = {name: path for name, path in needed.items() if not _is_shipped(name, shipped)}
    digests = {name: modules.digest_of_file(path) for name, path in needed.items()}
    return Code(pickled, digests, _folders(needed), shipped), tuple(needed.values())


def pickle_value(value: object, what: str, key: object, shipped: Sequence[str] = ()) -> bytes:
    """Pickle what an owner sends to workers: a value or key. ``shipped`` is the code's.

    Classes of ``__main__`` and of shipped modules, which workers cannot import, go by value.
    Raises ``NotPicklable``, calling it ``what`` of ``key``.
    """
    pickled = pack(value, what, key)
    absent = any(name.encode() in pickled for name in ("__main__", *shipped))
    if absent and not _is_plain(value):
        with by_value(shipped):
            pickled = cloudpickle.dumps(value, PROTOCOL)
    return pickled


def _is_plain(value: object) -> bool:
    """Whether it is of immutable builtins alone, whose text may have such a name in it."""
    return all(map(is_immutable, value)) if type(value) is list else is_immutable(value)


def _name_of(module: Ship) -> str:
    """Return the name of a module to ship, having imported it."""
    name = module if isinstance(module, str) else module.__name__
    try:
        __import__(name)
    except ImportError as error:
        raise BadJob(f"ship={name!r} cannot be imported here: {error}") from error
    if name == "__main__":
        raise BadJob("ship='__main__' is not needed: the script's functions always go by value")
    return name


@contextmanager
def by_value(shipped: Iterable[str]) -> Iterator[None]:
    """Have cloudpickle send these modules, and their submodules, by value meanwhile."""
    with _registering:
        before = cloudpickle.list_registry_pickle_by_value()
        added = [sys.modules[name] for name in shipped if name not in before]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def _is_shipped(name: str, shipped: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in shipped)


def _folders(needed: dict[str, str]) -> tuple[str, ...]:
    """Return the folders of modules, and the script's own, in the order of ``sys.path``."""
    folders = {modules.folder_of(name, path) for name, path in needed.items()}
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    if script and modules.is_users("script", str(Path(script).absolute())):
        spec = getattr(main, "__spec__", None)  # of python -m package.module
        name = spec.name if spec is not None else "script"
        folders.add(modules.folder_of(name, str(Path(script).absolute())))
    order = _search_order(tuple(sys.path), os.getcwd())  # noqa: PTH109 - every submission asks
    return tuple(sorted(folders, key=lambda folder: (order.get(folder, len(order)), folder)))


@lru_cache(maxsize=4)
def _search_order(path: tuple[str, ...], _folder: str) -> dict[str, int]:
    """The place of each folder in ``sys.path``, of which some are relative to this folder."""
    return {str(Path(entry).absolute()): n for n, entry in reversed([*enumerate(path)])}


def _names_in(pickled: bytes) -> tuple[str, ...]:
    """Return the modules that unpickling would import. What is short is looked at once: the same
    functions are submitted again and again."""
    if len(pickled) <= _REMEMBERED_BYTES:
        return _remembered_names_in(pickled)
    return tuple(_names_referred_to(pickled))


@lru_cache(maxsize=512)
def _remembered_names_in(pickled: bytes) -> tuple[str, ...]:
    return tuple(_names_referred_to(pickled))


def _names_referred_to(pickled: bytes) -> Iterator[str]:
    """Yield the modules that unpickling would import, without unpickling.

    Follows just enough of the pickle machine: strings and globals as they are pushed and
    memoized. A module object is ``subimport(name)`` in cloudpickle's terms.
    """
    memo: list[object] = []
    pushed: list[object] = [None, None]
    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "MEMOIZE":
                memo.append(pushed[-1])
            case "BINGET" | "LONG_BINGET":
                pushed.append(memo[argument or 0])
            case "STACK_GLOBAL":
                name = (pushed[-2], pushed[-1])
                pushed.append(name)
                yield str(name[0])
            case "TUPLE1":
                if pushed[-2] == ("cloudpickle.cloudpickle", "subimport"):
                    yield str(pushed[-1])
                pushed.append(None)
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                pushed.append(argument)
            case "PROTO" | "FRAME":
                pass
            case _:
                pushed.append(None)


def _names_imported_in(functions: Functions) -> Iterator[str]:
    """Yield what functions that travel by value import only when they run."""
    seen: set[int] = set()
    waiting: list[object] = list(functions.named().values())
    while waiting:
        function = _plain_function(waiting.pop())
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        yield from modules.imported_by_code(function.__code__)
        if function.__module__ == "__main__":
            used = names_used(function.__code__)
            waiting += [function.__globals__.get(name) for name in used]
        waiting += [cell.cell_contents for cell in function.__closure__ or () if _is_bound(cell)]


def _is_bound(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _plain_function(function: Any) -> FunctionType | None:
    """Return the Python function inside a partial, a method, a decorator or a callable object."""
    for _ in range(20):  # more wrappings than anyone writes; a loop of them ends too
        if isinstance(function, FunctionType):
            return function
        for inner in ("func", "__func__", "__wrapped__"):
            if callable(getattr(function, inner, None)):
                function = getattr(function, inner)
                break
        else:
            method = vars(type(function)).get("__call__")
            return method if isinstance(method, FunctionType) else None
    return None


# ------------------------------------------------------------------------------ at a worker


def load(code: Code, main: ModuleType | None = None) -> Functions:
    """Return the functions, importing what they need. For worker processes, in their main thread.

    The owner's folders that exist here come first on ``sys.path``. ``main`` is the worker's own
    ``__main__``, if it has one to lend: see ``lend_main``. Raises ``ModuleUnavailable``, or its
    subclass ``StaleModule`` where a fresh process would do.
    """
    use_paths(code)
    if any(name not in sys.modules for name in code.modules):
        importlib.invalidate_caches()  # files may have been written since the last import
    for name, digest in code.modules.items():
        _check_module(name, digest)
    try:
        functions = _opened(code.pickled)
    except ModuleNotFoundError as error:
        raise ModuleUnavailable(error.name or "?", f"is not installed here ({error})") from error
    except Exception as error:  # importing a module runs it, and so may raise anything
        where = error.name if isinstance(error, ImportError) else None
        why = f"does not load here: {type(error).__name__}: {error}"
        raise ModuleUnavailable(where or "of the job", why) from error
    assert isinstance(functions, Functions)
    if main is not None:
        lend_main(functions, main)
    return functions


def _opened(pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)
    except ModuleNotFoundError:
        importlib.invalidate_caches()  # it may have been installed a moment ago
        return pickle.loads(pickled)


def use_paths(code: Code) -> None:
    """Put the owner's folders that exist here first on ``sys.path``, in the owner's order.

    Cheap; call it before each task of a process that serves several records.
    """
    if tuple(sys.path[: len(code.paths)]) == code.paths:
        return  # as after the task before; a folder that has gone since is in nobody's way
    here = [path for path in code.paths if os.path.isdir(path)]  # noqa: PTH112 - before every task
    if sys.path[: len(here)] != here:
        sys.path[:] = here + [path for path in sys.path if path not in here]


def lend_main(functions: Functions, main: ModuleType) -> None:
    """Make the script's classes findable in ``main``, so that their objects pickle by name.

    The owner finds its own classes under these names, and so does every worker that loaded the
    same code; without this each value would carry its class. A process that serves several records
    calls it before each task. Never overwrites what ``main`` has of its own.
    """
    lent: dict[str, type] = main.__dict__.setdefault("__lent__", {})
    for name in [name for name, kind in lent.items() if main.__dict__.get(name) is kind]:
        delattr(main, name)
    lent.clear()
    for function in map(_plain_function, functions.named().values()):
        if function is None or function.__module__ != "__main__":
            continue
        for name, kind in function.__globals__.items():
            ours = isinstance(kind, type) and kind.__module__ == "__main__"
            if ours and kind.__qualname__ == name and not hasattr(main, name):
                lent[name] = kind
                setattr(main, name, kind)


def _check_module(name: str, digest: str) -> None:
    """Raise unless the module here, loaded or to be loaded, has this digest."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        if name not in _loaded_digests and file:
            _loaded_digests[name] = modules.digest_of_file(file)
        if _loaded_digests.get(name) != digest:
            raise StaleModule(name, "is loaded here in another version than the owner's")
        return
    spec = modules.find(name, sys.path)
    if spec is None or not spec.has_location or spec.origin is None:
        how = f"Job(..., ship={name!r}), grid submit --ship {name}"
        raise ModuleUnavailable(name, f"is not here; install it, or have it sent: {how}")
    if modules.digest_of_file(spec.origin) != digest:
        raise ModuleUnavailable(name, f"here ({spec.origin}) differs from the owner's")
    _loaded_digests[name] = digest
