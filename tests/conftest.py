"""The witness grid, which lives while other tests run; and who shares a process with it. And the
signals of a terminal, which tests send to what they start: they are heard there also if the tests
were started by ``nohup`` or in the background, which has everything they start ignore them.
"""

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


def pytest_configure(config: pytest.Config) -> None:
    """Ignoring is inherited; a handler is not, so what is started hears what is ignored here."""
    if config.getoption("numprocesses", None):
        return  # it runs no tests itself, and its helpers have to ignore what it ignores
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


# Before xdist looks, which adds the group to the names of tests.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests are shared out to several processes, the simulator's and the one that asks the
    witness go to the same, in this order: so the witness lives beside the simulator, and once."""
    if not config.pluginmanager.has_plugin("xdist"):
        return
    for item in items:
        if item.path.parent.name in ("simulation", "witness"):
            item.add_marker(pytest.mark.xdist_group("witness"))
