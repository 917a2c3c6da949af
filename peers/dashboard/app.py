"""The application: the page, its assets, its stream, what it may do, and what machines read."""

import json
import logging
from collections.abc import AsyncIterator
from importlib import resources

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from peers.dashboard import metrics
from peers.dashboard.guard import Guard, Secrets
from peers.dashboard.prints import Tails
from peers.dashboard.view import details
from peers.dashboard.watcher import WATCHERS_MAX, Watcher
from peers.peer import Peer
from peers.snapshot import TransactionSeen
from peers.wall_clock import time_of_day

HEALTHY_SECONDS = 15.0
"""Without an answer for longer than any failover takes, something is wrong."""

BODY_MAX = 4096

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HTML = "text/html; charset=utf-8"

log = logging.getLogger(__name__)


class Page:
    """What answers the requests. Of one event loop, as its watcher is."""

    def __init__(self, peer: Peer, secrets: Secrets) -> None:
        self._peer = peer
        self._secrets = secrets
        self._assets = _read_assets()
        self.watcher = Watcher(peer.watch())
        self._tails = Tails(peer.prints)

    def application(self, names: frozenset[str]) -> Starlette:
        """Return the application, for whoever calls this computer by one of these names."""
        return Starlette(
            routes=[
                Route("/", self.page, methods=["GET"]),
                Route("/assets/{name}", self.asset, methods=["GET"]),
                Route("/events", self.events, methods=["GET"]),
                Route("/transactions/{record}", self.details, methods=["GET"]),
                Route("/cancel", self.cancel, methods=["POST"]),
                Route("/metrics", self.metrics, methods=["GET"]),
                Route("/healthz", self.healthz, methods=["GET"]),
            ],
            middleware=[
                Middleware(
                    Guard, secrets=self._secrets, names=names, refusal=self._assets["refusal.html"]
                )
            ],
        )

    async def page(self, request: Request) -> Response:
        """The page; with the token in its address, its cookie and the address without."""
        if "token" in request.query_params:
            answer: Response = RedirectResponse("/", 303)
            answer.set_cookie(
                self._secrets.cookie_name, self._secrets.cookie, httponly=True, samesite="strict"
            )
            return answer
        change = self._secrets.change.encode()
        return Response(self._assets["page.html"].replace(b"{change}", change), media_type=_HTML)

    async def asset(self, request: Request) -> Response:
        """A style sheet, a module, the icon."""
        name = request.path_params["name"]
        kind = _KINDS.get(name[name.rfind(".") :])
        if kind is None or name not in self._assets:
            return PlainTextResponse("There is no such file.\n", 404)
        return Response(self._assets[name], media_type=f"{kind}; charset=utf-8")

    async def events(self, _request: Request) -> Response:
        """Server-sent events: patches of the state."""
        if self.watcher.full:
            return PlainTextResponse(f"{WATCHERS_MAX} pages are open; close one of them.\n", 503)
        return StreamingResponse(_stream(self.watcher), media_type="text/event-stream")

    async def details(self, request: Request) -> Response:
        """What is long: the tasks of a transaction, what it prints, its traceback."""
        found = self._transaction(request.path_params["record"])
        if found is None:
            return _said(404, "The grid has no transaction with this record.")
        return JSONResponse(details(found, await self._tails.of(found.record)))

    async def cancel(self, request: Request) -> Response:
        """End a running transaction for everyone."""
        if reason := self._secrets.may_change(request):
            return _said(403, f"Refused: {reason}.")
        record = await _record_in(request)
        if not record:
            return _said(400, 'Send {"record": "..."}, the whole record of a transaction.')
        found = self._transaction(record)
        if found is None:
            return _said(404, "The grid has no transaction with this record.")
        if found.state != "running":
            return _said(409, f"It does not run: it is {found.state}.")
        self._peer.end(record)
        log.info("cancelled from the page: txn=%s", record)
        self.watcher.refresh()
        return _said(202, "The grid is told to end it.")

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        watcher = self.watcher
        watcher.refresh()
        seen = watcher.snapshot if watcher.answered else None
        text = metrics.metrics(seen, watcher.silent_seconds)
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    async def healthz(self, _request: Request) -> Response:
        """Whether a server has answered lately, without saying anything of it."""
        silent = self.watcher.silent_seconds
        if silent > HEALTHY_SECONDS:
            return PlainTextResponse(f"no server has answered for {silent:.0f} s\n", 503)
        return PlainTextResponse("ok\n")

    def _transaction(self, record: str) -> TransactionSeen | None:
        seen = self.watcher.snapshot.transactions
        return next((txn for txn in seen if txn.record == record), None)


async def _stream(watcher: Watcher) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    async for patch in watcher.frames():
        if patch is None:
            yield ": still here\n\n"
        else:
            data = json.dumps({"now": time_of_day(), "patch": patch}, separators=(",", ":"))
            yield f"data: {data}\n\n"


async def _record_in(request: Request) -> str:
    """Read the record that a request names; empty if it names none."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            return ""
    try:
        record = json.loads(body)["record"]
    except (ValueError, TypeError, KeyError):
        return ""
    return record if isinstance(record, str) else ""


def _said(code: int, text: str) -> Response:
    return JSONResponse({"said": text}, code)


def _read_assets() -> dict[str, bytes]:
    """Read all files of the page: a few, and small."""
    folder = resources.files("peers.dashboard") / "assets"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
