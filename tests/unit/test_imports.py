"""What is loaded at a start, by name: each of these modules costs what people wait for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]

TLS = {"ssl", "cryptography"}
SCREEN = {"rich", "argparse"}
DISK = {"sqlite3"}

STARTS = {
    # Whoever imports a name of ours, to define a job in a module.
    "import peers": {"msgspec", "asyncio", "logging", *TLS, *SCREEN, *DISK},
    "from peers import Job": {"asyncio", "peers.peer", *TLS, *SCREEN, *DISK},
    # The helper of the workers starts before the engine is loaded.
    "from peers import Peer": {"peers.engine", "cryptography", *SCREEN, *DISK},
    "from peers import Peer; import peers.engine": {"rich", "argparse", "peers.cli", "starlette"},
    "import peers.worker_main": {"asyncio", "peers.peer", "tenacity", *TLS, *SCREEN, *DISK},
    # A command loads itself, and only what visits a grid.
    "from peers.cli.main import _parser; _parser(['--help'])": {
        "peers.cli.status",
        "peers.engine",
        "asyncio",
        *TLS,
        *DISK,
    },
    "from peers.cli.main import _parser; _parser(['status'])": {
        "peers.cli.submit",
        "peers.cli.doctor",
        "peers.engine",
        "cryptography",
        *DISK,
    },
}


@pytest.mark.parametrize("start", STARTS)
def test_what_is_not_needed_is_not_loaded(start: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", f"{start}\nimport json, sys; print(json.dumps([*sys.modules]))"],
        cwd=TOP,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert not STARTS[start] & set(json.loads(told))
