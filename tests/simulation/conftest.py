"""The simulator keeps every core busy for long: the best time for a witness grid to live in."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def witnessed(request: pytest.FixtureRequest) -> None:
    """Begin the witness grid, if a test of this session is going to ask how it was: beside the
    seeds, which take long enough. It takes half of the machine from all that runs meanwhile."""
    asked = any("witness" in getattr(item, "fixturenames", ()) for item in request.session.items)
    if asked and request.module.__name__.endswith("test_simulation"):
        request.getfixturevalue("witness")
