"""History and completion at the prompt of ``grid repl``, where Python has readline.

Completed are commands, files, modules of this folder, and functions of modules. Modules are read
for that and not imported: nobody's code runs because of a key. Lines are kept from one session to
the next in a file of the user's own (``$XDG_STATE_HOME`` or ``~/.local/state``,
``peergrid/repl_history``); where that cannot be, they are not, and nothing is said.
"""

import ast
import glob
import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

HISTORY_LINES = 1000

log = logging.getLogger(__name__)


@contextmanager
def line_editing(commands: Iterable[str]) -> Iterator[None]:
    """Have ``input()`` offer what can be completed, and the lines of earlier sessions."""
    try:
        import readline
    except ImportError:  # a Python without it
        yield
        return
    known = tuple(commands)
    readline.set_completer_delims(" ")
    readline.set_completer(_Completer(readline, known))
    old = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if old else "tab: complete")
    before = _load(readline, history_path())
    try:
        yield
    finally:
        readline.set_completer(None)
        _save(readline, history_path(), before)


class _Completer:
    """What readline asks, for one candidate after the other."""

    def __init__(self, readline: ModuleType, commands: tuple[str, ...]) -> None:
        self._readline = readline
        self._commands = commands
        self._found: list[str] = []

    def __call__(self, _word: str, number: int) -> str | None:
        if number == 0:
            begun = self._readline.get_line_buffer()[: self._readline.get_endidx()]
            self._found = candidates(begun, self._commands)
        return self._found[number] if number < len(self._found) else None


# ------------------------------------------------------------------------------ completion


def candidates(begun: str, commands: tuple[str, ...]) -> list[str]:
    """What the last word of a line may become: ``:command``, ``module:``, ``module:function``, a
    file, or ``@`` and a file."""
    *before, word = begun.split(" ")
    if word.startswith(":") and not before:
        return [command for command in commands if command.startswith(word)]
    if word.startswith("@"):
        return [f"@{path}" for path in _files(word[1:])]
    functions_first = all(":" in one for one in before)
    if ":" in word and functions_first:
        module, _, start = word.partition(":")
        return [f"{module}:{name}" for name in functions_of(module) if name.startswith(start)]
    modules = _modules(word) if functions_first and len(before) < 2 else []
    return [*modules, *_files(word)]


def _files(begun: str) -> list[str]:
    """Files and folders that begin so; hidden ones if a dot was typed."""
    found = sorted(glob.glob(f"{glob.escape(begun)}*"))  # noqa: PTH207 - as it was typed
    return [f"{path}/" if Path(path).is_dir() else path for path in found]


def _modules(begun: str) -> list[str]:
    """Modules of this folder, packages with the dot that follows."""
    parent, dot, _ = begun.rpartition(".")
    found = []
    for path in sorted(Path(*parent.split(".")).glob("*")):
        name = f"{parent}{dot}{path.stem}"
        hidden = path.stem.startswith("_") or not path.stem.isidentifier()
        if hidden or not name.startswith(begun):
            continue
        if path.suffix == ".py":
            found.append(f"{name}:")
        elif (path / "__init__.py").is_file():
            found.append(f"{name}.")
    return found


def functions_of(module: str) -> list[str]:
    """The public functions that a module defines, by its source."""
    source = _source_of(module)
    if source is None:
        return []
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]


def _source_of(module: str) -> Path | None:
    here = Path(*module.split("."))
    for path in (here.with_suffix(".py"), here / "__init__.py"):
        if path.is_file():
            return path
    if not module.isidentifier():
        return None  # a module of a package elsewhere: finding it would import the package
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            return Path(spec.origin)
    return None


# ------------------------------------------------------------------------------ history


def history_path() -> Path:
    """Where lines are kept."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not Path(state).is_absolute():
        state = str(Path(os.environ.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(state) / "peergrid" / "repl_history"


def _load(readline: ModuleType, path: Path) -> int:
    """Read what was kept; return how many lines there are now."""
    try:
        readline.read_history_file(path)
    except OSError as error:
        log.debug("no history: %s", error)
    return int(readline.get_current_history_length())


def _save(readline: ModuleType, path: Path, before: int) -> None:
    """Add what is new: several sessions may end in any order."""
    new = readline.get_current_history_length() - before
    if new <= 0:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        readline.set_history_length(HISTORY_LINES)
        readline.append_history_file(new, path)
    except (OSError, AttributeError) as error:  # libedit cannot append
        log.debug("the history is not kept: %s", error)
