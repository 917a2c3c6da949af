"""What the tab key offers at the prompt of ``grid repl``, and the lines that are kept."""

from pathlib import Path

import pytest

from grid.errors import BadJob
from peers.cli import completion
from peers.cli.completion import candidates, functions_of, history_path, line_editing
from peers.cli.loading import load_function
from peers.cli.repl import COMMANDS

MODULE = """
raise SystemExit("nobody may import this")
def words(path, text): ...
async def wait(): ...
def _hidden(): ...
class Words: ...
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "wordcount.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("def top(): ...")
    (tmp_path / "pack" / "inner.py").write_text("def deep(): ...")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        (":", list(COMMANDS)),
        (":j", [":jobs"]),
        ("wo", ["wordcount:", "wordcount.py"]),
        ("wordcount:w", ["wordcount:words", "wordcount:wait"]),
        ("wordcount:words wordcount:wo", ["wordcount:words"]),
        ("wordcount:words bo", ["books/"]),
        ("wordcount:words wordcount:wait wo", ["wordcount.py"]),
        ("books/", ["books/one.txt"]),
        ("@bo", ["@books/"]),
        ("pack.", ["pack.inner:"]),
        ("pack.inner:", ["pack.inner:deep"]),
        ("pack:t", ["pack:top"]),
        ("broken:", []),
        ("nothing:", []),
        ("no.such:", []),
        ("base64:b64d", ["base64:b64decode"]),
        ("books/*.txt :j", []),
    ],
)
def test_a_word_is_completed_by_its_place(begun: str, found: list[str]) -> None:
    assert candidates(begun, COMMANDS) == found


def test_modules_are_read_and_not_run() -> None:
    assert functions_of("wordcount") == ["words", "wait"]


def test_lines_are_kept_from_session_to_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readline = pytest.importorskip("readline")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    readline.clear_history()
    for line in ("first", "second"):
        with line_editing(COMMANDS):
            readline.add_history(line)
        readline.clear_history()
    path = history_path()
    assert path.read_text().split() == ["first", "second"]
    assert path.stat().st_mode & 0o777 == 0o600
    with line_editing(COMMANDS):
        assert readline.get_history_item(2) == "second"
        completer = readline.get_completer()
    readline.clear_history()
    assert isinstance(completer, completion._Completer)
    assert readline.get_completer() is None


def test_a_history_that_cannot_be_kept_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readline = pytest.importorskip("readline")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with line_editing(COMMANDS):
        readline.add_history("line")
    readline.clear_history()


def test_a_function_is_loaded_also_if_it_was_written_meanwhile(folder: Path) -> None:
    module = folder / "fresh_module_of_this_test.py"
    module.write_text("def one(k, v): ...\nfour = 4\n")
    assert load_function(f"{module.stem}:one").__name__ == "one"
    module.write_text("def one(k, v): ...\ndef second(k, v): ...\n")
    assert load_function(f"{module.stem}:second").__name__ == "second"
    for wrong, said in (("third", "functions are: one, second"), ("four", "int, not a function")):
        with pytest.raises(BadJob, match=said):
            load_function(f"{module.stem}:{wrong}")
