"""P4 when peers leave well: drained, restarted one after another, and told to by `grid drain`."""

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from grid.job import Job
from tests.live.harness import Process, Site, until
from tests.live.jobs import GATE, total, trace_at_gate, trace_slowly

pytestmark = pytest.mark.live

ITEMS = 1200
"""A quarter of a minute of work, unless the test says that it has seen enough of it."""

DRAINED = """
import sys
from peers import Peer
peer = Peer(slots=1, {arguments})
print("joined", flush=True)
sys.stdin.read()
print("well" if peer.drain() else "in haste", flush=True)
"""
"""A script that drains its peer when its standard input is closed."""


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    return folder


def traced_job(folder: Path) -> Job:
    return Job([str(folder)] * ITEMS, trace_slowly, reducefn=total)


def mapped(folder: Path) -> list[int]:
    """Every item once for each time it was mapped."""
    return sorted(int(path.name.partition("-")[0]) for path in folder.glob("*-*"))


def begin(site: Site, name: str, **settings: Any) -> Process:
    given = ", ".join(f"{key}={value!r}" for key, value in {"name": name, **settings}.items())
    return site.run(name, DRAINED.format(arguments=given))


def command(site: Site, *arguments: str) -> Process:
    line = [sys.executable, "-W", "error", "-m", "peers", *arguments]
    process = Process(site, f"grid{len(site.processes)}", line, cwd=site.folder)
    site.processes.append(process)
    return process


@pytest.mark.parametrize("apart", [False, True], ids=["one host", "apart"])
def test_all_are_restarted_one_by_one_and_nothing_is_done_twice(
    site: Site, traces: Path, apart: bool
) -> None:
    """On one host a neighbour adopts the outputs; with spools apart they have to be passed on."""

    def spool(name: str) -> dict[str, str]:
        return {"spool": str(site.spool / name)} if apart else {}

    first = []
    for number in range(2):
        first.append(begin(site, f"first{number}", **spool(f"first{number}")))
        first[-1].said("joined")
    owner = site.here("owner", **spool("owner"))
    assert owner.server == "first0", "the server is restarted too"
    txn = owner.submit(traced_job(traces))
    for number, process in enumerate(first):
        until("more is mapped", lambda: len(mapped(traces)) >= 10 * (number + 1))  # noqa: B023
        assert not txn.done(), "it has to be under way while they are restarted"
        process.leave()
        assert process.ended().split() == ["joined", "well"]
        begin(site, f"second{number}", **spool(f"second{number}"))
    (traces / GATE).touch()
    assert txn.result(60) == {"items": ITEMS}
    assert mapped(traces) == list(range(ITEMS)), "every item was mapped, and none twice"
    assert txn.progress.executed_again == 0


def test_a_peer_is_drained_by_name_and_it_is_said_how(site: Site, traces: Path) -> None:
    begin(site, "stays", spool=str(site.spool / "stays")).said("joined")
    leaver = command(site, "up", "--name", "goes", "--slots", "1")
    leaver.said("goes follows stays")
    owner = site.here("owner", spool=str(site.spool / "owner"))
    txn = owner.submit(traced_job(traces))
    until("it is under way", lambda: len(mapped(traces)) >= 20)
    (told,) = json.loads(command(site, "drain", "goes", "--json").ended())
    assert "leaves: `grid drain`" in leaver.ended()
    assert (told["name"], told["left"], told["well"]) == ("goes", True, True)
    assert told["passed_on"] > 0
    (traces / GATE).touch()
    assert txn.result(60) == {"items": ITEMS}
    assert mapped(traces) == list(range(ITEMS))


def test_what_cannot_be_drained_is_told_and_sigterm_drains(site: Site) -> None:
    stays = command(site, "up", "--name", "stays")
    stays.said("stays serves")
    for arguments, text, code in (
        (("nobody",), "no peer is called 'nobody'", 1),
        ((), "say which of stays (", 2),
        (("--all",), "`grid down`", 2),
    ):
        process = command(site, "drain", *arguments)
        assert process.process.wait(60) == code
        assert text in process.err
    stays.process.send_signal(signal.SIGTERM)
    assert "leaves: SIGTERM" in stays.ended()


def test_a_peer_has_so_long_and_a_second_close_ends_the_waiting(site: Site, traces: Path) -> None:
    """A task is under way that does not end: to leave without it is not to leave well."""
    owner = site.here("owner", slots=1)
    leaver = site.here("leaver", slots=1)
    txn = owner.submit(Job([str(traces)] * 2, trace_at_gate, reducefn=total))
    until("both are at work", lambda: mapped(traces) == [0, 1])
    assert not leaver.drain(0.3)
    other = site.here("other", slots=1)
    until("another is at work", lambda: len(mapped(traces)) == 3)
    with ThreadPoolExecutor() as pool:
        well = pool.submit(other.drain, 60.0)
        until("it is leaving", lambda: any(m.leaving for m in owner.status().members))
        other.close()
        assert not well.result(60)
    (traces / GATE).touch()
    assert txn.result(60) == {"items": 2}
