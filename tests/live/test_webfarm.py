"""``examples/webfarm`` under gunicorn: its workers are killed and reloaded while requests come."""

import http.client
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from typing import Any

import pytest

from tests.live.harness import TOP, WAIT_SECONDS, Process, Site, is_free, until

pytestmark = pytest.mark.live

CLIENTS = 3
BELOW = 25_000  # two tasks
PRIMES = 2762
PAUSE_SECONDS = 0.1  # of a client between two requests: others test on this machine too


def ask(port: int, path: str, body: str | None = None) -> tuple[int, Any]:
    """One request on a connection of its own; its status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if answer.status < 500 else text
    finally:
        connection.close()


class Load:
    """Clients that ask one request after the other. ``lost``: connections without an answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self.good: Counter[int] = Counter()
        self.lost: list[Exception] = []
        self.wrong: list[object] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            try:
                status, answer = ask(self._port, f"/primes?below={BELOW}")
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(error)
                continue
            if status == 200 and answer["primes"] == PRIMES:
                self.good[client] += 1
            else:
                self.wrong.append((status, answer))

    def goes_on(self) -> None:
        """Wait until every client was answered twice more: once may have been on its way."""
        before = self.good.copy()
        until("all are answered", lambda: all(self.good[n] > before[n] + 1 for n in range(CLIENTS)))

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def gunicorn(site: Site, *options: str) -> tuple[Process, int]:
    """Start the farm; return its master and port."""
    command = [sys.executable, "-W", "error", "-m", "gunicorn", "app:application", *options]
    command += ["--bind", "127.0.0.1:0", "--no-control-socket", "--workers", "2"]
    master = Process(site, "farm", command, cwd=TOP / "examples" / "webfarm")
    site.processes.append(master)
    said = until("it listens", lambda: re.findall(r"http://127\.0\.0\.1:(\d+)", master.err))
    return master, int(said[0])


def server(port: int) -> int:
    """The worker that serves the grid."""

    def find() -> int | None:
        status, answer = ask(port, "/")
        return answer["pid"] if status == 200 and answer["serving"] else None

    return until("the one that serves answers", find) or 0


@pytest.mark.timeout(300)  # on a busy machine starting all these processes takes half a minute
@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_requests_go_on_while_workers_are_killed_and_reloaded(
    site: Site, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_JOURNAL", str(site.folder / "journal"))
    master, port = gunicorn(site, *options)
    assert is_free(site.port)  # nothing starts before the first request
    status, posted = ask(port, "/words", "to be or not to be")
    assert status == 202
    assert ask(port, "/primes?below=many")[0] == 400
    assert ask(port, "/nowhere")[0] == 404
    assert ask(port, "/words/nothing")[0] == 404
    load = Load(port)
    try:
        load.goes_on()
        os.kill(server(port), signal.SIGKILL)
        load.goes_on()
        lost = len(load.lost)
        assert lost <= CLIENTS  # only what was connected to the killed one
        old = server(port)
        master.process.send_signal(signal.SIGHUP)
        until("the old server has been replaced", lambda: server(port) != old)
        load.goes_on()
    finally:
        load.end()
    assert load.wrong == [], master.err
    assert len(load.lost) == lost, load.lost  # a reload costs nobody an answer

    def counted() -> Any:
        status, answer = ask(port, f"/words/{posted['id']}")
        return answer if status == 200 else None

    assert until("the posted words are counted", counted)["to"] == 2
    master.process.send_signal(signal.SIGTERM)
    master.ended()
