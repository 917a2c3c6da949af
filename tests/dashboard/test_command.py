"""``grid dashboard``, given what it cannot do: one clear error, before any grid is looked for."""

import socket
import sys
from pathlib import Path

import pytest

from peers.cli.main import main
from tests.live.harness import port_of


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["dashboard", *arguments])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("grid dashboard: ")
    assert "Traceback" not in shown.err
    return code, shown.err


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["dashboard", "--help"])
    told = capsys.readouterr().out
    assert "\n  grid dashboard --web-port 0 " in told
    assert "--json" in told
    assert max(map(len, told.splitlines())) <= 90


def test_no_port(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "--web-port", "70000")
    assert code == 2
    assert "--web-port 70000 is no port" in said


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(capsys, "--web-port", str(port_of(taken)))
    assert code == 2
    assert "is another dashboard there? --web-port 0" in said


def test_an_address_of_somebody_else(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "--web-address", "203.0.113.7")
    assert code == 2
    assert "cannot listen on 203.0.113.7" in said


def test_a_token_that_could_be_guessed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("short\n")
    file.chmod(0o600)
    assert "at least 16" in refused(capsys, "--token-file", str(file))[1]
    file.write_text("with a space in the middle of it\n")
    assert "at least 16" in refused(capsys, "--token-file", str(file))[1]
    file.chmod(0o644)
    assert "chmod 600" in refused(capsys, "--token-file", str(file))[1]


def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "peers.dashboard.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, said = refused(capsys)
    assert code == 1
    assert "pip install 'peergrid[dashboard]'" in said
