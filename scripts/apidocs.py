"""The reference of the public names, ``docs/api.md``, made from their docstrings.

Public are the names in ``peers.__all__``, what these return, and the modules that a user's program
imports by name. Nothing is written here that the code does not say.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
from grid.settings import Settings
from peers.executor import GridExecutor

TOP = Path(__file__).parents[1]

WIDTH = 100
INDENT = "    "

HEAD = """\
# Reference

Written by `scripts/apidocs` from the docstrings; do not edit. `help(peers.Peer)` shows the same.
All names are imported from `peers` unless another module is said.
"""

INTERNAL = ("after_fork", "deliver", "reference")
"""Methods that are for other parts of the package."""

FUNCTIONS_OF = ("grid.functions",)
"""Modules whose docstring is the reference of what users write."""


def page() -> str:
    """The whole document."""
    names = [name for name in peers.__all__ if name != "as_completed"]
    public: dict[str, Any] = {name: getattr(peers, name) for name in names}
    classes = [c for c in public.values() if inspect.isclass(c) and not issubclass(c, Exception)]
    functions: list[Any] = [
        peers.as_completed,
        *(f for f in public.values() if inspect.isfunction(f)),
    ]
    errors = [c for c in public.values() if inspect.isclass(c) and issubclass(c, Exception)]
    parts = [HEAD]
    parts += [_class(each) for each in classes]
    parts += ["## `peers.executor`\n", *_executor(GridExecutor)]
    parts += ["## Functions\n", *(_function(each) for each in functions)]
    parts += [_module(name) for name in FUNCTIONS_OF]
    parts += ["## Settings\n", _text(Settings), _fields(Settings)]
    parts += ["## Errors\n", *(_error(each) for each in errors)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _class(each: type) -> str:
    if dataclasses.is_dataclass(each) and _takes_its_fields(each):
        lines = [f"## `{each.__name__}`\n", _text(each), _fields(each)]
    else:
        lines = [f"## `{each.__name__}`\n", _signature(each.__name__, each), _text(each)]
    return "\n".join([*lines, *_members(each)])


def _takes_its_fields(each: type[Any]) -> bool:
    return list(inspect.signature(each).parameters) == [f.name for f in dataclasses.fields(each)]


def _fields(each: type) -> str:
    """The fields of a dataclass, with their defaults and what its source says of them."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
    assert isinstance(tree, ast.ClassDef)
    lines = []
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign):
            continue
        told = after.value if isinstance(after, ast.Expr) else None
        text = inspect.cleandoc(str(told.value)) if isinstance(told, ast.Constant) else ""
        default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
        said = f"`{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{default}`"
        lines.append(textwrap.indent(f"{said}\n{text}".replace("``", "`"), "  ").strip())
    return "".join(f"- {line}\n" for line in lines)


def _executor(each: type) -> list[str]:
    return [f"### `{each.__name__}`\n", _text(each), *_members(each)]


def _members(each: type) -> Iterator[str]:
    """What a class itself defines, in the order of its source."""
    for name, member in vars(each).items():
        if name.startswith("_") or name in INTERNAL:
            continue
        if inspect.isfunction(member):
            yield f"### `{each.__name__}.{name}`\n\n{_signature(name, member)}\n{_text(member)}"
        elif isinstance(member, property):
            yield f"### `{each.__name__}.{name}`\n\n{_text(member)}"


def _function(each: Callable[..., Any]) -> str:
    return f"### `{each.__name__}`\n\n{_signature(each.__name__, each)}\n{_text(each)}"


def _module(name: str) -> str:
    title = f"## What users write: `{name}`\n\n"
    return title + _text(importlib.import_module(name))


def _error(each: type) -> str:
    bases = ", ".join(f"`{base.__name__}`" for base in each.__bases__ if base is not object)
    return f"### `{each.__name__}`\n\nA {bases}.\n\n{_text(each)}"


def _text(thing: Any) -> str:
    """A docstring as Markdown."""
    text = re.sub(r"^=[= ]+=$", "", inspect.getdoc(thing) or "", flags=re.MULTILINE)
    table = re.sub(r"^``(\w+)`` {2,}(.*)$", r"- `\1`: \2", text, flags=re.MULTILINE)
    return table.replace("``", "`") + "\n"


def _signature(name: str, thing: Any) -> str:
    """How it is called, as indented code, over several lines if it is long."""
    signature = inspect.signature(thing)
    kept = [p for p in signature.parameters.values() if p.name != "self"]
    said, keyword_only = [], False
    for parameter in kept:
        if parameter.kind is parameter.VAR_POSITIONAL:
            keyword_only = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            said.append("*")
        said.append(_parameter(parameter))
    returns = signature.return_annotation
    gives = "" if inspect.isclass(thing) else f" -> {_annotation(returns)}"
    whole = f"{INDENT}{name}({', '.join(said)}){gives}"
    if len(whole) <= WIDTH:
        return f"{whole}\n"
    lines = [f"{INDENT}{name}(", *(f"{INDENT * 2}{each}," for each in said), f"{INDENT}){gives}"]
    return "\n".join(lines) + "\n"


def _parameter(parameter: inspect.Parameter) -> str:
    several = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    stars = next((sign for kind, sign in several.items() if kind is parameter.kind), "")
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {_annotation(parameter.annotation)}{default}"


def _annotation(annotation: Any) -> str:
    """A type, without the modules of its parts."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/apidocs", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=TOP / "docs" / "api.md")
    path: Path = parser.parse_args().file
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
