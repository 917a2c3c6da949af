"""``grid jobs`` as its users run it."""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.live.harness import Site, until
from tests.live.test_cli import JOBS, end_peers, ends, grid, up

pytestmark = pytest.mark.live


@pytest.fixture
def jobs(site: Site) -> Iterator[Site]:
    (site.folder / "jobs.py").write_text(JOBS)
    yield site
    end_peers(site)


def test_jobs_are_shown_while_they_run_and_while_they_are_retained(jobs: Site) -> None:
    site = jobs
    up(site, "peer")
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
    endless.process.send_signal(signal.SIGINT)
    ends(endless, 130)
    until("it is gone", lambda: "for ever" not in ends(grid(site, "jobs")))
    ends(grid(site, "submit", "jobs:job", "--name", "sums"))
    until("it is retained", lambda: "retained" in ends(grid(site, "jobs")))


def test_no_grid_is_said(jobs: Site) -> None:
    process = grid(jobs, "jobs")
    assert ends(process, 1) == ""
    assert process.err.startswith("grid jobs: no grid named 'grid' answers")
