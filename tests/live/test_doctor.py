"""``grid doctor`` as its users run it: on a grid, with the wrong key, with none."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.live.harness import Site
from tests.live.test_cli import end_peers, ends, grid, up

pytestmark = pytest.mark.live


@pytest.fixture
def peers(site: Site) -> Iterator[Site]:
    yield site
    end_peers(site)


def test_a_grid_that_is_well(peers: Site) -> None:
    up(peers, "first")
    up(peers, "second")
    shown = ends(grid(peers, "doctor"))
    assert "first serves at 127.0.0.1:" in shown
    for name in ("first", "second"):
        assert f"{name} is reached at 127.0.0.1:" in shown
        assert f"{name} reaches this host at 127.0.0.1:" in shown
    assert "0 bad, 0 to think about" in shown


def test_another_key_is_found_out(peers: Site) -> None:
    up(peers, "first")
    other = peers.folder / "other"
    doctor = grid(peers, "doctor", "--json", XDG_CONFIG_HOME=str(other))
    findings = json.loads(ends(doctor, 1))
    [wrong] = [finding for finding in findings if finding["verdict"] == "bad"]
    assert wrong["check"] == "hosts"
    assert "key" in wrong["fix"]
    assert doctor.err == ""


def test_nobody_and_a_program_that_says_nothing(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        doctor = grid(site, "doctor", "--join-timeout", "1", "--hosts", "no.such.invalid,127.0.0.1")
        shown = ends(doctor, 1)
    assert "nobody knows the host no.such.invalid" in shown
    assert doctor.err == ""
    wrong = grid(site, "doctor", "--port", "0x1")
    ends(wrong, 2)
    assert wrong.err.startswith("grid doctor: ")
