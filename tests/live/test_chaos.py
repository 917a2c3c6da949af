"""Peers that are killed, frozen and cut off on request, and ``grid chaos`` itself."""

import json
import signal
from pathlib import Path

import pytest

from peers import Peer, PeerStatus
from tests.live.harness import Site, alive, until
from tests.live.test_cli import ends, grid, up

pytestmark = pytest.mark.live

QUICK = {"GRID_SILENCE_SECONDS": "1.5", "GRID_HEARTBEAT_SECONDS": "0.3"}


@pytest.fixture(autouse=True)
def _quick(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent server is given up sooner, so that tests are short."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def told(peer: Peer) -> PeerStatus | None:
    try:
        return peer.status(1.0)
    except TimeoutError:
        return None


def followed(peer: Peer) -> str:
    """Whom this peer sees serve, if anyone answers."""
    status = told(peer)
    return "" if status is None else status.server


def names(peer: Peer) -> list[str]:
    status = told(peer)
    return [] if status is None else [member.name for member in status.members]


def test_chaos_tells_what_kill_freeze_and_cut_of_the_server_cost(site: Site) -> None:
    peers = [up(site, name) for name in ("first", "second", "third")]
    command = ["chaos", "grid", "--yes", "--times", "3", "--every", "1", "--json"]
    command += ["--faults", "kill,freeze,cut", "--lasting", "3", "--seed", "48"]
    process = grid(site, *command)
    code = process.process.wait(120)
    *faults, summary = [json.loads(line) for line in process.out.splitlines()]
    assert code == 0, (process.out, process.err)
    assert sorted(fault["fault"] for fault in faults) == ["cut", "freeze", "kill"]
    for fault in faults:
        assert fault["whole_seconds"] > 0
        (failover,) = fault["failovers"]
        assert failover["how"] == ("silent" if fault["fault"] == "freeze" else "closed")
        assert 0 < failover["server_seconds"] <= failover["task_seconds"] < 20
    assert sum(not alive(each.pid) for each in peers) == 1
    assert (summary["lost"], summary["doubled"], summary["wrong"]) == (0, 0, 0)
    assert summary["jobs"] > 3
    assert (summary["peers_left"], summary["good"]) == (2, True)
    shown = ends(grid(site, "status"))
    assert "server lost (closed): next server" in shown
    ends(grid(site, "down"))


def test_nothing_is_done_unasked_or_to_who_does_not_allow_it(site: Site) -> None:
    first = up(site, "first", "--no-chaos")
    process = grid(site, "chaos", "grid", "--yes")
    assert ends(process, 1) == ""
    assert "no peer of the grid 'grid' allows it" in process.err
    second = up(site, "second")
    process = grid(site, "chaos", "grid")
    assert ends(process, 2) == ""
    assert "--yes says so" in process.err
    process = grid(site, "chaos", "grid", "--yes", "--faults", "kill,freeze,cut")
    assert ends(process, 1) == ""
    assert "none of the faults can be done" in process.err, "the server does not allow it"
    visitor = site.here("visitor", serves=False)
    modest = {member.name: member.peer for member in visitor.status().members}["first"]
    for kind in ("kill", "freeze", "cut"):
        visitor.ask_fault(modest, kind, 5.0)
    assert visitor.status().server == "first", "it answers what came after"
    assert state_of(first.pid) in "SR"
    assert names(visitor) == ["first", "second", "visitor"]
    for each in (first, second):
        each.process.send_signal(signal.SIGINT)
        each.ended()


def test_a_killed_peer_is_started_again(site: Site) -> None:
    for name in ("first", "second", "third"):
        up(site, name)
    command = ["chaos", "grid", "--yes", "--times", "1", "--every", "0", "--restart"]
    process = grid(site, *command, "--faults", "kill-peer", "--seed", "1")
    assert "all right" in ends(process)
    assert "nothing lost, doubled or wrong" in process.out
    assert "3 peers left" in process.out
    assert ends(grid(site, "down")) == "3 peers left, none remains\n"
    until("all are gone", lambda: not site.marked())


def test_a_peer_that_is_cut_off_serves_nobody_and_comes_back(site: Site) -> None:
    """In its own program, since that allows it; what it does for itself goes on."""
    visitor = Peer(name="visitor", slots=0, serves=False, start=False)
    site.peers.append(visitor)
    first = site.here("first", chaos=True, slots=0)
    site.start("second")
    term = visitor.status().term
    visitor.ask_fault(first.id, "cut", 3.0)
    until("another serves", lambda: followed(visitor) == "second")
    assert "first" not in names(visitor)
    assert first.server == "first", "cut off, it knows of no other server"
    until("it is back", lambda: "first" in names(visitor))
    assert visitor.status().term > term
    assert (first.serving, first.server) == (False, "second")


def test_a_peer_that_is_frozen_wakes_and_one_killed_does_not(site: Site) -> None:
    visitor = site.here("visitor")
    brave = site.start("brave", chaos=True)
    (victim,) = [member for member in visitor.status().members if member.name == "brave"]
    assert victim.chaos
    visitor.ask_fault(victim.peer, "freeze", 0.5)
    until("it is frozen", lambda: state_of(brave.pid) == "T")
    until("it goes on", lambda: state_of(brave.pid) != "T")
    until("its helper is gone", lambda: not wakers(brave.pid))
    until("it is a member", lambda: "brave" in names(visitor))
    visitor.ask_fault(victim.peer, "kill")
    assert brave.process.wait(60) == -signal.SIGKILL
    until("it is missed", lambda: "brave" not in names(visitor))


def wakers(pid: int) -> list[int]:
    """The helpers that would wake a frozen process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, command in commands.items() if b"SIGCONT" in command]
