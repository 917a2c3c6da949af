"""Elections and failovers as stories: a decision that changes shows as a changed line."""

import difflib

import pytest

from tests.transcripts.__main__ import FOLDER, path_of
from tests.transcripts.stories import STORIES, told


@pytest.mark.parametrize("name", STORIES)
def test_the_story_is_as_it_was_told(name: str) -> None:
    kept = path_of(name).read_text(encoding="utf-8").splitlines()
    now = told(name).splitlines()
    changes = "\n".join(difflib.unified_diff(kept, now, "kept", "now", lineterm="", n=1))
    assert not changes, f"if it is meant: python -m tests.transcripts --rewrite\n{changes}"


def test_no_story_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(STORIES)
