"""``scripts/deploy``: what it says is there, and what can run without systemd or Docker runs.

The unit's command is started with the unit's environment, and stopped as systemd stops it. The
Dockerfile and the compose file are read, and held against the command's own parser and settings.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from grid.settings import Settings
from peers import Job
from peers.cli.main import _parser
from peers.configuration import _VARIABLES
from tests.live.harness import TOP, Process, Site, until

pytestmark = pytest.mark.live

DEPLOY = TOP / "scripts" / "deploy"
UNIT = (DEPLOY / "peergrid.service").read_text()
VARIABLES = {f"GRID_{name.upper()}" for name in _VARIABLES}


def said(key: str) -> list[str]:
    """What the unit says of this key."""
    return re.findall(rf"^{key}=(.+)$", UNIT, re.MULTILINE)


def pairs(lines: list[str]) -> dict[str, str]:
    """``NAME=value`` lines, without comments."""
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment_file() -> dict[str, str]:
    return pairs((DEPLOY / "peergrid.env").read_text().splitlines())


def instructions() -> dict[str, list[str]]:
    """The Dockerfile's, by name."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            name, rest = line.split(maxsplit=1)
            found.setdefault(name, []).append(rest)
    return found


def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def slow(key: int, text: str) -> Any:
    import time
    from pathlib import Path

    with Path(text).open("a") as file:
        file.write("began\n")
    time.sleep(0.5)
    yield key, text


def test_the_unit_runs_and_stopping_it_drains(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = said("ExecStart")
    program, *arguments = shlex.split(command)
    assert program.endswith("/bin/grid")
    subprocess.run(
        [sys.executable, "-m", "peers", "key", "--new", "team.key"], check=True, cwd=site.folder
    )
    told = environment_file() | pairs(shlex.split(said("Environment")[0]))
    assert set(told) <= VARIABLES
    told |= {
        "GRID_HOSTS": "127.0.0.1",  # of this machine, not node1
        "GRID_KEY_FILE": str(site.folder / "team.key"),
        "GRID_SPOOL": told["GRID_SPOOL"].replace("%C", str(site.folder)),
        "GRID_JOURNAL": told["GRID_JOURNAL"].replace("%S", str(site.folder / "state")),
        "GRID_PORT": str(site.port),
    }
    unit = Process(
        site,
        "unit",
        [sys.executable, "-W", "error", "-m", "peers", *arguments],
        cwd=site.folder,
        env=os.environ | told,
    )
    site.processes.append(unit)
    until("it is up", lambda: "serves at" in unit.out or unit.process.poll())
    here = site.here(hosts="127.0.0.1", key_file=told["GRID_KEY_FILE"], serves=False)
    began = site.folder / "began"
    transaction = here.submit(Job([str(began)], slow))
    until("its task runs", began.exists)
    unit.process.send_signal(getattr(signal, said("KillSignal")[0]))
    assert "leaves: SIGTERM" in unit.ended()
    assert transaction.result(0.0 if transaction.done() else 20.0) == {0: [str(began)]}
    assert began.read_text() == "began\n"


def test_stopping_takes_longer_than_a_drain() -> None:
    limits = [*said("TimeoutStopSec"), compose()["services"]["peer"]["stop_grace_period"]]
    for seconds in limits:
        assert int(seconds.rstrip("s")) > Settings.drain_seconds + 10
    assert said("KillMode") == ["mixed"]  # else the workers are told as well, and drop their tasks


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "peergrid.service"
    unit.write_text(UNIT.replace("/opt/peergrid/bin/grid", "/bin/true"))
    told = subprocess.run(
        [analyse, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_the_image_has_all_that_is_installed() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    files = [project["project"]["readme"], *project["project"]["license-files"]]
    packages = [
        name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    ]
    copied = [word for line in instructions()["COPY"] for word in line.split()[:-1]]
    assert sorted(copied) == sorted([*files, *packages, "pyproject.toml"])
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(kept)


def test_ports_commands_and_settings_of_the_image_exist() -> None:
    found = instructions()
    ports = range(Settings.port, Settings.port + Settings.port_span)
    assert found["EXPOSE"] == [" ".join(map(str, ports))]
    assert found["ENTRYPOINT"] == ['["grid"]']
    assert set(pairs(found["ENV"][0].split())) <= VARIABLES
    service = compose()["services"]["peer"]
    for command in (yaml.safe_load(found["CMD"][0]), service["command"]):
        assert _parser().parse_args(command).run.__module__ == "peers.cli.up"
    assert set(service["environment"]) <= VARIABLES


def test_the_parts_of_the_compose_file_fit() -> None:
    described = compose()
    ((name, service),) = described["services"].items()
    assert service["environment"]["GRID_HOSTS"] == name  # which stands for all of its containers
    (secret,) = service["secrets"]
    assert service["environment"]["GRID_KEY_FILE"] == f"/run/secrets/{secret}"
    assert secret in described["secrets"]
    build = service["build"]
    assert (DEPLOY / build["context"]).resolve() == TOP.resolve()
    assert (TOP / build["dockerfile"]).is_file()
