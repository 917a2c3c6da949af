"""A simulated peer process: the real cores, and a driver that does their orders in virtual time."""

import itertools
import random
from collections.abc import Callable
from typing import assert_never

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.messages import (
    NO_REIGN,
    Address,
    Assign,
    Claim,
    Failure,
    Hello,
    PeerRef,
    Progress,
    RecordMeta,
    Reign,
    TaskDone,
    Welcome,
)
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.simulation.auditor import Auditor
from tests.simulation.cabinet import Cabinet
from tests.simulation.work import from_a_message
from tests.simulation.workshop import Workshop
from tests.simulation.world import Content, Link, World


class Process:
    """One peer. Subject to being killed, frozen and slowed by the scenario."""

    def __init__(
        self, world: World, auditor: Auditor, name: str, host: str, settings: Settings
    ) -> None:
        self.world = world
        self.auditor = auditor
        self.name = name
        self.settings = settings
        self.host = world.host(host)
        self.me = PeerRef(f"{name}#{len(world.processes)}", name, host, Address(host, 0))
        self.alive = True
        self.frozen = False
        self.slowness = 1.0
        self.duplicates = 0.0
        self.disturbed = False
        """Whether this process was ever kept from its duties by other means than death."""
        self.closing = False
        self.orders_left: int | None = None
        """After so many orders and news sent as server this process is killed."""
        self.joined_at: float | None = None
        self.reigns: dict[Reign, float] = {}
        """Those it was a member of, in order, and since when."""
        rng = random.Random(world.rng.getrandbits(64))
        doors = tuple(Address(host, port) for port in settings.ports)
        self.client = ClientCore(settings, self.me, rng, own=(host,), strict=True, doors=doors)
        self.server: ServerCore | None = None
        self.greeting: Welcome | None = None
        self.pointer: Claim | None = None
        self.ready_for = ""
        """The peer to which a connection is kept ready."""
        self.heard_at = 0.0
        self.port: Address | None = None
        self._links: dict[int, tuple[Link, int]] = {}
        self._dialled: dict[int, Address] = {}
        """Connections on their way: by the numbers of their links."""
        self._link_count = 0
        self._inbox: list[Callable[[], None]] = []
        self._overdue: list[Callable[[], None]] = []
        self._timers = {"client": 0, "server": 0}
        self.shop = Workshop(self)
        patience = settings.silence_seconds if settings.hosts else 0.0
        self.cabinet = Cabinet(self, patience)
        world.processes.append(self)
        self.host.processes.append(self)

    @property
    def awake(self) -> bool:
        return self.alive and not self.frozen

    def next_link(self) -> int:
        self._link_count += 1
        return self._link_count

    # -- life and death ----------------------------------------------------------------

    def start(self, candidates: tuple[Address, ...]) -> None:
        self.world.note(self.name, "starts")
        own = tuple(address for address in candidates if address.host == self.host.name)
        self.tell(ev.Started(candidates, own))

    def kill(self) -> None:
        """SIGKILL: ports and links close, the folder stays."""
        self.world.note(self.name, "is killed")
        self.auditor.gentle = False
        self._end()

    def _end(self) -> None:
        self.alive = False
        if self.port is not None:
            self.host.ports.pop(self.port.port, None)
        for link, end in list(self._links.values()):
            link.close(end, "process ended")
        for link in self.world.relayed:
            if link.through is self:
                link.tear("the one between has ended")
        for other in self.world.processes:
            if other.ready_for == self.me.peer and self.reaches(other):
                other.soon(ev.ReadinessLost(self.me.peer))
        self.auditor.owner_died(self)

    def leave(self, seconds: float | None = None) -> None:
        """The user closes the peer, which may take so long about it."""
        self.world.note(self.name, "is closed")
        self.closing = True
        self.tell(ev.CloseRequested(self.settings.linger_seconds if seconds is None else seconds))

    def disturb(self) -> None:
        """Note that more than death befalls the grid."""
        self.disturbed = True
        self.auditor.calm = False
        self.auditor.gentle = False

    def slow_down(self, factor: float) -> None:
        """From now on everything takes longer to arrive here."""
        if factor > 1:
            self.world.note(self.name, f"is {factor:g} times slower to reach")
            self.disturb()
        self.slowness = factor

    def freeze(self) -> None:
        self.world.note(self.name, "is frozen")
        self.disturb()
        self.frozen = True

    def wake(self) -> None:
        """What arrived meanwhile is read before any deadline fires."""
        if not (self.alive and self.frozen):
            return
        self.world.note(self.name, "wakes")
        self.frozen = False
        inbox, self._inbox = self._inbox, []
        for action in inbox:
            self.receive(action)
        overdue, self._overdue = self._overdue, []
        for fire in overdue:
            fire()

    def receive(self, action: Callable[[], None]) -> None:
        """Let something happen in this process, now or when it wakes; never if it is dead."""
        if self.frozen:
            self._inbox.append(action)
        elif self.alive:
            action()

    # -- cores -------------------------------------------------------------------------

    def tell(self, event: ev.ClientEvent) -> None:
        self.receive(lambda: self._step_client(event))

    def soon(self, event: ev.ClientEvent, seconds: float | None = None) -> None:
        delay = self.world.delay() if seconds is None else seconds
        self.world.at(delay, lambda: self.tell(event))

    def _step_client(self, event: ev.ClientEvent) -> None:
        if isinstance(event, ev.Received) and event.link == self.client.election.link:
            self.heard_at = self.world.now
        for effect in self.client.step(event, self.world.now):
            self._do_client(effect)
        self._arm("client", self.client.next_deadline(), self._client_due)
        self.auditor.check_client(self)

    def _client_due(self) -> None:
        self._step_client(ev.DeadlineReached())

    def _step_server(self, event: ev.ServerEvent) -> None:
        if self.server is None:
            return
        core = self.server
        effects = core.step(event, self.world.now)
        self.auditor.check_server(self, core, effects)
        for effect in effects:
            self._do_server(effect)
            if self._dies_after(effect):
                return
        if self.server is core:
            self._arm("server", core.next_deadline(), self._server_due)

    def _dies_after(self, effect: fx.ServerEffect) -> bool:
        """Whether this was the last message before a death in the middle of a step."""
        if self.orders_left is None or not isinstance(effect, fx.Send):
            return False
        if not isinstance(effect.message, Assign | Progress):
            return False
        self.orders_left -= 1
        if self.orders_left > 0 or not self.alive:
            return False
        self.kill()
        return True

    def _server_due(self) -> None:
        self._step_server(ev.DeadlineReached())

    def _arm(self, which: str, deadline: float | None, due: Callable[[], None]) -> None:
        self._timers[which] += 1
        number = self._timers[which]
        if deadline is None:
            return

        def fire() -> None:
            if self._timers[which] != number:
                return
            if self.frozen:
                self._overdue.append(fire)
            else:
                self.receive(due)

        self.world.at(max(0.0, deadline - self.world.now), fire)

    # -- links -------------------------------------------------------------------------

    def _open(
        self,
        other: "Process",
        address: Address,
        local: bool = False,
        through: "Process | None" = None,
    ) -> None:
        assert other.greeting is not None
        link = Link(self.world, self, other, local, through)
        self._links[link.numbers[0]] = (link, 0)
        other._links[link.numbers[1]] = (link, 1)
        hello = Hello(1, "grid", self.me.peer, self.name, (3, 11), "peer", address)
        link.send(1, lambda: other._step_server(ev.LinkOpened(link.numbers[1], hello, local)))
        welcome = other.greeting
        self._dialled[link.numbers[0]] = address

        def connected() -> None:
            del self._dialled[link.numbers[0]]
            self._step_client(ev.Connected(link.numbers[0], address, welcome))

        link.send(0, connected)

    def link_lost(self, link: Link, end: int, reason: str) -> None:
        number = link.numbers[end]
        self._links.pop(number, None)
        if end == 0 and (dialled := self._dialled.pop(number, None)) is not None:
            self._step_client(ev.ReconnectFailed(dialled, "silent", reason))
        elif end == 0:
            self._step_client(ev.LinkLost(number, reason))
        else:
            self._step_server(ev.LinkLost(number, reason))

    def far(self, number: int) -> "Process | None":
        """Who is at the other end of one of this process's links."""
        found = self._links.get(number)
        return found[0].ends[1 - found[1]] if found else None

    def break_links(self) -> None:
        """The network drops every connection of this process to others."""
        self.world.note(self.name, "loses its links")
        self.disturb()
        for link, _ in list(self._links.values()):
            if not link.local:
                link.close(None, "connection reset")

    # -- the client's orders -----------------------------------------------------------

    def _do_client(self, effect: fx.ClientEffect) -> None:  # noqa: C901 - one row an order
        match effect:
            case fx.Send():
                self._send(effect)
            case fx.CloseLink():
                self._close(effect.link)
            case fx.Probe():
                for address in effect.addresses:
                    self._probe(address, effect.claim)
            case fx.Ask():
                for ref in effect.peers:
                    self._ask(ref)
            case fx.Resolve() | fx.Warn():
                pass
            case fx.Reconnect():
                self._reconnect(effect)
            case fx.BindPort():
                self._bind(effect.port)
            case fx.Point():
                self.world.note(self.name, f"points to {effect.claim.address}")
                self.pointer = effect.claim
            case fx.Unpoint():
                self._unpoint()
            case fx.KeepReady():
                self.ready_for = effect.peer.peer if effect.peer else ""
            case fx.Serve():
                self._serve(effect)
            case fx.ConnectOwnServer():
                self._open(self, effect.address, local=True)
            case fx.StopServing():
                self._step_server(ev.ReignEnded(effect.redirect))
            case fx.RoleChanged():
                who = effect.server.name if effect.server else "-"
                self.world.note(self.name, f"is {effect.role} {who} {effect.reign}")
            case fx.GiveUp():
                self.world.note(self.name, f"gives up: {effect.error}")
            case fx.AdoptRecord():
                if effect.meta.keeping is not None:
                    self.cabinet.keep_too(effect)
                else:
                    self.shop.adopt_record(effect)
            case fx.FetchResult():
                self.shop.fetch_result(effect)
            case fx.Deliver():
                if effect.result:
                    found: list[Content | None] = [from_a_message(effect.result)]
                else:
                    found = [self.shop.find(h.output, ref) for h, ref in effect.holdings]
                self.auditor.delivered(self, effect, found)
            case fx.Reject():
                self.auditor.rejected(self, effect.txn, effect.failure)
            case fx.RejectName():
                self.auditor.rejected(self, effect.txn, Failure("bug", effect.message))
            case fx.ShowProgress():
                self.auditor.progress(self, effect)
            case (
                fx.ShowPrinted()
                | fx.ShowStatus()
                | fx.ShowPrints()
                | fx.GoDownNow()
                | fx.CallServer()
                | fx.SufferFault()
            ):
                pass
            case fx.DrainSelf() | fx.ShowDrained():
                pass
            case fx.MeasureSelf():
                self.soon(ev.SelfMeasured(0.0, 0, 0, 0))
            case fx.Prepare():
                self.shop.prepare(effect.assign)
            case fx.RunTask():
                self.shop.run(effect.assign, effect.output)
            case fx.ForgetTask():
                self.shop.forget(effect.attempt)
            case fx.DropOutputs():
                self.shop.drop(effect)
            case fx.DropOutput():
                self.shop.drop_one(effect.output)
            case fx.AdoptEstates():
                self.shop.adopt_estates()
                self.cabinet.look()
            case fx.Closed():
                self.world.note(self.name, "has left" if effect.well else "leaves in haste")
                self.auditor.gentle = self.auditor.gentle and effect.well
                self._end()
            case _:
                assert_never(effect)

    def _send(self, effect: fx.Send) -> None:
        found = self._links.get(effect.link)
        if found is None:
            return
        link, end = found
        other = link.ends[1 - end]
        number = link.numbers[1 - end]
        received = ev.Received(number, effect.message)
        step = other._step_server if end == 0 else other._step_client
        link.send(1 - end, lambda: step(received))
        if isinstance(effect.message, TaskDone) and self.world.rng.random() < self.duplicates:
            link.send(1 - end, lambda: step(received))

    def _close(self, number: int) -> None:
        found = self._links.pop(number, None)
        if found is not None:
            found[0].close(found[1], "closed by the other side")

    def _probe(self, address: Address, claim: Claim | None) -> None:
        def answer() -> None:
            holder = self.world.holder(address)
            silent = self.settings.probe_seconds
            if not self.world.reachable(self.host.name, address.host):
                self.soon(ev.ProbeFailed(address, "silent", "no answer"), silent)
            elif holder is None:
                self.tell(ev.ProbeFailed(address, "refused", "nobody listens"))
            elif isinstance(holder, str):
                self.tell(ev.ProbeFailed(address, "stranger", holder))
            elif holder.frozen:
                self.soon(ev.ProbeFailed(address, "silent", "no answer"), silent)
            else:
                if claim is not None and holder.greeting is not None:
                    holder.soon(ev.RivalHeard(claim))
                self.soon(ev.ProbeAnswered(address, holder.greets()))

        self.world.at(self.world.delay(), answer)

    def greets(self) -> Welcome:
        """What is answered on the well-known port."""
        if self.greeting is not None:
            return self.greeting
        bound = Welcome(self.me.peer, self.name, (3, 11), NO_REIGN, 0)
        return bound if self.pointer is None else self._vouches(self.pointer)

    def _vouches(self, follows: Claim) -> Welcome:
        """Say whom this peer follows, and when it last heard from it."""
        heard = self.world.now - self.heard_at
        return Welcome(
            self.me.peer, self.name, (3, 11), follows.reign, follows=follows, heard_seconds=heard
        )

    def _ask(self, ref: PeerRef) -> None:
        def answer() -> None:
            asked = next(p for p in self.world.processes if p.me.peer == ref.peer)
            if not asked.alive and self.world.reachable(self.host.name, ref.host):
                self.tell(ev.AskFailed(ref.peer, "nobody listens"))
            elif not asked.awake or not self.world.reachable(self.host.name, ref.host):
                self.soon(ev.AskFailed(ref.peer, "no answer"), self.settings.probe_seconds)
            else:
                self.soon(ev.AskAnswered(ref.peer, asked.followed()))

        self.world.at(self.world.delay(), answer)

    def followed(self) -> Welcome:
        """What is answered on the data port to who asks whom this peer follows."""
        election = self.client.election
        if election.server is None or not election.joined:
            return Welcome(self.me.peer, self.name, (3, 11))
        link = self.far(election.link or 0)
        assert link is not None
        return self._vouches(Claim(link.me.peer, election.server, election.reign, 1))

    def _between(self, effect: fx.Reconnect) -> "Process | None":
        """Who passes a connection on."""
        wanted = effect.through.peer if effect.through else ""
        return next((p for p in self.world.processes if p.me.peer == wanted), None)

    def _reconnect(self, effect: fx.Reconnect) -> None:
        address = effect.address

        def dial() -> None:
            holder = self.world.holder(address)
            if not self.alive:
                return
            between = self._between(effect)
            hosts = [self.host.name, address.host]
            if between is not None:
                hosts.insert(1, between.host.name)
            near = all(self.world.reachable(a, b) for a, b in itertools.pairwise(hosts))
            if not near or (between is not None and not between.awake):
                self.soon(ev.ReconnectFailed(address, "silent", "no answer"), 2.0)
            elif isinstance(holder, Process) and holder.greeting and not holder.frozen:
                self._open(holder, address, through=between)
            else:
                kind: ev.DialFailure = "silent" if holder else "refused"
                self.tell(ev.ReconnectFailed(address, kind, "nobody serves there"))

        self.world.at(self.world.delay(), dial)

    def _bind(self, port: int) -> None:
        if port in self.host.ports:
            self.soon(ev.PortTaken(port, "in use"))
            return
        self.host.ports[port] = self
        self.port = Address(self.host.name, port)
        self.soon(ev.PortBound(port, self.port))

    def _unpoint(self) -> None:
        """Free the port that was bound to point from, unless it has been bound to serve since."""
        self.pointer = None
        if self.port is not None and self.server is None:
            self.host.ports.pop(self.port.port, None)
            self.port = None

    def _serve(self, effect: fx.Serve) -> None:
        self.pointer = None
        self.world.note(self.name, f"serves as {effect.reign}")
        self.auditor.reigned(self, effect.reign)
        if self.server is None:
            self.server = ServerCore(self.settings)
        self._step_server(ev.ReignBegan(effect.reign, self.me, effect.expected, effect.failovers))

    # -- the server's orders -----------------------------------------------------------

    def _do_server(self, effect: fx.ServerEffect) -> None:
        match effect:
            case fx.Send():
                self._send(effect)
            case fx.CloseLink():
                self._close(effect.link)
            case fx.TellClient():
                self.soon(ev.TermSurpassed(effect.seen), 0.0)
            case fx.Greet():
                anew = self.greeting is None or self.greeting.reign != effect.reign
                self.greeting = Welcome(
                    self.me.peer, self.name, (3, 11), effect.reign, effect.followers
                )
                if anew:
                    self._summon()
            case fx.FreePort():
                self._free_port()
            case _:
                assert_never(effect)

    def _summon(self) -> None:
        """Say on the connections that others keep ready that this process serves now."""
        assert self.port is not None
        assert self.greeting is not None
        for other in self.world.processes:
            if other.ready_for == self.me.peer and self.reaches(other):
                other.soon(ev.Summoned(self.port, self.greeting))

    def reaches(self, other: "Process") -> bool:
        return other.alive and self.world.reachable(self.host.name, other.host.name)

    def _free_port(self) -> None:
        self.world.note(self.name, "frees the port")
        if self.port is not None:
            self.host.ports.pop(self.port.port, None)
        self.port = None
        self.greeting = None
        self.server = None
        for number, (link, end) in list(self._links.items()):
            if end == 1:
                del self._links[number]
                link.close(1, "server ended its reign")

    # -- the user ----------------------------------------------------------------------

    def submit(
        self, txn: str, meta: RecordMeta, name: str = "", fingerprint: dict[str, str] | None = None
    ) -> None:
        self.world.note(self.name, f"submits {txn} {name}".rstrip())
        self.shop.records[meta.record] = meta
        self.auditor.submitted(self, txn, meta, name)
        self.tell(ev.SubmitRequested(txn, meta, name, fingerprint or {}, False, None))

    def ask(self, txn: str, name: str, *, wait: bool = False, certain: bool = False) -> None:
        """Want the finished result of a name, without having the job."""
        self.world.note(self.name, f"asks {txn} for the result of {name}")
        self.auditor.asked(self, txn, name)
        self.tell(ev.ResultRequested(txn, name, wait, certain))

    def submit_detached(self, meta: RecordMeta) -> None:
        """Have others keep it; then wait for its end as anybody may."""
        self.world.note(self.name, f"detaches {meta.record}")
        self.auditor.knows(meta)

        def then(returned: bool) -> None:
            said = "returned" if returned else "not kept by anybody"
            self.world.note(self.name, f"{meta.record} is {said}")
            if returned:
                self.auditor.detached.returned(meta)
                self.ask(f"d{meta.record}", meta.record, wait=True, certain=True)

        self.receive(lambda: self.cabinet.submit(meta, then))

    def end(self, txn: str, record: str) -> None:
        """End a record that may be anybody's."""
        self.world.note(self.name, f"ends {record} for everyone")
        self.auditor.ended(record)
        self.tell(ev.EndRequested(txn, record))

    def cancel(self, txn: str, *, everyone: bool) -> None:
        self.world.note(self.name, f"cancels {txn} {'for all' if everyone else ''}".rstrip())
        self.auditor.withdrawn(txn, everyone=everyone)
        self.tell(ev.CancelRequested(txn, everyone))
