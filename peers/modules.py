"""The user's own modules: which they are, where they live, what they import, their digests.

A module is the user's when it has a file that is neither in the standard library, nor in
site-packages, nor part of this package. Such modules are pickled by reference, so a worker has to
have the very same source; its digest says so. Nothing here imports a module to find out.

Bytecode is known by length and whole seconds of its source, so of a module that was changed twice
within a second it may be the older one's. Where the digest promises a version it is not trusted
(``distrust_bytecode``).
"""

import ast
import dis
import hashlib
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType
from typing import Any

OWN = Path(__file__).parent.parent
_OWN_PACKAGES = ("grid", "peers")
_LOADERS: tuple[Any, ...] = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
)
_INSTALLED = ("site-packages", "dist-packages")

_parsing = threading.Lock()
"""Python 3.11 counts the depth of syntax trees once for all threads: two that parse at a time, and
take turns where the collector runs, end in a ``SystemError``."""


def _unlock_in_child() -> None:
    global _parsing
    _parsing = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)


class _FromSource(SourceFileLoader):
    """Compiles the source, and looks for no bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_from_source = FileFinder.path_hook(
    (ExtensionFileLoader, EXTENSION_SUFFIXES), (_FromSource, SOURCE_SUFFIXES)
)


def distrust_bytecode() -> None:
    """Have this process import the user's own modules from their source, from now on."""
    _library_folders()  # sysconfig of Python 3.13 itself imports while half filled
    sys.path_hooks.insert(0, _users_finder)
    sys.path_importer_cache.clear()


def _users_finder(folder: str) -> Any:
    """Find modules in a folder of the user's. Raises ``ImportError``: another hook finds them."""
    if not _is_outside_libraries(Path(folder).name, str(Path(folder).absolute())):
        raise ImportError(f"{folder} is a library's", path=folder)
    return _from_source(folder)


def is_users(name: str, path: str | None) -> bool:
    """Tell whether the module ``name``, whose file is ``path``, is the user's own."""
    top = name.partition(".")[0]
    if path is None or top in sys.stdlib_module_names or top in ("__main__", "__mp_main__"):
        return False
    if not os.path.isfile(path):  # noqa: PTH113 - every submission asks this of several
        return False  # inside a zip, or gone
    return _is_outside_libraries(top, path)


@lru_cache(maxsize=1024)
def _is_outside_libraries(top: str, path: str) -> bool:
    file = Path(path)
    if top in _OWN_PACKAGES and file.is_relative_to(OWN / top):
        return False
    if any(part in _INSTALLED for part in file.parts):
        return False
    return not any(file.is_relative_to(folder) for folder in _library_folders())


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})


def file_of(name: str) -> str | None:
    """Return the file of a module, loaded or not, or None if it has none or is not found."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return str(Path(file).absolute()) if file else None
    spec = find(name, sys.path)
    return str(Path(spec.origin).absolute()) if spec and spec.has_location and spec.origin else None


def find(name: str, path: Iterable[str]) -> ModuleSpec | None:
    """Find a module by its dotted name from ``path``, importing neither it nor its packages."""
    folders = list(path)
    spec = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find_in(".".join(parts[:depth]), folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or ())
    return spec


def _find_in(name: str, folders: Iterable[str]) -> ModuleSpec | None:
    """Find the last part of ``name`` in ``folders``; parts of a namespace package add up."""
    namespace = None
    for folder in folders:
        # A finder of our own sees files made a moment ago, and needs no parent to be imported.
        spec = FileFinder(folder or ".", *_LOADERS).find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None and namespace is None:
            namespace = spec
        elif spec is not None and namespace is not None:
            locations = namespace.submodule_search_locations or []
            locations.extend(spec.submodule_search_locations or [])
    return namespace


def digest_of_file(path: str) -> str:
    """Return the digest of a module's source, line ends aside."""
    return hashlib.sha256(Path(path).read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:32]


def folder_of(name: str, path: str) -> str:
    """Return the folder that has to be on ``sys.path`` for ``name`` to be found in ``path``."""
    file = Path(path)
    above = name.count(".") + (file.stem == "__init__")
    return str(file.parents[above])


def needed(names: Iterable[str]) -> dict[str, str]:
    """Return name -> file of the user's modules among ``names`` and all that these import."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen or not _may_be_users(name):
            continue
        seen.add(name)
        path = file_of(name)
        if path is not None and is_users(name, path):
            found[name] = path
            waiting += imported_by_file(name, path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return dict(sorted(found.items()))


def _may_be_users(name: str) -> bool:
    """Rule out, without a search, all that a loaded or standard package contains."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or is_users(top, file)


def imported_by_file(name: str, path: str) -> tuple[str, ...]:
    """Return the names that the source in ``path`` may import, also inside its functions."""
    if not path.endswith(".py"):
        return ()
    status = os.stat(path)  # noqa: PTH116 - as above
    return _imported_by_source(name, path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _imported_by_source(name: str, path: str, _mtime_ns: int, _size: int) -> tuple[str, ...]:
    """Parse a file once for each of its versions."""
    try:
        with _parsing:
            tree = ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError):
        return ()  # whoever imports it will hear of it
    package = name if Path(path).stem == "__init__" else name.rpartition(".")[0]
    return tuple(_imported_by_tree(tree, package))


def _imported_by_tree(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@lru_cache(maxsize=1024)
def imported_by_code(code: CodeType) -> tuple[str, ...]:
    """Return the names that a function's ``code`` imports when it runs."""
    names = [i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += imported_by_code(constant)
    return tuple(names)


def _absolute(module: str, level: int, package: str) -> str:
    if not level:
        return module
    base = package.split(".")
    kept = ".".join(base[: len(base) - level + 1])
    return f"{kept}.{module}" if module else kept
