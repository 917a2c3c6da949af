"""One round of looking for a server: every place is greeted at once, and this is what came of it.

A place answers as a server of this grid, or points to the server that it follows (a signpost), or
fails in a way that says something: nobody listens, no answer, another key. A place that is pointed
to is greeted too, in the same round. A host that was silent the last time is not waited for as long
as the others are.

Promises: the best server is the one that rivals would agree on (``claim``), whatever place it was
found at. Keeps the last failure of each place beyond the round, for people.
"""

from msgspec import Struct, field

from grid.admission import implausible
from grid.errors import CannotJoin, Refused, WrongKey
from grid.events import ProbeFailed
from grid.messages import Address, Claim, PeerRef, Reign, Welcome


def claim(followers: int, reign: Reign) -> tuple[bool, int, str]:
    """Return what rivals compare: the greater one keeps the grid."""
    return (followers > 0, reign.term, reign.id)


class Vouch(Struct, frozen=True):
    """``voucher`` says that it hears from the server of ``claim``, and can pass on to it."""

    voucher: PeerRef
    claim: Claim


class Search(Struct):
    """``peer`` is who searches: what it answers itself is nothing found."""

    peer: str
    pending: dict[Address, None] = field(default_factory=dict)
    servers: dict[Address, Welcome] = field(default_factory=dict)
    failures: dict[Address, ProbeFailed] = field(default_factory=dict)
    vouches: list[Vouch] = field(default_factory=list)
    told: dict[Address, ProbeFailed] = field(default_factory=dict)
    """The last failure at each address, of earlier rounds too: for people."""
    _doubted: frozenset[str] = frozenset()

    def begin(self, addresses: tuple[Address, ...], doubted: frozenset[str]) -> None:
        """A new round. ``doubted`` are hosts that need not be waited for as long as the others."""
        self.pending = dict.fromkeys(addresses)
        self.servers.clear()
        self.failures.clear()
        self.vouches.clear()
        self._doubted = doubted

    def answered(
        self, address: Address, welcome: Welcome, seen: Reign, fresh_seconds: float
    ) -> Address | None:
        """Take an answer; return a place to greet as well, if it points to one. A pointer counts as
        a vouch if its server was heard from within ``fresh_seconds``."""
        wrong = implausible(welcome.reign, seen)
        if wrong:
            self.failed(ProbeFailed(address, "stranger", wrong))
            return None
        self.pending.pop(address, None)
        self.told.pop(address, None)
        if welcome.peer == self.peer:
            return None
        if welcome.follows is None:
            self.servers[address] = welcome
            return None
        voucher = PeerRef(welcome.peer, welcome.name, "", address)
        self.vouch(voucher, welcome, seen, fresh_seconds)
        return self.point(welcome.follows)

    def vouch(
        self, voucher: PeerRef, welcome: Welcome, seen: Reign, fresh_seconds: float
    ) -> Vouch | None:
        """Take note of who follows whom. Good for nothing if the server was not heard from lately,
        or reigns no more: its successor is there."""
        follows = welcome.follows
        if (
            follows is None
            or follows.peer == self.peer
            or follows.reign < seen
            or implausible(follows.reign, seen)
            or welcome.heard_seconds > fresh_seconds
        ):
            return None
        self.vouches.append(Vouch(voucher, follows))
        return self.vouches[-1]

    def point(self, follows: Claim) -> Address | None:
        """Somebody named this server: return its place if it is still to be greeted."""
        place = follows.address
        known = place in self.pending or place in self.servers or place in self.failures
        if known or follows.peer == self.peer:
            return None
        self.pending[place] = None
        return place

    def failed(self, event: ProbeFailed) -> None:
        self.pending.pop(event.address, None)
        self.failures[event.address] = self.told[event.address] = event

    def greet_again(self, addresses: tuple[Address, ...]) -> None:
        """Only these are awaited now, in the same round."""
        self.pending = dict.fromkeys(addresses)
        for address in addresses:
            self.failures.pop(address, None)

    @property
    def said_no(self) -> tuple[Address, ...]:
        """Where somebody answered in this round, and did not serve."""
        mute = ("silent", "unreachable")
        return tuple(a for a, failure in self.failures.items() if failure.kind not in mute)

    @property
    def only_doubtful(self) -> bool:
        """All have answered but places of doubted hosts."""
        return all(address.host in self._doubted for address in self.pending)

    def best(self) -> Address | None:
        """The best server that answered. One that has bound but not begun does not count."""
        serving = [a for a, w in self.servers.items() if w.reign.term]
        if not serving:
            return None
        return max(serving, key=lambda a: claim(self.servers[a].followers, self.servers[a].reign))

    def silent_hosts(self) -> frozenset[str]:
        """The hosts of which nothing but silence was heard last."""
        spoke = {a.host for a, f in self.told.items() if f.kind not in ("silent", "unreachable")}
        return frozenset(address.host for address in self.told) - spoke

    # -- for people --------------------------------------------------------------------

    @property
    def foreign(self) -> bool:
        """Another grid holds one of the places."""
        return any(failure.kind == "wrong_key" for failure in self.failures.values())

    def hopeless(self, strict: bool) -> CannotJoin | None:
        """Another grid on the port is an error for whoever was told to use this key (``strict``);
        so is one of this grid that will not have us."""
        for failure in self.failures.values():
            if failure.kind == "wrong_key" and strict:
                return WrongKey(
                    f"{failure.address} is held by a grid with another key or password "
                    f"({failure.reason}). Use that grid's key on this machine too, or another port."
                )
            if failure.kind == "refusal":
                return Refused(f"{failure.address} refuses this peer: {failure.reason}")
        return None

    def story(self, places: tuple[Address, ...] = ()) -> str:
        """What was last seen at all places, or at these."""
        told = sorted((a, f) for a, f in self.told.items() if not places or a in places)
        return "; ".join(f"{address}: {f.kind} ({f.reason})" for address, f in told)
