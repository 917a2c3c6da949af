"""Two servers of one grid: which of them abdicates.

Each server looks now and then wherever another may be, and says who it is, so it is enough that one
of two finds the other. They compare by (has live followers beside itself, term, reign id), never by
a place in a list, because lists differ. The lesser one dials the better where that says it is; only
when it has been accepted there does it give up its own reign.

Source: terms as in Raft (Ongaro 2014).
"""

import random

from msgspec import Struct

from grid.admission import implausible
from grid.effects import ClientEffect, Probe, Reconnect
from grid.messages import Address, Claim, Reign
from grid.places import Places
from grid.search import claim
from grid.settings import Settings


class Rivals(Struct):
    """``peer`` is this peer, ``better`` where the server is that it is about to give way to."""

    settings: Settings
    peer: str
    places: Places
    rng: random.Random
    better: Address | None = None

    def pause(self) -> float:
        """How long until the next look: not all at the same moment."""
        return self.settings.rival_seconds * self.rng.uniform(0.75, 1.25)

    def look(self, mine: Claim) -> list[ClientEffect]:
        """Greet every place where a server of this grid may be or have been."""
        places = tuple(a for a in self.places.to_watch() if a != mine.address)
        return [Probe(places, mine)] if places else []

    def meet(self, theirs: Claim, mine: Claim, seen: Reign) -> list[ClientEffect]:
        """Another server is there: give way if it is the better one."""
        if theirs.peer == self.peer or not theirs.reign.term or self.better is not None:
            return []
        if implausible(theirs.reign, seen):
            return []
        if claim(theirs.followers, theirs.reign) <= claim(mine.followers, mine.reign):
            return []
        self.better = theirs.address
        return [Reconnect(theirs.address, 1, self.settings.probe_seconds)]
