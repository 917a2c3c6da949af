"""What a follower does for those who cannot find or reach the server: it says whom it follows, and
connects them with that server.

Answers at the doors of a peer that does not serve: its data port, and the well-known port where it
is a signpost. ``ask`` (and, at a signpost, ``probe``) is answered with the server followed and how
long ago it was heard; ``relay`` is passed on to that server (``peers/relay.py``), the way this peer
goes itself. Who is passed on greets the server end to end, and is verified by it like anyone else.
``await`` is kept until this peer serves (``peers/server_thread.py``).

Promises: leads to the server followed now, and nowhere else: this is no open proxy. Nobody is told
of a server that this peer has lost.
"""

import socket
import sys
from collections.abc import Callable

from grid.messages import PROTOCOL, Hello, Refusal, Welcome
from peers.link import Connection
from peers.relay import Relay
from peers.security import Security
from peers.transport import connect, dial_through
from peers.whereabouts import Following, Whereabouts

DIAL_SECONDS = 3.0
"""For dialling the server: somebody else waits for it."""


class Voucher:
    """Answers with ``whereabouts`` and connects through ``relay``. ``grid`` and ``name`` are what
    it says in its own hello. May be used from any thread."""

    def __init__(
        self, security: Security, grid: str, name: str, whereabouts: Whereabouts, relay: Relay
    ) -> None:
        self._security = security
        self._grid = grid
        self._name = name
        self._whereabouts = whereabouts
        self._relay = relay
        self.let_wait: Callable[[Connection], None] | None = None
        """Where those go who want to be members the moment this peer serves."""

    def greet(self, hello: Hello) -> Welcome | Refusal:
        """Say whom this peer follows; refuse to connect with anybody else."""
        welcome = Welcome(self._security.peer_id, self._name, sys.version_info[:2])
        following = self._whereabouts.following
        if hello.role == "relay" and (following is None or following.claim.peer != hello.wanted):
            return Refusal("this peer does not follow the server that you want")
        return self._whereabouts.told(welcome)

    def admit(self, connection: Connection) -> None:
        """Connect one that was greeted as ``relay``, keep one that came to ``await``; any other has
        had its answer."""
        following = self._whereabouts.following
        if connection.hello.role == "await" and self.let_wait is not None:
            self.let_wait(connection)
        elif connection.hello.role != "relay":
            connection.close()
        elif following is None or following.claim.peer != connection.hello.wanted:
            self._relay.refuse(connection, "this peer has just lost that server")
        else:
            self._relay.forward(connection, lambda: self._dial(following))

    async def _dial(self, following: Following) -> socket.socket:
        """On the relay's thread."""
        if following.through is None:
            return await connect(following.near, DIAL_SECONDS)
        hello = Hello(
            protocol=PROTOCOL,
            grid=self._grid,
            peer=self._security.peer_id,
            name=self._name,
            python=sys.version_info[:2],
            role="relay",
            intended=following.near,
        )
        return await dial_through(
            following.through, self._security, hello, DIAL_SECONDS, following.claim.peer, 0
        )
