"""The examples, run as their readers run them: alone, in several terminals, and killed."""

import re
import sys

import pytest

from tests.live.harness import TOP, Process, Site, until

pytestmark = pytest.mark.live

COUNTED = re.compile(r"(\d+) words, .* result (\w+); (\d+) finished tasks executed again")


def example(site: Site, script: str, *arguments: str) -> Process:
    """Run a copy of an example, in a terminal of its own as it were."""
    name = f"copy{len(site.processes)}"
    command = [sys.executable, "-W", "error", str(TOP / "examples" / script), *arguments]
    process = Process(site, name, command, cwd=site.folder)
    site.processes.append(process)
    return process


def counted(process: Process) -> tuple[str, str]:
    """What a copy of masterless.py said in the end: the result, and what was executed again."""
    found = COUNTED.search(process.ended(90.0))
    assert found, process.out
    return f"{found[1]} {found[2]}", found[3]


def test_humpty_alone_and_together(site: Site) -> None:
    alone = example(site, "humpty.py").ended()
    assert "2 all\n" in alone
    assert "4 humpty\n" not in alone
    assert "3 humpty\n" in alone
    together = [example(site, "humpty.py") for _ in range(3)]
    assert [copy.ended() for copy in together] == [alone] * 3
    assert not any(copy.err for copy in together)


def test_five_copies_count_once_and_agree(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SLOTS", "1")
    text = str(TOP / "grid" / "*.py")
    copies = [example(site, "masterless.py", text) for _ in range(5)]
    outcomes = {counted(copy) for copy in copies}
    assert len(outcomes) == 1
    assert next(iter(outcomes))[1] == "0"


@pytest.mark.timeout(300)  # a busy machine needs a minute for so many words
def test_killing_the_server_costs_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the script over the standard library; the one that serves is killed at work."""
    monkeypatch.setenv("GRID_SLOTS", "1")
    for _ in range(3):  # on a busy machine the job may be over before the kill
        copies = [example(site, "masterless.py") for _ in range(3)]

        def at_work(copies: list[Process] = copies) -> list[Process]:
            return [copy for copy in copies if "map" in copy.out and "this process" in copy.out]

        victim = until("one serves and works", at_work)[0]
        victim.kill()
        survivors = [copy for copy in copies if copy is not victim]
        outcomes = {counted(copy) for copy in survivors}
        assert len(outcomes) == 1
        assert next(iter(outcomes))[1] == "0"
        if all("term 2" in copy.out for copy in survivors):
            return
    raise AssertionError("the server was never killed before the end of the job")


def test_a_latecomer_gets_the_finished_result_at_once(site: Site) -> None:
    text = str(TOP / "grid" / "*.py")
    first = example(site, "masterless.py", "--stay", text)
    until("the first has its result", lambda: COUNTED.search(first.out))
    late = example(site, "masterless.py", text)
    result = counted(late)[0]
    assert result == "{} {}".format(*COUNTED.search(first.out).groups()[:2])  # type: ignore[union-attr]
    assert "peers at work" not in late.out  # it waited for no work
    first.process.send_signal(2)
    assert first.process.wait(60) == 130
    assert first.err == ""
