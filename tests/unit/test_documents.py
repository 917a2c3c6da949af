"""The documents say what is there: files, tests, commands and settings exist, examples run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peers.cli.main import _parser
from peers.configuration import _VARIABLES
from scripts import apidocs
from tests.live.harness import port_of, reserve_ports

TOP = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(TOP)) for path in (TOP / "docs").glob("*.md"))
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES]
LINE_MAX = 100
OPTIONAL = {"dask", "distributed", "joblib", "ray", "sklearn"}

_FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_PATH = re.compile(r"(?:grid|peers|tests|examples|scripts|docs|\.ci)/[\w./-]*")


def text_of(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_files_exist(name: str) -> None:
    text = text_of(name)
    paths = [link for link in _LINK.findall(text) if "://" not in link]
    # `tests/simulation` and `grid/plan.py` are paths; `grid/` alone says which package
    paths += [code for code in _CODE.findall(text) if _PATH.fullmatch(code)]
    assert paths or name in PAGES
    folders = (TOP, (TOP / name).parent)
    missing = [path for path in paths if not any((f / path).exists() for f in folders)]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_plain(name: str) -> None:
    text = text_of(name)
    assert not re.search(r"(?<!\w)/(work|root|home|tmp)/", text)  # no machine of ours
    assert "TODO" not in text
    long = [line for line in text.splitlines() if len(line) > LINE_MAX and line[0] != "|"]
    assert [line for line in long if "::" not in line] == []


def test_every_page_is_in_the_index() -> None:
    named = set(_LINK.findall(text_of("docs/README.md")))
    assert {Path(page).name for page in PAGES} - {"README.md"} <= named
    assert "docs/README.md" in _LINK.findall(text_of("README.md"))


def test_the_reference_is_what_the_docstrings_say() -> None:
    """After a change of a public docstring or signature: ``scripts/apidocs``."""
    assert text_of("docs/api.md") == apidocs.page()


def test_every_promise_names_tests_that_exist() -> None:
    text = text_of("ARCHITECTURE.md")
    for number in range(1, 9):
        section = re.search(rf"\*\*P{number} .*?(?=\*\*P|\n## )", text, re.DOTALL)
        assert section, f"P{number}"
        named = _TEST.findall(section[0])
        assert named, f"P{number} names no test"
        for path, function in named:
            tree = ast.parse(text_of(path))
            functions = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
            assert function in functions, f"P{number}: {path}::{function}"


@pytest.mark.parametrize("package", ["grid", "peers"])
def test_the_file_map_is_complete(package: str) -> None:
    text = text_of("ARCHITECTURE.md")
    section = re.search(rf"### `{package}/`.*?(?=\n###|\Z)", text, re.DOTALL)
    assert section
    named = re.findall(r"^\| `([\w/.]+\.py)` \|", section[0], re.MULTILINE)
    folder = TOP / package
    present = [str(path.relative_to(folder)) for path in folder.rglob("*.py")]
    wanted = [path for path in present if Path(path).name not in ("__init__.py", "__main__.py")]
    assert sorted(named) == sorted(wanted)


def test_commands_in_the_documents_exist() -> None:
    actions = _parser()._subparsers
    assert actions is not None
    commands = set(actions._group_actions[0].choices or ())
    named: set[str] = set()
    for name in DOCUMENTS:
        text = text_of(name)
        named |= set(re.findall(r"^    grid (\w+)", text, re.MULTILINE))
        named |= {match[0] for match in re.findall(r"`grid ([a-z]+)( [^`]*)?`", text)}
        for script in re.findall(r"^    (scripts/\w+|python (?:examples/\w+\.py))", text, re.M):
            path = TOP / script.removeprefix("python ")
            assert path.is_file(), script
            assert script.startswith("python") or os.access(path, os.X_OK), script
    assert named == commands


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_variables_in_the_documents_exist(name: str) -> None:
    named = set(re.findall(r"GRID_([A-Z_]+)", text_of(name)))
    assert named <= {name.upper() for name in _VARIABLES} | {"PASSWORD"}


BLOCKS = [
    (name, number, block)
    for name in ("README.md", *PAGES)
    for number, block in enumerate(_FENCE.findall(text_of(name)))
    if not block.startswith("import mincemeat")  # needs a worker beside it: test_mincemeat.py
]


@pytest.mark.parametrize(("name", "number", "block"), BLOCKS)
def test_python_in_the_documents_runs(name: str, number: int, block: str, tmp_path: Path) -> None:
    """Each block, as a script of its own, in a folder with some text, in a grid of its own."""
    for module in OPTIONAL & set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)):
        pytest.importorskip(module, reason="of an extra that is not installed")
    script = tmp_path / "script.py"
    script.write_text(block)
    held = reserve_ports()
    (tmp_path / "some.md").write_text("to be or not to be to")
    environment = {name: value for name, value in os.environ.items() if "GRID_" not in name}
    environment |= {
        "PYTHONPATH": str(TOP),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "GRID_PORT": str(port_of(held[0])),
        "GRID_SPOOL": str(tmp_path / "spool"),
    }
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    for sock in held:
        sock.close()
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = [
        "3 to\n2 be\n",
        "100 of 100 items mapped",
        "[81]\n",
        "[1, 2, 4, 8, 16, 32, 64, 128, 256, 512]\n",
    ]
    assert name != "README.md" or ran.stdout.startswith(shown[number])


def test_the_change_log_has_this_version() -> None:
    version = re.search(r'^version = "(.+)"', text_of("pyproject.toml"), re.MULTILINE)
    assert version
    assert f"## {version[1]}" in text_of("CHANGELOG.md")
