"""The witness grid, which lives while other tests run; and who shares a process with it. And the
signals of a terminal, which tests send to what they start: they are heard there also if the tests
were started by ``nohup`` or in the background, which has everything they start ignore them.
"""

import gc
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
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
    """A machine that is busy makes no example wrong. Ignoring signals is inherited; a handler is
    not, so what is started hears what is ignored here. Tests of Ctrl-C get the usual handler."""
    hypothesis.settings.register_profile("however busy", deadline=None)
    hypothesis.settings.load_profile("however busy")
    if config.getoption("numprocesses", None):
        return  # it runs no tests itself, and its helpers have to ignore what it ignores
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_finish() -> None:
    """Two thousand tests and all their modules stay until the end. Live tests collect garbage, to
    see what they leave behind: a tenth of a second each, if it were looked for among these too."""
    gc.collect()
    gc.freeze()


TOGETHER = {
    "tests/conformance/": "engines",
    "tests/simulation/": "witness",
    "tests/witness/": "witness",
}
"""Folders whose tests share something that is started once, for as long as they run."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests are shared out to several processes: one by one, in their order; but those of
    ``TOGETHER`` as one, to the same process: so the witness lives beside the simulator, and once.
    (``loadgroup`` of xdist does not see groups with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    def scope(nodeid: str) -> str:
        return next((name for top, name in TOGETHER.items() if nodeid.startswith(top)), nodeid)

    config.option.loadscopereorder = False
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = scope
    return scheduling
