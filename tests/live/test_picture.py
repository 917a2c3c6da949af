"""The picture of the README: what is there is small and shows a takeover; it can be made anew."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.harness import TOP, Site

PICTURE_BYTES_MAX = 60_000


def check(path: Path) -> None:
    svg = path.read_text(encoding="utf-8")
    assert len(svg) < PICTURE_BYTES_MAX
    plain = svg.replace("&#160;", " ")
    for shown in ("kill -9", " serves now", "9592", "grid status", "first task after"):
        assert shown in plain
    links = [word for word in svg.split('"') if word.startswith("http")]
    assert links == ["http://www.w3.org/2000/svg"]  # nothing is fetched to show it
    assert "url(http" not in svg


def test_the_picture_shows_a_takeover() -> None:
    check(TOP / "docs" / "picture.svg")


@pytest.mark.live
def test_it_can_be_made_anew(site: Site) -> None:
    path = site.folder / "picture.svg"
    command = [sys.executable, "-W", "error", str(TOP / "scripts" / "picture.py"), str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    check(path)
