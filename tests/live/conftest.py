"""The ``site`` of a live test: a host of its own, checked for leaks when the test is over."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import Site


@pytest.fixture
def site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Site]:
    """A ``Site``; nothing it started is left, and no peer here has logged an error of its own."""
    place = Site(tmp_path, monkeypatch)
    try:
        yield place
    finally:
        place.close()
    errors = [
        record.getMessage() + (f"\n{record.exc_text}" if record.exc_text else "")
        for when in ("setup", "call", "teardown")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR
        and record.name.split(".")[0] in ("grid", "peers", "concurrent", "asyncio")
    ]
    assert not errors, errors
