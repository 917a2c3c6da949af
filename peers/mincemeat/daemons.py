"""``Client_daemon`` and ``Server_daemon``: a client or server that runs in a thread of its own.

What the original's endpoints raised where they were made is raised where a daemon is made: a server
holds its port from then on, a client has found somebody who listens. ``start`` begins the work,
``stop`` ends it, ``state`` says how it stands.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from grid.errors import Misuse
from peers.mincemeat.client import Client
from peers.mincemeat.server import Server

log = logging.getLogger("peers.mincemeat")


class Mincemeat_daemon:  # noqa: N801 - the name that programs use
    """Runs ``endpoint``, an object of ``cls`` that was given ``credentials`` by ``conn``.

    ``credentials`` are the keyword arguments of ``Server.conn``, of which a client takes what it
    uses. With ``timeout=`` the method ``timeout`` is called so often while it runs. Further keyword
    arguments are taken, and mean nothing any more.
    """

    def __init__(
        self,
        credentials: Mapping[str, Any],
        cls: Any = None,
        map: Any = None,  # noqa: A002
        schedule: Any = None,
        shuttout: float | None = 0.5,
        *,
        timeout: float | None = None,
        **others: Any,  # noqa: ARG002
    ) -> None:
        if cls is None:
            raise Misuse("a daemon needs cls=, the class of what it is to run: Server or Client")
        self.endpoint = self.mincemeat = cls(map=map, schedule=schedule, shuttout=shuttout)
        self._state = "idle"
        self._every = timeout
        self._thread = threading.Thread(target=self.process, name="mincemeat", daemon=True)
        self.endpoint.conn(asynchronous=True, **credentials)

    def name(self) -> str:
        """What people read."""
        return str(self.endpoint.name())

    def start(self) -> None:
        """Begin the work, in the daemon's thread."""
        self._state = "processing"
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the work, done or not, and wait for the thread. May be repeated."""
        self.endpoint.handle_close()
        if self._thread.ident is not None:
            self.join(timeout)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the daemon has ended."""
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Whether the daemon's thread runs."""
        return self._thread.is_alive()

    def state(self) -> str:
        """``"idle"``, ``"processing"``, ``"authenticated"``, ``"success"`` or ``"failed: ..."``."""
        if self._state == "processing" and self.endpoint.authenticated():
            return "authenticated"
        return self._state

    def finished(self) -> bool:
        """Whether the endpoint is done."""
        return bool(self.endpoint.finished())

    def timeout(self) -> Any:
        """Called now and then while it runs, if ``timeout=`` was given; for subclasses."""

    def process(self) -> None:
        """What the thread does."""
        ended = threading.Event()
        if self._every is not None:
            ticker = threading.Thread(target=self._tick, args=(ended,), daemon=True)
            ticker.start()
        try:
            self.endpoint.process()
        except Exception as error:
            log.info("%s failed", self.name(), exc_info=True)
            self._state = f"failed: {error}"
        else:
            done = self.endpoint.finished() and self.endpoint.authenticated()
            self._state = "success" if done else "failed: incomplete"
        finally:
            ended.set()

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(self._every):
            self.timeout()


class Client_daemon(Mincemeat_daemon):  # noqa: N801
    """A ``Client`` in a thread of its own. Raises ``OSError`` if nobody listens."""

    def __init__(self, credentials: Mapping[str, Any], cls: Any = Client, **options: Any) -> None:
        super().__init__(credentials, cls=cls, **options)


class Server_daemon(Mincemeat_daemon):  # noqa: N801
    """A ``Server`` in a thread of its own. Raises ``OSError`` if the port is taken."""

    def __init__(self, credentials: Mapping[str, Any], cls: Any = Server, **options: Any) -> None:
        super().__init__(credentials, cls=cls, **options)

    def results(self) -> dict[Any, Any] | None:
        """The next results that nobody has taken yet, or None: ``Server.results``."""
        results: dict[Any, Any] | None = self.endpoint.results()
        return results

    def set_datasource(self, datasource: Any = None, **settings: Any) -> None:
        """Have one more datasource run: ``Server.set_datasource``."""
        self.endpoint.set_datasource(datasource, **settings)
