"""By which names the page may be called."""

import pytest

from peers.dashboard.guard import is_called, own_names


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8235", "127.0.0.1", "[::1]:8235", "[::1]", "localhost:8235", "LocalHost",
     "10.1.2.3", "grid.example.org:443", "grid.example.org."],
)  # fmt: skip
def test_addresses_and_own_names(host: str) -> None:
    assert is_called(host, own_names(["Grid.example.org"]))


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8235", "localhost.evil.example", "127.0.0.1.evil.example",
     "[::1", "[::1]x", "localhost:port", "evil.example:127.0.0.1", "[evil]:1", "1"],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    assert not is_called(host, own_names())
