"""``Dashboard``: the page on a port, until it is told to stop. uvicorn does the HTTP.

The port is bound before the grid is joined, so that what is wrong with it is said at once. Streams
end when it stops; nothing waits for whoever is still reading.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from types import FrameType

import uvicorn

from grid.errors import Misuse
from peers.addresses import is_loopback, is_wildcard
from peers.dashboard.app import Page
from peers.dashboard.guard import Secrets, own_names
from peers.peer import Peer

CLOSING_SECONDS = 2

CONNECTIONS_MAX = 256
"""Of strangers too, if it listens for other hosts."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any that is free. Raises ``Misuse``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        door = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Misuse(f"--web-address {host}: {error.strerror or error}") from error
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(128)
    except OSError as error:
        door.close()
        taken = "; is another dashboard there? --web-port 0 takes any port that is free"
        hint = taken if error.errno == errno.EADDRINUSE else ""
        raise Misuse(f"cannot listen on {host} port {port}: {error.strerror}{hint}") from error
    return door


class Dashboard:
    """The page of one visiting peer, on one socket."""

    def __init__(
        self, peer: Peer, door: socket.socket, token: str, called: Iterable[str] = ()
    ) -> None:
        self._door = door
        self._token = token
        host, port = door.getsockname()[:2]
        self.host: str = host
        self.port: int = port
        self._page = Page(peer, Secrets(token, port))
        config = uvicorn.Config(
            self._page.application(own_names((host, *called))),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would write down the token
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        self._server = _Server(config)

    @property
    def url(self) -> str:
        """Where the page is, with the token."""
        host = socket.gethostname() if is_wildcard(self.host) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={self._token}"

    @property
    def loopback(self) -> bool:
        """Whether only this computer can reach it."""
        return is_loopback(self.host)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, if this is the main thread, or until ``stop``."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """End streams, then connections. From any thread."""
        self._server.end()

    async def _serve(self) -> None:
        watcher = self._page.watcher
        watching = asyncio.create_task(watcher.run())
        self._server.closes(asyncio.get_running_loop(), watcher.close)
        watching.add_done_callback(lambda _: self._server.end())  # no page without what it shows
        try:
            await self._server.serve([self._door])
        finally:
            watcher.close()
            await watching


class _Server(uvicorn.Server):
    """One that a signal ends well, without being raised again when all is over."""

    def closes(self, loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
        """What else is to be closed before connections are waited for."""
        self._loop, self._close = loop, close

    def end(self) -> None:
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.end()
