"""``grid/`` decides, ``peers/`` acts: what the pure package may not touch, by its source."""

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
MODULES = sorted((TOP / "grid").glob("**/*.py"))

BANNED = {
    "asyncio",
    "concurrent",
    "ctypes",
    "datetime",
    "faulthandler",
    "fcntl",
    "glob",
    "io",
    "logging",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "peers",
    "queue",
    "resource",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "socketserver",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "weakref",
}
"""Everything through which time, chance, other threads or the outside could come in."""

EXCUSED = {
    ("errors.py", "concurrent"): "TransactionCancelled is a concurrent.futures.CancelledError",
}

BANNED_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Every import anywhere in a module: what from, which name, line."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module or ".", alias.name, node.lineno


def test_there_is_something_to_check() -> None:
    names = {path.name for path in MODULES}
    assert {"client_core.py", "server_core.py", "election.py", "plan.py"} <= names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_pure_package_imports_nothing_that_acts(path: Path) -> None:
    found = [
        f"{path.name}:{line} imports {module}"
        for module, _, line in imports(tree(path))
        if (root := module.partition(".")[0]) in BANNED and (path.name, root) not in EXCUSED
    ]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_chance_is_handed_in(path: Path) -> None:
    """Only the class ``random.Random`` may be named, and never made."""
    module = tree(path)
    for source, name, line in imports(module):
        assert source != "random" or name in ("", "Random"), f"{path.name}:{line} random.{name}"
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random":
            assert node.attr == "Random", f"{path.name}:{node.lineno} uses random.{node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("random.Random", "Random"):
            pytest.fail(f"{path.name}:{node.lineno} makes its own chance; take a Random instead")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_pure_package_calls_nothing_that_acts(path: Path) -> None:
    assert all(hasattr(builtins, name) for name in BANNED_CALLS)
    found = [
        f"{path.name}:{node.lineno} calls {node.func.id}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in BANNED_CALLS
    ]
    assert not found


def _is_set(node: ast.expr) -> bool:
    made = isinstance(node, ast.Call) and ast.unparse(node.func) in ("set", "frozenset")
    return made or isinstance(node, ast.Set | ast.SetComp)


def _iterated(module: ast.Module) -> Iterator[ast.expr]:
    """What is gone through in an order that can be seen."""
    for node in ast.walk(module):
        if isinstance(node, ast.For):
            yield node.iter
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp):
            yield from (generator.iter for generator in node.generators)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("tuple", "list", "next"):
            yield from node.args[:1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_set_is_gone_through(path: Path) -> None:
    """The order of a set differs from process to process, so none may reach an effect."""
    module = tree(path)
    sets: dict[str, None] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and _is_set(node.value):
            sets.update((ast.unparse(target), None) for target in node.targets)
        if isinstance(node, ast.AnnAssign):
            kind = ast.unparse(node.annotation)
            if kind.startswith(("set[", "frozenset[")):
                sets[ast.unparse(node.target)] = None
    found = [
        f"{path.name}:{node.lineno} goes through {ast.unparse(node)}"
        for node in _iterated(module)
        if _is_set(node) or ast.unparse(node) in sets
    ]
    assert not found


DISPATCHERS = {
    ("client_core.py", "_on"),
    ("server_core.py", "_on"),
}
"""The functions that must name every event there is. (Those on messages refuse what is left.)"""


@pytest.mark.parametrize(("name", "function"), sorted(DISPATCHERS))
def test_every_event_is_matched_by_name(name: str, function: str) -> None:
    module = tree(TOP / "grid" / name)
    found = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    assert found, f"{name} has no {function}"
    matches = [node for node in ast.walk(found[0]) if isinstance(node, ast.Match)]
    assert matches
    for match in matches:
        assert ast.unparse(match.cases[-1].body[0]).startswith("assert_never("), (
            f"{name}:{match.lineno} ends in a silent catch-all"
        )


def test_the_drivers_name_every_effect() -> None:
    for name in ("client_thread.py", "server_thread.py"):
        source = (TOP / "peers" / name).read_text(encoding="utf-8")
        assert "assert_never(effect)" in source, f"peers/{name} could overlook an effect"
