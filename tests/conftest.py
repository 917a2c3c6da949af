"""The witness grid, which lives while other tests run."""

from collections.abc import Iterator

import pytest

from tests.witness.witness import Witness


@pytest.fixture(scope="session")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """A busy grid that nothing befalls. ``tests/simulation`` begins it, if ``tests/witness`` is
    going to ask how it was; alone, ``tests/witness`` begins it itself."""
    grid = Witness(tmp_path_factory.mktemp("witness"))
    try:
        yield grid
    finally:
        grid.close()
