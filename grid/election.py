"""Who serves: seek, ask, grab, rivals. The part of a client that decides whom to follow.

There is no vote. The well-known port is the lock: whoever binds it serves, everyone else joins.
``Election`` is told what probes, dials and binds came to and says what to do next::

    phase       what it waits for                 what ends it
    ---------   -------------------------------   ------------------------------------------------
    seeking     answers of all candidates         a server answered -> joining; none -> asking, if
                                                  the lost server may live; else waiting
    asking      what the others follow            one hears its server -> joining, through that one
    waiting     its turn among the successors     seeks now and then; its turn come -> binding
    binding     the port                          bound -> serving; taken -> seeking, or next port
    joining     a greeted link                    connected -> following; failed -> seeking
    following   nothing                           link lost or server silent -> seeking
    serving     a better rival                    found and joined -> following (abdication)
    closed      nothing

A port is passed over only if what holds it did not answer as a server of this grid: a frozen
process, a stranger, another grid. A port that was free when sought and is taken when bound was
grabbed by a peer a moment ago: seek again and join it.

A server that is lost, and whose place does not say that nobody listens there, may only be out of
*our* reach: then its successors are asked whether they hear it. Who does passes us on to it; we
never grab over such a vouch.

A server looks for rivals and abdicates to a better one (``grid/rivals.py``); one who follows a
server elsewhere may point newcomers to it (``grid/signpost.py``).

Source: the well-known-port election drawn in mincemeat.py's README, with terms as in Raft (Ongaro
2014).
"""

import random
from enum import Enum

from grid.admission import implausible
from grid.concerns import Concerns
from grid.effects import (
    Ask,
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
    Unpoint,
)
from grid.errors import CannotJoin
from grid.events import (
    AskAnswered,
    AskFailed,
    CandidatesResolved,
    Connected,
    PortBound,
    PortTaken,
    ProbeAnswered,
    ProbeFailed,
    ReconnectFailed,
    RivalHeard,
    Started,
    Summoned,
)
from grid.messages import NO_REIGN, Address, Beat, Claim, Failover, Loss, PeerRef, Reign, Successor
from grid.places import Places
from grid.rivals import Rivals
from grid.search import Search, Vouch, claim
from grid.settings import Settings
from grid.signpost import Signpost

GRACE_SECONDS = 0.05
"""How long the answers of other candidates are awaited once one server has answered."""

DOUBT_SECONDS = 0.25
"""How long the host of a lost server, and hosts that were silent before, are awaited once all
others have answered. Not so on this very host: there a port may be bound only after it has shown
that it is frozen."""

ASK_SECONDS = 0.25
"""How long the last roster's peers may take to say whom they follow. The dead do not answer."""

VOUCH_HEARTBEATS = 1.5
"""A vouch is good if its server was heard from within so many heartbeats: one, and its way."""

SILENT_HEARTBEATS = 2
"""A server not heard from for longer than this was silent before its connection broke."""

AGAIN_SECONDS = 0.05
"""Pause before seeking again when someone else is just now becoming server."""

PATIENCE_SECONDS = (0.02, 0.5)
"""First and longest pause between two rounds of seeking, each twice the one before: a successor
takes over within some milliseconds, and a grid that stays away is not to be pestered."""

CROWD = 32
"""So many members may all ask others at the same moment on one host: each asks several, and each
answer costs a whole handshake."""

RESOLVE_SECONDS = 1.0
"""How often names are looked up while nobody is found."""

WIDE_SPAN = 16
"""Ports tried by a peer with its user's own key when other users' grids hold the first ones."""

JOIN_ATTEMPTS = 3
JOIN_SECONDS = 2.0
"""A server that greeted a probe and then cannot be joined this often is not one to wait for."""

POINT_SECONDS = 1.0
"""How long a server is followed before this peer becomes a signpost to it."""


class Phase(Enum):
    SEEKING = "seeking"
    ASKING = "asking"
    WAITING = "waiting"
    BINDING = "binding"
    JOINING = "joining"
    FOLLOWING = "following"
    SERVING = "serving"
    CLOSED = "closed"


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
        self.members = 0
        self.deadline: float | None = None
        self._strict = strict
        self._rng = rng
        self._places = Places(settings, peer, own, settings.ports)
        self._search = Search(peer)
        self._asked: dict[str, PeerRef] = {}
        self._live: set[str] | None = None
        """The successors that answered when asked; None if nobody was asked."""
        self._lost: Address | None = None
        self._loss: tuple[Loss, float] | None = None
        self.failovers: tuple[Failover, ...] = ()
        self._grab_at: float | None = None
        self._retired = False
        self._resolve_at = 0.0
        self._sought_at = 0.0
        self._looks_last = False
        """A last look goes on, at places that answered before."""
        self._pause_seconds = PATIENCE_SECONDS[0]
        self._followed_at = 0.0
        self._missing = 0
        self._ever_joined = False
        self._untold = False
        """A link stands, and its server has said nothing yet."""
        self._born: float | None = None
        self._bound: Address | None = None
        self._rivals = Rivals(settings, peer, self._places, rng)
        self._signpost = Signpost(settings, self._places)
        self._server_peer = ""
        self._concerns = Concerns()

    # -- what others ask ---------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """There is a link to a server, one's own or another's."""
        return self.link is not None

    @property
    def serving(self) -> bool:
        return self._bound is not None

    @property
    def successors(self) -> tuple[Successor, ...]:
        return self._places.successors

    # -- seeking -----------------------------------------------------------------------

    def start(self, event: Started, now: float) -> list[ClientEffect]:
        self._born = now
        self._places.found(event.candidates, event.own)
        return [
            self._role(),
            *self._concerns.tell("names", "; ".join(event.unknown)),
            *self.seek(now),
        ]

    def resolved(self, event: CandidatesResolved) -> list[ClientEffect]:
        self._places.found(event.candidates, event.own)
        return self._concerns.tell("names", "; ".join(event.unknown))

    def lost_server(self, now: float, heard_at: float | None = None) -> list[ClientEffect]:
        """The link to the followed server, last heard from at ``heard_at``, is gone; or it is
        silent."""
        self.link = None
        self._lost = self.server
        if self._untold:
            # A server that takes us in and lets us go, unheard, is not to be pestered.
            self.phase = Phase.SEEKING
            self._pause_seconds = min(2 * self._pause_seconds, PATIENCE_SECONDS[1])
            ended = [StopServing(None)] if self._bound is not None else []
            self._bound = None
            withdrawn = self._signpost.withdraw()
            return [*ended, *withdrawn, self._role(), *self._pause(self._pause_seconds, now)]
        silent = heard_at is not None and now - heard_at > SILENT_HEARTBEATS * (
            self.settings.heartbeat_seconds
        )
        self._loss = ("silent", heard_at or now) if silent else ("closed", now)
        self._take_heart()
        self._count_missing(now)
        effects: list[ClientEffect] = []
        if self._bound is not None:
            self._bound = None
            effects.append(StopServing(None))
        self.phase = Phase.SEEKING
        return [*effects, *self._signpost.withdraw(), self._role(), *self.seek(now)]

    def _count_missing(self, now: float) -> None:
        """How many should come back to the next server. A reign too short for all to have joined
        does not know how many there are; the one before did."""
        short = now - self._followed_at < self.settings.silence_seconds
        self._missing = max(self.members, self._missing if short else 0, 1) - 1

    def _take_heart(self) -> None:
        """Begin to seek afresh: quickly at first, and with one's turn still to come."""
        self._grab_at = None
        self._live = None
        self._pause_seconds = PATIENCE_SECONDS[0]

    def seek(self, now: float) -> list[ClientEffect]:
        """Greet every place where a server may be, at once."""
        self.phase = Phase.SEEKING
        self.deadline = None
        self._sought_at = now
        self._looks_last = False
        addresses = self._places.to_seek()
        self._search.begin(addresses, self._doubted(addresses))
        if addresses:
            return [Probe(addresses)]
        return self._nobody(now)

    def _doubted(self, addresses: tuple[Address, ...]) -> frozenset[str]:
        """The hosts that are not waited for as long as others: where the server was lost, and where
        there was only silence before; all, if it was lost in silence: others may be cut off with
        it. Never this host's own: there silence means that something frozen has the port."""
        doubted = set(self._search.silent_hosts())
        if self._lost is not None:
            doubted.add(self._lost.host)
            if self._loss is not None and self._loss[0] == "silent":
                doubted.update(address.host for address in addresses)
        return frozenset(doubted.difference(self._places.hosts))

    def probe_answered(self, event: ProbeAnswered, now: float) -> list[ClientEffect]:
        if self.phase is Phase.SERVING:
            welcome = event.welcome
            theirs = Claim(welcome.peer, event.address, welcome.reign, welcome.followers)
            if welcome.follows is not None:
                # It may have to give way, and not know of us: we look there too, which tells it.
                self._places.remember((welcome.follows.address,))
            return self._meet_rival(welcome.follows or theirs)
        if self.phase is Phase.FOLLOWING and self._should_point():
            self.deadline = now + self._rivals.pause()  # another is the signpost of this host
            return []
        if self.phase not in (Phase.SEEKING, Phase.ASKING):
            return []
        if event.address not in self._search.pending:
            return []
        further = self._search.answered(
            event.address, event.welcome, self.seen, self._fresh_seconds()
        )
        if further is not None:
            return [Probe((further,))]
        return self._weigh(now)

    def probe_failed(self, event: ProbeFailed, now: float) -> list[ClientEffect]:
        if self.phase is Phase.SERVING:
            self._search.told[event.address] = event
            return []
        if self.phase is Phase.FOLLOWING and self._should_point():
            return self._point_elsewhere(event, now)
        if self.phase not in (Phase.SEEKING, Phase.ASKING):
            return []
        if event.address not in self._search.pending:
            return []
        self._search.failed(event)
        return self._weigh(now)

    def _weigh(self, now: float) -> list[ClientEffect]:
        """One more place has told: is that enough to go on?"""
        search = self._search
        if self.phase is Phase.ASKING:
            best = search.best()
            if best is not None:
                return self._join(best)
            return [] if search.pending else self._follow_vouch() or self._asked_all(now)
        if not search.pending:
            return self._sought(now)
        if search.best() is not None:
            self.deadline = now + GRACE_SECONDS
        elif search.only_doubtful and self.deadline is None:
            asked = self._ask(now)  # meanwhile a place may still answer
            if asked:
                return asked
            self.deadline = now + DOUBT_SECONDS
        return []

    def _sought(self, now: float) -> list[ClientEffect]:
        search = self._search
        best = search.best()
        if best is not None:
            return self._join(best)
        if search.servers:
            return self._pause(AGAIN_SECONDS, now)
        if not self._ever_joined:
            error = search.hopeless(self._strict)
            if error is not None:
                return [GiveUp(error)]
        if self._widen():
            return self.seek(now)
        through = self._follow_vouch()
        if through:
            return through
        asked = [] if self._looks_last else self._ask(now)
        return asked or self._nobody(now)

    def summoned(self, event: Summoned) -> list[ClientEffect]:
        """The first successor of a server that is lost serves, as it should."""
        welcome = event.welcome
        if self.phase not in (Phase.SEEKING, Phase.ASKING, Phase.WAITING):
            return []
        if welcome.reign <= self.seen or implausible(welcome.reign, self.seen):
            return []
        return self._join(event.address)

    def _widen(self) -> bool:
        """With one's user's own key, another user's grid on the port is no error: look further."""
        ports = self._places.ports
        if self._strict or not self._search.foreign or len(ports) >= WIDE_SPAN:
            return False
        self._places.ports = range(ports.start, min(ports.start + WIDE_SPAN, 65536))
        return True

    def _pause(self, seconds: float, now: float) -> list[ClientEffect]:
        self.phase = Phase.WAITING
        self.deadline = now + seconds
        return []

    # -- asking ------------------------------------------------------------------------

    def _fresh_seconds(self) -> float:
        return VOUCH_HEARTBEATS * self.settings.heartbeat_seconds

    def _ask(self, now: float) -> list[ClientEffect]:
        """Ask the last roster, unless the server's own host said that it is gone. Nor if a large
        grid's server was on this very host: what is silent here has its whole crowd at the door
        rather than being out of reach, and everyone asking everyone would keep all from it."""
        if self._lost is None or (self._missing > CROWD and self._places.here(self._lost)):
            return []
        failure = self._search.failures.get(self._lost)
        if failure is not None and failure.kind == "refused":
            return []
        refs = [s.ref for s in self.successors if s.ref.peer != self.peer]
        if not refs:
            return []
        self.phase = Phase.ASKING
        self.deadline = now + ASK_SECONDS
        self._asked = {ref.peer: ref for ref in refs}
        self._live = set()
        return [Ask(tuple(refs))]

    def ask_answered(self, event: AskAnswered, now: float) -> list[ClientEffect]:
        """Whom a peer of the last roster follows; it lives, whatever it says."""
        ref = self._asked.pop(event.peer, None)
        if self.phase is not Phase.ASKING or ref is None:
            return []
        assert self._live is not None
        self._live.add(event.peer)
        vouch = self._search.vouch(ref, event.welcome, self.seen, self._fresh_seconds())
        if vouch is not None:
            place = self._search.point(vouch.claim)
            if place is not None:
                return [Probe((place,))]
            return self._follow_vouch()
        return self._asked_all(now)

    def ask_failed(self, event: AskFailed, now: float) -> list[ClientEffect]:
        ref = self._asked.pop(event.peer, None)
        if self.phase is not Phase.ASKING or ref is None:
            return []
        return self._asked_all(now)

    def _asked_all(self, now: float) -> list[ClientEffect]:
        """Nobody vouches: then whoever may still answer is waited for until the time is up."""
        waits = self._asked or self._search.vouches or self._search.pending
        return [] if waits else self._nobody(now)

    def _follow_vouch(self) -> list[ClientEffect]:
        """Follow, through its voucher, the best server that somebody hears and we do not."""
        if not self._search.vouches:
            return []

        def worth(vouch: Vouch) -> tuple[bool, int, str]:
            return claim(vouch.claim.followers, vouch.claim.reign)

        best = max(self._search.vouches, key=worth)
        self.phase = Phase.JOINING
        self.deadline = None
        return [
            Reconnect(best.claim.address, 1, JOIN_SECONDS, best.voucher, best.claim.peer),
        ]

    # -- waiting and grabbing ----------------------------------------------------------

    def _nobody(self, now: float) -> list[ClientEffect]:
        seconds = self._pause_seconds
        self._pause_seconds = min(2 * seconds, PATIENCE_SECONDS[1])
        again = self._resolve(now)
        if not self.settings.serves or self._retired:
            return [*self._pause(seconds, now), *again]
        first = self._grab_at is None
        if self._grab_at is None:
            self._grab_at = now + self._places.rank_seconds(self._live, self._rng)
        if now >= self._grab_at:
            looks = [] if first else self._look_last(now)
            return [*(looks or self._bind(0, now)), *again]
        return [*self._pause(min(seconds, self._grab_at - now), now), *again]

    def _look_last(self, now: float) -> list[ClientEffect]:
        """A round that waited for silent hosts began before others may have had their turn: greet
        those who answered once more, so that two hosts do not both become server."""
        if self._looks_last or now - self._sought_at <= AGAIN_SECONDS:
            return []
        places = tuple(a for a in self._search.said_no if not self._places.here(a))
        if not places:
            return []
        self.phase = Phase.SEEKING
        self.deadline = now + DOUBT_SECONDS
        self._looks_last = True
        self._search.greet_again(places)
        return [Probe(places)]

    def _resolve(self, now: float) -> list[ClientEffect]:
        """Look the names up again, now and then."""
        if not self.settings.hosts or now < self._resolve_at:
            return []
        self._resolve_at = now + RESOLVE_SECONDS
        return [Resolve()]

    def _bind(self, index: int, now: float) -> list[ClientEffect]:
        ports = self._places.ports
        if index < len(ports):
            self.phase = Phase.BINDING
            self.deadline = None
            return [BindPort(ports[index])]
        self._grab_at = None
        return self._pause(PATIENCE_SECONDS[1], now)

    def port_taken(self, event: PortTaken, now: float) -> list[ClientEffect]:
        if self.phase is Phase.FOLLOWING and self._signpost.up:
            return self._signpost.taken(event)
        if self.phase is not Phase.BINDING:
            return []
        holder = [
            f
            for a, f in self._search.failures.items()
            if a.port == event.port and a.host in self._places.hosts
        ]
        if holder and all(failure.kind != "refused" for failure in holder):
            return self._bind(self._places.ports.index(event.port) + 1, now)
        return self._pause(self._rng.uniform(0.2, 1) * AGAIN_SECONDS, now)

    def port_bound(self, event: PortBound, now: float) -> list[ClientEffect]:
        if self.phase is Phase.FOLLOWING and self._signpost.up:
            return self._point()
        self._signpost.up = False
        if self.phase is not Phase.BINDING:
            return [Unpoint()]
        self._bound = event.address
        return self._reign_anew(now)

    def _reign_anew(self, now: float) -> list[ClientEffect]:
        assert self._bound is not None
        self.reign = Reign(self.seen.term + 1, f"{self._rng.getrandbits(64):016x}")
        self.seen = self.reign
        self.phase = Phase.SERVING
        self.deadline = now + self._rivals.pause()
        effects: list[ClientEffect] = [Serve(self.reign, self._missing, self._failed_over(now))]
        if self.link is None:
            effects.append(ConnectOwnServer(self._bound))
        return effects

    def _failed_over(self, now: float) -> tuple[Failover, ...]:
        """The latest failovers, with this one if we reign because a server was lost."""
        if self._loss is not None:
            how, since = self._loss
            before = tuple(f for f in self.failovers if f.how != how)
            this = Failover(how, self.reign.term, max(0.0, now - since))
            self.failovers = (*before, this)
            self._loss = None
        return self.failovers

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
        return [*closing, *self._signpost.withdraw(), self._role(), *self._join(address)]

    def connected(self, event: Connected, now: float) -> list[ClientEffect]:
        """A link stands. The caller joins over it if ``self.link`` is it afterwards."""
        wrong = implausible(event.welcome.reign, self.seen)
        if event.welcome.follows is not None:
            wrong = "it serves no more"
        if wrong:
            failed = ReconnectFailed(event.address, "stranger", wrong)
            return [CloseLink(event.link, wrong), *self.reconnect_failed(failed, now)]
        effects: list[ClientEffect] = []
        if self.phase is Phase.SERVING and self.link is None and event.address == self._bound:
            self.link = event.link
            self.server = event.address
        elif self.phase is Phase.SERVING and event.address == self._rivals.better:
            effects = self._abdicate(event)
        elif self.phase is Phase.JOINING:
            self.phase = Phase.FOLLOWING
            self.link = event.link
            self.server = event.address
            self._follow(event.welcome.reign)
        else:
            return [CloseLink(event.link)]
        self._untold = True
        self._followed_at = now
        self._server_peer = event.welcome.peer
        self._places.remember((event.address,))
        self._resume(now)
        return effects

    def _follow(self, reign: Reign) -> None:
        self.reign = reign
        self.seen = max(self.seen, reign)

    def _resume(self, now: float) -> None:
        """Set the clock for what there is to do beside serving or following."""
        self.deadline = None
        if self.phase is Phase.SERVING:
            self.deadline = now + self._rivals.pause()
        elif self._should_point():
            self.deadline = now + POINT_SECONDS

    def reconnect_failed(self, event: ReconnectFailed, now: float) -> list[ClientEffect]:
        if self.phase is Phase.SERVING and event.address == self._rivals.better:
            self._rivals.better = None
            return []
        if self.phase is not Phase.JOINING:
            return []
        return self._pause(AGAIN_SECONDS, now)

    def told(
        self, reign: Reign, successors: tuple[Successor, ...], members: int
    ) -> list[ClientEffect]:
        """The followed server told its reign and the order of taking over."""
        if self._untold:
            self._untold = False
            self._ever_joined = True
            self._lost = None
            self._loss = None
            self._take_heart()
        changed = reign != self.reign
        self._follow(reign)
        self._places.told(successors)
        self.members = members
        alone = self._concerns.tell("alone", "") if members > 1 else []
        return [*alone, *(self._point() if changed else ())]

    def heard(self, beat: Beat) -> list[ClientEffect]:
        """The followed server lives."""
        self.members = beat.members
        if not beat.lacking:
            return self._concerns.tell("quorum", "")
        return self._concerns.tell(
            "quorum",
            f"the grid works at nothing until {beat.lacking} more peers join: "
            "it has less than its quorum",
        )

    # -- pointing ----------------------------------------------------------------------

    def _should_point(self) -> bool:
        return self.phase is Phase.FOLLOWING and self._signpost.wanted(self.server)

    def _point(self) -> list[ClientEffect]:
        assert self.server is not None
        followers = max(self.members - 1, 1)  # we are one
        claim = Claim(self._server_peer, self.server, self.reign, followers)
        return self._signpost.point(claim)

    def _point_elsewhere(self, event: ProbeFailed, now: float) -> list[ClientEffect]:
        ordered = self._signpost.elsewhere(event)
        if ordered is None:
            self.deadline = now + self._rivals.pause()
        return ordered or []

    # -- rivals ------------------------------------------------------------------------

    def _claim(self) -> Claim:
        """What this server says of itself."""
        assert self._bound is not None
        return Claim(self.peer, self._bound, self.reign, max(self.members - 1, 0))

    def _look_for_rivals(self, now: float) -> list[ClientEffect]:
        self.deadline = now + self._rivals.pause()
        return [*self._warn_alone(), *self._resolve(now), *self._rivals.look(self._claim())]

    def rival_heard(self, event: RivalHeard) -> list[ClientEffect]:
        """Another server found us first."""
        return self._meet_rival(event.claim) if self.phase is Phase.SERVING else []

    def _meet_rival(self, theirs: Claim) -> list[ClientEffect]:
        return self._rivals.meet(theirs, self._claim(), self.seen)

    def _abdicate(self, event: Connected) -> list[ClientEffect]:
        """The better rival has accepted us: send the members there and follow it."""
        effects: list[ClientEffect] = [StopServing(event.address)]
        if self.link is not None:
            effects.append(CloseLink(self.link))
        self._bound = None
        self._rivals.better = None
        self.phase = Phase.FOLLOWING
        self.link = event.link
        self.server = event.address
        self._follow(event.welcome.reign)
        return [*effects, *self._concerns.tell("alone", "")]

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
        if self.phase is Phase.ASKING:
            return self._follow_vouch() or self._nobody(now)
        if self.phase is Phase.WAITING:
            return self.seek(now)
        if self._should_point() and not self._signpost.up:
            return self._signpost.raise_at(self.settings.port)
        return []

    def overdue(self, now: float) -> CannotJoin | None:
        """The error for ``Peer()`` when it has neither joined nor served in time."""
        if self._ever_joined or self._born is None:
            return None
        if now < self._born + self.settings.join_timeout:
            return None
        serving = (
            "none of them could be served" if self.settings.serves else "visitors do not serve"
        )
        said = (self._concerns.text("names"), self._search.story())
        told = "; ".join(text for text in said if text)
        return CannotJoin(
            f"no grid answered within {self.settings.join_timeout:g} s and {serving}. "
            f"{told or 'No answers.'}"
        )

    @property
    def join_deadline(self) -> float | None:
        """When ``overdue`` is worth asking."""
        if self._ever_joined or self._born is None or self.phase is Phase.CLOSED:
            return None
        return self._born + self.settings.join_timeout

    def retire(self) -> None:
        """This peer is leaving: it follows whoever serves, and begins no reign of its own."""
        self._retired = True

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
        return [*effects, *self._signpost.withdraw(), self._role()]

    # -- for people --------------------------------------------------------------------

    def _warn_alone(self) -> list[ClientEffect]:
        """A server without members, though other hosts were named."""
        others = self._places.others()
        if self.members > 1 or not others:
            return self._concerns.tell("alone", "")
        story = self._search.story(others)
        if not story:
            return []  # nobody has been greeted yet
        return self._concerns.tell("alone", f"serves alone, though hosts names others: {story}")

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
