"""The client thread: joins the server, owns transactions, has tasks run.

Performs what ``grid.client_core`` decides: has others dialled (``peers.dialler``), sends, binds
through the standby server thread, prepares inputs on the data threads, gives tasks to the worker
pool, and tells the user's side (``Users``) what came of their transactions. Nothing of a user's is
opened here. Whom the core follows is noted for the other threads (``Whereabouts``).
"""

import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, assert_never

from msgspec import structs

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.errors import Bug, NotKept
from grid.messages import (
    Address,
    Assign,
    Claim,
    Drained,
    Failure,
    Kind,
    Message,
    PeerRef,
    Remembered,
    Successor,
    Welcome,
)
from peers.addresses import is_loopback
from peers.bulk_server import BulkServer
from peers.candidates import Candidates
from peers.chaos import Cut
from peers.core_thread import CoreThread
from peers.dialler import Attach, Dialler
from peers.inputs import Inputs, InputsAbsent, Ready
from peers.link import Link
from peers.local_link import LocalLink
from peers.results import Fetcher
from peers.security import Security
from peers.segment_writer import SpoolFull
from peers.server_thread import ServerThread
from peers.store import SpoolBusy, Store
from peers.vitals import Traffic, measure
from peers.whereabouts import Following, Whereabouts
from peers.worker_channel import (
    Died,
    NeedItems,
    PoolEvent,
    Printed,
    Raised,
    Refused,
    Succeeded,
)
from peers.worker_failures import bug
from peers.worker_pool import WorkerPool

log = logging.getLogger(__name__)

DROP_SECONDS = 0.02
"""How long outputs that nobody needs stay, to be removed together."""


class Users(Protocol):
    """The user's side of a peer. Methods are called on the client thread and must not block, but
    ``keep_end``, which puts the end of a detached transaction on disk (raising ``NotKept``), and
    ``revive``, which takes over what this host's journal keeps: these run on data threads."""

    def show_role(self, effect: fx.RoleChanged) -> None: ...
    def show_warning(self, effect: fx.Warn) -> None: ...
    def give_up(self, effect: fx.GiveUp) -> None: ...
    def deliver(self, effect: fx.Deliver) -> None: ...
    def reject(self, effect: fx.Reject) -> None: ...
    def reject_name(self, effect: fx.RejectName) -> None: ...
    def show_progress(self, effect: fx.ShowProgress) -> None: ...
    def show_printed(self, effect: fx.ShowPrinted) -> None: ...
    def show_status(self, effect: fx.ShowStatus) -> None: ...
    def show_prints(self, effect: fx.ShowPrints) -> None: ...
    def adopt_record(self, effect: fx.AdoptRecord) -> None: ...
    def keep_end(self, effect: fx.FetchResult) -> Remembered | None: ...
    def revive(self) -> None: ...
    def go_down(self) -> None: ...
    def drain(self, seconds: float) -> None: ...
    def show_drained(self, drained: Drained) -> None: ...
    def closed(self, well: bool) -> None: ...
    def suffer(self, effect: fx.SufferFault) -> None: ...
    def broken(self, bug: Bug) -> None: ...


class ClientThread(CoreThread):
    """Drives one ``ClientCore``. ``background(work)`` runs blocking work on a data thread;
    ``resolve`` looks the candidates up (also there)."""

    def __init__(
        self,
        core: ClientCore,
        security: Security,
        store: Store,
        inputs: Inputs,
        fetcher: Fetcher,
        users: Users,
        background: Callable[[Callable[[], None]], None],
        resolve: Callable[[], Candidates],
        whereabouts: Whereabouts,
        bulk_server: BulkServer,
        cut: Cut,
        traffic: Traffic,
    ) -> None:
        super().__init__("grid-client")
        self._core = core
        self._me = core.me
        self._settings = core.settings
        self._store = store
        self._inputs = inputs
        self._fetcher = fetcher
        self._users = users
        self._background = background
        self._resolve = resolve
        self._whereabouts = whereabouts
        self._dialler = Dialler(self, core, security, whereabouts, bulk_server, cut, self._joined)
        self._traffic = traffic
        self._resolving = False
        self.server: ServerThread
        self.pool: WorkerPool
        self._links: dict[int, Link | LocalLink] = {}
        self._through: dict[int, PeerRef | None] = {}
        self._numbers = itertools.count(1)
        self._ready: dict[str, Ready] = {}
        self._assigned: dict[str, Assign] = {}
        self._adopting = threading.Lock()
        self._unwanted: list[tuple[str, tuple[Kind, ...]]] = []

    @property
    def successors(self) -> tuple[Successor, ...]:
        """The peers that would take over, as last heard; from any thread."""
        return self._core.election.successors

    def filenos(self) -> list[int]:
        links = [fd for link in list(self._links.values()) for fd in link.filenos()]
        return [*super().filenos(), *links, *self._dialler.filenos(), *self.pool.filenos()]

    # -- the core ----------------------------------------------------------------------

    def _step(self, event: ev.ClientEvent) -> None:
        for effect in self.decide("client", self._core, event):
            self._perform(effect)
        if isinstance(event, ev.Received) and event.link == self._core.election.link:
            self._whereabouts.heard(max(0, self._core.election.members - 1))

    def _next_deadline(self) -> float | None:
        return self._core.next_deadline()

    def _on_deadline(self) -> None:
        self.take(ev.DeadlineReached())

    def _perform(self, effect: fx.ClientEffect) -> None:  # noqa: C901 - one row an order
        match effect:
            case fx.Send():
                link = self._links.get(effect.link)
                if link is not None:
                    link.send(effect.message)
            case fx.CloseLink():
                if effect.reason:
                    log.warning("leaves its server: %s peer=%s", effect.reason, self._me.name)
                self._through.pop(effect.link, None)
                link = self._links.pop(effect.link, None)
                if link is not None:
                    link.close()
            case fx.Probe():
                for address in effect.addresses:
                    self.do_later(self._dialler.probe(address, effect.claim))
            case fx.Ask():
                for peer in effect.peers:
                    self.do_later(self._dialler.ask(peer))
            case fx.Point():
                self.server.point(effect.claim)
            case fx.Unpoint():
                self.server.unpoint()
            case fx.KeepReady():
                self._dialler.keep_ready(effect.peer)
            case fx.Warn():
                self._users.show_warning(effect)
            case fx.Resolve():
                self._look_up()
            case fx.Reconnect():
                self.do_later(self._dialler.reconnect(effect))
            case fx.BindPort():
                self._dialler.forget_seeking()
                self.server.bind(effect.port)
            case fx.Serve():
                log.info("serves peer=%s term=%d", self._me.name, effect.reign.term)
                self.server.serve(effect.reign, effect.expected, effect.failovers)
            case fx.ConnectOwnServer():
                self._connect_own(effect.address)
            case fx.StopServing():
                self.server.stop_serving(effect.redirect)
            case fx.RoleChanged():
                self._note(effect)
                self._users.show_role(effect)
            case fx.GiveUp():
                self._users.give_up(effect)
            case fx.AdoptRecord():
                self._users.adopt_record(effect)
            case fx.FetchResult():
                self._in_background(lambda: self._fetch_result(effect))
            case fx.Deliver():
                self._users.deliver(effect)
            case fx.Reject():
                self._users.reject(effect)
            case fx.RejectName():
                self._users.reject_name(effect)
            case fx.ShowProgress():
                self._users.show_progress(effect)
            case fx.ShowPrinted():
                self._users.show_printed(effect)
            case fx.ShowStatus():
                self._users.show_status(effect)
            case fx.ShowPrints():
                self._users.show_prints(effect)
            case fx.MeasureSelf():
                self._in_background(lambda: self.post(measure(self._traffic)))
            case fx.Prepare():
                if any(record == effect.assign.record for record, _ in self._unwanted):
                    self._drop_now()  # not what it is about to be given
                self._assigned[effect.assign.attempt] = effect.assign
                at_hand = self._inputs.at_hand(effect.assign)
                if at_hand is not None:
                    self.call(self._prepared, effect.assign, at_hand)
                else:
                    self._in_background(lambda: self._prepare(effect.assign))
            case fx.RunTask():
                ready = self._ready[effect.assign.attempt]
                self.pool.run(ready.task(effect.assign, effect.output), ready.head.code)
            case fx.ForgetTask():
                self._forget(effect.attempt)
            case fx.DropOutputs():
                self._drop_soon(effect)
            case fx.DropOutput():
                self._in_background(lambda: void(self._store.drop_output(effect.output)))
            case fx.AdoptEstates():
                self._in_background(self._adopt_estates)
            case fx.CallServer():
                self.do_later(self._dialler.call_server(effect.token))
            case fx.GoDownNow():
                self._users.go_down()
            case fx.DrainSelf():
                self._users.drain(effect.seconds)
            case fx.ShowDrained():
                self._users.show_drained(effect.drained)
            case fx.SufferFault():
                self._users.suffer(effect)
            case fx.Closed():
                self._users.closed(effect.well)
            case _:
                assert_never(effect)

    def _in_background(self, work: Callable[[], None]) -> None:
        """Run blocking work on a data thread; a mistake of ours there is told, not swallowed."""

        def guarded() -> None:
            try:
                work()
            except Exception:
                log.exception("background work failed peer=%s", self._me.name)

        self._background(guarded)

    def _on_bug(self, bug: Bug) -> None:
        self._users.broken(bug)

    async def _shut(self) -> None:
        self._drop_now()
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
        self._dialler.close()
        self.pool.close()

    # -- links -------------------------------------------------------------------------

    def _joined(
        self, address: Address, welcome: Welcome, through: PeerRef | None, attach: Attach
    ) -> None:
        """A server was dialled: hear what it says from now on."""
        number = next(self._numbers)
        self._through[number] = through
        self._links[number] = attach(
            lambda message: self._on_message(number, message),
            lambda reason: self._on_closed(number, reason),
        )
        name = through.name if through is not None else ""
        self.take(ev.Connected(number, address, welcome, name))

    def cut_off(self) -> None:
        """On the thread: every connection to others is lost; the one to the own server is none."""
        self._dialler.cut_off()
        for number, link in list(self._links.items()):
            if isinstance(link, Link):
                link.close()
                self._on_closed(number, "this peer is cut off")

    def _note(self, effect: fx.RoleChanged) -> None:
        """Note whom this peer follows, for its other threads and for others who ask them."""
        server, address = effect.server, effect.address
        if server is None or address is None:
            self._whereabouts.lose()
            return
        near = self.server.near(address.port) if effect.role == "serving" else address
        if is_loopback(address.host):  # as this host dials it; others are told what it advertises
            address = Address(server.data.host, address.port)
        followers = max(0, self._core.election.members - 1)
        claim = Claim(server.peer, address, effect.reign, followers)
        through = self._through.get(self._core.election.link or 0)
        self._whereabouts.follow(Following(claim, near, through))

    def _connect_own(self, address: Address) -> None:
        number = next(self._numbers)
        self._links[number] = self.server.connect_locally(self, number)
        self.post(ev.Connected(number, address, self.server.welcome))

    def _on_message(self, number: int, message: Message) -> None:
        self.take(ev.Received(number, message))

    def _on_closed(self, number: int, reason: str) -> None:
        self._through.pop(number, None)
        if self._links.pop(number, None) is not None:
            log.info("lost the server peer=%s: %s", self._me.name, reason)
            self.take(ev.LinkLost(number, reason))

    def _look_up(self) -> None:
        """Look names up on a data thread; one at a time, as a name server may be slow."""
        if not self._resolving:
            self._resolving = True
            self._in_background(lambda: self.call(self._resolved, self._resolve()))

    def _resolved(self, found: Candidates) -> None:
        self._resolving = False
        self.take(ev.CandidatesResolved(found.addresses, found.own, found.unknown))

    # -- tasks -------------------------------------------------------------------------

    def _prepare(self, assign: Assign) -> None:
        """On a data thread."""
        try:
            ready = self._inputs.prepare(assign)
        except InputsAbsent as absent:
            failed = ev.InputsFailed(assign.attempt, absent.reason, absent.missing, absent.failure)
            self.post(failed)
        except (OSError, SpoolFull) as error:
            self.call(self._end_early, assign.attempt, "space", str(error))
        except Exception as error:
            log.exception("cannot prepare a task peer=%s", self._me.name)
            self.call(self._broke, assign.attempt, bug(error))
        else:
            self.call(self._prepared, assign, ready)

    def _prepared(self, assign: Assign, ready: Ready) -> None:
        if assign.attempt in self._assigned:
            self._ready[assign.attempt] = ready
            self.take(ev.InputsReady(assign.attempt))
        else:
            self._discard(ready.fetched)

    def _broke(self, attempt: str, failure: Failure) -> None:
        self._done_with(attempt)
        self.take(ev.TaskBroke(attempt, structs.replace(failure, peer=self._me.name)))

    def _end_early(self, attempt: str, reason: str, detail: str) -> None:
        log.warning("hands a task back peer=%s: %s", self._me.name, detail)
        self._done_with(attempt)
        self.take(ev.TaskRefused(attempt, reason, detail))  # type: ignore[arg-type]

    def _done_with(self, attempt: str) -> None:
        """Let go of what was prepared for an attempt."""
        self._assigned.pop(attempt, None)
        ready = self._ready.pop(attempt, None)
        if ready is not None:
            self._discard(ready.fetched)

    def _drop_soon(self, order: fx.DropOutputs) -> None:
        """Have outputs removed: with those of the next moment, as each time costs a look at the
        folder."""
        if not order.kinds:
            self._inputs.forget(order.record)
        if not self._unwanted:
            self.loop.call_later(DROP_SECONDS, self._drop_now)
        self._unwanted.append((order.record, order.kinds))

    def _drop_now(self) -> None:
        unwanted, self._unwanted = self._unwanted, []
        if unwanted:
            self._in_background(lambda: void(self._store.drop_each(unwanted)))

    def _discard(self, fetched: tuple[Path, ...]) -> None:
        if fetched:
            self._in_background(lambda: self._store.discard(fetched))

    def _forget(self, attempt: str) -> None:
        self.pool.kill(attempt)
        self._done_with(attempt)
        self.post(ev.TaskBroke(attempt, Failure("died", "stopped")))

    def on_pool_event(self, event: PoolEvent) -> None:
        """What a worker did; called by the pool on this thread."""
        match event:
            case Succeeded():
                self._done_with(event.attempt)
                sealed = ev.TaskSealed(
                    event.attempt, event.holding, event.sizes, event.seconds, event.result
                )
                self.take(sealed)
            case Raised():
                self._done_with(event.attempt)
                self.take(ev.TaskBroke(event.attempt, event.failure))
            case Died():
                self._died(event)
            case Refused():
                self._refused(event)
            case NeedItems():
                assign = self._assigned.get(event.attempt)
                if assign is not None:
                    self._in_background(lambda: self._give_items(assign, event.indices))
            case Printed():
                self.take(ev.OutputPrinted(event.record, event.stream, event.text))
            case _:
                assert_never(event)

    def _died(self, event: Died) -> None:
        """The server isolates the item that a worker died on, and its owner names it."""
        assign = self._assigned.get(event.attempt)
        failure = event.failure
        if assign is not None and assign.kind == "map" and event.item is not None:
            failure = structs.replace(failure, item=event.item)
        self._done_with(event.attempt)
        self.take(ev.TaskBroke(event.attempt, failure))

    def _refused(self, event: Refused) -> None:
        ready = self._ready.get(event.attempt)
        if event.reason == "inputs":
            outputs = ready.outputs if ready is not None else ()
            missing = tuple(outputs[position] for position in event.missing)
            self._done_with(event.attempt)
            self.take(ev.InputsFailed(event.attempt, event.detail, missing))
        else:
            self._end_early(event.attempt, event.reason, event.detail)

    def _give_items(self, assign: Assign, indices: tuple[int, ...]) -> None:
        """On a data thread: get values that could not be read on this host."""
        try:
            items = self._inputs.items(assign, indices, resolve=True)
        except InputsAbsent as absent:
            self.call(self._items_absent, assign.attempt, absent)
        else:
            self.call(self.pool.give_items, assign.attempt, items)

    def _items_absent(self, attempt: str, absent: InputsAbsent) -> None:
        self.pool.kill(attempt)
        self._done_with(attempt)
        self.take(ev.InputsFailed(attempt, absent.reason, absent.missing, absent.failure))

    # -- results and estates -----------------------------------------------------------

    def _fetch_result(self, effect: fx.FetchResult) -> None:
        """On a data thread."""
        try:
            self._fetcher.fetch(effect.holdings)
            kept = self._users.keep_end(effect)
        except InputsAbsent as absent:
            missing = ev.ResultMissing(effect.txn, effect.record, absent.missing, absent.reason)
            self.post(missing)
        except (OSError, SpoolFull) as error:
            reason = f"no room for the result in {self._store.folder} on {self._me.name}: {error}"
            self.post(ev.ResultUnkept(effect.txn, effect.record, reason))
        except NotKept as error:
            log.warning("cannot keep the end of a detached transaction: %s", error)
            self.post(ev.ResultUnkept(effect.txn, effect.record, str(error)))
        else:
            sizes = self._store.sizes(held.output for held, _ in effect.holdings)
            self.post(ev.ResultFetched(effect.txn, effect.record, kept, sizes))

    def _adopt_estates(self) -> None:
        """On a data thread. Whatever is revived finds the outputs that were left announced."""
        with self._adopting:
            try:
                estates = self._store.adopt()
                # One of the dead may have kept for us what another had left: nobody's estate is
                # complete before all that was found has been told.
                for held in (held for _, held in estates if held):
                    self.post(ev.EstateAdopted("", tuple(held)))
                for peer, _ in estates:
                    self.post(ev.EstateAdopted(peer, ()))
            except SpoolBusy as error:  # the core orders several looks at each dead neighbour's
                log.info("cannot take over what dead peers held now: %s", error)
            finally:
                self._users.revive()


def void(_: object) -> None:
    """Take a value and give none."""
