"""The page of ``grid dashboard`` in a real browser, on a real grid.

Skipped where there is no Chromium (Debian's ``chromium`` will do). Screenshots for people are left
in the test's folder: ``scripts/test tests/browser --basetemp=FOLDER``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.errors import TaskError, TransactionCancelled
from peers import Job, Peer
from tests.browser.chromium import CHROMIUM, Browser, Tab
from tests.dashboard.command import dashboard
from tests.live.conftest import site  # noqa: F401 - the fixture
from tests.live.gates import held_job
from tests.live.harness import Site

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt install chromium"),
]

CONTRAST = """(() => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b]
        .map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = rgb(getComputedStyle(node).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const poor = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || node.disabled || !node.checkVisibility() || node.closest("svg")) continue;
        const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) poor.push(`${contrast.toFixed(1)} ${node.outerHTML.slice(0, 80)}`);
    }
    return poor;
})()"""
"""Texts that stand out less from their ground than WCAG's AA wants."""

NAMELESS = """[...document.querySelectorAll("button, select, input, section, table, [role=img]")]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.ariaLabel || node.textContent.trim() || node.labels?.length))
    .map((node) => node.outerHTML.slice(0, 80))"""

TOO_WIDE = """[...document.querySelectorAll("body *")]
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
    .filter((node) => !node.closest(".scroll, .chart, pre, .unseen, .skip"))
    .map((node) => node.outerHTML.slice(0, 80))"""

HOSTILE = "<img src=x onerror='window.hurt = true'>"


def fails(key: int, value: int) -> None:
    print(f"printed {HOSTILE}")
    raise ValueError(f"bad {HOSTILE}")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    folder = tmp_path / "browser"
    folder.mkdir()
    with Browser(folder) as opened:
        yield opened


def test_a_page_through_the_death_of_the_server(
    site: Site,  # noqa: F811
    browser: Browser,
    tmp_path: Path,
) -> None:
    first = site.start("one")
    site.start("two")
    process, url, _ = dashboard(site)
    owner = site.here("owner", serves=False)
    tab = browser.open(url)
    tab.says("one serves, term", within="#link")
    tab.says("Nothing has been submitted", within="#transactions")
    assert "token" not in tab.value("location.href")
    assert tab.value("document.cookie") == ""  # no script reads it

    transaction = owner.submit(held_job("mapping", site.folder / "gate", print), name="held")
    tab.says("held", within="#transaction-list")
    by_keyboard(tab)
    tab.until("document.querySelectorAll('.chart svg .map-colour').length")

    first.kill()
    tab.says("two serves, term", within="#link")
    tab.says("crash", within="#failover-table")
    tab.says("two serves now", within="#events")
    tab.says("running", within="#transaction-list .badge")
    tab.screenshot(tmp_path / "after-the-kill.png")

    tab.click("#transaction-list .danger")
    tab.click("#ask .danger")
    tab.says("The grid is told to end it", within="#toast")
    with pytest.raises(TransactionCancelled):
        transaction.result(60)
    tab.says("cancelled", within="#transaction-list .badge")

    what_users_write_is_text(tab, owner)
    all_can_use_it(tab, tmp_path)
    assert tab.complaints == []
    process.kill()
    tab.says("no connection to grid dashboard", within="#link")


def by_keyboard(tab: Tab) -> None:
    """Open the details without a mouse."""
    tab.until("document.querySelector('#transaction-list [aria-expanded]')")
    tab.value("document.querySelector('#transactions').focus()")
    for _ in range(12):
        if tab.value("document.activeElement.hasAttribute('aria-expanded')"):
            break
        tab.press("Tab", 9)
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Enter", 13, "\r")
    tab.until("document.activeElement.getAttribute('aria-expanded') === 'true'")


def what_users_write_is_text(tab: Tab, owner: Peer) -> None:
    """Names and failures that look like markup are read as they are."""
    with pytest.raises(TaskError):
        owner.submit(Job([1], fails), name=HOSTILE).result(60)
    tab.says(HOSTILE, within="#transaction-list h3")
    tab.click("#transaction-list .card:has(.failed) [aria-expanded]")
    tab.says(f"bad {HOSTILE}", within=".failure")
    tab.says("in fails", within=".failure pre")
    tab.says(f"] printed {HOSTILE}", within=".prints pre")
    assert tab.value("window.hurt === undefined && !document.querySelector('main img')")


def all_can_use_it(tab: Tab, folder: Path) -> None:
    """Large and small, light and dark, seen and heard."""
    for width in (1280, 360):
        tab.resize(width, 740)
        for theme in ("light", "dark"):
            tab.dark(theme == "dark")
            tab.screenshot(folder / f"{theme}-{width}.png")
            assert tab.value(CONTRAST) == []
        assert tab.value("document.documentElement.scrollWidth") <= width
        assert tab.value(TOO_WIDE) == []
    assert tab.value(NAMELESS) == []
    assert tab.value("[...document.querySelectorAll('table')].every((table) => table.caption)")
    for landmark in ("header", "main", "footer", "[aria-live=polite]", "h1"):
        assert tab.value(f"document.querySelectorAll({landmark!r}).length"), landmark
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.value(ground)
    tab.value("(() => { const s = document.querySelector('#theme'); s.value = 'light';"
              "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert tab.value(ground) != dark  # whatever the system prefers
