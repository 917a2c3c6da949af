"""What a forked child finds open of its parent's, beyond what anyone has noted."""

from pathlib import Path

from peers.forking import open_beneath


def test_files_that_are_open_for_a_moment_are_found(tmp_path: Path) -> None:
    """A child keeps nothing of its parent's spool, whatever another thread was doing."""
    ours = tmp_path / "spool"
    ours.mkdir()
    with (ours / "segment").open("w") as file, (tmp_path / "other").open("w") as other:
        assert open_beneath(str(ours)) == [file.fileno()]
        assert other.fileno() not in open_beneath(str(ours))
    assert open_beneath(str(ours)) == []
