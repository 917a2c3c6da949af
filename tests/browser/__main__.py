"""The picture in docs/dashboard.md: ``python -m tests.browser`` makes it anew.

A real grid of a few peers on this host, whose server is killed while it works.
"""

import tempfile
import time
from pathlib import Path

import pytest

from grid.errors import TaskError
from peers import Job, Peer
from tests.browser.chromium import Browser, Tab
from tests.dashboard.command import dashboard
from tests.live.harness import TOP, Site

PICTURE = TOP / "docs/dashboard.webp"
NAMES = ("node1", "node2", "node3", "node4", "node5")
SECONDS = 0.25


def count(key: int, value: int) -> object:
    time.sleep(SECONDS * (1 + value * 7 % 5))
    yield value % 40, 1


def total(key: int, values: list[int]) -> int:
    time.sleep(SECONDS / 2)
    return sum(values)


def parse(key: str, value: str) -> object:
    yield key, int(value)


def main() -> None:
    """Make the picture."""
    with tempfile.TemporaryDirectory() as folder:
        patch = pytest.MonkeyPatch()
        site = Site(Path(folder), patch)
        try:
            take(site)
        finally:
            site.close()
            patch.undo()


def take(site: Site) -> None:
    for name in NAMES:
        site.start(name, slots=3)
    process, url, _ = dashboard(site)
    profile = site.folder / "browser"
    profile.mkdir()
    with Browser(profile) as browser:
        tab = browser.open(url, width=1180, height=900)
        tab.says("node1 serves", within="#link")
        work(site, site.here("notebook", serves=False), tab)
        tab.screenshot(PICTURE)
    process.kill()


def work(site: Site, owner: Peer, tab: Tab) -> None:
    """Something that failed, something that runs, and a server that died meanwhile."""
    with pytest.raises(TaskError):
        owner.submit(Job({"line 1": "1", "line 2": "two"}, parse), name="parse").result(60)
    owner.submit(Job(range(600), count, reducefn=total), name="night count")
    tab.says("night count", within="#transaction-list")
    tab.click("#transaction-list [aria-expanded]")
    tab.until("document.querySelectorAll('.chart .map-colour').length > 60")
    site.named("node1").kill()
    tab.says("crash", within="#failover-table")
    drawn = "document.querySelectorAll('.chart .map-colour').length"
    before = tab.value(drawn)
    tab.until(f"{drawn} > {before + 60}")
    tab.value("document.activeElement.blur()")


if __name__ == "__main__":
    main()
