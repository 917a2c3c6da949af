"""The witness grid, which lives while other tests run; and who shares a process with it. And
Ctrl-C, which tests send to what they start: it is heard also where the tests themselves were
started in the background of a shell, which has everything they start ignore it."""

import signal
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


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests are shared out to several processes, the simulator's and the one that asks the
    witness go to the same, in this order: so the witness lives beside the simulator, and once."""
    if not config.pluginmanager.has_plugin("xdist"):
        return
    for item in items:
        if item.path.parent.name in ("simulation", "witness"):
            item.add_marker(pytest.mark.xdist_group("witness"))
