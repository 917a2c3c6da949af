"""``grid doctor`` on a network where not everybody reaches everybody."""

import json
from typing import Any

from tests.hosts.grids import start
from tests.hosts.network import PORT, Host, Network

DOCTOR = "import sys; from peers.cli.main import main; sys.exit(main(['doctor', *sys.argv[1:]]))"


def doctor(host: Host, *arguments: str) -> list[dict[str, Any]]:
    """What it finds on this host, whatever its exit status."""
    process = host.run("doctor", DOCTOR, "--json", *arguments)
    process.process.wait(60)
    assert process.err == ""
    findings: list[dict[str, Any]] = json.loads(process.out)
    return findings


def said(findings: list[dict[str, Any]], check: str, verdict: str) -> list[str]:
    return [f["found"] for f in findings if (f["check"], f["verdict"]) == (check, verdict)]


def test_ways_that_are_closed_are_found_both_there_and_back(network: Network) -> None:
    """One peer has its data port closed, and the doctor's own host can only dial out."""
    hosts = network.hosts(4)
    network.only_open(hosts[1], PORT)
    network.only_open(hosts[2])
    start(hosts[:2], "h1,h2", slots=1)
    hosts[3].die()
    findings = doctor(hosts[2], "--hosts", "h1,h2,h3,h4")
    assert said(findings, "hosts", "ok")[0].endswith("one answers and serves")
    assert any(hosts[3].address in found for found in said(findings, "hosts", "warn"))
    [reached] = said(findings, "there", "ok")
    assert reached.startswith("one is reached at")
    [closed] = said(findings, "there", "warn")
    assert closed.startswith("on-h2 cannot be reached from here")
    back = said(findings, "back", "warn")
    assert sorted(found.split()[0] for found in back) == ["on-h2", "one"]
    assert not [finding for finding in findings if finding["verdict"] == "bad"]
    assert all(finding["fix"] for finding in findings if finding["verdict"] != "ok")
