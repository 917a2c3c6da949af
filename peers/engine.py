"""One started peer: its identity, threads, store, data port and workers, and its transactions.

``Peer`` is what users hold; an engine is what runs. A peer has one from its first use until it is
closed or its process forks; the child starts its own. Here the user's side meets the client
thread: submissions go in as events, outcomes come out on the callback thread.
"""

import logging
import random
import secrets
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from grid import effects as fx
from grid import events as ev
from grid.client_core import ClientCore
from grid.errors import (
    Bug,
    CannotJoin,
    GridError,
    NameConflict,
    NoResult,
    PeerClosed,
    ProtocolError,
)
from grid.job import Job
from grid.keeping import choose
from grid.messages import (
    NO_BOOKMARK,
    Address,
    AskPrints,
    AskStatus,
    Bookmark,
    Drained,
    Fault,
    FetchRecord,
    Keeping,
    PeerRef,
    Prints,
    Remembered,
    Status,
)
from grid.pickling import show
from peers import detached, handing, interruptible
from peers.addresses import host_id, listen_hosts, probe_hosts
from peers.bulk import BulkClient, NotHere, Unreachable
from peers.bulk_server import BulkServer
from peers.candidates import LOOKUP_SECONDS, Resolver, reachable_as
from peers.chaos import Cut, suffer
from peers.client_thread import ClientThread
from peers.configuration import Configuration
from peers.crew import Crew
from peers.detached import Detached, with_key
from peers.failures import as_error
from peers.fingerprint import fingerprint
from peers.handing import Give, HandOver, Unheard
from peers.helper_process import HelperProcess
from peers.inputs import FETCH_SECONDS, Inputs
from peers.interruptible import InterruptibleFuture
from peers.memory import worker_bytes
from peers.records import Head, OwnedRecord, Records, digest, load_keys, own
from peers.relay import Relay
from peers.results import Fetcher, keep, riding
from peers.security import secure
from peers.server_thread import ServerThread
from peers.shipping import Code, freeze
from peers.store import Store
from peers.submission import Submission
from peers.trace import Trace
from peers.transaction import Transaction
from peers.vitals import Traffic
from peers.voucher import Voucher
from peers.wall_clock import time_of_day
from peers.whereabouts import Whereabouts
from peers.worker_channel import Limits, PoolEvent, Printed
from peers.worker_pool import WorkerPool
from peers.worker_tasks import as_call

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
"""How long the client thread may take to say goodbye."""

DATA_THREADS_MAX = 16

OPEN_TRANSACTIONS_MAX = 10_000
"""Submitting more than this waits until some have ended: memory has to be bounded somewhere."""


class Engine:
    """Everything of one started peer. ``on_down`` is called when the grid is asked to go down; or
    this peer to leave, then with the seconds it has. ``helper`` was started for it early."""

    def __init__(
        self,
        configuration: Configuration,
        on_down: Callable[[float | None], None],
        helper: HelperProcess | None = None,
    ) -> None:
        self.configuration = configuration
        self.settings = configuration.settings
        self.role: fx.RoleChanged | None = None
        self.warnings: dict[str, str] = {}
        self._on_down = on_down
        self._error: CannotJoin | None = None
        self._joined = threading.Event()
        self._closed = threading.Event()
        self._closing = threading.Lock()
        self._transactions: dict[str, Transaction] = {}
        self._submissions: dict[str, Submission] = {}
        self._delivered: weakref.WeakSet[Transaction] = weakref.WeakSet()
        self._room = threading.BoundedSemaphore(OPEN_TRANSACTIONS_MAX)
        self._askers: list[tuple[AskStatus | AskPrints, Future[Any]]] = []
        self._drain_askers: dict[str, list[Future[Drained]]] = {}
        self.left_well = False
        self.closing = False
        security = secure(
            self.settings.grid,
            password=configuration.password,
            key_file=configuration.key_file,
            loopback_only=configuration.loopback_only,
            weak=configuration.weak_password,
        )
        self._security = security
        # A host may have several grids of one key: the port keeps their folders apart.
        self._tag = f"{security.tag}-{self.settings.port}"
        self._trace = Trace(configuration.trace) if configuration.trace is not None else None
        self.store = Store(configuration.spool, self._tag, security.peer_id)
        try:
            self._assemble(security.automatic and not configuration.hosts, helper)
        except BaseException:
            self.store.leave()
            raise

    def _assemble(self, lenient: bool, helper: HelperProcess | None) -> None:
        configuration, security = self.configuration, self._security
        listening = listen_hosts(configuration.listen, loopback_only=configuration.loopback_only)
        resolver = Resolver(configuration, listening)
        self._found = resolver.resolve(min(LOOKUP_SECONDS, self.settings.join_timeout / 2))
        told = configuration.advertise
        host = told.host if told is not None else reachable_as(self._found, listening)
        self.records = Records(self.store, configuration.name)
        self._relay = Relay()
        self.whereabouts = Whereabouts()
        self._cut = Cut()
        traffic = Traffic()
        voucher = Voucher(
            security, self.settings.grid, configuration.name, self.whereabouts, self._relay
        )
        journals = configuration.journal or detached.default_root()
        self.detached = Detached(
            journals / self._tag,
            security.peer_id,
            security.journal_key,
            self.records,
            self.store,
            lambda event: self.client.post(event),
            lambda ref, part, count: self._bulk_client.fetch(ref, part, FETCH_SECONDS, count),
            keeps=self.settings.serves,
            patience=0.0 if configuration.loopback_only else self.settings.silence_seconds,
        )
        self.store.shelf = self.detached.results
        self._bulk_server = BulkServer(
            security,
            self.settings.grid,
            configuration.name,
            self.records,
            listening,
            voucher=voucher,
            keeper=self.detached.serve,
            traffic=traffic,
        )
        data = Address(host, self._bulk_server.address.port)
        place = f"{self.store.place} {journals.absolute()}"  # both are shared, or they are far
        self.me = PeerRef(security.peer_id, configuration.name, host_id(place), data)
        self._bulk_client = BulkClient(
            security, self.settings.grid, configuration.name, self.whereabouts, self._cut, traffic
        )
        self._crew: Crew[Callable[[], None]] = Crew("grid-data", _call, DATA_THREADS_MAX)
        self._callbacks: Crew[Callable[[], None]] = Crew("grid-callbacks", self._call_back, 1)
        self.client = ClientThread(
            self._client_core(probe_hosts(listening), not lenient, configuration.doors(host)),
            security,
            self.store,
            Inputs(self.me, self.records, self.store, self._bulk_client),
            Fetcher(self.me, self.store, self._bulk_client),
            self,
            self._crew.give,
            resolver.resolve,
            self.whereabouts,
            self._bulk_server,
            self._cut,
            traffic,
        )
        self.server = ServerThread(
            self.settings,
            security,
            self.me,
            listening,
            partial(configuration.door, host),
            self.client.post,
            self._relay,
            voucher,
            self._cut,
        )
        self.client.trace = self.server.trace = self._trace
        self.client.server = self.server
        voucher.let_wait = self.server.let_wait
        self.client.pool = WorkerPool(
            self.settings.slots,
            self.store.folder,
            self._on_pool_event if configuration.prints_here else self.client.on_pool_event,
            mode=configuration.workers,
            name=configuration.name,
            limits=Limits(worker_bytes(self.settings.memory_limit, self.settings.slots)),
            helper=helper,
        )

    def _client_core(
        self, own: tuple[str, ...], strict: bool, doors: tuple[Address, ...]
    ) -> ClientCore:
        """What decides; all that it is given is in the trace."""
        seed = secrets.randbits(63)  # fits into every integer of a trace
        settings, me = self.settings, self.me
        if self._trace is not None:
            self._trace.client_began(settings, me, seed, own=own, strict=strict, doors=doors)
        return ClientCore(settings, me, random.Random(seed), own=own, strict=strict, doors=doors)

    # -- life --------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads and join or serve. Raises ``CannotJoin``, closed again."""
        if not self.configuration.hosts and not self.detached.any_open():
            self.store.sweep()
        self._bulk_server.start()
        self.server.start()
        self.client.start()
        self.client.call(self.client.pool.prepare)
        found = self._found
        self.client.post(ev.Started(found.addresses, found.own, found.unknown))
        try:
            interruptible.wait(self._joined, self.settings.join_timeout + CLOSE_SECONDS)
        except BaseException:  # Ctrl-C, most likely
            self.close()
            raise
        if self._error is not None or not self._joined.is_set():
            self.close()
            raise self._error or CannotJoin("the client thread did not answer; see its log")

    def close(self, seconds: float | None = None) -> bool:
        """Leave well and end every thread, process, port and folder. May be repeated.

        Others have so many seconds (``linger_seconds``) to get what they need from here; whoever
        calls this meanwhile ends the waiting. Return whether they have got it.
        """
        limit = self.settings.linger_seconds if seconds is None else seconds
        self.closing = True
        self.client.post(ev.CloseRequested(limit))
        with self._closing:
            if self._closed.is_set() and not self._transactions and self.role is None:
                return self.left_well
            interruptible.wait(self._closed, limit + CLOSE_SECONDS)
            self.client.stop()
            self.server.stop()
            if self._trace is not None:
                self._trace.close()
            self._bulk_server.close()
            self._bulk_client.close()
            self._relay.close()
            self._crew.close()
            self._callbacks.close()
            for transaction in list(self._delivered):
                transaction._hold()
            self.store.leave(all_stay=self.detached.any_open())
            self.detached.close()
            for transaction in list(self._transactions.values()):
                transaction._fail(PeerClosed(f"{self.me.name} was closed before the result came"))
            self._transactions.clear()
            self.role = None
            return self.left_well

    def filenos(self) -> list[int]:
        """Every open descriptor, for a forked child to close."""
        return [
            *self.client.filenos(),
            *self.server.filenos(),
            *self._bulk_server.filenos(),
            *self._bulk_client.filenos(),
            *self._relay.filenos(),
            *self.store.filenos(),
            *(self._trace.filenos() if self._trace is not None else ()),
        ]

    # -- submitting --------------------------------------------------------------------

    def submit(self, submission: Submission) -> Transaction:
        """Freeze the job here and now, in the user's thread, and hand it to the client thread."""
        job = submission.job
        keys = job.keys()
        code = freeze(job.functions, job.ship)
        head = Head(code.encode(), job.partitions, submission.on_error == "skip")
        if submission.detached:
            return self._submit_detached(submission, head, keys)
        parts = fingerprint(job, keys) if submission.name else {}
        return self._submit(submission, head, keys, parts, "mapreduce")

    def submit_frozen(self, submission: Submission, code: Code) -> Transaction:
        """Submit a job without a name whose functions are frozen already."""
        head = Head(code.encode(), submission.job.partitions, submission.on_error == "skip")
        return self._submit(submission, head, submission.job.keys(), {}, "mapreduce")

    def run_everywhere(self, function: Callable[[], Any]) -> Transaction:
        """Have every member with slots call ``function()``."""
        if not callable(function):
            raise TypeError(f"run_everywhere takes a function without arguments, not {function!r}")
        functions = as_call(function)
        head = Head(freeze(functions).encode(), 1, skip=False)
        submission = Submission(Job([0], mapfn=functions.mapfn))
        return self._submit(submission, head, [], {}, "everywhere")

    def _submit(
        self,
        submission: Submission,
        head: Head,
        keys: list[Any],
        parts: dict[str, str],
        shape: Any,
    ) -> Transaction:
        if self._closed.is_set():
            raise PeerClosed(f"{self.me.name} is closed; make a new Peer to submit")
        self._room.acquire()
        txn = secrets.token_hex(8)
        record = digest(head, keys, txn)
        meta = submission.meta(record, shape, len(keys), head.partitions)
        transaction = Transaction(
            txn, submission.name, lambda everyone: self._cancel(txn, everyone)
        )
        transaction._keys = keys
        self._transactions[txn] = transaction
        self._submissions[txn] = submission
        self.records.add(record, own(submission.job, head, keys))
        submission.records.append(record)
        self.client.post(
            ev.SubmitRequested(
                txn,
                meta,
                submission.name,
                parts,
                submission.fresh,
                submission.deadline_seconds,
                self.records.riding(record),
            )
        )
        return transaction

    def _submit_detached(self, submission: Submission, head: Head, keys: list[Any]) -> Transaction:
        """Give everything to the keepers; then wait for the end as anybody may."""
        if self._closed.is_set():
            raise PeerClosed(f"{self.me.name} is closed; make a new Peer to submit")
        record = digest(head, keys, secrets.token_hex(8))
        settings = self.settings
        keeping = Keeping(settings.keep_seconds, time_of_day(), settings.copies)
        meta = submission.meta(record, "mapreduce", len(keys), head.partitions, keeping)
        seconds = submission.deadline_seconds
        deadline = keeping.began + seconds if seconds is not None else 0.0
        over = HandOver(meta, deadline, head.encode(), self._giver)
        shipped = Code.decode(head.code).shipped
        try:
            names = over.run(self._keepers(), handing.chunks(submission.job, keys, shipped))
        except Unheard:
            self.end(record)
            raise
        if len(names) < settings.copies:
            log.warning(
                "detached %s is kept by %d of %d peers: %s%s",
                record,
                len(names),
                settings.copies,
                ", ".join(names),
                "".join(f"; {reason}" for reason in over.reasons),
            )
        self._room.acquire()
        transaction = Transaction(record, "", lambda _: self._cancel_detached(record))
        transaction._keys = keys
        self._transactions[record] = transaction
        self._submissions[record] = submission
        self.client.post(ev.ResultRequested(record, record, wait=True, certain=True))
        return transaction

    def _keepers(self) -> list[PeerRef]:
        """Whom to ask to keep something: this peer if it stays, its successors, its server."""
        others = [successor.ref for successor in self.client.successors]
        if self.role is not None and self.role.server is not None:
            others.append(self.role.server)
        me = self.me if self.settings.serves else None
        return choose(me, others, self.settings.copies)

    def _giver(self, ref: PeerRef) -> Give:
        if ref.peer == self.me.peer:
            return self.detached.serve
        return lambda part, body: self._bulk_client.fetch(ref, part, FETCH_SECONDS, body=body)

    def _cancel_detached(self, record: str) -> None:
        """It is nobody's but its submitter's to withdraw, so that ends it."""
        self._cancel(record, everyone=False)
        self.end(record)

    def fetch(self, name: str, *, wait: bool) -> Transaction:
        """Ask for the finished result of a name, or the end of a detached transaction."""
        if self._closed.is_set():
            raise PeerClosed(f"{self.me.name} is closed; make a new Peer to fetch")
        txn = secrets.token_hex(8)
        transaction = Transaction(txn, name, lambda everyone: self._cancel(txn, everyone))
        self._transactions[txn] = transaction
        self.client.post(ev.ResultRequested(txn, name, wait))
        return transaction

    def end(self, record: str) -> None:
        """End a record for everyone, whoever owns it."""
        self.client.post(ev.EndRequested(secrets.token_hex(8), record))

    def _cancel(self, txn: str, everyone: bool) -> None:
        self.client.post(ev.CancelRequested(txn, everyone))

    def ask_status(
        self, *, watching: bool = False, after: Bookmark = NO_BOOKMARK
    ) -> Future[Status]:
        """Ask the server how the grid is; and if one goes on ``watching`` it, what has happened."""
        asked: Future[Status] = InterruptibleFuture()
        self.client.call(self._askers.append, (AskStatus(watching, after), asked))
        self.client.post(ev.StatusRequested(watching, after))
        return asked

    def ask_prints(self, record: str, after: Bookmark) -> Future[Prints]:
        """Ask the server what user code of a record printed."""
        asked: Future[Prints] = InterruptibleFuture()
        self.client.call(self._askers.append, (AskPrints(record, after), asked))
        self.client.post(ev.PrintsRequested(record, after))
        return asked

    def ask_down(self) -> None:
        """Ask the grid to go down."""
        self.client.post(ev.DownRequested())

    def ask_fault(self, peer: str, kind: Fault, seconds: float) -> None:
        """Have a member suffer a fault, if it allows that."""
        self.client.post(ev.FaultRequested(peer, kind, seconds))

    def ask_drain(self, peer: str, seconds: float) -> Future[Drained]:
        """Ask that another peer leaves well."""
        asked: Future[Drained] = InterruptibleFuture()
        self.client.call(self._drain_askers.setdefault(peer, []).append, asked)
        self.client.post(ev.DrainRequested(peer, seconds))
        return asked

    # -- what the client thread tells (``peers.client_thread.Users``) ---------------------

    def show_role(self, effect: fx.RoleChanged) -> None:
        self.role = effect
        if effect.server is not None:
            self._joined.set()
        log.info(
            "%s peer=%s term=%d server=%s",
            effect.role,
            self.me.name,
            effect.reign.term,
            effect.server.name if effect.server else "-",
        )

    def show_warning(self, effect: fx.Warn) -> None:
        self.warnings.pop(effect.kind, None)
        if effect.text:
            self.warnings[effect.kind] = effect.text
            log.warning("%s peer=%s", effect.text, self.me.name)

    def give_up(self, effect: fx.GiveUp) -> None:
        self._error = effect.error
        self._joined.set()

    def deliver(self, effect: fx.Deliver) -> None:
        """Set the result apart before it may be dropped; the rest is for the callback thread."""
        transaction, submission = self._take(effect.txn)
        if transaction is None:
            return
        try:
            if effect.result:
                results = riding(effect.result)
            else:
                outputs = tuple(holding.output for holding, _ in effect.holdings)
                results = keep(self.store, effect.txn, outputs)
        except (OSError, GridError) as error:
            log.exception("cannot keep a result peer=%s txn=%s", self.me.name, effect.txn)
            problem = GridError(f"the result could not be kept on {self.me.name}: {error}")
            self._callbacks.give(lambda: transaction._fail(problem))
            return
        names = None
        if effect.meta.shape == "everywhere":
            names = _told_apart([holder for _, holder in effect.holdings])
        job = submission.job if submission is not None else None
        self._delivered.add(transaction)

        def tell() -> None:
            transaction._resolve(results, names, effect.skipped)
            if job is not None and job.resultfn is not None and not transaction.cancelled():
                job.deliver(transaction, transaction.result())

        self._callbacks.give(tell)

    def reject(self, effect: fx.Reject) -> None:
        transaction, _ = self._take(effect.txn)
        if transaction is not None:
            failure = effect.failure
            if not failure.key and 0 <= failure.item < len(transaction._keys):
                # Who saw the death knew the number of the item; only an owner knows its key.
                failure = with_key(failure, show(transaction._keys[failure.item]))
            self._callbacks.give(lambda: transaction._fail(as_error(failure)))

    def reject_name(self, effect: fx.RejectName) -> None:
        transaction, _ = self._take(effect.txn)
        if transaction is None:
            return
        error: GridError = NoResult(effect.message)
        if effect.conflict:
            error = NameConflict(
                f"{effect.message}. Choose another name, or wait until the other job has ended."
            )
        self._callbacks.give(lambda: transaction._fail(error))

    def _take(self, txn: str) -> tuple[Transaction | None, Submission | None]:
        """A transaction is over: forget its records."""
        submission = self._submissions.pop(txn, None)
        if submission is not None:
            self._room.release()
        for record in submission.records if submission is not None else ():
            self.records.forget(record)
        return self._transactions.pop(txn, None), submission

    def show_progress(self, effect: fx.ShowProgress) -> None:
        transaction = self._transactions.get(effect.txn)
        if transaction is not None:
            transaction._show(effect)

    def show_printed(self, effect: fx.ShowPrinted) -> None:
        self._print(effect.stream, f"[{effect.peer}] ", effect.text)

    def _on_pool_event(self, event: PoolEvent) -> None:
        """On the client thread, where this peer itself shows what its workers print."""
        if isinstance(event, Printed):
            # A log record begins with its level; this process says from which on it shows them.
            level = logging.getLevelNamesMapping().get(event.text.partition(" ")[0], logging.INFO)
            if event.stream != "log" or logging.getLogger().isEnabledFor(level):
                self._print(event.stream, "", event.text)
        else:
            self.client.on_pool_event(event)

    def _print(self, kind: str, prefix: str, text: str) -> None:
        stream = sys.stdout if kind == "stdout" else sys.stderr
        lines = [f"{prefix}{line}\n" for line in text.splitlines()]

        def write() -> None:
            stream.write("".join(lines))
            stream.flush()

        self._callbacks.give(write)

    def show_status(self, effect: fx.ShowStatus) -> None:
        self._answer(effect.status.answers, effect.status)

    def show_prints(self, effect: fx.ShowPrints) -> None:
        self._answer(effect.prints.answers, effect.prints)

    def _answer(self, question: AskStatus | AskPrints, answer: Status | Prints) -> None:
        """Tell all who asked just that."""
        told = [asked for put, asked in self._askers if put == question]
        self._askers = [(put, asked) for put, asked in self._askers if put != question]
        for asked in told:
            asked.set_result(answer)

    def adopt_record(self, effect: fx.AdoptRecord) -> None:
        adopt = self.detached.keep_too if effect.meta.keeping is not None else self._adopt_record
        self._crew.give(lambda: adopt(effect))

    def _adopt_record(self, effect: fx.AdoptRecord) -> None:
        """On a data thread: become an owner of a record that another submitted first."""
        submission = self._submissions.get(effect.txn)
        transaction = self._transactions.get(effect.txn)
        if submission is None or transaction is None:
            return
        record = effect.meta.record
        reasons: list[str] = []
        for owner in effect.owners:
            try:
                head, keys = self._fetch_record(owner, record)
                owned = own(submission.job, head, keys)
            except (NotHere, Unreachable, ProtocolError) as error:
                reasons.append(str(error))
                continue
            transaction._keys = keys
            self.records.add(record, owned)
            submission.records.append(record)
            self.client.post(ev.RecordAdopted(effect.txn, effect.meta))
            return
        self.client.post(ev.RecordNotAdopted(effect.txn, "; ".join(reasons)))

    def _fetch_record(self, owner: PeerRef, record: str) -> tuple[Head, list[Any]]:
        mine: OwnedRecord | None = self.records.get(record)
        if mine is not None:
            return mine.head, mine.keys
        request = FetchRecord(record, keys=True)
        blobs = self._bulk_client.fetch(owner, request, FETCH_SECONDS, count=2)
        return Head.decode(blobs[0]), load_keys(blobs[1])

    def keep_end(self, effect: fx.FetchResult) -> Remembered | None:
        return self.detached.keep_end(effect)

    def revive(self) -> None:
        self.detached.revive()

    def go_down(self) -> None:
        self._callbacks.give(lambda: self._on_down(None))

    def drain(self, seconds: float) -> None:
        self._callbacks.give(lambda: self._on_down(seconds))

    def show_drained(self, drained: Drained) -> None:
        for asked in self._drain_askers.pop(drained.peer, []):
            asked.set_result(drained)

    def suffer(self, effect: fx.SufferFault) -> None:
        suffer(effect, self._cut_off)

    def _cut_off(self, seconds: float) -> None:
        """On the client thread: no connection of this peer goes on, and none comes to be."""
        self._cut.begin(seconds)
        self.server.cut_off()
        self._bulk_server.cut_off(seconds)
        self._bulk_client.cut_off()
        self.client.cut_off()

    def closed(self, well: bool) -> None:
        self.left_well = well
        self._closed.set()

    def broken(self, bug: Bug) -> None:
        """The client thread failed by a mistake of ours: nothing of this peer goes on."""
        for txn in list(self._transactions):
            transaction, _ = self._take(txn)
            if transaction is not None:
                self._callbacks.give(partial(transaction._fail, bug))
        self._error = CannotJoin(str(bug))
        self._joined.set()
        self._closed.set()

    # -- the callback thread -------------------------------------------------------------

    def call_back(self, work: Callable[[], None]) -> None:
        """Have the callback thread do something, soon."""
        self._callbacks.give(work)

    def _call_back(self, work: Callable[[], None]) -> None:
        """Run a user's callback: what it raises is told and harms nothing."""
        try:
            work()
        except BaseException:  # also SystemExit: there are other callbacks to run
            log.exception("a callback raised; the result stands peer=%s", self.me.name)


def _call(work: Callable[[], None]) -> None:
    work()


def _told_apart(peers: list[PeerRef]) -> tuple[str, ...]:
    """Their names; with a piece of their ids where a name occurs twice."""
    count = Counter(peer.name for peer in peers)
    return tuple(p.name if count[p.name] == 1 else f"{p.name}#{p.peer[:6]}" for p in peers)
