"""``grid top`` and ``grid logs`` as their users run them: watching while servers die."""

import json
from collections.abc import Iterator

import pytest

from tests.live.harness import Process, Site, until
from tests.live.terminal import Terminal
from tests.live.test_cli import JOBS, end_peers, ends, grid, up

pytestmark = pytest.mark.live


def says(process: Process, text: str) -> None:
    """Wait until it has printed this, anywhere."""
    until(f"{process.name} says {text!r}", lambda: text in process.out + process.err)


@pytest.fixture
def jobs(site: Site) -> Iterator[Site]:
    (site.folder / "jobs.py").write_text(JOBS)
    yield site
    end_peers(site)


def test_top_goes_on_while_servers_die_and_its_keys_cancel(jobs: Site) -> None:
    first, second = up(jobs, "first"), up(jobs, "second")
    submitted = grid(jobs, "submit", "jobs:endless", "--name", "forever")
    terminal = Terminal(jobs, "top", "--interval", "0.1")
    try:
        terminal.shows("first serves at")
        terminal.shows("forever")
        first.kill()
        terminal.shows("server lost (closed): next server, term 2, after")
        terminal.types(b"\x1b[B")
        terminal.shows("second serves at")
        terminal.shows(">   forever")
        terminal.types(b"c")
        terminal.shows("cancel forever for everyone? y/n")
        terminal.types(b"y")
        terminal.shows("cancelled")
        ends(submitted, 1)
        second.kill()
        terminal.shows("no server: looking for one for")
        terminal.types(b"q")
        ends(terminal.process)
    finally:
        terminal.close()


def test_top_without_a_terminal_is_one_frame(jobs: Site) -> None:
    up(jobs, "first", slots=2)
    frame = ends(grid(jobs, "top"))
    assert "first serves at 127.0.0.1:" in frame
    assert "MB" in frame, "peers have said how they do"
    assert "q quit" not in frame
    seen = json.loads(ends(grid(jobs, "top", "--json")))
    assert [(peer["name"], peer["busy"]) for peer in seen["peers"]] == [("first", 0)]
    wrong = grid(jobs, "top", "--interval", "0")
    ends(wrong, 2)
    assert "--interval 0" in wrong.err
    assert wrong.err.count("\n") == 1


def test_several_read_along_while_the_server_dies(jobs: Site) -> None:
    first = up(jobs, "first")
    up(jobs, "second")
    submitted = grid(jobs, "submit", "jobs:endless", "--name", "forever")
    says(submitted, "begun")
    readers = [grid(jobs, "logs", "-f", "forever", *more) for more in ((), ("--json",))]
    for reader in readers:
        says(reader, "begun")
    first.kill()
    for reader in readers:
        says(reader, "another server serves now")
    ends(grid(jobs, "cancel", "forever"))
    ends(submitted, 1)
    for reader in readers:
        ends(reader, 1)
        assert reader.err.splitlines()[-1].startswith("grid logs: forever cancelled")
    assert json.loads(readers[1].out.splitlines()[0])["stream"] == "stdout"


def test_logs_of_what_has_ended_and_of_what_is_not_there(jobs: Site) -> None:
    up(jobs, "first")
    ends(grid(jobs, "submit", "jobs:job", "--name", "count"))
    ends(grid(jobs, "submit", "jobs:failing", "--name", "fails"), 1)
    shown = ends(grid(jobs, "logs", "count")).splitlines()
    assert sorted(shown) == sorted(f"[first] mapping {key}" for key in range(30))
    failed = grid(jobs, "logs", "-f", "fails")
    ends(failed, 1)
    assert failed.err == "grid logs: fails failed: ValueError: five in mapfn at key 5\n"
    missing = grid(jobs, "logs", "cuont")
    ends(missing, 1)
    assert "did you mean 'count'?" in missing.err
    assert missing.err.count("\n") == 1
