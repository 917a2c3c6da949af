"""The real page on a port of its own, of a grid that is made up: a snapshot, and who was ended."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from grid.chronicle import PRINTS_ANSWER_MAX
from grid.messages import AskPrints, Bookmark, Printed, Prints
from peers.dashboard.serving import Dashboard, bind
from peers.peer import Peer
from peers.snapshot import (
    FailoverSeen,
    FailureSeen,
    PeerSeen,
    Snapshot,
    TaskSeen,
    TransactionSeen,
)

TOKEN = "a-token-of-some-length"
WAIT_SECONDS = 60.0

FAILURE = FailureSeen(
    kind="raised",
    message="ValueError: <b>five</b>",
    function="mapfn",
    key="'secret-item'",
    peer="node2",
    traceback="Traceback ...\nValueError: <b>five</b>\n",
)


def peer_seen(name: str, **facts: Any) -> PeerSeen:
    plain = PeerSeen(
        id=f"id-{name}",
        name=name,
        host="10.0.0.1",
        role="standby",
        slots=4,
        given=0,
        holds=0,
        leaving=False,
        through="",
    )
    return structs.replace(plain, **facts)


def transaction_seen(record: str, **facts: Any) -> TransactionSeen:
    plain = TransactionSeen(
        record=record,
        name="",
        owners=("node1",),
        state="running",
        phase="map",
        items_done=3,
        items_total=10,
        partitions_done=0,
        partitions_total=4,
        tasks_running=2,
        tasks_done=3,
        detached=False,
        began=1000.0,
    )
    return structs.replace(plain, **facts)


GRID = Snapshot(
    at=1010.0,
    sought_seconds=None,
    server="node1",
    server_id="id-node1",
    address="10.0.0.1:11235",
    term=3,
    peers=(
        peer_seen("node1", role="serves", given=2, holds=1000, busy=2, memory=500, load=0.52),
        peer_seen("node2", given=9),
        peer_seen("looker", role="visitor", slots=0),
    ),
    transactions=(
        transaction_seen(
            "aaaa1111",
            name="<script>alert(1)</script>",
            tasks=(TaskSeen("x", "map", 0, 3, "node2", "id-node2", 1, 1001.0, 1002.5),),
        ),
        transaction_seen("bbbb2222", state="failed", ended=1005.0, failure=FAILURE),
    ),
    failovers=(
        FailoverSeen("closed", 2, 0.2, None, None),
        FailoverSeen("silent", 3, 1.5, 1.75, 1002.0),
    ),
)


@dataclass
class MadeUp:
    """A peer, as far as the page knows one; and its watch."""

    seen: Snapshot = GRID
    ended: list[str] = field(default_factory=list)
    error: Exception | None = None
    printed: list[Printed] = field(default_factory=list)
    silent: bool = False

    def prints(self, record: str, after: Bookmark) -> Future[Prints]:
        asked: Future[Prints] = Future()
        told = tuple(self.printed[after.number :][:PRINTS_ANSWER_MAX])
        if not self.silent:
            latest = Bookmark("c", after.number + len(told))
            asked.set_result(Prints(AskPrints(record, after), told, latest))
        return asked

    def watch(self) -> "MadeUp":
        return self

    def look(self, timeout: float) -> Snapshot:
        if self.error is not None:
            raise self.error
        return self.seen

    def end(self, record: str) -> None:
        self.ended.append(record)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Served:
    """What asks the page."""

    port: int
    grid: MadeUp
    cookie: str = ""

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """One request; ``headers`` with ``_`` for ``-``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        given = {"host": f"127.0.0.1:{self.port}"} | (
            {"cookie": self.cookie} if self.cookie else {}
        )
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body or None, given)
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read().decode())
        finally:
            connection.close()

    def enter(self, token: str = TOKEN) -> None:
        """Come in with the token, and keep the cookie."""
        answer = self.ask(f"/?token={token}")
        assert (answer.status, answer.headers["location"]) == (303, "/")
        self.cookie = answer.headers["set-cookie"].partition(";")[0]

    def change_header(self) -> str:
        """What the page would send with what changes something."""
        return self.ask("/").body.partition('name="change" content="')[2].partition('"')[0]

    def until(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := what()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return value


class Stream:
    """Reads server-sent events, and makes the state of them, as the page does."""

    def __init__(self, port: int, cookie: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        self._connection.request("GET", "/events", headers={"cookie": cookie})
        self._response = self._connection.getresponse()
        assert self._response.status == 200
        assert self._response.headers["content-type"].startswith("text/event-stream")
        self.state: dict[str, Any] = {}

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()

    def next(self) -> dict[str, Any] | None:
        """Wait for the next patch, and apply it; None at the end of the stream."""
        while line := self._response.readline():
            if line.startswith(b"data: "):
                patch: dict[str, Any] = json.loads(line[6:])["patch"]
                self.state = patched(self.state, patch)
                return patch
        return None

    def until(self, fits: Callable[[dict[str, Any]], Any]) -> Any:
        """Read until the state fits; return what ``fits`` said of it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := self.state and fits(self.state)):
            assert time.monotonic() < deadline, self.state
            assert self.next() is not None, "the stream has ended"
        return found


def patched(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch, as RFC 7396 has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = patched(result.get(key), value)
    return result


@contextmanager
def served(grid: MadeUp, *called: str) -> Iterator[Served]:
    """The page of this grid, for as long as it is wanted."""
    peer: Peer = grid  # type: ignore[assignment]  # all that the page uses of one
    dashboard = Dashboard(peer, bind("127.0.0.1", 0), TOKEN, called)
    thread = threading.Thread(target=dashboard.run)
    thread.start()
    page = Served(dashboard.port, grid)
    try:
        page.until(lambda: page.ask("/healthz").status == 200)
        yield page
    finally:
        dashboard.stop()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
