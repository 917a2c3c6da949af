"""The ``network`` of a test on several hosts: gone when the test is over, also if it fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.network import Network, missing


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A ``Network`` without hosts yet; skips the test where there cannot be any."""
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    made = Network(tmp_path)
    try:
        yield made
    finally:
        made.close()
