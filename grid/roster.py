"""The members of a grid as its server knows them: who they are, what they hold and run."""

from collections.abc import Iterator
from itertools import zip_longest

from msgspec import Struct, field

from grid.messages import (
    Address,
    Held,
    Holding,
    Kind,
    Output,
    PeerRef,
    Running,
    Successor,
    Vitals,
)
from grid.settings import ADOPTERS

SUCCESSORS_MAX = 8
"""Enough that some survive together with a server, few enough to tell everyone."""


class Departure(Struct):
    """How far a member has come with leaving well. Tasks that ended since then are counted, and
    the bytes of its outputs that others took over."""

    finished: int = 0
    handed_back: int = 0
    passed_on: int = 0
    remembered: dict[str, None] = field(default_factory=dict)
    """The retained records that others were asked to remember in its place."""
    may_go: bool = False


class Member(Struct):
    """One joined peer. ``assigned`` maps attempts to the record they work for."""

    link: int
    ref: PeerRef
    slots: int
    serves: bool
    local: bool
    returning: bool = False
    """It was a member of an earlier reign."""
    doors: tuple[Address, ...] = ()
    """Where it would be found if it served."""
    through: str = ""
    """The name of the peer that its link leads through, if any."""
    chaos: bool = False
    """It may be made to suffer faults."""
    vitals: Vitals | None = None
    """How it does, as last heard."""
    assigned: dict[str, str] = field(default_factory=dict)
    held: dict[str, dict[Output, Holding]] = field(default_factory=dict)
    held_bytes: int = 0
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unclaimed: dict[str, Running] = field(default_factory=dict)
    unclaimed_until: float = 0.0
    full_until: float = 0.0
    departure: Departure | None = None
    """Set when it wants to leave: it is given nothing more."""

    def keep(self, held: Held) -> None:
        """Note holdings that this member has announced."""
        for holding in held.holdings:
            self.keep_one(holding)
        if held.sizes:
            before = self.sizes.get(held.record, ())
            self.sizes[held.record] = tuple(map(sum, zip_longest(before, held.sizes, fillvalue=0)))

    def keep_one(self, holding: Holding) -> None:
        outputs = self.held.setdefault(holding.output.record, {})
        known = outputs.get(holding.output)
        self.held_bytes += holding.bytes - (known.bytes if known is not None else 0)
        outputs[holding.output] = holding

    def lost(self, output: Output) -> None:
        """Note that a holding is gone."""
        holding = self.held.get(output.record, {}).pop(output, None)
        if holding is not None:
            self.held_bytes -= holding.bytes

    def drop(self, record: str, kinds: tuple[Kind, ...]) -> bool:
        """Forget a record's holdings, or only these kinds; tell whether there were any. Who drops
        all of a record stops what it runs of it, and says no word about that."""
        outputs = self.held.get(record, {})
        gone = [output for output in outputs if not kinds or output.kind in kinds]
        for output in gone:
            self.lost(output)
        if kinds:
            return bool(gone)
        self.held.pop(record, None)
        self.sizes.pop(record, None)
        stopped = [a for a, running in self.unclaimed.items() if running.record == record]
        for attempt in stopped:
            del self.unclaimed[attempt]
        return bool(gone or stopped)


class Roster:
    """All members, in the order of joining."""

    def __init__(self) -> None:
        self._by_link: dict[int, Member] = {}
        self._by_peer: dict[str, Member] = {}
        self.followers = 0
        """Members that could serve, beside the serving process itself. Kept, not counted when
        asked: every step asks."""

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_link.values())

    def __len__(self) -> int:
        return len(self._by_link)

    def add(self, member: Member) -> None:
        self._by_link[member.link] = member
        self._by_peer[member.ref.peer] = member
        self.followers += member.serves and not member.local

    def remove(self, link: int) -> Member | None:
        member = self._by_link.pop(link, None)
        if member is None:
            return None
        self.followers -= member.serves and not member.local
        if self._by_peer.get(member.ref.peer) is member:
            del self._by_peer[member.ref.peer]
        return member

    def at(self, link: int) -> Member | None:
        return self._by_link.get(link)

    def named(self, peer: str) -> Member | None:
        return self._by_peer.get(peer)

    def neighbours(self, host: str) -> list[Member]:
        """The members of one host."""
        return [member for member in self if member.ref.host == host]

    def returned(self) -> int:
        """How many have come back from an earlier reign."""
        return sum(member.returning for member in self)

    def slots(self) -> int:
        return sum(member.slots for member in self if member.departure is None)

    def successors(self) -> tuple[Successor, ...]:
        """Who takes over, in order: the longest-lived first, spread over hosts."""
        by_host: dict[str, list[Successor]] = {}
        for member in self:
            if member.serves and not member.local and member.departure is None:
                successor = Successor(member.ref, member.doors)
                by_host.setdefault(member.ref.host, []).append(successor)
        queues = list(by_host.values())
        order: list[Successor] = []
        while queues and len(order) < SUCCESSORS_MAX:
            order += [queue.pop(0) for queue in queues]
            queues = [queue for queue in queues if queue]
        return tuple(order[:SUCCESSORS_MAX])


def adopters(neighbours: list[Member]) -> list[Member]:
    """Who of the members of a host is to adopt what another left: the first, but rather those that
    stay, and rather peers than visitors, who go soon and see no detached work through."""

    def unfit(member: Member) -> tuple[bool, bool]:
        return member.departure is not None, not member.serves

    return sorted(neighbours, key=unfit)[:ADOPTERS]
