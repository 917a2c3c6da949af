"""``grid dashboard`` on a real grid: it goes on while the server is killed, and shows it."""

import json
import re
import signal
from pathlib import Path

import pytest

from grid.errors import TaskError, TransactionCancelled
from peers import Job
from tests.dashboard.command import dashboard
from tests.dashboard.rig import MadeUp, Served, Stream
from tests.live.conftest import site  # noqa: F401 - the fixture
from tests.live.gates import held_job
from tests.live.harness import Site

pytestmark = pytest.mark.live


def fails(key: int, value: int) -> None:
    raise ValueError(f"item {key} is bad")


def test_it_sees_the_server_die_and_cancels(site: Site) -> None:  # noqa: F811
    first = site.start("one")
    site.start("two")
    process, url, port = dashboard(site)
    page = Served(port, MadeUp())
    page.enter(url.partition("token=")[2])
    change = page.change_header()
    owner = site.here("owner", serves=False)
    transaction = owner.submit(held_job("mapping", site.folder / "gate", print), name="held")
    with Stream(port, page.cookie) as stream:
        stream.until(lambda s: any(t["ran"] for t in s["transactions"].values()))
        [(record, shown)] = stream.state["transactions"].items()
        assert (shown["name"], shown["state"], shown["owners"]) == ("held", "running", ["owner"])
        assert stream.state["grid"]["server"] == "one"
        stream.until(lambda s: any("memory" in peer for peer in s["peers"].values()))

        first.kill()
        stream.until(lambda s: s["link"]["live"] and s["grid"]["server"] == "two")
        stream.until(lambda s: s["transactions"][record]["state"] == "running")
        term = str(stream.state["grid"]["term"])
        failover = stream.until(lambda s: s["failovers"].get(term))
        assert failover["how"] == "closed"
        assert failover["server"] < 30
        assert "two serves now" in str(stream.state["events"])

        body = json.dumps({"record": record})
        assert page.ask("/cancel", "POST", body, x_grid_dashboard=change).status == 202
        with pytest.raises(TransactionCancelled):
            transaction.result(60)
        stream.until(lambda s: s["transactions"][record]["state"] == "cancelled")

        with pytest.raises(TaskError):
            owner.submit(Job([1], fails), name="bad").result(60)
        stream.until(lambda s: failed(s))
        page.until(
            lambda: "item 0 is bad" in page.ask(f"/transactions/{failed(stream.state)}").body
        )
    numbers = page.ask("/metrics").body
    assert re.search(r'^peergrid_failover_server_seconds\{how="closed"\} 0?\.?\d', numbers, re.M)
    assert record not in numbers
    process.process.send_signal(signal.SIGTERM)
    process.ended()
    assert "Traceback" not in process.err


def failed(state: dict[str, dict[str, dict[str, object]]]) -> str:
    """The record of the transaction that failed; empty if none has."""
    found = (r for r, txn in state["transactions"].items() if txn["state"] == "failed")
    return next(found, "")


def test_a_token_of_ones_own(site: Site, tmp_path: Path) -> None:  # noqa: F811
    site.start("one")
    file = tmp_path / "token"
    file.write_text("my-own-token-of-these-days\n")
    file.chmod(0o600)
    process, url, port = dashboard(site, "--token-file", str(file))
    assert url == f"http://127.0.0.1:{port}/?token=my-own-token-of-these-days"
    page = Served(port, MadeUp())
    assert page.ask("/metrics", authorization="Bearer my-own-token-of-these-days").status == 200
    process.process.send_signal(signal.SIGINT)
    process.ended()
