"""What a client decides. Composes the election, the owner's ledgers, the tasks in hand and the
holdings; it alone owns term, roster and the decision to grab the port.

One mutating entry, ``step(event, now) -> effects``, and one query, ``next_deadline()``. On every
(re)join it says everything a server must know: what it holds, what it is running, then its
unfinished submissions with their ledgers. So a new server needs nothing from the old one.
"""

import random
from collections.abc import Iterable
from typing import assert_never

from grid.admission import wrong_with_told
from grid.attempts import Attempts
from grid.effects import (
    AdoptEstates,
    AdoptRecord,
    CallServer,
    ClientEffect,
    Closed,
    CloseLink,
    DrainSelf,
    DropOutput,
    DropOutputs,
    ForgetTask,
    GiveUp,
    GoDownNow,
    MeasureSelf,
    Prepare,
    RunTask,
    Send,
    ShowDrained,
    ShowPrinted,
    ShowPrints,
    ShowStatus,
    SufferFault,
)
from grid.election import Election, Phase
from grid.events import (
    AskAnswered,
    AskFailed,
    CancelRequested,
    CandidatesResolved,
    ClientEvent,
    CloseRequested,
    Connected,
    DeadlineReached,
    DownRequested,
    DrainRequested,
    EndRequested,
    EstateAdopted,
    FaultRequested,
    InputsFailed,
    InputsReady,
    LinkLost,
    OutputPrinted,
    PortBound,
    PortTaken,
    PrintsRequested,
    ProbeAnswered,
    ProbeFailed,
    ReadinessLost,
    Received,
    ReconnectFailed,
    RecordAdopted,
    RecordNotAdopted,
    ResultFetched,
    ResultMissing,
    ResultRequested,
    ResultUnkept,
    RivalHeard,
    SelfMeasured,
    Started,
    StatusRequested,
    SubmitRequested,
    Summoned,
    TaskBroke,
    TaskRefused,
    TaskSealed,
    TermSurpassed,
)
from grid.failure_detector import FailureDetector
from grid.fetches import Fetches
from grid.holdings import Holdings
from grid.keeping import KEPT, look_seconds
from grid.messages import (
    Accepted,
    Address,
    Adopt,
    Announce,
    AskClaims,
    AskDown,
    AskDrain,
    AskFault,
    AskPrints,
    AskStatus,
    Assign,
    Beat,
    BecomeKeeper,
    CallBack,
    CancelTask,
    Claims,
    Drained,
    DrainNow,
    Drop,
    Ended,
    Failed,
    FailedOver,
    Failure,
    Finished,
    FromClient,
    GoDown,
    Join,
    Joined,
    Leave,
    Leaving,
    MayGo,
    Message,
    NewReign,
    NotTaken,
    PeerGone,
    PeerRef,
    Printed,
    Prints,
    Progress,
    Redirect,
    Rejected,
    Retain,
    Status,
    Successor,
    Successors,
    Suffer,
    TakeOver,
    TaskDone,
    TaskFailed,
    TaskReturned,
    Vitals,
)
from grid.ownership import Ownership
from grid.readiness import Readiness
from grid.settings import ADOPTERS, Settings

ADOPT_AFTER_SECONDS = (0.0, 0.02, 0.1, 0.5, 1.0, 2.0)
"""When to look for a dead neighbour's estate: its connection may close before its lock is free."""

ADOPT_APART_SECONDS = 0.001
"""For each neighbour: who has hundreds, and sees them go one after the other, looks at all their
folders only so often."""

ADOPTED_TOLD_MAX = 100
"""Of how many dead neighbours a join tells: more than die between two servers."""

LAST_LOOKS = 2
"""So often a peer looks at its journal when it keeps nothing any more: what is over goes from disk,
also where that is noticed a little later than in memory."""

CLAIM_PERIODS = 10
"""Claims are asked for this often within the orphan time, so that one lost answer is no loss."""


class ClientCore:
    """Everything that one peer's client decides. ``own`` and ``strict``: see ``Election``.

    ``doors`` are where this peer would be found if it served.
    """

    def __init__(
        self,
        settings: Settings,
        me: PeerRef,
        rng: random.Random,
        *,
        own: tuple[str, ...],
        strict: bool,
        doors: tuple[Address, ...] = (),
    ) -> None:
        self.settings = settings
        self.me = me
        self._doors = doors
        self._rng = rng
        self.election = Election(settings, me.peer, own, strict, rng)
        self._readiness = Readiness(me.peer, rng)
        self.ownership = Ownership()
        self.attempts = Attempts(me.peer, settings.slots)
        self.holdings = Holdings(settings.orphan_hold_seconds)
        self._detector = FailureDetector(settings.heartbeat_seconds, settings.silence_seconds)
        self._fetches = Fetches(me.name, self.ownership, self.holdings)
        self._questions: list[FromClient] = []
        self._server: PeerRef | None = None
        self._adopt_at: list[float] = []
        self._adopt_chance = 0.0
        self._adopt_looked = 0.0
        self._neighbours = 0
        """Members of this host that were there before us, when we joined last."""
        self._adopted: dict[str, None] = {}
        self._leave_by: float | None = None
        self._beat_at = 0.0
        self._looked_at = 0.0
        self._look_seconds = 0.0
        self._looks_left = 0
        self._claims_at = 0.0
        self._effects: list[ClientEffect] = []
        self._deadline: float | None = None

    # -- the two entries ---------------------------------------------------------------

    def step(self, event: ClientEvent, now: float) -> list[ClientEffect]:
        """Take in one fact; return what to do, in order."""
        self._effects = []
        self._detector.look(now)
        if self.election.phase is not Phase.CLOSED:
            self._on(event, now)
            self._deadline = self._soonest()
            if self._deadline is not None and now >= self._deadline:
                self._on_time(now)
                self._deadline = self._soonest()
        return self._effects

    def next_deadline(self) -> float | None:
        """When ``DeadlineReached`` is wanted next, in the time of ``now``."""
        return self._deadline

    def _soonest(self) -> float | None:
        """When something is due next."""
        if self.election.phase is Phase.CLOSED:
            return None
        times = (
            self._beat_at,
            self.election.deadline,
            self.election.join_deadline,
            self._readiness.deadline,
            self.ownership.deadline(),
            self._adopt_at[0] if self._adopt_at else None,
            self._leave_by,
        )
        return min([t for t in times if t is not None])

    def _do(self, effects: Iterable[ClientEffect]) -> None:
        self._effects.extend(effects)

    def _say(self, *messages: FromClient) -> None:
        """Tell the server, if there is one; else the next join says what still matters."""
        link = self.election.link
        if self._server is not None and link is not None:
            for message in messages:
                self._effects.append(Send(link, message))

    def _act(self, outcome: tuple[list[ClientEffect], list[FromClient]]) -> None:
        """Do what a part has decided, and say what it has to say."""
        effects, messages = outcome
        self._do(effects)
        self._say(*messages)

    # -- events ------------------------------------------------------------------------

    def _on(self, event: ClientEvent, now: float) -> None:  # noqa: C901 - one row an event
        match event:
            case Started():
                self._do(self.election.start(event, now))
            case CandidatesResolved():
                self._do(self.election.resolved(event))
            case DeadlineReached():
                pass  # every step looks at the clock
            case ProbeAnswered():
                self._do(self.election.probe_answered(event, now))
            case ProbeFailed():
                self._do(self.election.probe_failed(event, now))
            case AskAnswered():
                self._do(self.election.ask_answered(event, now))
            case AskFailed():
                self._do(self.election.ask_failed(event, now))
            case RivalHeard():
                self._do(self.election.rival_heard(event))
            case Summoned():
                self._do(self.election.summoned(event))
            case ReadinessLost():
                self._readiness.lost(event.peer, now)
            case Connected():
                self._on_connected(event, now)
            case ReconnectFailed():
                self._do(self.election.reconnect_failed(event, now))
            case PortBound():
                self._do(self.election.port_bound(event, now))
            case PortTaken():
                self._do(self.election.port_taken(event, now))
            case TermSurpassed():
                self._do(self.election.term_surpassed(event.seen, now))
            case LinkLost():
                if event.link == self.election.link:
                    self._on_server_lost(now)
            case Received():
                if event.link == self.election.link:
                    self._detector.heard(event.link, now)
                    self._on_message(event.message, now)
            case SubmitRequested():
                self._on_submit(event, now)
            case CancelRequested():
                self._on_cancel(event)
            case ResultRequested():
                asking = self.ownership.ask(
                    event.txn, event.name, wait=event.wait, certain=event.certain
                )
                self._say(*asking)
            case EndRequested():
                self._say(*self.ownership.end(event.txn, event.record))
            case StatusRequested():
                self._ask(AskStatus(event.watching, event.after))
            case PrintsRequested():
                self._ask(AskPrints(event.record, event.after))
            case SelfMeasured():
                self._say(self._vitals(event))
            case DownRequested():
                self._ask(AskDown())
            case DrainRequested():
                self._ask(AskDrain(event.peer, event.seconds))
            case FaultRequested():
                self._say(AskFault(event.peer, event.kind, event.seconds))
            case CloseRequested():
                self._on_close(event.seconds, now)
            case RecordAdopted():
                self._say(*self.ownership.adopted(event.txn, event.meta))
            case RecordNotAdopted():
                self._on_not_adopted(event, now)
            case ResultFetched():
                self._act(self._fetches.fetched(event, now))
            case ResultMissing():
                self._act(self._fetches.missing(event, now))
            case ResultUnkept():
                self._act(self._fetches.unkept(event, now))
            case InputsReady():
                self.attempts.prepared(event.attempt)
                self._start_tasks()
            case InputsFailed():
                self._on_inputs_failed(event)
            case TaskSealed():
                self._on_task_sealed(event, now)
            case TaskBroke():
                self._end_task(event.attempt, TaskFailed(event.attempt, event.failure))
            case TaskRefused():
                self._on_task_refused(event)
            case EstateAdopted():
                self._on_estate_adopted(event, now)
            case OutputPrinted():
                self._say(Printed(event.record, self.me.name, event.stream, event.text))
            case _:
                assert_never(event)

    def _on_connected(self, event: Connected, now: float) -> None:
        former = self.election.reign
        self._do(self.election.connected(event, now))
        if self.election.link != event.link:
            return
        self._server = PeerRef(event.welcome.peer, event.welcome.name, "", event.address)
        self._detector.heard(event.link, now)
        self._say(
            Join(
                me=self.me,
                slots=self.settings.slots,
                serves=self.settings.serves,
                seen=self.election.seen,
                held=self.holdings.held(now),
                running=self.attempts.running(),
                adopted=tuple(self._adopted),
                returning=self.election.members > 0
                and (self.election.serving or former.id != self.election.reign.id),
                doors=self._doors,
                leaving=self._leave_by is not None,
                through=event.through,
                chaos=self.settings.chaos,
            ),
            *self.ownership.resubmissions(),
            *self._questions,
        )

    def _adopt_soon(self, now: float, *, chosen: bool = False) -> None:
        """Look for the outputs of dead neighbours, now and a few times more: surely if the server
        has chosen us, else as likely as makes a few of a host that look."""
        chance = 1.0 if chosen else ADOPTERS / max(1, self._neighbours)
        self._adopt_chance = max(chance, self._adopt_chance if self._adopt_at else 0.0)
        first = max(now, self._adopt_looked + ADOPT_APART_SECONDS * self._neighbours)
        self._adopt_at = [first + seconds for seconds in ADOPT_AFTER_SECONDS]

    def _on_estate_adopted(self, event: EstateAdopted, now: float) -> None:
        """Keep a dead neighbour's outputs as our own; say so now, and on the next joins."""
        if event.peer:
            self._adopted[event.peer] = None
        while len(self._adopted) > ADOPTED_TOLD_MAX:
            del self._adopted[next(iter(self._adopted))]
        for held in event.held:
            self.holdings.add_held(held, now)
        self._say(Announce(event.held, event.peer))

    def _on_server_lost(self, now: float) -> None:
        """Seek at once; adopt what the old server's process may have left on this host."""
        heard_at = None
        if self.election.link is not None:
            heard_at = self._detector.heard_at(self.election.link)
            self._detector.forget(self.election.link)
        self._server = None
        self._adopt_soon(now)
        self._do(self.election.lost_server(now, heard_at))

    # -- the user's wishes -------------------------------------------------------------

    def _ask(self, question: FromClient) -> None:
        """Ask now and on every join until there is an answer: the server may die before it."""
        if question not in self._questions:
            self._questions.append(question)
        self._say(question)

    def _answered(self, question: FromClient) -> None:
        if question in self._questions:
            self._questions.remove(question)

    def _on_submit(self, event: SubmitRequested, now: float) -> None:
        deadline = None if event.deadline_seconds is None else now + event.deadline_seconds
        self._say(
            *self.ownership.submit(
                event.txn,
                event.meta,
                event.name,
                event.fingerprint,
                event.fresh,
                deadline,
                event.riding,
                now + event.after_seconds if event.after_seconds else None,
            )
        )

    def _on_not_adopted(self, event: RecordNotAdopted, now: float) -> None:
        """A record could not be had: try again; or if it was to be kept here, another peer may."""
        if event.txn.startswith(KEPT):
            self._say(NotTaken(event.txn.removeprefix(KEPT), ()))
        else:
            self.ownership.not_adopted(event.txn, now)

    def _on_cancel(self, event: CancelRequested) -> None:
        withdrawn = Failure("cancelled", "cancelled by its owner")
        effects, messages = self.ownership.cancel(event.txn, event.all, withdrawn)
        self._do(effects)
        self._say(*messages)

    # -- leaving -----------------------------------------------------------------------

    def _on_close(self, seconds: float, now: float) -> None:
        """Leave well: withdraw what is open, hand back what does not run yet, and go when the
        server says that nobody needs more. It has until then to have others keep what we hold."""
        closing = Failure("cancelled", "its peer was closed before the result came")
        self._act(self.ownership.withdraw_all(closing))
        if self._leave_by is not None or not self._is_of_use():
            self._go(well=self._leave_by is None)
            return
        self._leave_by = now + seconds
        self.election.retire()
        self._say(Leaving())
        for attempt in self.attempts.waiting():
            self._hand_back(attempt)

    def _is_of_use(self) -> bool:
        """Whether anybody could miss what this peer runs or holds."""
        here = self.election.link is not None or self.election.members > 1
        return here and bool(len(self.attempts) or self.holdings.records())

    def _hand_back(self, attempt: str) -> None:
        self.attempts.cancel(attempt)
        self._do([ForgetTask(attempt)])
        self._say(TaskReturned(attempt, "leaving"))

    def _go(self, *, well: bool) -> None:
        """Go now: what still runs is handed back, outputs are left for adoption."""
        self._say(Leave())
        self._do(ForgetTask(attempt) for attempt in self.attempts.all())
        self._do(self.election.close())
        self._do([Closed(well)])

    # -- tasks -------------------------------------------------------------------------

    def _vitals(self, event: SelfMeasured) -> Vitals:
        busy = min(self.attempts.busy, self.settings.slots)
        return Vitals(busy, event.load, event.memory, event.received, event.sent)

    def _start_tasks(self) -> None:
        self._do(RunTask(assign, output) for assign, output in self.attempts.startable())

    def _end_task(self, attempt: str, message: FromClient) -> Assign | None:
        """A task came to a bad end here; its slot is free. Return it unless it was cancelled."""
        ended = self.attempts.ended(attempt)
        if ended is not None:
            self._say(message)
        self._start_tasks()
        return ended

    def _on_task_refused(self, event: TaskRefused) -> None:
        """Hand a task back, and let its owners know why: they may wait for room or a module."""
        returned = TaskReturned(event.attempt, event.reason, event.detail)
        ended = self._end_task(event.attempt, returned)
        if ended is not None:
            text = f"hands a task back: {event.detail}\n"
            self._say(Printed(ended.record, self.me.name, "log", text))

    def _on_inputs_failed(self, event: InputsFailed) -> None:
        if event.failure is not None:
            self._end_task(event.attempt, TaskFailed(event.attempt, event.failure))
            return
        returned = TaskReturned(event.attempt, "inputs", event.reason, event.missing)
        self._end_task(event.attempt, returned)

    def _on_task_sealed(self, event: TaskSealed, now: float) -> None:
        if self.attempts.ended(event.attempt) is None:
            self._do([DropOutput(event.holding.output)])
        else:
            self.holdings.add(event.holding, event.sizes, now)
            self._say(
                TaskDone(event.attempt, event.holding, event.seconds, event.sizes, event.result)
            )
        self._start_tasks()

    def _cancel_tasks(self, attempts: list[str]) -> None:
        for attempt in attempts:
            if self.attempts.cancel(attempt):
                self._do([ForgetTask(attempt)])
        self._start_tasks()

    # -- messages of the server --------------------------------------------------------

    def _on_message(self, message: Message, now: float) -> None:  # noqa: C901 - one row a message
        wrong = wrong_with_told(message, self.election.seen)
        if wrong:
            self._leave_server(wrong, now)
            return
        match message:
            case Beat():
                self._do(self.election.heard(message))
                self._do([MeasureSelf()] if message.watched else [])
            case Joined():
                self._server = message.server
                self._neighbours = message.neighbours
                if message.failovers:
                    self.election.failovers = message.failovers
                self._do(self.election.told(message.reign, message.successors, message.members))
                self._do([self.election.role(message.server)])
                self._be_ready(message.successors, now)
                self._adopt_soon(now)
            case FailedOver():
                self.election.failovers = message.failovers
            case Successors():
                reign = self.election.reign
                self._do(self.election.told(reign, message.successors, message.members))
                self._be_ready(message.successors, now)
            case NewReign():
                election = self.election
                self._do(election.told(message.reign, election.successors, election.members))
                self._do([election.role(self._server)])
            case PeerGone():
                self._neighbours = message.neighbours
                self._adopt_soon(now, chosen=True)
            case Accepted():
                self.ownership.accepted(message)
            case Rejected():
                self._do(self.ownership.rejected(message, now))
            case Adopt():
                self._do(self.ownership.adopt(message, now))
            case Progress():
                self._do(self.ownership.progress(message, self.election.reign.term))
            case Finished():
                effects, messages = self.ownership.finished(message)
                self._act((self._fetches.note(effects), messages))
            case Failed():
                effects, messages = self.ownership.failed(message)
                self._do(self._fetches.note(effects))
                self._say(*messages)
            case Ended():
                self.ownership.ended(message)
            case Assign():
                self._on_assign(message)
            case CancelTask():
                self._cancel_tasks([message.attempt])
            case Drop():
                self._on_drop(message)
            case Retain():
                self._act(self._fetches.retain(message, now))
            case TakeOver():
                self._act(self._fetches.take_over(message))
            case Redirect():
                self._server = None
                self._do(self.election.redirected(message.address))
            case Claims():
                self.holdings.claimed(message.records, now)
            case CallBack():
                if self.election.server is not None:
                    self._do([CallServer(self.election.server, message.token)])
            case BecomeKeeper():
                self._on_become_keeper(message)
            case MayGo():
                if self._leave_by is not None:
                    self._go(well=True)
            case DrainNow():
                self._do([DrainSelf(message.seconds)])
            case Drained():
                self._on_drained(message)
            case GoDown():
                self._answered(AskDown())
                self._do([GoDownNow()])
            case Suffer():
                if self.settings.chaos:
                    self._do([SufferFault(message.kind, message.seconds)])
            case Printed():
                self._on_printed(message)
            case Status():
                self._answered(message.answers)
                self._do([ShowStatus(message)])
            case Prints():
                self._answered(message.answers)
                self._do([ShowPrints(message)])
            case _:
                self._leave_server(f"it sent {type(message).__name__}, which clients send", now)

    def _be_ready(self, successors: tuple[Successor, ...], now: float) -> None:
        """Keep a connection to whoever will serve next; one who serves itself needs none."""
        others = () if self.election.serving else successors
        self._do(self._readiness.told(others, self.election.members, now))

    def _leave_server(self, reason: str, now: float) -> None:
        """A server that breaks the protocol is not one to follow."""
        if self.election.link is not None:
            self._do([CloseLink(self.election.link, reason)])
        self._on_server_lost(now)

    def _on_assign(self, message: Assign) -> None:
        if self._leave_by is not None:
            self._say(TaskReturned(message.attempt, "leaving"))  # given before it was known
        elif self.attempts.add(message):
            self._do([Prepare(message)])

    def _on_become_keeper(self, message: BecomeKeeper) -> None:
        """There are too few copies of a detached transaction: keep one, unless we are leaving."""
        record = message.meta.record
        if self._leave_by is not None or not self.settings.serves:
            self._say(NotTaken(record, ()))
        else:
            self._do([AdoptRecord(f"{KEPT}{record}", message.meta, message.keepers)])

    def _on_drained(self, message: Drained) -> None:
        self._questions = [
            question
            for question in self._questions
            if not (isinstance(question, AskDrain) and question.peer == message.peer)
        ]
        self._do([ShowDrained(message)])

    def _on_drop(self, message: Drop) -> None:
        if not message.kinds:
            self._cancel_tasks(self.attempts.of(message.record))
        if self.holdings.drop(message.record, message.kinds):
            self._do([DropOutputs(message.record, message.kinds)])

    def _on_printed(self, message: Printed) -> None:
        for txn in self.ownership.of_record(message.record):
            self._do([ShowPrinted(txn, message.peer, message.stream, message.text)])

    # -- time --------------------------------------------------------------------------

    def _on_time(self, now: float) -> None:
        error = self.election.overdue(now)
        if error is not None:
            self._do([GiveUp(error)])
            self._go(well=True)
            return
        if self._leave_by is not None and now >= self._leave_by:
            self._go(well=False)
            return
        if self._adopt_at and now >= self._adopt_at[0]:
            self._adopt_at.pop(0)
            self._adopt_looked = now
            if self._rng.random() < self._adopt_chance:
                self._do([AdoptEstates()])
        self._do(self.election.due(now))
        self._do(self._readiness.due(now))
        effects, messages = self.ownership.due(now)
        self._do(self._fetches.note(effects))
        self._say(*messages)
        if now >= self._beat_at:
            self._beat_at = now + self.settings.heartbeat_seconds
            self._beat(now)

    def _look_after_the_journal(self, now: float) -> None:
        """Who keeps detached transactions looks at the journal now and then."""
        kept = [*self.ownership.kept(), *self.holdings.kept()]
        if kept:
            self._looks_left = LAST_LOOKS
            self._look_seconds = look_seconds(kept)
        elif not self._looks_left:
            self._looked_at = now
        if self._looks_left and now - self._looked_at >= self._look_seconds:
            self._looked_at = now
            self._looks_left -= 1
            self._do([AdoptEstates()])

    def _beat(self, now: float) -> None:
        self._say(Beat())
        if self.election.link in self._detector.silent(now):
            assert self.election.link is not None
            self._do([CloseLink(self.election.link)])
            self._on_server_lost(now)
        self._look_after_the_journal(now)
        expired = self.holdings.expired(now)
        self._do(DropOutputs(record, ()) for record in expired)
        if expired or (now >= self._claims_at and self.holdings.records()):
            self._claims_at = now + self.settings.orphan_hold_seconds / CLAIM_PERIODS
            self._say(AskClaims(self.holdings.records()))
