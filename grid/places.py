"""Where a server of this grid may be, in order, and whose turn it is to become one.

A place is an address: ``hosts`` times ports (*candidates*), the ports of this peer's own host, and
the *doors* of successors, who may live on hosts that nobody listed. Places of former servers and
successors are remembered for a while, for whoever looks for rivals: after a cut the other half's
server may be one that ours no longer has in its roster.
"""

import random

from msgspec import Struct

from grid.messages import Address, Successor
from grid.settings import Settings

REMEMBERED_MAX = 64
"""Former places that are looked at. Each costs a greeting now and then."""

RANK_MAX = 8
"""Of so many listed hosts the earlier one begins; later ones come all after them, in any order."""


class Places(Struct):
    """``peer`` is this peer, ``hosts`` under which its own listening addresses can be probed."""

    settings: Settings
    peer: str
    hosts: tuple[str, ...]
    ports: range
    candidates: tuple[Address, ...] = ()
    own: tuple[Address, ...] = ()
    """The candidates that are of this host."""
    successors: tuple[Successor, ...] = ()
    _remembered: dict[Address, None] | None = None

    def found(self, candidates: tuple[Address, ...], own: tuple[Address, ...]) -> None:
        """Names were looked up."""
        self.candidates = candidates
        self.own = own

    def told(self, successors: tuple[Successor, ...]) -> None:
        """The server told who may take over."""
        self.successors = successors
        for successor in successors:
            if successor.ref.peer != self.peer:
                self.remember(successor.doors)

    def remember(self, addresses: tuple[Address, ...]) -> None:
        """A server was, or would be, found here."""
        remembered = self._remembered = self._remembered or {}
        for address in addresses:
            remembered.pop(address, None)
            remembered[address] = None
        while len(remembered) > REMEMBERED_MAX:
            del remembered[next(iter(remembered))]

    # -- where to look -----------------------------------------------------------------

    def to_seek(self) -> tuple[Address, ...]:
        """Everywhere that whoever took over should be."""
        mine = (Address(host, port) for port in self.ports for host in self.hosts)
        doors = (a for s in self.successors if s.ref.peer != self.peer for a in s.doors)
        return tuple(dict.fromkeys((*self.candidates, *mine, *doors)))

    def to_watch(self) -> tuple[Address, ...]:
        """Everywhere that another server of this grid may be or have been."""
        return tuple(dict.fromkeys((*self.to_seek(), *(self._remembered or ()))))

    def others(self) -> tuple[Address, ...]:
        """The candidates of other hosts: the first port of each."""
        first: dict[str, Address] = {}
        ours = {*self.hosts, *(address.host for address in self.own)}
        for address in self.candidates:
            if address.host not in ours:
                first.setdefault(address.host, address)
        return tuple(first.values())

    def here(self, address: Address) -> bool:
        """Whether an address is of this host, as far as known."""
        return address.host in self.hosts or any(a.host == address.host for a in self.own)

    # -- whose turn --------------------------------------------------------------------

    def rank_seconds(self, live: set[str] | None, rng: random.Random) -> float:
        """How long to leave the port to those who come before: successors in their order (of them
        only the ``live`` ones, if that is known), else hosts in the order they were listed; the
        rest after them all, each with a chance of its own."""
        step = self.settings.rank_step_seconds
        order = [
            successor.ref.peer
            for successor in self.successors
            if live is None or successor.ref.peer in live or successor.ref.peer == self.peer
        ]
        if self.peer in order:
            return order.index(self.peer) * step
        if self.successors:
            return len(order) * step + rng.uniform(0, step)
        if not self.settings.hosts:
            return 0.0
        hosts = list(dict.fromkeys(address.host for address in self.candidates))
        ranks = [hosts.index(address.host) for address in self.own]
        if ranks and min(ranks) < RANK_MAX:
            return min(ranks) * step
        return min(len(hosts), RANK_MAX) * step + rng.uniform(0, step)
