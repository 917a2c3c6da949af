"""``grid dashboard`` as a process of a ``Site``."""

import json
import os
import sys

from tests.live.harness import Process, Site


def dashboard(site: Site, *arguments: str) -> tuple[Process, str, int]:
    """Start it on any free port; return the process, the address with the token, and the port."""
    command = [sys.executable, "-W", "error", "-m", "peers", "dashboard", "--json"]
    command += ["--web-port", "0", *arguments]
    process = Process(site, "dashboard", command, cwd=site.folder, env=dict(os.environ))
    site.processes.append(process)
    told = json.loads("{" + process.said("{"))
    return process, told["url"], told["port"]
