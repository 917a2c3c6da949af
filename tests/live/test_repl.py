"""``grid repl`` as its users run it: piped, on a terminal, several at once, while servers die."""

import signal
import sys
from collections.abc import Iterator

import pytest

from tests.live.harness import Process, Site, until
from tests.live.terminal import Terminal
from tests.live.test_cli import end_peers, ends, grid, up

pytestmark = pytest.mark.live

TEXT = "the king's men and the queen's men"


@pytest.fixture
def texts(site: Site) -> Iterator[Site]:
    (site.folder / "one.txt").write_text(TEXT)
    (site.folder / "two.txt").write_text("THE end")
    yield site
    end_peers(site)


def shows(process: Process, text: str) -> None:
    until(f"{process.name} shows {text!r}", lambda: text in process.out)


def session(site: Site, *lines: str) -> Process:
    """A REPL whose input is these lines, and ends then."""
    process = grid(site, "repl", "--top", "2")
    for line in lines:
        process.tell(line)
    process.leave()
    return process


def answers(process: Process) -> list[list[str]]:
    """What was printed after each line, without how long it took."""
    parts = ends(process).split("GLOB> ")
    return [[line.rpartition(",")[0] or line for line in part.splitlines()] for part in parts[1:]]


def test_a_glob_counts_words(texts: Site) -> None:
    up(texts, "peer")
    process = session(texts, "*.txt", "@*.txt", "one.txt")
    both = ["        3 the", "        2 men", "11 words, 7 different, in 2 files"]
    one = ["        2 men", "        2 s", "9 words, 6 different, in 1 file"]
    assert answers(process) == [["*.txt", *both], ["@*.txt", *both], ["one.txt", *one], [""]]
    assert process.err == ""


def test_an_empty_line_shows_every_peer(texts: Site) -> None:
    up(texts, "first")
    up(texts, "second", slots=2)
    up(texts, "idle", slots=0)
    process = session(texts, "")
    rows: dict[str, list[str]] = {}
    for line in ends(process).splitlines():
        name, *cells = line.split() or [""]
        rows.setdefault(name, cells)
    python = "{}.{}.{}".format(*sys.version_info)
    assert (rows["first"][0], rows["first"][4]) == ("serves", python)
    assert (rows["second"][0], rows["second"][1], rows["second"][4]) == ("standby", "2", python)
    assert rows["idle"][4] == "-"  # it has no slot to ask it in
    assert process.err == ""


FUNCTIONS = """
def words(path, text):
    for word in text.split():
        yield word, 1

def lengths(path, text):
    yield len(text), text.split()[-1]

def most(key, values):
    return max(values)
"""


def test_functions_of_a_module_are_mapped_and_reduced(texts: Site) -> None:
    (texts.folder / "mine.py").write_text(FUNCTIONS)
    up(texts, "peer")
    lines = ("mine:words one.txt", "mine:words mine:most *.txt", "mine:lengths one.txt")
    process = session(texts, ":jobs", *lines)
    jobs, words, most, lengths, _ = answers(process)
    assert jobs == [":jobs", "no transactions"]
    assert sorted(words[1:3]) == ["        2 men", "        2 the"]
    assert words[3:] == ["5 keys, in 1 file"]
    assert most[1].startswith("        1 ")
    assert most[-1] == "7 keys, in 2 files"
    assert lengths == ["mine:lengths one.txt", "34\t['men']", "1 key, in 1 file"]
    assert process.err == ""
    wrong = session(texts, "mine:nothing one.txt", "mine:words", ":jbos")
    ends(wrong, 1)
    assert [line.partition(";")[0] for line in wrong.err.splitlines()] == [
        "the module mine has no 'nothing'",
        "'mine:words' names no files",
        "':jbos' is no command",
    ]


def test_a_line_that_cannot_be_answered_is_told_and_the_next_is_asked_for(texts: Site) -> None:
    up(texts, "peer")
    process = session(texts, "three.txt", "one.txt")
    assert "9 words" in ends(process, 1), "a script can tell that something had no answer"
    assert "three.txt is not a file here" in process.err
    assert process.err.count("\n") == 1


def test_no_grid_is_said(texts: Site) -> None:
    process = session(texts, "one.txt")
    assert ends(process, 1) == ""
    assert process.err.startswith("grid repl: no grid named 'grid' answers")
    wrong = grid(texts, "repl", "--top", "-1")
    ends(wrong, 2)
    assert "--top -1" in wrong.err


def test_several_at_once_and_the_server_is_killed_while_they_wait(texts: Site) -> None:
    first = up(texts, "first")
    repls = [grid(texts, "repl") for _ in range(2)]
    for repl in repls:
        repl.tell("one.txt")
        shows(repl, "9 words")
    second = up(texts, "second")
    first.freeze()  # nothing is answered from here on
    for repl in repls:
        repl.tell("two.txt")
        shows(repl, "GLOB> two.txt\n")
    first.kill()
    second.said("second serves now")
    for repl in repls:
        shows(repl, "2 words, 2 different, in 1 file")
        repl.leave()
        ends(repl)
    assert not any(repl.err for repl in repls)


@pytest.fixture
def terminal(texts: Site) -> Iterator[Terminal]:
    up(texts, "peer")
    terminal = Terminal(texts, "repl")
    yield terminal
    terminal.close()


def test_ctrl_c_withdraws_the_job_and_gives_the_prompt_back(
    texts: Site, terminal: Terminal
) -> None:
    peer = texts.named("peer")
    terminal.shows("GLOB> ")
    peer.freeze()
    terminal.types(b"one.txt\n")
    terminal.shows("map")  # the bars: from here on it is the job that is waited for
    terminal.types(b"\x03")
    terminal.shows("cancelled")
    terminal.shows("GLOB> ")
    peer.thaw()
    terminal.types(b"two.txt\n")
    terminal.shows("2 words, 2 different, in 1 file")
    terminal.shows("GLOB> ")
    terminal.types(b"\x04")
    ends(terminal.process)


def test_ctrl_c_at_the_prompt_leaves(terminal: Terminal) -> None:
    terminal.shows("GLOB> ")
    terminal.types(b"\x03")
    ends(terminal.process, 128 + signal.SIGINT)


def test_a_terminal_has_a_history_and_completes(texts: Site, terminal: Terminal) -> None:
    pytest.importorskip("readline")
    terminal.shows("GLOB> ")
    terminal.types(b"one.txt\n")
    terminal.shows("9 words")
    terminal.shows("GLOB> ")
    terminal.types(b"\x1b[A\n")  # the line before, again
    terminal.shows("9 words")
    terminal.shows("GLOB> ")
    terminal.types(b":qu\t\n")
    ends(terminal.process)
    again = Terminal(texts, "repl")
    try:
        again.shows("GLOB> ")
        again.types(b"\x1b[A\x1b[A")
        again.shows("one.txt")
        again.types(b"\x03")
        ends(again.process, 128 + signal.SIGINT)
    finally:
        again.close()
