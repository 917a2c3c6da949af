"""Who serves: seek, grab, rivals. The part of a client that decides whom to follow.

There is no vote. The well-known port is the lock: whoever binds it serves, everyone else joins.
``Election`` is told what probes, dials and binds came to and says what to do next::

    phase       what it waits for                 what ends it
    ---------   -------------------------------   ------------------------------------------------
    seeking     answers of all candidates         a server answered -> joining; none -> waiting
    waiting     its turn among the successors     seeks now and then; its turn come -> binding
    binding     the port                          bound -> serving; taken -> seeking, or next port
    joining     a greeted link                    connected -> following; failed -> seeking
    following   nothing                           link lost or server silent -> seeking
    serving     a better rival                    found and joined -> following (abdication)
    closed      nothing

A port is passed over only if what holds it did not answer as a server of this grid: a frozen
process, a stranger, another grid. A port that was free when sought and is taken when bound was
grabbed by a peer a moment ago: seek again and join it.

Rivals compare by (has live followers beside itself, term, reign id) and never by a place in a
list, because lists differ. A server abdicates only to one that has accepted it. Source: the
well-known-port election drawn in mincemeat.py's README, with terms as in Raft (Ongaro 2014).
"""

import random
from enum import Enum

from grid.admission import implausible
from grid.effects import (
    BindPort,
    ClientEffect,
    CloseLink,
    ConnectOwnServer,
    GiveUp,
    Probe,
    Reconnect,
    Resolve,
    RoleChanged,
    Serve,
    StopServing,
)
from grid.errors import CannotJoin, Refused, WrongKey
from grid.events import (
    Connected,
    PortBound,
    PortTaken,
    ProbeAnswered,
    ProbeFailed,
    ReconnectFailed,
)
from grid.messages import NO_REIGN, Address, PeerRef, Reign, Successor, Welcome
from grid.settings import Settings

GRACE_SECONDS = 0.05
"""How long the answers of other candidates are awaited once one server has answered."""

AGAIN_SECONDS = 0.05
"""Pause before seeking again when someone else is just now becoming server."""

PATIENCE_SECONDS = (0.02, 0.5)
"""First and longest pause between two rounds of seeking, each twice the one before: a successor
takes over within some milliseconds, and a grid that stays away is not to be pestered."""

WIDE_SPAN = 16
"""Ports tried by a peer with its user's own key when other users' grids hold the first ones."""

JOIN_ATTEMPTS = 3
JOIN_SECONDS = 2.0
"""A server that greeted a probe and then cannot be joined this often is not one to wait for."""


class Phase(Enum):
    SEEKING = "seeking"
    WAITING = "waiting"
    BINDING = "binding"
    JOINING = "joining"
    FOLLOWING = "following"
    SERVING = "serving"
    CLOSED = "closed"


def claim(followers: int, reign: Reign) -> tuple[bool, int, str]:
    """Return what rivals compare: the greater one keeps the grid."""
    return (followers > 0, reign.term, reign.id)


class Election:
    """Decides whom to follow and when to serve. Every method returns the effects to perform.

    ``own`` are the hosts under which this peer's own listening addresses can be probed;
    ``strict`` makes another key on the port an error instead of a reason to try the next port.
    """

    def __init__(
        self, settings: Settings, peer: str, own: tuple[str, ...], strict: bool, rng: random.Random
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.phase = Phase.SEEKING
        self.seen = NO_REIGN
        self.reign = NO_REIGN
        self.server: Address | None = None
        self.link: int | None = None
        self.successors: tuple[Successor, ...] = ()
        self.members = 0
        self.deadline: float | None = None
        self._own = own
        self._strict = strict
        self._rng = rng
        self._ports = settings.ports
        self._candidates: tuple[Address, ...] = ()
        self._pending: set[Address] = set()
        self._servers: dict[Address, Welcome] = {}
        self._failures: dict[Address, ProbeFailed] = {}
        self._told: dict[Address, ProbeFailed] = {}
        """The last failure at each address, of earlier rounds too: for people."""
        self._grab_at: float | None = None
        self._pause_seconds = PATIENCE_SECONDS[0]
        self._followed_at = 0.0
        self._missing = 0
        self._ever_joined = False
        self._born: float | None = None
        self._bound: Address | None = None
        self._rival: Address | None = None

    # -- what others ask ---------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """There is a link to a server, one's own or another's."""
        return self.link is not None

    @property
    def serving(self) -> bool:
        return self._bound is not None

    # -- seeking -----------------------------------------------------------------------

    def start(self, candidates: tuple[Address, ...], now: float) -> list[ClientEffect]:
        self._born = now
        self._candidates = candidates
        return [self._role(), *self.seek(now)]

    def resolved(self, candidates: tuple[Address, ...]) -> list[ClientEffect]:
        self._candidates = candidates
        return []

    def lost_server(self, now: float) -> list[ClientEffect]:
        """The link to the followed server is gone, or it is silent."""
        self.link = None
        self._take_heart()
        self._count_missing(now)
        effects: list[ClientEffect] = []
        if self._bound is not None:
            self._bound = None
            effects.append(StopServing(None))
        self.phase = Phase.SEEKING
        return [*effects, self._role(), *self.seek(now)]

    def _count_missing(self, now: float) -> None:
        """How many should come back to the next server. A reign too short for all to have joined
        does not know how many there are; the one before did."""
        short = now - self._followed_at < self.settings.silence_seconds
        self._missing = max(self.members, self._missing if short else 0, 1) - 1

    def _take_heart(self) -> None:
        """Begin to seek afresh: quickly at first, and with one's turn still to come."""
        self._grab_at = None
        self._pause_seconds = PATIENCE_SECONDS[0]

    def seek(self, now: float) -> list[ClientEffect]:
        """Greet every candidate, and one's own ports, at once."""
        self.phase = Phase.SEEKING
        self.deadline = None
        own = tuple(Address(host, port) for port in self._ports for host in self._own)
        addresses = tuple(dict.fromkeys(self._candidates + own))
        self._pending = set(addresses)
        self._servers.clear()
        self._failures.clear()
        if addresses:
            return [Probe(addresses)]
        return self._nobody(now)

    def probe_answered(self, event: ProbeAnswered, now: float) -> list[ClientEffect]:
        if self.phase is Phase.SERVING:
            return self._meet_rival(event)
        if self.phase is not Phase.SEEKING or event.address not in self._pending:
            return []
        wrong = implausible(event.welcome.reign, self.seen)
        if wrong:
            return self.probe_failed(ProbeFailed(event.address, "stranger", wrong), now)
        self._pending.discard(event.address)
        if event.welcome.peer != self.peer:
            self._servers[event.address] = event.welcome
        if not self._pending:
            return self._sought(now)
        if self._best() is not None:
            self.deadline = now + GRACE_SECONDS
        return []

    def probe_failed(self, event: ProbeFailed, now: float) -> list[ClientEffect]:
        if self.phase is not Phase.SEEKING or event.address not in self._pending:
            return []
        self._pending.discard(event.address)
        self._failures[event.address] = self._told[event.address] = event
        return [] if self._pending else self._sought(now)

    def _best(self) -> Address | None:
        """The best server that answered. One that has bound but not begun does not count."""
        serving = [a for a, w in self._servers.items() if w.reign.term]
        if not serving:
            return None
        return max(serving, key=lambda a: claim(self._servers[a].followers, self._servers[a].reign))

    def _sought(self, now: float) -> list[ClientEffect]:
        best = self._best()
        if best is not None:
            return self._join(best)
        if self._servers:
            return self._pause(AGAIN_SECONDS, now)
        if not self._ever_joined:
            error = self._hopeless()
            if error is not None:
                return [GiveUp(error)]
        if self._widen():
            return self.seek(now)
        return self._nobody(now)

    def _widen(self) -> bool:
        """With one's user's own key, another user's grid on the port is no error: look further."""
        foreign = any(f.kind == "wrong_key" for f in self._failures.values())
        if self._strict or not foreign or len(self._ports) >= WIDE_SPAN:
            return False
        first = self.settings.port
        self._ports = range(first, min(first + WIDE_SPAN, 65536))
        return True

    def _hopeless(self) -> CannotJoin | None:
        """Another grid on the port is an error for whoever was told to use this key."""
        for failure in self._failures.values():
            if failure.kind == "wrong_key" and self._strict:
                return WrongKey(
                    f"{failure.address} is held by a grid with another key or password "
                    f"({failure.reason}). Use that grid's key on this machine too, or another port."
                )
            if failure.kind == "refusal":
                return Refused(f"{failure.address} refuses this peer: {failure.reason}")
        return None

    def _pause(self, seconds: float, now: float) -> list[ClientEffect]:
        self.phase = Phase.WAITING
        self.deadline = now + seconds
        return []

    # -- waiting and grabbing ----------------------------------------------------------

    def _nobody(self, now: float) -> list[ClientEffect]:
        seconds = self._pause_seconds
        self._pause_seconds = min(2 * seconds, PATIENCE_SECONDS[1])
        if not self.settings.serves:
            return [*self._pause(seconds, now), Resolve()]
        if self._grab_at is None:
            self._grab_at = now + self._rank_seconds()
        if now >= self._grab_at:
            return self._bind(0, now)
        return self._pause(min(seconds, self._grab_at - now), now)

    def _rank_seconds(self) -> float:
        """How long to leave the port to those who come before."""
        step = self.settings.rank_step_seconds
        order = [successor.ref.peer for successor in self.successors]
        if self.peer in order:
            return order.index(self.peer) * step
        if self.successors or self.settings.hosts:
            return len(self.successors) * step + self._rng.uniform(0, step)
        return 0.0

    def _bind(self, index: int, now: float) -> list[ClientEffect]:
        if index < len(self._ports):
            self.phase = Phase.BINDING
            self.deadline = None
            return [BindPort(self._ports[index])]
        self._grab_at = None
        return [*self._pause(PATIENCE_SECONDS[1], now), Resolve()]

    def port_taken(self, event: PortTaken, now: float) -> list[ClientEffect]:
        if self.phase is not Phase.BINDING:
            return []
        holder = [
            f for a, f in self._failures.items() if a.port == event.port and a.host in self._own
        ]
        if holder and all(failure.kind != "refused" for failure in holder):
            return self._bind(self._ports.index(event.port) + 1, now)
        return self._pause(self._rng.uniform(0.2, 1) * AGAIN_SECONDS, now)

    def port_bound(self, event: PortBound, now: float) -> list[ClientEffect]:
        self._bound = event.address
        return self._reign_anew(now)

    def _reign_anew(self, now: float) -> list[ClientEffect]:
        assert self._bound is not None
        self.reign = Reign(self.seen.term + 1, f"{self._rng.getrandbits(64):016x}")
        self.seen = self.reign
        self.phase = Phase.SERVING
        self.deadline = now + self._rival_seconds()
        effects: list[ClientEffect] = [Serve(self.reign, self._missing)]
        if self.link is None:
            effects.append(ConnectOwnServer(self._bound))
        return effects

    def term_surpassed(self, seen: Reign, now: float) -> list[ClientEffect]:
        """A member of our own server knows a higher term: reign above it."""
        self.seen = max(self.seen, seen)
        if self._bound is None or self.seen <= self.reign:
            return []
        return [*self._reign_anew(now), self._role()]

    # -- joining and following ---------------------------------------------------------

    def _join(self, address: Address) -> list[ClientEffect]:
        self.phase = Phase.JOINING
        self.deadline = None
        return [Reconnect(address, JOIN_ATTEMPTS, JOIN_SECONDS)]

    def redirected(self, address: Address) -> list[ClientEffect]:
        """The followed server abdicates in favour of the one at ``address``."""
        closing: list[ClientEffect] = [] if self.link is None else [CloseLink(self.link)]
        self.link = None
        self.phase = Phase.SEEKING
        return [*closing, self._role(), *self._join(address)]

    def connected(self, event: Connected, now: float) -> list[ClientEffect]:
        """A link stands. The caller joins over it if ``self.link`` is it afterwards."""
        wrong = implausible(event.welcome.reign, self.seen)
        if wrong:
            failed = ReconnectFailed(event.address, "stranger", wrong)
            return [CloseLink(event.link, wrong), *self.reconnect_failed(failed, now)]
        if self.phase is Phase.SERVING and self.link is None and event.address == self._bound:
            self.link = event.link
            self.server = event.address
        elif self.phase is Phase.SERVING and event.address == self._rival:
            return self._abdicate(event)
        elif self.phase is Phase.JOINING:
            self.phase = Phase.FOLLOWING
            self.link = event.link
            self.server = event.address
            self._follow(event.welcome.reign)
        else:
            return [CloseLink(event.link)]
        self._ever_joined = True
        self._followed_at = now
        self._take_heart()
        self._resume_rival_watch(now)
        return []

    def _follow(self, reign: Reign) -> None:
        self.reign = reign
        self.seen = max(self.seen, reign)

    def _resume_rival_watch(self, now: float) -> None:
        self.deadline = now + self._rival_seconds() if self.phase is Phase.SERVING else None

    def reconnect_failed(self, event: ReconnectFailed, now: float) -> list[ClientEffect]:
        if self.phase is Phase.SERVING and event.address == self._rival:
            self._rival = None
            return []
        if self.phase is not Phase.JOINING:
            return []
        return self._pause(AGAIN_SECONDS, now)

    def told(self, reign: Reign, successors: tuple[Successor, ...], members: int) -> None:
        """The followed server told its reign and the order of taking over."""
        self._follow(reign)
        self.successors = successors
        self.members = members

    # -- rivals ------------------------------------------------------------------------

    def _rival_seconds(self) -> float:
        return self.settings.rival_seconds * self._rng.uniform(0.75, 1.25)

    def _look_for_rivals(self, now: float) -> list[ClientEffect]:
        self.deadline = now + self._rival_seconds()
        own = {Address(h, p) for h in self._own for p in self._ports}
        addresses = tuple(
            a for a in dict.fromkeys((*self._candidates, *sorted(own))) if a != self._bound
        )
        return [Probe(addresses)] if addresses else []

    def _meet_rival(self, event: ProbeAnswered) -> list[ClientEffect]:
        theirs = event.welcome
        if theirs.peer == self.peer or not theirs.reign.term or self._rival is not None:
            return []
        if claim(theirs.followers, theirs.reign) <= claim(self.members - 1, self.reign):
            return []
        self._rival = event.address
        return [Reconnect(event.address, 1, self.settings.probe_seconds)]

    def _abdicate(self, event: Connected) -> list[ClientEffect]:
        """The better rival has accepted us: send the members there and follow it."""
        effects: list[ClientEffect] = [StopServing(event.address)]
        if self.link is not None:
            effects.append(CloseLink(self.link))
        self._bound = None
        self._rival = None
        self.phase = Phase.FOLLOWING
        self.link = event.link
        self.server = event.address
        self._follow(event.welcome.reign)
        self.deadline = None
        return effects

    # -- time and end ------------------------------------------------------------------

    def due(self, now: float) -> list[ClientEffect]:
        """Do what the deadline was for, if it has come."""
        if self.deadline is None or now < self.deadline:
            return []
        self.deadline = None
        if self.phase is Phase.SERVING:
            return self._look_for_rivals(now)
        if self.phase is Phase.SEEKING:
            return self._sought(now)
        if self.phase is Phase.WAITING:
            return self.seek(now)
        return []

    def overdue(self, now: float) -> CannotJoin | None:
        """The error for ``Peer()`` when it has neither joined nor served in time."""
        if self._ever_joined or self._born is None:
            return None
        if now < self._born + self.settings.join_timeout:
            return None
        seen = "; ".join(f"{a}: {f.kind} ({f.reason})" for a, f in sorted(self._told.items()))
        serving = (
            "none of them could be served" if self.settings.serves else "visitors do not serve"
        )
        return CannotJoin(
            f"no grid answered within {self.settings.join_timeout:g} s and {serving}. "
            f"{seen or 'No answers.'}"
        )

    @property
    def join_deadline(self) -> float | None:
        """When ``overdue`` is worth asking."""
        if self._ever_joined or self._born is None or self.phase is Phase.CLOSED:
            return None
        return self._born + self.settings.join_timeout

    def close(self) -> list[ClientEffect]:
        """End: leave the server, or end the reign. No redirect: the successors know their order."""
        effects: list[ClientEffect] = []
        if self._bound is not None:
            effects.append(StopServing(None))
        if self.link is not None:
            effects.append(CloseLink(self.link))
        self._bound = None
        self.link = None
        self.phase = Phase.CLOSED
        self.deadline = None
        return [*effects, self._role()]

    def _role(self) -> RoleChanged:
        return self.role(None)

    def role(self, server: PeerRef | None) -> RoleChanged:
        """Describe whom this peer follows, for people."""
        if self.phase is Phase.CLOSED:
            return RoleChanged("closed", self.reign, None, None)
        if self.link is None:
            return RoleChanged("seeking", self.reign, None, None)
        serving = self.phase is Phase.SERVING
        return RoleChanged("serving" if serving else "following", self.reign, self.server, server)
