"""What ``grid doctor`` finds on one host, and what it makes of answers."""

import os
import resource
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from grid.messages import Address, Reign
from peers.candidates import Candidates
from peers.cli.doctor import show
from peers.cli.examination import (
    Finding,
    examine_folders,
    examine_key,
    examine_limits,
    examine_names,
    examine_ports,
    examine_variables,
)
from peers.cli.reachability import _judge, _way_back, dials
from peers.configuration import Configuration, configure
from peers.keys import new_key_file
from peers.transport import DialFailed, FailureKind
from tests.unit.cores import welcome

HERE = Address("192.0.2.1", 11235)


def configured(tmp_path: Path, **given: Any) -> Configuration:
    return configure(
        {"spool": str(tmp_path / "spool"), "journal": str(tmp_path / "j"), **given}, {}
    )


def test_a_misspelt_variable_is_told_and_those_of_others_are_not() -> None:
    found = list(examine_variables({"GRID_PROT": "1", "GRID_PORT": "1", "GRID_ENGINE_ROOT": "x"}))
    assert [finding.found for finding in found] == [
        "GRID_PROT is set, and nobody reads it; did you mean 'GRID_PORT'?"
    ]


def test_a_key_that_others_may_read_or_replace_is_bad_and_the_fix_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(0o700)
    path = new_key_file(folder / "key")
    meant = configured(tmp_path, key_file=str(path))
    finding, key = examine_key(meant)
    assert finding.verdict == "ok"
    assert key is not None
    assert key.reveal() not in finding.found
    path.chmod(0o644)
    finding, key = examine_key(meant)
    assert (finding.verdict, finding.fix, key) == ("bad", f"`chmod 600 {path}`", None)
    path.chmod(0o600)
    folder.chmod(0o777)
    finding, _ = examine_key(meant)
    assert (finding.verdict, finding.fix) == ("bad", f"chmod go-w {folder}")


def test_a_missing_or_weak_key_is_told(tmp_path: Path) -> None:
    finding, _ = examine_key(configured(tmp_path, key_file=str(tmp_path / "none")))
    assert finding.verdict == "bad"
    finding, _ = examine_key(configured(tmp_path, password="short"))
    assert finding.verdict == "warn"
    finding, _ = examine_key(configured(tmp_path, hosts="node1,node2", password="short"))
    assert finding.verdict == "bad"
    assert "short" not in finding.found.replace("is shorter than", "")


def test_names_that_mean_nothing_and_a_host_that_is_not_listed(tmp_path: Path) -> None:
    meant = configured(tmp_path, hosts="node1,node2")
    found = Candidates((HERE,), (), ("nobody knows the host node2 (no such name)",))
    verdicts = [(finding.verdict, finding.found) for finding in examine_names(meant, found)]
    assert verdicts[0] == ("bad", "nobody knows the host node2 (no such name)")
    assert verdicts[1] == ("ok", "hosts are 192.0.2.1")
    assert verdicts[2][0] == "warn"
    [finding] = examine_names(configured(tmp_path), Candidates((HERE,), (HERE,), ()))
    assert finding.verdict == "ok"


def test_ports_kept_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine_ports(configured(tmp_path))[0].verdict == "ok"

    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", refuse)
    findings = examine_ports(configured(tmp_path, port_span=2))
    assert [finding.verdict for finding in findings] == ["bad", "bad"]


def test_folders_without_room_or_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [finding.verdict for finding in examine_folders(configured(tmp_path))] == ["ok", "ok"]
    (tmp_path / "j").write_text("a file")
    assert [f.verdict for f in examine_folders(configured(tmp_path))] == ["ok", "bad"]
    usage = shutil.disk_usage(tmp_path)
    for free, verdict in ((500 << 20, "warn"), (1 << 20, "bad")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        spool = examine_folders(configured(tmp_path))[0]
        assert (spool.verdict, "--spool" in spool.fix) == (verdict, True)


def test_a_spool_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = configured(tmp_path)
    (tmp_path / "spool").mkdir()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert examine_folders(meant)[0].found.endswith("belongs to somebody else")


def test_few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert examine_limits().verdict == "warn"


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("refused", "ok"),
        ("silent", "warn"),
        ("unreachable", "warn"),
        ("wrong_key", "bad"),
        ("stranger", "bad"),
        ("refusal", "bad"),
    ],
)
def test_every_way_not_to_answer_has_a_verdict(
    tmp_path: Path, kind: FailureKind, verdict: str
) -> None:
    finding = _judge(configured(tmp_path), HERE, DialFailed(kind, f"{HERE}: some reason"))
    assert finding.verdict == verdict
    assert bool(finding.fix) == (verdict != "ok")
    assert str(HERE) in finding.found


def test_who_answers_is_named(tmp_path: Path) -> None:
    finding = _judge(configured(tmp_path), HERE, welcome("p1", Reign(2, "x")))
    assert (finding.verdict, finding.found) == ("ok", f"{HERE}: p1 answers and serves")


def test_the_way_back_is_dialled_and_judged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = Address("127.0.0.1", server.getsockname()[1])
        assert dials(mine.host, mine.port) == ""
    why = dials(mine.host, mine.port)
    assert "refused" in why
    finding = _way_back("p1", why, mine)
    assert (finding.verdict, "--advertise" in finding.fix) == ("warn", True)
    assert _way_back("p1", "", mine).verdict == "ok"


def test_a_finding_is_shown_with_its_fix_below(capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(width=100), Finding("key", "bad", "it is [open]", "close it"))
    assert capsys.readouterr().out == "bad  key       it is [open]\n               fix: close it\n"
