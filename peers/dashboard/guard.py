"""Who may ask: the token, the name by which the page is called, and what its answers forbid.

A page on loopback can be reached by every page that its user's browser shows, and by every user of
the host. So: the *token* is wanted for everything that says something of the grid, once in the
address, then as a cookie that no script reads and no other site sends. The *host* of a request
must be an address, or a name of this computer: a name that an attacker's DNS turns into 127.0.0.1
is neither. What *changes* something needs a header too, which no form of another page can send,
with a value that only this page knows, and must come from this page as far as the browser says.
Every answer forbids scripts, styles, frames and connections other than those of the page.

It does not encrypt: ``docs/dashboard.md`` says how to look from elsewhere.
"""

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHANGE_HEADER = "x-grid-dashboard"

OPEN_PATHS = ("/healthz", "/assets/")
"""What says nothing of the grid."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

_HEADERS = {
    "content-security-policy": _POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Secrets:
    """The token, and what is made of it for one port: cookies know hosts, but no ports."""

    def __init__(self, token: str, port: int) -> None:
        self._token = token
        self.cookie_name = f"grid-dashboard-{port}"
        self.cookie = self._derived("cookie")
        self.change = self._derived("change")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self._token.encode(), purpose.encode(), hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Whether it is the token, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(given.encode(), self._token.encode())

    def admits(self, request: HTTPConnection) -> bool:
        """Whether a request has the cookie, or the token as a bearer."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_token(given.strip())
        cookie = request.cookies.get(self.cookie_name, "")
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())

    def may_change(self, request: HTTPConnection) -> str:
        """Return why a request may change nothing; empty if it may."""
        headers = request.headers
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "it comes from another site"
        origin = headers.get("origin")
        # Only what follows the scheme: behind a proxy that ends TLS it is another than ours.
        if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
            return "it comes from another page"
        given = headers.get(CHANGE_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.change.encode()):
            return f"its {CHANGE_HEADER} header is not the one of this page; reload the page"
        return ""


def own_names(more: Iterable[str] = ()) -> frozenset[str]:
    """The names by which this computer may be called, and ``more``."""
    names = {"localhost", socket.gethostname(), *more}
    return frozenset(name.lower().rstrip(".") for name in names)


def is_called(host: str, names: frozenset[str]) -> bool:
    """Whether a ``Host`` header says an address, or one of these names."""
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        if not closed:
            return False
    else:
        name, _, port = host.partition(":")
        port = f":{port}" if port else ""
    if port and not (port[0] == ":" and port[1:].isdecimal()):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".") in names
    return True


class Guard:
    """Stands before the application: refuses, or lets in and adds the headers."""

    def __init__(
        self, app: ASGIApp, secrets: Secrets, names: frozenset[str], refusal: bytes
    ) -> None:
        self._app = app
        self._secrets = secrets
        self._names = names
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._refuses(scope) or self._app
        await answer(scope, receive, send_guarded)

    def _refuses(self, scope: Scope) -> Response | None:
        host = Headers(scope=scope).get("host", "")
        if not is_called(host, self._names):
            return PlainTextResponse(
                f"This page is not called {host!r}. Use its address, or start `grid dashboard` "
                f"with --called {host.partition(':')[0]}\n",
                421,
            )
        request = HTTPConnection(scope)
        path = request.url.path
        entering = path == "/" and self._secrets.is_token(request.query_params.get("token", ""))
        if path.startswith(OPEN_PATHS) or entering or self._secrets.admits(request):
            return None
        if path == "/":
            return Response(self._refusal, 401, media_type="text/html; charset=utf-8")
        return PlainTextResponse(
            "The token is missing or not the one of this run. Open the address that `grid "
            "dashboard` printed; scripts send `Authorization: Bearer TOKEN`.\n",
            401,
            {"www-authenticate": "Bearer"},
        )
