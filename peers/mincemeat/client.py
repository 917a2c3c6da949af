"""``Client``: one worker of a mincemeat program.

A peer of one slot that never serves: it joins the server at a host and port, runs what it is given,
one task at a time, in a process of its own that starts in the client's folder and finds the modules
that the client finds, and leaves when the server says that it is done. What functions print is
shown by the client that ran them.

It joins a grid of ``Peer`` just as well. There no server says that all is done: it stays, follows
when another peer takes over, and leaves when there has been no server for a while.
"""

import logging
import socket
import threading
import time
from typing import Any

from grid.errors import CannotJoin, Misuse, Refused, WrongKey
from peers import interruptible
from peers.mincemeat import DEFAULT_PORT
from peers.mincemeat.joining import (
    as_password,
    check_port,
    is_local,
    refuse_asyncore,
    warn_if_weak,
)
from peers.peer import Peer

LOST_SECONDS = 15.0
"""How long a client waits for another server: several times what a grid takes to."""

JOIN_SECONDS = 5.0
"""How long somebody who listens may take to show that it is a server."""

LOOK_SECONDS = 0.25

log = logging.getLogger("peers.mincemeat")


class Client:
    """Works for a server. Set ``password``, then call ``conn``.

    Subclasses may define ``handle_error``, which is called while an error is being handled; here
    it raises that again. ``map`` and ``shuttout`` are taken, and mean nothing any more.
    """

    def __init__(self, map: Any = None, schedule: Any = None, shuttout: Any = None) -> None:  # noqa: A002, ARG002
        refuse_asyncore(schedule)
        self.password: Any = None
        self.addr: tuple[str, int] | None = None
        self._joined = threading.Event()
        self._finished = threading.Event()
        self._closing = threading.Event()

    def conn(
        self,
        interface: str = "",
        port: int = DEFAULT_PORT,
        password: Any = None,
        asynchronous: bool = False,
        **others: Any,
    ) -> None:
        """Work for the server at this host (this one, if it is empty) until it is done.

        Other keyword arguments are those of a server, and ignored. Raises ``OSError`` if nobody
        listens there, or no server of the kind; ``WrongKey`` for another password. With
        ``asynchronous`` only find out whether somebody listens; another thread is to call
        ``process()``.
        """
        for name in ("mapfn", "collectfn", "reducefn"):
            if getattr(self, name, None) is not None:
                raise Misuse(f"a Client's own {name} is not used: set it on the Server")
        host = interface or others.get("server") or "localhost"
        self.addr = (host, check_port(port))
        if password is not None:
            self.password = password
        self._joined.clear()
        self._finished.clear()
        with socket.create_connection(self.addr, timeout=JOIN_SECONDS):
            pass  # refused at once, where a peer would go on looking
        if not asynchronous:
            self.process()

    def process(self) -> None:
        """Join, and work until the server is done, or gone, or the client is closed."""
        try:
            with self._joining() as peer:
                self._joined.set()
                self._stay(peer)
        except Exception:
            self.handle_error()
        finally:
            self._closing.clear()
            self._finished.set()

    def finished(self, timeout: float | None = 0.0) -> bool:
        """Whether the client has left, or is leaving. Wait so long for it."""
        return interruptible.wait(self._finished, timeout)

    def authenticated(self, timeout: float | None = 0.0) -> bool:
        """Whether server and client have proved themselves to each other. Wait so long for it."""
        return interruptible.wait(self._joined, timeout)

    def name(self) -> str:
        """What people read."""
        host, port = self.addr or (None, None)
        return f"Client>{host}:{port}"

    def handle_close(self) -> None:
        """Leave soon, and join no more. From any thread."""
        self._closing.set()

    close = handle_close

    def handle_error(self) -> None:
        """Called while the error that ended the client is handled; raises it again."""
        raise

    def _joining(self) -> Peer:
        assert self.addr is not None, "conn says where to"
        host, port = self.addr
        password = as_password(self.password)
        warn_if_weak(password, local=is_local(host))
        try:
            return Peer(
                () if host in ("localhost", "127.0.0.1") else (host,),
                password=password,
                weak_password=True,
                port=port,
                port_span=1,
                slots=1,
                serves=False,
                prints_here=True,
                join_timeout=JOIN_SECONDS,
            )
        except (WrongKey, Refused):
            raise
        except CannotJoin as error:
            raise ConnectionError(f"no server at {host}:{port}: {error}") from error

    def _stay(self, peer: Peer) -> None:
        heard_at = time.monotonic()
        while not self._closing.is_set():
            if peer.wait_until_down(LOOK_SECONDS):
                log.info("%s: the server is done", self.name())
                return
            now = time.monotonic()
            if peer.server:
                heard_at = now
            elif now - heard_at > LOST_SECONDS:
                log.warning("%s: the server is gone, and there is no other", self.name())
                return
