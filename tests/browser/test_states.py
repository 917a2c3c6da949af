"""The page in states that a real grid is in only for moments, or only when it is large."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.browser.chromium import CHROMIUM, Browser
from tests.browser.test_dashboard import CONTRAST, TOO_WIDE
from tests.dashboard.rig import GRID, TOKEN, MadeUp, peer_seen, served, transaction_seen

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium"),
]

LARGE = structs.replace(
    GRID,
    peers=(
        *GRID.peers,
        *(peer_seen(f"more-{n}-{'x' * (n % 90)}", slots=n % 40) for n in range(97)),
    ),
    transactions=tuple(transaction_seen(f"{n:040x}", name="y" * (n % 100)) for n in range(200)),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_who_has_no_token_types_it(browser: Browser) -> None:
    with served(MadeUp()) as page:
        tab = browser.open(f"http://localhost:{page.port}/")
        tab.says("The token is missing")
        assert tab.value(CONTRAST) == []
        tab.value("document.querySelector('input').focus()")
        tab.order("Input.insertText", text=TOKEN)
        tab.press("Enter", 13, "\r")
        tab.says("node1 serves, term 3", within="#link")
        assert tab.value("location.pathname + location.search") == "/"


def test_a_server_is_sought_and_found(browser: Browser) -> None:
    grid = MadeUp()
    with served(grid) as page:
        tab = browser.open(f"http://127.0.0.1:{page.port}/?token={TOKEN}")
        tab.says("★ serves", within="#peer-table")
        grid.seen = structs.replace(GRID, sought_seconds=2.0)
        tab.says("server lost", within="#link")
        tab.says("it was node1", within="#tiles")
        tab.says("lost", within="#peer-table .badge")
        tab.says("node1 does not answer", within="#events")
        tab.until("document.querySelector('#said').textContent.includes('does not answer')")
        assert tab.value(CONTRAST) == []
        grid.seen = structs.replace(GRID, server="node2", server_id="id-node2", term=4)
        tab.says("node2 serves, term 4", within="#link")
        assert tab.complaints == []


def test_a_large_grid(browser: Browser, tmp_path: Path) -> None:
    with served(MadeUp(LARGE)) as page:
        tab = browser.open(f"http://127.0.0.1:{page.port}/?token={TOKEN}", width=360, height=740)
        tab.says("Show more (188 not shown)")
        assert tab.value(TOO_WIDE) == []
        assert tab.value("document.documentElement.scrollWidth") <= 360
        tab.click("#more-transactions")
        tab.until("document.querySelectorAll('#transaction-list .card').length === 24")
        tab.resize(1280, 800)
        assert tab.value("document.querySelectorAll('#peer-table tbody tr').length") == 100
        tab.value("document.querySelector('#peer-filter').focus()")
        tab.order("Input.insertText", text="more-42")
        tab.until("document.querySelectorAll('#peer-table tbody tr').length === 1")
        tab.screenshot(tmp_path / "large.png")
        assert tab.complaints == []
