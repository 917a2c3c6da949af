"""The picture of the README is small, fetches nothing, and shows a takeover."""

from pathlib import Path

PICTURE = Path(__file__).parents[2] / "docs" / "picture.svg"
PICTURE_BYTES_MAX = 60_000


def test_the_picture_shows_a_takeover() -> None:
    """``scripts/picture`` makes it anew; it writes none if the session goes wrong."""
    svg = PICTURE.read_text(encoding="utf-8")
    assert len(svg) < PICTURE_BYTES_MAX
    plain = svg.replace("&#160;", " ")
    for shown in ("kill -9", " serves now", "9592", "grid status", "first task after"):
        assert shown in plain
    links = [word for word in svg.split('"') if word.startswith("http")]
    assert links == ["http://www.w3.org/2000/svg"]
    assert "url(http" not in svg
