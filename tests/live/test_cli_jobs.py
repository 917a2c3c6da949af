"""``grid jobs``, ``grid result`` and ``grid cancel`` as their users run them."""

import json
import re
import signal
from collections.abc import Iterator

import pytest

from grid.errors import GridError
from grid.messages import TransactionStatus
from peers import Peer
from peers.cli.cancel import find
from tests.live.harness import Site, until
from tests.live.test_cli import ANSWER, JOBS, end_peers, ends, grid, up

pytestmark = pytest.mark.live


@pytest.fixture
def jobs(site: Site) -> Iterator[Site]:
    (site.folder / "jobs.py").write_text(JOBS)
    yield site
    end_peers(site)


def states(peer: Peer, name: str) -> list[str]:
    """How the transactions of this name are, without starting a command to ask."""
    return [txn.state for txn in peer.status().transactions if txn.name == name]


def test_jobs_are_shown_while_they_run_and_while_they_are_retained(jobs: Site) -> None:
    site = jobs
    up(site, "peer")
    watcher = site.here("watcher", serves=False)
    assert ends(grid(site, "jobs")) == "no transactions\n"
    assert json.loads(ends(grid(site, "jobs", "--json"))) == []
    endless = grid(site, "submit", "jobs:endless", "--name", "for ever")
    until("it runs", lambda: "begun" in endless.err)
    (shown,) = json.loads(ends(grid(site, "jobs", "--json")))
    assert (shown["name"], shown["state"], shown["maps_total"]) == ("for ever", "running", 4)
    assert [owner[:12] for owner in shown["owners"]] == ["grid-submit-"]
    table = ends(grid(site, "jobs"))
    row = next(line for line in table.splitlines() if "for ever" in line)
    assert row.split()[:5] == [shown["record"][:12], "for", "ever", "running", "0/4"]
    what_has_no_result_is_said(site)
    endless.process.send_signal(signal.SIGINT)
    ends(endless, 130)
    until("it is gone", lambda: not states(watcher, "for ever"))
    ends(grid(site, "submit", "jobs:job", "--name", "sums"))
    until("it is retained", lambda: states(watcher, "sums") == ["retained"])
    assert "retained" in ends(grid(site, "jobs"))


def what_has_no_result_is_said(site: Site) -> None:
    process = grid(site, "result", "sums")
    assert ends(process, 1) == ""
    assert process.err.startswith("grid result: no finished result named 'sums' is kept here")
    assert "`grid jobs` shows" in process.err
    process = grid(site, "result", "forever")
    assert ends(process, 1) == ""
    assert process.err.endswith("did you mean 'for ever'?\n")
    process = grid(site, "result", "for ever")
    assert ends(process, 1) == ""
    assert "'for ever' is not finished yet" in process.err


def held_bytes(peer: Peer) -> list[int]:
    """How much each peer with slots keeps."""
    return [member.held_bytes for member in peer.status().members if member.slots]


def test_a_named_result_is_fetched_by_its_name_alone(jobs: Site) -> None:
    """By whoever asks, also after the server that finished it was killed."""
    site = jobs
    first = up(site, "first")
    second = up(site, "second")
    printed = ends(grid(site, "submit", "jobs:job", "--name", "sums"))
    watcher = site.here("watcher", serves=False)
    until("it is retained", lambda: states(watcher, "sums") == ["retained"])
    (site.folder / "jobs.py").unlink()  # the job is not needed, only its name
    assert ends(grid(site, "result", "sums")) == printed
    until("both keep it", lambda: all(held_bytes(watcher)))
    first.kill()
    second.said("second serves now")
    assert dict(json.loads(ends(grid(site, "result", "sums", "--json")))) == ANSWER
    assert ends(grid(site, "result", "sums", "--output", "sums.txt")) == ""
    assert (site.folder / "sums.txt").read_text() == printed


def test_cancel_ends_a_job_for_everyone(jobs: Site) -> None:
    site = jobs
    up(site, "peer")
    owners = [grid(site, "submit", "jobs:endless", "--name", "for ever") for _ in range(2)]
    watcher = site.here("watcher", serves=False)

    def owned() -> bool:
        return [len(txn.owners) for txn in watcher.status().transactions] == [2]

    until("both own it", owned)
    (shown,) = json.loads(ends(grid(site, "jobs", "--json")))
    assert len(shown["owners"]) == 2
    process = grid(site, "cancel", "for ever")
    assert ends(process) == ""
    assert process.err.startswith("cancelled 'for ever' (")
    for owner in owners:
        assert ends(owner, 1) == ""
        assert "cancelled for everyone" in owner.err
    until("it is gone", lambda: not watcher.status().transactions)
    other = grid(site, "submit", "jobs:endless")
    until("it runs", lambda: "begun" in other.err)
    (shown,) = json.loads(ends(grid(site, "jobs", "--json")))
    ends(grid(site, "cancel", shown["record"][:5]))
    ends(other, 1)


def test_cancel_reaches_the_next_server(jobs: Site) -> None:
    site = jobs
    first, second = up(site, "first"), up(site, "second")
    endless = grid(site, "submit", "jobs:endless")
    until("it runs", lambda: "begun" in endless.err)
    (shown,) = json.loads(ends(grid(site, "jobs", "--json")))
    watcher = site.here("watcher", serves=False)
    first.freeze()
    watcher.end(shown["record"])
    first.kill()
    second.said("second serves now")
    ends(endless, 1)
    assert "cancelled for everyone" in endless.err


@pytest.mark.parametrize(
    ("which", "state", "said"),
    [
        ("words", "running", ""),
        ("3f", "running", ""),
        ("3", "running", "may be any of 'words' (3f), '3a' (3a)"),
        ("3a", "running", ""),
        ("wrods", "running", "did you mean 'words'"),
        ("9", "running", "`grid jobs` shows"),
        ("words", "retained", "'words' (3f) does not run: it is retained"),
    ],
)
def test_what_is_meant_is_found(which: str, state: str, said: str) -> None:
    rows = [("3f", "words"), ("3a", "3a"), ("4", "")]
    transactions = [TransactionStatus(r, n, state, (), 0, 1, 0, 1) for r, n in rows]
    if said:
        with pytest.raises(GridError, match=re.escape(said)):
            find(which, transactions)
    else:
        found = find(which, transactions)
        assert which in (found.name, found.record)


@pytest.mark.parametrize("command", ["jobs", "cancel sums"])
def test_no_grid_is_said(jobs: Site, command: str) -> None:
    process = grid(jobs, *command.split())
    assert ends(process, 1) == ""
    assert process.err.startswith(f"grid {command.split()[0]}: no grid named 'grid' answers")
