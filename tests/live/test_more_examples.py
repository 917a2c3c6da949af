"""The further examples, run as their readers run them: alone, in several terminals, and killed."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.live.harness import TOP, Process, Site, until

pytestmark = pytest.mark.live


def example(site: Site, script: str, *arguments: str) -> Process:
    """Run a copy of an example, in a terminal of its own as it were."""
    name = f"copy{len(site.processes)}"
    command = [sys.executable, "-W", "error", str(TOP / "examples" / script), *arguments]
    process = Process(
        site,
        name,
        command,
        cwd=site.folder,
        env={**os.environ, "GRID_NAME": name, "GRID_SLOTS": "1"},
    )
    site.processes.append(process)
    return process


def says(process: Process, text: str) -> None:
    until(f"{process.name} says {text!r}", lambda: text in process.out)


def interrupted(process: Process) -> None:
    """Ctrl-C: it ends well and says nothing of it."""
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(60) == 130, process.err
    assert process.err == ""


# ------------------------------------------------------------------------------ maponly


def twins(below: int) -> list[tuple[int, int]]:
    """The twin primes, found in the plainest way."""

    def is_prime(n: int) -> bool:
        return n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))

    return [(p, p + 2) for p in range(below) if is_prime(p) and is_prime(p + 2)]


def test_maponly_alone_and_together(site: Site) -> None:
    found = twins(25_000)
    alone = example(site, "maponly.py", "--below", "25000").ended()
    assert alone.splitlines() == [
        f"{len(found)} twin primes below 25000",
        f"first: {' '.join(map(str, found[:5]))}",
        f"last: {found[-1]}",
    ]
    together = [example(site, "maponly.py", "--below", "25000") for _ in range(2)]
    assert [copy.ended() for copy in together] == [alone] * 2
    assert not any(copy.err for copy in together)


def test_maponly_ends_on_ctrl_c(site: Site) -> None:
    copy = example(site, "maponly.py", "--below", "100000000")
    until("it works", lambda: len(site.marked()) > 2)  # itself, the helper, a worker
    interrupted(copy)


# ------------------------------------------------------------------------------ election


def test_election_says_who_serves_and_when_that_changes(site: Site) -> None:
    first = example(site, "election.py")
    says(first, " copy0 serves, term 1\n")
    second, third = example(site, "election.py"), example(site, "election.py")
    for copy in (second, third):
        says(copy, "follows copy0, term 1\n")
    first.kill()
    until(
        "one of the others serves and is followed by the other",
        lambda: sorted(copy.out.count(", term 2\n") for copy in (second, third)) == [1, 1],
    )
    assert sum("serves, term 2\n" in copy.out for copy in (second, third)) == 1
    interrupted(second)
    until("the last serves", lambda: third.out.splitlines()[-1].split(" ", 2)[2][:6] == "serves")
    interrupted(third)


# ------------------------------------------------------------------------------ daemon


def arrive(site: Site, name: str, text: str) -> Path:
    """A file appears in the inbox, at once and whole."""
    written = site.folder / name
    written.write_text(text)
    path = site.folder / "inbox" / name
    written.replace(path)
    return path


def counted(path: Path, text: str) -> bool:
    """Whether the counts of a file are there; they are right, then."""
    counts = path.with_name(f"{path.name}.counts")
    if not counts.exists():
        return False
    lines = [line.split("\t") for line in counts.read_text().splitlines()]
    assert {word: int(count) for count, word in lines} == Counter(text.split())
    return True


def test_daemons_count_what_arrives_whichever_of_them_is_killed(site: Site) -> None:
    daemons = [example(site, "daemon.py") for _ in range(3)]
    for daemon in daemons:
        says(daemon, "watches inbox\n")
    text = "to be or not to be " * 50
    path = arrive(site, "first.txt", text)
    until("the first is counted", lambda: counted(path, text))
    took = [daemon for daemon in daemons if "first.txt: arrived" in daemon.out]
    assert took  # the others looked into the folder when it had its counts already
    for daemon in took:
        says(daemon, "first.txt: 300 words")
    victim = daemons.pop(0)
    victim.kill()
    path = arrive(site, "second.txt", text)
    until("the second is counted", lambda: counted(path, text))
    assert not list((site.folder / "inbox").glob(".*"))
    assert "first.txt" not in "".join(daemon.err for daemon in daemons)
    late = example(site, "daemon.py")
    says(late, "watches inbox\n")
    for daemon in (late, *daemons):
        interrupted(daemon)
    assert "arrived" not in late.out  # what has its counts is no work


# ------------------------------------------------------------------------------ repl


def test_repl_alone_and_with_another_that_is_killed(site: Site) -> None:
    (site.folder / "some.txt").write_text("to be or not to be to")
    first = example(site, "repl.py")
    says(first, "copy0 serves\nGLOB> ")
    second = example(site, "repl.py")
    says(second, "copy0 serves\nGLOB> ")
    first.kill()
    second.tell("*.txt")
    says(second, "\n        3 to\n        2 be\n")
    second.leave()
    assert second.ended().endswith("GLOB> \n")
    assert second.err == ""


def test_repl_ends_on_ctrl_c(site: Site) -> None:
    copy = example(site, "repl.py")
    says(copy, "GLOB> ")
    interrupted(copy)
