"""The page over HTTP: who is let in, what answers forbid, what it tells and what it may do."""

import http.client
import json
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from msgspec import structs

from grid.errors import PeerClosed
from grid.messages import Printed
from peers.dashboard import prints, watcher
from peers.dashboard.serving import Dashboard, bind
from peers.peer import Peer
from tests.dashboard.rig import GRID, TOKEN, WAIT_SECONDS, MadeUp, Served, Stream, served

TOP = Path(__file__).parents[2]
ASSETS = TOP / "peers/dashboard/assets"
PRIVATE = ("/", "/events", "/metrics", "/transactions/aaaa1111", "/nothing")


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served(MadeUp(), "grid.example.org") as page:
        yield page


@pytest.fixture
def stranger(shared: Served) -> Served:
    """Who has no token."""
    return Served(shared.port, shared.grid)


@pytest.fixture
def page(stranger: Served) -> Served:
    """Who has come in."""
    stranger.enter()
    stranger.grid.ended.clear()
    return stranger


@pytest.mark.parametrize("path", PRIVATE)
def test_without_the_token_nothing_is_said(stranger: Served, path: str) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"grid-dashboard-{stranger.port}={TOKEN}"},
        {"cookie": f"grid-dashboard-{stranger.port}=\xe9"},
    ):
        answer = stranger.ask(path, **headers)
        assert answer.status == 401
        assert "grid dashboard" in answer.body  # what to do
        assert "node1" not in answer.body
    wrong = stranger.ask(f"{path}?token={TOKEN}x")
    assert wrong.status == 401
    assert "set-cookie" not in wrong.headers


def test_the_page_of_who_has_no_token_says_what_to_do(stranger: Served) -> None:
    answer = stranger.ask("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Open the address that <code>grid dashboard</code> printed" in answer.body


def test_the_token_becomes_a_cookie(stranger: Served) -> None:
    answer = stranger.ask(f"/?token={TOKEN}")
    assert answer.status == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"grid-dashboard-{stranger.port}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    stranger.cookie = cookie.partition(";")[0]
    assert stranger.ask("/").status == 200


def test_scripts_send_the_token_as_a_header(stranger: Served) -> None:
    answer = stranger.ask("/metrics", authorization=f"Bearer {TOKEN}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\npeergrid_up 1\n" in answer.body
    for private in ("node1", "aaaa1111", "script", "secret"):
        assert private not in answer.body


def test_every_answer_forbids_what_is_not_of_the_page(page: Served) -> None:
    stranger = Served(page.port, page.grid)
    answers = [page.ask(path) for path in ("/", "/assets/page.js", "/metrics", "/nothing")]
    answers += [stranger.ask("/"), stranger.ask("/healthz"), stranger.ask("/", host="evil.example")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_a_name_that_somebody_elses_dns_gave_is_refused(page: Served) -> None:
    for host in ("evil.example", f"evil.example:{page.port}"):
        answer = page.ask("/", host=host)
        assert answer.status == 421
        assert "--called evil.example" in answer.body
    assert page.ask("/", host="grid.example.org").status == 200
    assert page.ask("/", host=f"localhost:{page.port}").status == 200


def test_what_is_not_there_and_what_is_not_allowed(page: Served) -> None:
    assert page.ask("/nothing").status == 404
    for name in ("nothing.js", "page.html", "refusal.html", "..%2f..%2fapp.py", "%2e%2e/app.py"):
        assert page.ask(f"/assets/{name}").status == 404, name
    assert page.ask("/transactions/cccc").status == 404
    assert page.ask("/", "POST").status == 405
    assert page.ask("/cancel").status == 405
    assert page.ask("/metrics", "DELETE").status == 405


def test_assets_have_their_kinds_and_the_page_needs_no_others(page: Served) -> None:
    body = page.ask("/").body
    for name in ("page.css", "page.js", "theme.js", "icon.svg"):
        assert f'"/assets/{name}"' in body
        assert page.ask(f"/assets/{name}").status == 200
    assert page.ask("/assets/page.js").headers["content-type"].startswith("text/javascript")
    assert page.ask("/assets/page.css").headers["content-type"].startswith("text/css")
    assert "{change}" not in body


def test_no_script_makes_markup_of_text() -> None:
    for path in ASSETS.iterdir():
        text = path.read_text(encoding="utf-8")
        for banned in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            assert banned not in text, path.name
        assert "://" not in text.replace("http://www.w3.org/", ""), path.name


def test_all_assets_are_packaged() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["peers"]
    for path in ASSETS.iterdir():
        name = str(path.relative_to(TOP / "peers"))
        assert any(fnmatch(name, pattern) for pattern in patterns), name


def test_a_stream_begins_with_everything_and_goes_on_with_what_changes() -> None:
    grid = MadeUp()
    with served(grid) as page:
        page.enter()
        with Stream(page.port, page.cookie) as stream:
            stream.until(lambda state: state["grid"]["server"] == "node1")
            assert stream.state["transactions"]["aaaa1111"]["name"] == "<script>alert(1)</script>"
            grid.seen = structs.replace(GRID, term=4)
            patch = stream.next()
            assert patch is not None
            assert patch["grid"] == {"term": 4}
            assert "peers" not in patch
            grid.seen = structs.replace(GRID, term=4, sought_seconds=1.0)
            stream.until(lambda state: not state["link"]["live"])
            assert stream.state["grid"]["server"] == "node1"  # as it was known
            assert page.ask("/metrics").body.count("peergrid_") == 6


def test_a_stream_ends_when_the_dashboard_does() -> None:
    with served(MadeUp()) as page:
        page.enter()
        stream = Stream(page.port, page.cookie)
        stream.next()
    with stream:
        while stream.next() is not None:
            pass


def test_it_ends_when_nothing_can_be_seen_any_more() -> None:
    grid = MadeUp()
    peer: Peer = grid  # type: ignore[assignment]
    dashboard = Dashboard(peer, bind("127.0.0.1", 0), TOKEN)
    grid.error = PeerClosed("closed meanwhile")
    with pytest.raises(PeerClosed):
        dashboard.run()


def is_open(page: Served) -> bool:
    """Whether one more page may be opened."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=WAIT_SECONDS)
    connection.request("GET", "/events", headers={"cookie": page.cookie})
    status = connection.getresponse().status
    connection.close()
    return status == 200


def test_not_more_pages_than_it_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "WATCHERS_MAX", 1)
    with served(MadeUp()) as page:
        page.enter()
        with Stream(page.port, page.cookie) as stream:
            stream.next()
            assert page.ask("/events").status == 503
        page.until(lambda: is_open(page))


def test_details_are_of_one_transaction(page: Served) -> None:
    page.until(lambda: page.ask("/transactions/bbbb2222").status == 200)
    failure = json.loads(page.ask("/transactions/bbbb2222").body)["failure"]
    assert failure["traceback"].startswith("Traceback")
    assert json.loads(page.ask("/transactions/aaaa1111").body)["tasks"][0][0] == "map"


def test_what_is_printed_is_told_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prints, "ASK_SECONDS", 0.05)
    grid = MadeUp()
    with served(grid) as page:
        page.enter()
        page.until(lambda: page.ask("/transactions/aaaa1111").status == 200)
        assert "prints" not in json.loads(page.ask("/transactions/aaaa1111").body)
        grid.printed = [Printed("aaaa1111", "node2", "stdout", f"{n}\n") for n in range(250)]
        told = [["node2", "stdout", f"{n}\n"] for n in range(250)]  # more than one answer holds
        assert json.loads(page.ask("/transactions/aaaa1111").body)["prints"] == told
        grid.silent = True  # no server answers: what it was
        assert json.loads(page.ask("/transactions/aaaa1111").body)["prints"] == told


def cancel(page: Served, record: str = "aaaa1111", **headers: str) -> tuple[int, str]:
    given = {"x_grid_dashboard": page.change_header()} | headers
    answer = page.ask("/cancel", "POST", json.dumps({"record": record}), **given)
    return answer.status, answer.body


def test_cancelling(page: Served) -> None:
    page.until(lambda: page.ask("/transactions/aaaa1111").status == 200)
    assert cancel(page)[0] == 202
    assert page.grid.ended == ["aaaa1111"]
    own = {"origin": f"http://127.0.0.1:{page.port}", "sec_fetch_site": "same-origin"}
    assert cancel(page, **own)[0] == 202
    assert cancel(page, "bbbb2222") == (409, '{"said":"It does not run: it is failed."}')
    assert cancel(page, "cccc")[0] == 404


def test_nobody_else_cancels(page: Served) -> None:
    stranger = Served(page.port, page.grid)
    assert stranger.ask("/cancel", "POST", '{"record": "aaaa1111"}').status == 401
    assert cancel(page, x_grid_dashboard="")[0] == 403
    assert cancel(page, x_grid_dashboard=TOKEN)[0] == 403
    assert cancel(page, sec_fetch_site="cross-site")[0] == 403
    assert cancel(page, sec_fetch_site="same-site")[0] == 403
    assert cancel(page, origin="http://evil.example")[0] == 403
    assert cancel(page, origin="null")[0] == 403
    assert page.grid.ended == []


LONG = '{"record": "aaaa1111"}' + " " * 5000


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "3", '{"record": 3}', "{}", pytest.param(LONG, id="long")]
)
def test_what_names_no_record_is_refused(page: Served, body: str) -> None:
    answer = page.ask("/cancel", "POST", body, x_grid_dashboard=page.change_header())
    assert answer.status == 400
    assert page.grid.ended == []
