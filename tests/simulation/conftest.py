"""The simulator keeps every core busy for long: the best time for a witness grid to live in."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def witnessed(request: pytest.FixtureRequest) -> None:
    """Begin the witness grid, if a test of this session is going to ask how it was."""
    if any("witness" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("witness")
