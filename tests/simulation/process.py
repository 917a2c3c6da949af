"""A simulated peer process: the real cores, and a driver that does their orders in virtual time."""

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
    Failure,
    Held,
    Hello,
    Holding,
    Output,
    PeerRef,
    RecordMeta,
    Source,
    Welcome,
)
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.simulation.auditor import Auditor
from tests.simulation.work import map_content, reduce_content, sizes_of
from tests.simulation.world import Content, Link, World

CALM = 0.0


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
        self.task_seconds = (0.01, 0.08)
        self.worker_death_rate = CALM
        self.records: dict[str, RecordMeta] = {}
        rng = random.Random(world.rng.getrandbits(64))
        self.client = ClientCore(settings, self.me, rng, own=(host,), strict=True)
        self.server: ServerCore | None = None
        self.greeting: Welcome | None = None
        self.port: Address | None = None
        self.reigns: list[int] = []
        self.running: set[str] = set()
        self.cancelled: set[str] = set()
        self._links: dict[int, tuple[Link, int]] = {}
        self._link_count = 0
        self._inbox: list[Callable[[], None]] = []
        self._timers = {"client": 0, "server": 0}
        self.host.spools[self.me.peer] = {}
        world.processes.append(self)

    @property
    def spool(self) -> dict[Output, Content]:
        return self.host.spools[self.me.peer]

    def next_link(self) -> int:
        self._link_count += 1
        return self._link_count

    # -- life and death ----------------------------------------------------------------

    def start(self, candidates: tuple[Address, ...]) -> None:
        self.world.note(self.name, "starts")
        self.tell(ev.Started(candidates))

    def kill(self) -> None:
        """SIGKILL: ports and links close, the folder stays."""
        self.world.note(self.name, "is killed")
        self.alive = False
        if self.port is not None:
            self.host.ports.pop(self.port.port, None)
        for link, end in list(self._links.values()):
            link.close(end, "process ended")
        self.auditor.owner_died(self)

    def freeze(self) -> None:
        self.world.note(self.name, "is frozen")
        self.frozen = True

    def wake(self) -> None:
        """What arrived meanwhile is read before any deadline fires."""
        self.world.note(self.name, "wakes")
        self.frozen = False
        inbox, self._inbox = self._inbox, []
        for action in inbox:
            self.receive(action)

    def receive(self, action: Callable[[], None]) -> None:
        """Let something happen in this process, now or when it wakes; never if it is dead."""
        if self.frozen:
            self._inbox.append(action)
        elif self.alive:
            action()

    # -- cores -------------------------------------------------------------------------

    def tell(self, event: ev.ClientEvent) -> None:
        self.receive(lambda: self._step_client(event))

    def _soon(self, event: ev.ClientEvent, seconds: float | None = None) -> None:
        delay = self.world.delay() if seconds is None else seconds
        self.world.at(delay, lambda: self.tell(event))

    def _step_client(self, event: ev.ClientEvent) -> None:
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
        if self.server is core:
            self._arm("server", core.next_deadline(), self._server_due)

    def _server_due(self) -> None:
        self._step_server(ev.DeadlineReached())

    def _arm(self, which: str, deadline: float | None, due: Callable[[], None]) -> None:
        self._timers[which] += 1
        number = self._timers[which]
        if deadline is None:
            return

        def fire() -> None:
            if self._timers[which] == number:
                self.receive(due)

        self.world.at(max(0.0, deadline - self.world.now), fire)

    # -- links -------------------------------------------------------------------------

    def _open(self, other: "Process", address: Address, local: bool) -> None:
        assert other.greeting is not None
        link = Link(self.world, self, other, local)
        self._links[link.numbers[0]] = (link, 0)
        other._links[link.numbers[1]] = (link, 1)
        hello = Hello(1, "grid", self.me.peer, self.name, (3, 11), "peer", address)
        link.send(1, lambda: other._step_server(ev.LinkOpened(link.numbers[1], hello, local)))
        welcome = other.greeting
        link.send(0, lambda: self._step_client(ev.Connected(link.numbers[0], address, welcome)))

    def link_lost(self, link: Link, end: int, reason: str) -> None:
        number = link.numbers[end]
        self._links.pop(number, None)
        if end == 0:
            self._step_client(ev.LinkLost(number, reason))
        else:
            self._step_server(ev.LinkLost(number, reason))

    def break_links(self) -> None:
        """The network drops every connection of this process to others."""
        self.world.note(self.name, "loses its links")
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
                    self._probe(address)
            case fx.Resolve():
                pass
            case fx.Reconnect():
                self._reconnect(effect.address)
            case fx.BindPort():
                self._bind(effect.port)
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
                self._adopt_record(effect)
            case fx.FetchResult():
                self._fetch_result(effect)
            case fx.Deliver():
                self.auditor.delivered(self, effect, [self.find(h, r) for h, r in effect.holdings])
            case fx.Reject():
                self.auditor.rejected(self, effect.txn, effect.failure)
            case fx.RejectName():
                self.auditor.rejected(self, effect.txn, Failure("bug", effect.message))
            case fx.ShowProgress():
                self.auditor.progress(self, effect)
            case fx.ShowPrinted() | fx.ShowStatus() | fx.GoDownNow():
                pass
            case fx.Prepare():
                self._prepare(effect.assign)
            case fx.RunTask():
                self._run(effect.assign, effect.output)
            case fx.ForgetTask():
                self._forget(effect.attempt)
            case fx.DropOutputs():
                for output in [o for o in self._all_outputs() if o.record == effect.record]:
                    if not effect.kinds or output.kind in effect.kinds:
                        self._remove(output)
            case fx.DropOutput():
                self._remove(effect.output)
            case fx.AdoptEstates():
                self._adopt_estates()
            case fx.Closed():
                self._close_down()
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

    def _close(self, number: int) -> None:
        found = self._links.pop(number, None)
        if found is not None:
            found[0].close(found[1], "closed by the other side")

    def _probe(self, address: Address) -> None:
        def answer() -> None:
            holder = self.world.holder(address)
            if holder is None:
                self.tell(ev.ProbeFailed(address, "refused", "nobody listens"))
            elif isinstance(holder, str):
                self.tell(ev.ProbeFailed(address, "stranger", holder))
            elif holder.frozen:
                seconds = self.settings.probe_seconds
                self._soon(ev.ProbeFailed(address, "silent", "no answer"), seconds)
            else:
                bound = Welcome(holder.me.peer, holder.name, (3, 11), NO_REIGN, 0)
                self._soon(ev.ProbeAnswered(address, holder.greeting or bound))

        self.world.at(self.world.delay(), answer)

    def _reconnect(self, address: Address) -> None:
        def dial() -> None:
            holder = self.world.holder(address)
            if not self.alive:
                return
            if isinstance(holder, Process) and holder.greeting and not holder.frozen:
                self._open(holder, address, local=False)
            else:
                kind: ev.DialFailure = "silent" if holder else "refused"
                self.tell(ev.ReconnectFailed(address, kind, "nobody serves there"))

        self.world.at(self.world.delay(), dial)

    def _bind(self, port: int) -> None:
        if port in self.host.ports:
            self._soon(ev.PortTaken(port, "in use"))
            return
        self.host.ports[port] = self
        self.port = Address(self.host.name, port)
        self._soon(ev.PortBound(port, self.port))

    def _serve(self, effect: fx.Serve) -> None:
        self.world.note(self.name, f"serves as {effect.reign}")
        self.auditor.reigned(self, effect.reign)
        if self.server is None:
            self.server = ServerCore(self.settings)
        self._step_server(ev.ReignBegan(effect.reign, self.me, effect.expected))

    # -- the server's orders -----------------------------------------------------------

    def _do_server(self, effect: fx.ServerEffect) -> None:
        match effect:
            case fx.Send():
                self._send(effect)
            case fx.CloseLink():
                self._close(effect.link)
            case fx.TellClient():
                self._soon(ev.TermSurpassed(effect.seen), 0.0)
            case fx.Greet():
                self.greeting = Welcome(
                    self.me.peer, self.name, (3, 11), effect.reign, effect.followers
                )
            case fx.FreePort():
                self._free_port()
            case _:
                assert_never(effect)

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

    # -- records, tasks, results -------------------------------------------------------

    def submit(
        self, txn: str, meta: RecordMeta, name: str = "", fingerprint: dict[str, str] | None = None
    ) -> None:
        self.world.note(self.name, f"submits {txn} {name}".rstrip())
        self.records[meta.record] = meta
        self.auditor.submitted(self, txn, meta, name)
        self.tell(ev.SubmitRequested(txn, meta, name, fingerprint or {}, False, None))

    def _reachable(self, ref: PeerRef) -> "Process | None":
        for process in self.world.processes:
            if process.me.peer == ref.peer:
                return process if process.alive and not process.frozen else None
        return None

    def _adopt_record(self, effect: fx.AdoptRecord) -> None:
        def ask() -> None:
            owners = [self._reachable(ref) for ref in effect.owners]
            if any(owner and effect.meta.record in owner.records for owner in owners):
                self.records[effect.meta.record] = effect.meta
                self.tell(ev.RecordAdopted(effect.txn, effect.meta))
            else:
                self.tell(ev.RecordNotAdopted(effect.txn, "no owner answers"))

        self.world.at(self.world.delay(), ask)

    def find(self, holding: Holding, ref: PeerRef) -> Content | None:
        """Read a segment where it is: here, in a folder of this host, or from its living holder."""
        output = holding.output
        for folder in self.host.spools.values():
            if output in folder:
                return folder[output]
        other = self._reachable(ref)
        if other is None:
            return None
        return next((f[output] for f in other.host.spools.values() if output in f), None)

    def _prepare(self, assign: Assign) -> None:
        def fetch() -> None:
            if assign.kind == "map" and not any(self._reachable(ref) for ref in assign.owners):
                self.tell(ev.InputsFailed(assign.attempt, "no owner answers"))
                return
            missing = self._missing(assign.sources)
            if missing is None:
                self.tell(ev.InputsReady(assign.attempt))
            else:
                self.tell(ev.InputsFailed(assign.attempt, "inputs", missing))

        self.world.at(self.world.delay(), fetch)

    def _missing(self, sources: tuple[Source, ...]) -> tuple[Output, ...] | None:
        """None when all is there; else what is gone for good at living holders."""
        absent = [
            (source.holder, output)
            for source in sources
            for output in source.outputs
            if self.find(Holding(output, 0), source.holder) is None
        ]
        if not absent:
            return None
        return tuple(output for holder, output in absent if self._reachable(holder))

    def _run(self, assign: Assign, output: Output) -> None:
        self.running.add(assign.attempt)
        seconds = self.world.rng.uniform(*self.task_seconds) * (assign.stop - assign.start)
        dies = self.world.rng.random() < self.worker_death_rate
        content = None if dies else self._compute(assign)
        self.auditor.executed(self, assign)

        def end() -> None:
            if assign.attempt not in self.running:
                return
            self.running.discard(assign.attempt)
            if content is None:
                failure = Failure("died", "worker killed", item=assign.start)
                self._step_client(ev.TaskBroke(assign.attempt, failure))
                return
            self.spool[output] = content
            holding = Holding(output, len(content))
            sizes = sizes_of(self.auditor.partitions(assign.record), content, assign.kind)
            self._step_client(ev.TaskSealed(assign.attempt, holding, sizes, seconds))

        self.world.at(seconds, lambda: self.receive(end))

    def _compute(self, assign: Assign) -> Content | None:
        if assign.kind == "map":
            return map_content(assign.start, assign.stop)
        if assign.kind == "call":
            return ((0, (1,)),)
        parts = [
            (output.start, self.find(Holding(output, 0), source.holder))
            for source in assign.sources
            for output in source.outputs
        ]
        if any(content is None for _, content in parts):
            return None
        ordered = [c for _, c in sorted(parts, key=lambda part: part[0]) if c is not None]
        partitions = self.auditor.partitions(assign.record)
        keep = range(assign.start, assign.stop) if assign.kind == "reduce" else range(partitions)
        return reduce_content(ordered, partitions, keep)

    def _forget(self, attempt: str) -> None:
        if attempt in self.running:
            self.running.discard(attempt)
            self._soon(ev.TaskBroke(attempt, Failure("died", "stopped")))

    def _fetch_result(self, effect: fx.FetchResult) -> None:
        def fetch() -> None:
            found = [(h, ref, self.find(h, ref)) for h, ref in effect.holdings]
            missing = tuple(h.output for h, _, content in found if content is None)
            if missing:
                self.tell(ev.ResultMissing(effect.txn, effect.record, missing, "gone"))
                return
            for holding, _, content in found:
                assert content is not None
                self.spool[holding.output] = content
            self.tell(ev.ResultFetched(effect.txn, effect.record))

        self.world.at(self.world.delay(), lambda: self.receive(fetch))

    # -- folders -----------------------------------------------------------------------

    def _all_outputs(self) -> list[Output]:
        mine = [self.me.peer, *(p for p, by in self.host.adopted_by.items() if by is self)]
        return [output for peer in mine for output in self.host.spools.get(peer, {})]

    def _remove(self, output: Output) -> None:
        mine = [self.me.peer, *(p for p, by in self.host.adopted_by.items() if by is self)]
        for peer in mine:
            self.host.spools.get(peer, {}).pop(output, None)

    def _adopt_estates(self) -> None:
        for process in self.world.processes:
            keeper = self.host.adopted_by.get(process.me.peer)
            if process.alive or process.host is not self.host or (keeper and keeper.alive):
                continue
            self.host.adopted_by[process.me.peer] = self
            by_record: dict[str, list[Holding]] = {}
            for output, content in self.host.spools[process.me.peer].items():
                by_record.setdefault(output.record, []).append(Holding(output, len(content)))
            held = tuple(Held(record, tuple(hs)) for record, hs in by_record.items())
            self._soon(ev.EstateAdopted(process.me.peer, held))

    def _close_down(self) -> None:
        self.world.note(self.name, "has left")
        self.alive = False
        self.auditor.owner_died(self)
