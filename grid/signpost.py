"""A peer as a signpost: from the free port of its host it points newcomers to its server.

A newcomer may know only one host of a grid, and that host's server may be elsewhere. Then one of
those who follow binds the well-known port there, and answers with the server's address. Where the
port is taken by another signpost that one will do; where something of no grid has it, the next port
of the span is used.

Promises: nobody points without following a server on another host. Decides nothing about elections:
a peer that loses its server withdraws its sign first.
"""

from msgspec import Struct

from grid.effects import BindPort, ClientEffect, Point, Probe, Unpoint
from grid.events import PortTaken, ProbeFailed
from grid.messages import Address, Claim
from grid.places import Places
from grid.settings import Settings


class Signpost(Struct):
    """``up`` from when its port is ordered until it is withdrawn or the port turns out taken."""

    settings: Settings
    places: Places
    up: bool = False

    def wanted(self, server: Address | None) -> bool:
        """Newcomers may know only this host, and its port is free since its server is elsewhere."""
        return (
            self.settings.serves
            and bool(self.settings.hosts)
            and server is not None
            and not self.places.here(server)
        )

    def raise_at(self, port: int) -> list[ClientEffect]:
        self.up = True
        return [BindPort(port)]

    def point(self, claim: Claim) -> list[ClientEffect]:
        """The port is bound, or there is news of the server."""
        return [Point(claim)] if self.up else []

    def taken(self, event: PortTaken) -> list[ClientEffect]:
        """Somebody has the port: look who."""
        self.up = False
        return [Probe((Address(self.places.hosts[0], event.port),))]

    def elsewhere(self, event: ProbeFailed) -> list[ClientEffect] | None:
        """What holds the port is none of this grid: use the next one. None if there is none, or
        the port is free again: then it is to be tried again later."""
        if self.up or event.address.host != self.places.hosts[0]:
            return []
        if event.kind == "refused" or event.address.port + 1 not in self.places.ports:
            return None
        return self.raise_at(event.address.port + 1)

    def withdraw(self) -> list[ClientEffect]:
        was_up, self.up = self.up, False
        return [Unpoint()] if was_up else []
