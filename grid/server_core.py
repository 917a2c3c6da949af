"""What a server decides. Composes the roster, the submissions and the dispatcher.

One mutating entry, ``step(event, now) -> effects``, and one query, ``next_deadline()``. A server
starts knowing nothing but its reign: members say what they hold and run, owners resubmit. It
alone decides nothing about who serves; its client tells it (``ReignBegan``, ``ReignEnded``).
"""

from typing import assert_never

from msgspec import structs

from grid.admission import wrong_with_said
from grid.copies import Copies
from grid.dispatcher import Dispatcher
from grid.effects import CloseLink, FreePort, Greet, Send, ServerEffect, TellClient
from grid.events import (
    DeadlineReached,
    LinkLost,
    LinkOpened,
    Received,
    ReignBegan,
    ReignEnded,
    ServerEvent,
)
from grid.failure_detector import FailureDetector
from grid.leaving import LeavingMembers
from grid.messages import (
    ASK_STATUS,
    BYTES_MAX,
    Acknowledge,
    Announce,
    AskClaims,
    AskDown,
    AskDrain,
    AskFault,
    AskPrints,
    AskResult,
    AskStatus,
    Beat,
    Cancel,
    CancelTask,
    Claims,
    Drop,
    FailedOver,
    GoDown,
    Happening,
    Held,
    Hello,
    Join,
    Joined,
    Leave,
    Leaving,
    LostOutputs,
    MemberStatus,
    Message,
    NewReign,
    NotTaken,
    PeerGone,
    Printed,
    Prints,
    Redirect,
    Status,
    Submit,
    Successor,
    Successors,
    Suffer,
    TaskDone,
    TaskFailed,
    TaskReturned,
    TransactionStatus,
    Vitals,
)
from grid.roster import Member, adopters
from grid.server_state import ServerState
from grid.settings import Settings
from grid.submissions import Submissions

BURIED_MAX = 4096
"""Dead peers remembered as fully reported: more than die while one job runs."""

WATCHED_SECONDS = 5.0
"""So long after somebody asked as one who watches, members go on saying how they do: longer than
between two questions, also over a slow link."""

HARMLESS = Beat | Printed | AskStatus | AskPrints | Vitals
"""What changes nothing in who holds or runs what."""


class ServerCore:
    """Everything that one server decides during its reign."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = ServerState(settings)
        self.dispatcher = Dispatcher(self.state)
        self.submissions = Submissions(self.state, self.dispatcher.owners, self.dispatcher.halt)
        self.leaving = LeavingMembers(self.state, self.submissions.remember)
        self.copies = Copies(self.state, self.submissions.sources)
        self._detector = FailureDetector(settings.heartbeat_seconds, settings.silence_seconds)
        self._guests: dict[int, tuple[Hello, bool]] = {}
        self._successors: tuple[Successor, ...] = ()
        self._followers = 0
        self._expected = 0
        self._began = 0.0
        self._settle_at = 0.0
        self._settle_from = 0.0
        self._beat_at = 0.0
        self._ended = False

    # -- the two entries ---------------------------------------------------------------

    def step(self, event: ServerEvent, now: float) -> list[ServerEffect]:
        """Take in one fact; return what to do, in order."""
        if self._ended:
            return []
        self.state.now = now
        self._detector.look(now)
        self._on(event, now)
        if not self._ended:
            self._on_time(now)
            self._settle_if_due(now)
            self._let_go(event, now)
            for txn in self.dispatcher.count_overlooked():
                self.submissions.advance(txn)
            self._count_quorum()
            if not self.state.lacking:
                self.dispatcher.give(now)
            self._tell_followers()
        return self.state.flush()

    def next_deadline(self) -> float | None:
        """When ``DeadlineReached`` is wanted next, in the time of ``now``."""
        return None if self._ended else self._beat_at

    # -- events ------------------------------------------------------------------------

    def _on(self, event: ServerEvent, now: float) -> None:
        match event:
            case ReignBegan():
                self._on_reign(event, now)
            case ReignEnded():
                self._on_reign_ended(event)
            case LinkOpened():
                self._guests[event.link] = (event.hello, event.local)
                self._detector.heard(event.link, now)
            case Received():
                if event.link in self._guests:
                    self._detector.heard(event.link, now)
                    self._on_message(event.link, event.message, now)
            case LinkLost():
                self._on_link_lost(event.link, now)
            case DeadlineReached():
                pass  # every step looks at the clock
            case _:
                assert_never(event)

    def _on_reign(self, event: ReignBegan, now: float) -> None:
        anew = self.state.me is not None
        self.state.reign = event.reign
        self.state.me = event.me
        if anew:
            for member in self.state.roster:
                self.state.send(member, NewReign(event.reign))
        else:
            self.state.chronicle.id = event.reign.id
            self._expected = event.expected
            self._began = now
            self._settle_at = now + self.settings.silence_seconds
            self._settle_from = now + self.settings.heartbeat_seconds
            self.state.settled = event.expected == 0
        self.state.failovers = event.failovers
        self.state.do(Greet(event.reign, self._followers))

    def _on_reign_ended(self, event: ReignEnded) -> None:
        """Say where to go, if that is known; the successors know their order otherwise."""
        if event.redirect is not None:
            for member in self.state.roster:
                if not member.local:
                    self.state.send(member, Redirect(event.redirect))
        self.state.do(FreePort())
        self._ended = True

    def _on_link_lost(self, link: int, now: float) -> None:
        self._guests.pop(link, None)
        self._detector.forget(link)
        member = self.state.roster.at(link)
        if member is not None:
            self._part(member, now)

    def _shut_out(self, link: int, now: float, reason: str) -> None:
        """Close the link of one who is silent or breaks the protocol."""
        self.state.do(CloseLink(link, reason))
        self._on_link_lost(link, now)

    # -- messages ----------------------------------------------------------------------

    def _on_message(self, link: int, message: Message, now: float) -> None:
        wrong = wrong_with_said(message, self._guests[link][0].peer, self.state.reign)
        if wrong:
            self._shut_out(link, now, wrong)
            return
        match message:
            case Beat():
                return
            case Join():
                self._on_join(link, message, now)
                return
            case AskStatus():
                self.state.do(Send(link, self._status(message)))
                return
            case AskPrints():
                self.state.do(Send(link, self._prints(message)))
                return
            case AskDown():
                for follower in self.state.roster:
                    self.state.send(follower, GoDown())
                return
            case AskFault():
                victim = self.state.roster.named(message.peer)
                if victim is not None and victim.chaos:
                    self.state.send(victim, Suffer(message.kind, message.seconds))
                return
            case _:
                pass
        member = self.state.roster.at(link)
        if member is None or not self._on_member_message(member, message, now):
            self._shut_out(link, now, f"it sent {type(message).__name__}, which is not its to send")

    def _on_member_message(self, member: Member, message: Message, now: float) -> bool:  # noqa: C901
        """Take a member's message; False if only others may send it."""
        match message:
            case Submit():
                self._on_submit(member, message, now)
            case AskResult():
                self.submissions.show_result(member, message)
            case Cancel():
                self.submissions.cancel(member, message, now)
            case Acknowledge():
                self.submissions.acknowledge(member, message, now)
            case TaskDone():
                self._on_task_done(member, message, now)
                self.leaving.ended(member, message)
            case TaskFailed():
                failed = self.dispatcher.failed(member, message)
                if failed is not None:
                    self.submissions.fail(*failed)
            case TaskReturned():
                self._on_task_returned(member, message, now)
                self.leaving.ended(member, message)
            case Announce():
                self._on_announce(member, message, now)
            case LostOutputs():
                if not self.submissions.is_kept(message.record):
                    txn = self.dispatcher.lost_outputs(message)
                    if txn is not None:
                        self.submissions.reopen(txn)
            case Leaving():
                self.leaving.begin(member)
                self._successors_changed()
            case NotTaken():
                self.leaving.not_taken(member, message)
                self.copies.not_taken(member, message.record)
            case AskDrain():
                self.leaving.ask(member, message)
            case Leave():
                self._part(member, now, well=True)
            case AskClaims():
                self.dispatcher.keeps_only(member, message.records)
                known = tuple(r for r in message.records if self.state.registry.get(r))
                self.state.send(member, Claims(known))
            case Printed():
                self._on_printed(message)
            case Vitals():
                member.vitals = message
            case _:
                return False
        return True

    def _on_join(self, link: int, join: Join, now: float) -> None:
        old = self.state.roster.named(join.me.peer)
        if old is not None:
            self._shut_out(old.link, now, "it joined again")
        if link not in self._guests:
            return  # over the same link, which no honest client does
        assert self.state.me is not None
        member = Member(
            link,
            join.me,
            join.slots,
            join.serves,
            self._guests[link][1],
            join.returning,
            join.doors,
            join.through,
            join.chaos,
        )
        if join.leaving:
            self.leaving.begin(member)
        self.state.roster.add(member)
        if join.seen > self.state.reign:
            self.state.do(TellClient(join.seen))
        if join.returning and self._expected == 0 and now < self._settle_at:
            # We took ourselves for the first server, and there was one before.
            self.state.settled = False
        self._successors_changed()
        roster = self.state.roster
        failovers = self.state.failovers
        joined = Joined(
            self.state.reign,
            self.state.me,
            self._successors,
            len(roster),
            failovers,
            len(roster.neighbours(join.me.host)) - 1,
        )
        self.state.send(member, joined)
        self.state.buried.pop(join.me.peer, None)
        self._take_in(member, join, now)
        self.state.settle(join.me.peer)
        for dead in join.adopted:
            self._bury(dead)
        self._advance_all()

    def _bury(self, dead: str) -> None:
        """All that a dead peer held is announced: nothing waits for it any more."""
        if self.state.roster.named(dead) is None:
            self.state.buried[dead] = None
            while len(self.state.buried) > BURIED_MAX:
                del self.state.buried[next(iter(self.state.buried))]
            self.state.settle(dead)

    def _take_in(self, member: Member, join: Join, now: float) -> None:
        """Count what a new member holds and runs."""
        for held in join.held:
            self._take_held(member, held, now)
        for running in join.running:
            if self.state.registry.ended(running.record):
                self.state.send(member, CancelTask(running.attempt))
            elif not self.dispatcher.reclaim(member, running, now):
                member.unclaimed[running.attempt] = running
        member.unclaimed_until = now + self.settings.orphan_run_seconds

    def _take_held(self, member: Member, held: Held, now: float) -> None:
        end = held.remembered
        on_disk = end is not None and end.meta.keeping is not None
        if self.state.registry.ended(held.record) and not on_disk:
            self.state.send(member, Drop(held.record))
            return
        member.keep(held)
        self.submissions.recall(member, held, now)
        self.state.credit_held(member, held)
        known = self.state.registry.get(held.record)
        if known is not None:
            self.submissions.drop_needless(known, member)

    def _on_submit(self, member: Member, message: Submit, now: float) -> None:
        """Own a record; then whatever members hold or run of it is counted."""
        known = self.state.registry.get(message.meta.record) is not None
        txn = self.submissions.submit(member, message, now)
        if txn is None:
            return
        if not known and txn.meta.record == message.meta.record:
            for other in self.state.roster:
                outputs = other.held.get(txn.meta.record)
                if outputs:
                    sizes = other.sizes.get(txn.meta.record, ())
                    held = Held(txn.meta.record, tuple(outputs.values()), sizes)
                    self.state.credit_held(other, held)
                for running in list(other.unclaimed.values()):
                    if self.dispatcher.reclaim(other, running, now):
                        del other.unclaimed[running.attempt]
        self.submissions.advance(txn)

    def _on_task_done(self, member: Member, message: TaskDone, now: float) -> None:
        if message.attempt in member.assigned:
            self.state.chronicle.note_task(message, member.ref.peer, now)
        txn = self.dispatcher.done(member, message)
        if txn is not None and txn.ran and txn.resumed:
            self._note_failover(now - message.seconds)
        record = message.holding.output.record
        if txn is not None:
            self.submissions.advance(txn)
            self.submissions.drop_needless(txn, member)
        elif self.state.registry.ended(record):
            member.drop(record, ())
            self.state.send(member, Drop(record))

    def _on_task_returned(self, member: Member, message: TaskReturned, now: float) -> None:
        """A call that its member cannot run may have been the last that was waited for."""
        txn = self.state.registry.get(member.assigned.get(message.attempt, ""))
        unrunnable = self.dispatcher.returned(member, message, now)
        if unrunnable is not None:
            self.submissions.fail(*unrunnable)
        elif txn is not None:
            self.submissions.advance(txn)

    def _note_failover(self, ran_at: float) -> None:
        """The first task that this server gave has run: the grid is over the loss."""
        latest = self.state.failovers[-1:]
        if not latest or latest[0].term != self.state.reign.term:
            return
        if latest[0].task_seconds is not None:
            return
        seconds = latest[0].server_seconds + max(0.0, ran_at - self._began)
        noted = structs.replace(latest[0], task_seconds=seconds)
        self.state.failovers = (*self.state.failovers[:-1], noted)
        for member in self.state.roster:
            self.state.send(member, FailedOver(self.state.failovers))

    def _on_announce(self, member: Member, message: Announce, now: float) -> None:
        for held in message.held:
            self._take_held(member, held, now)
            self.leaving.announced(member, held)
        if message.adopted:
            self._bury(message.adopted)
        self._advance_all()

    def _on_printed(self, message: Printed) -> None:
        txn = self.state.registry.get(message.record)
        if txn is not None:
            self.state.chronicle.note_prints(message)
            for peer in dict.fromkeys(txn.listeners()):
                self.state.tell(peer, message)

    def _advance_all(self) -> None:
        for txn in list(self.state.registry):
            self.submissions.advance(txn)

    # -- members that go ---------------------------------------------------------------

    def _part(self, member: Member, now: float, *, well: bool = False) -> None:
        """A member is gone, well or not: its work goes to others, its estate to its neighbours."""
        self.state.roster.remove(member.link)
        self.leaving.parted(member, well=well)
        self.dispatcher.part(member, now, well=well)
        self.submissions.part(member, now)
        neighbours = self.state.roster.neighbours(member.ref.host)
        for adopter in adopters(neighbours):
            self.state.send(adopter, PeerGone(member.ref.peer, len(neighbours) - 1))
        self._successors_changed()
        self._advance_all()

    def _let_go(self, event: ServerEvent, now: float) -> None:
        """Look whether who is leaving may go; unless nothing happened that can have changed it."""
        if isinstance(event, Received) and isinstance(event.message, HARMLESS):
            return
        if isinstance(event, Received) and isinstance(event.message, TaskDone):
            member = self.state.roster.at(event.link)
            if member is None or member.departure is None:
                return  # of the many tasks of others; the next heartbeat looks again
        if self.leaving.review(now):
            self._advance_all()

    def _successors_changed(self) -> None:
        successors = self.state.roster.successors()
        if successors != self._successors:
            self._successors = successors
            for member in self.state.roster:
                self.state.send(member, Successors(successors, len(self.state.roster)))

    def _count_quorum(self) -> None:
        """Without enough members that could serve, this may be the lesser part of a cut grid."""
        if not self.settings.quorum:
            return
        before = self.state.lacking
        able = sum(member.serves for member in self.state.roster)
        self.state.lacking = max(0, self.settings.quorum - able)
        if before and not self.state.lacking:
            self._advance_all()

    def _tell_followers(self) -> None:
        followers = self.state.roster.followers
        if followers != self._followers:
            self._followers = followers
            self.state.do(Greet(self.state.reign, followers))

    # -- time --------------------------------------------------------------------------

    def _settle_if_due(self, now: float) -> None:
        """Decide what waited until the old members had the time to report."""
        state = self.state
        if not state.settled and (now >= self._settle_at or self._all_returned(now)):
            state.settled = True
            for link, message in self.submissions.decide():
                member = state.roster.at(link)
                if member is not None:
                    self._on_member_message(member, message, now)
            self.submissions.settle(now)

    def _all_returned(self, now: float) -> bool:
        """Whether the members of the server before are all here, if their number is known: it was
        told with the last heartbeat, so some may have joined since."""
        if now < self._settle_from:
            return False
        returned = self.state.roster.returned()
        return returned >= self._expected and (self._expected > 0 or returned == 0)

    def _on_time(self, now: float) -> None:
        if now < self._beat_at:
            return
        self._beat_at = now + self.settings.heartbeat_seconds
        for link in self._detector.silent(now):
            self._shut_out(link, now, "it is silent")
        watched = now < self.state.watched_until
        beat = Beat(len(self.state.roster), self.state.lacking, watched)
        for member in list(self.state.roster):
            self.state.send(member, beat)
            if member.unclaimed and now >= member.unclaimed_until:
                for attempt in member.unclaimed:
                    self.state.send(member, CancelTask(attempt))
                member.unclaimed.clear()
        for txn in self.state.registry:
            for peer in [p for p, until in txn.waiting.items() if now >= until]:
                del txn.waiting[peer]
                for plan in txn.plans.values():
                    plan.settle(peer)
        self.submissions.expire(now)
        self.copies.review(now)

    # -- what people see ---------------------------------------------------------------

    def _status(self, asked: AskStatus = ASK_STATUS) -> Status:
        assert self.state.me is not None
        happened: tuple[Happening, ...] = ()
        latest = asked.after
        if asked.watching:
            self.state.watched_until = self.state.now + WATCHED_SECONDS
            happened, latest = self.state.chronicle.happened(asked.after)
        return Status(
            reign=self.state.reign,
            server=self.state.me,
            members=tuple(self._member_status(m) for m in self.state.roster),
            transactions=tuple(
                self._transaction_status(t.meta.record) for t in self.state.registry
            ),
            lacking=self.state.lacking,
            failovers=self.state.failovers,
            answers=asked,
            clock=self.state.now,
            happened=happened,
            latest=latest,
        )

    def _prints(self, asked: AskPrints) -> Prints:
        prints, latest, gap = self.state.chronicle.prints(asked.record, asked.after)
        txn = self.state.registry.get(asked.record)
        state = self.state.chronicle.outcome(asked.record)
        if txn is not None and (txn.state == "running" or not state):
            state = txn.state
        return Prints(asked, prints, latest, gap, state)

    def _member_status(self, member: Member) -> MemberStatus:
        return MemberStatus(
            peer=member.ref.peer,
            name=member.ref.name,
            host=member.ref.host,
            slots=member.slots,
            running=len(member.assigned),
            serving=member.local,
            visitor=not member.serves,
            held_bytes=min(member.held_bytes, BYTES_MAX),
            leaving=member.departure is not None,
            through=member.through,
            chaos=member.chaos,
            data=member.ref.data,
            vitals=member.vitals if self.state.now < self.state.watched_until else None,
        )

    def _transaction_status(self, record: str) -> TransactionStatus:
        txn = self.state.registry.get(record)
        assert txn is not None
        progress = self.state.progress(txn)
        return TransactionStatus(
            record=record,
            name=txn.name,
            state=self.submissions.shown_state(txn),
            owners=self.state.owners(txn),
            maps_done=progress.maps_done,
            maps_total=progress.maps_total,
            reduces_done=progress.reduces_done,
            reduces_total=progress.reduces_total,
            detached=txn.detached,
            began=txn.meta.keeping.began if txn.meta.keeping is not None else 0.0,
            ended=txn.ended,
            phase=(txn.phase() or ("" if txn.plans else "call")) if txn.state == "running" else "",
            running=txn.active,
            ran=txn.ran,
            known_at=txn.known_at,
        )
