"""Watching the grid: whole snapshots, one after the other, through every failover.

``Peer.watch()`` gives a ``Watch``; each ``look()`` gives a ``Snapshot``. A watch asks the server
one question at a time, and only while somebody looks. The question stays open while no server
answers; the snapshot then says since when one is sought, and shows what was known before.

A server tells of the past only what is new since the last question, and a new server knows nothing
of what was before it. So the watch remembers, bounded: the latest tasks of each transaction, ended
transactions, failovers. Servers tell times by clocks of their own, which mean nothing elsewhere;
how long ago something was is what counts.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

from msgspec import structs

from grid.chronicle import ANSWER_MAX, ended_as
from grid.messages import (
    NO_BOOKMARK,
    Bookmark,
    Failover,
    MemberStatus,
    Status,
    TaskRan,
    TransactionEnded,
    TransactionStatus,
    Vitals,
)
from peers.engine import Engine
from peers.snapshot import (
    NOTHING,
    FailoverSeen,
    FailureSeen,
    PeerSeen,
    Snapshot,
    TaskSeen,
    TransactionSeen,
)
from peers.wall_clock import time_of_day

TASKS_SHOWN = 500
"""The latest tasks of a transaction: more than a screen shows apart."""

ENDED_SHOWN = 50

GONE_PEERS_MAX = 1000
"""Of so many peers that have gone the names are remembered: tasks that they ran are still shown."""

FAILOVERS_SHOWN = 20

OVERLAP_SECONDS = 0.01
"""Tasks of one slot may seem to overlap by so much: their messages took different times."""

PACE_SECONDS = 5.0
"""Over about so long a rate is averaged: it follows the grid, and does not jump."""

AWAITED_SECONDS = 30.0
"""How long the owner of a transaction may take to tell the next server of it: it has to join."""

SOUGHT_SECONDS = 1.5
"""A server that has not answered for so long, though it is followed, is shown as being sought."""


class Watch:
    """Asks again and again. For one thread at a time; needs no closing."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._asked: Future[Status] | None = None
        self._asked_of: Engine | None = None
        self._asked_at = 0.0
        self._memory = Memory()
        self._latest = NOTHING
        self._sought_since: float | None = None

    def look(self, timeout: float = 1.0) -> Snapshot:
        """Ask, and wait for at most so many seconds; return how the grid is, or was when a server
        answered last. Raises ``PeerClosed``, ``CannotJoin``."""
        engine = self._engine()
        more = True
        while more:  # a server with a long past tells it in several answers
            if self._asked is None or self._asked_of is not engine:
                after = self._memory.bookmark
                self._asked = engine.ask_status(watching=True, after=after)
                self._asked_of, self._asked_at = engine, time.monotonic()
            try:
                status = self._asked.result(timeout)
            except FutureTimeout:
                return self._seeking(engine)
            self._asked = None
            self._sought_since = None
            self._take(status, engine)
            more = len(status.happened) >= ANSWER_MAX
        return self._latest

    def _take(self, status: Status, engine: Engine) -> None:
        role = engine.role
        address = str(role.address) if role is not None and role.address else ""
        warnings = tuple(engine.warnings.values())
        self._latest = self._memory.take(status, time_of_day(), engine.me.peer, address, warnings)

    def _seeking(self, engine: Engine) -> Snapshot:
        """No answer yet. A busy server is given some time before it is called lost."""
        now = time.monotonic()
        role = engine.role
        lost = role is None or role.server is None
        if self._sought_since is None and (lost or now - self._asked_at > SOUGHT_SECONDS):
            self._sought_since = self._asked_at
        if self._sought_since is None:
            return self._latest
        warnings = tuple(engine.warnings.values())
        sought = now - self._sought_since
        return structs.replace(self._latest, sought_seconds=sought, warnings=warnings)


@dataclass(slots=True)
class _Pace:
    """How fast a phase goes: what was done when, and the rate so far."""

    phase: str
    done: int
    at: float
    rate: float | None = None

    def note(self, done: int, at: float) -> None:
        seconds = at - self.at
        if seconds <= 0:
            return
        rate = max(0, done - self.done) / seconds
        share = 1.0 if self.rate is None else min(1.0, seconds / PACE_SECONDS)
        self.rate = rate if self.rate is None else self.rate + share * (rate - self.rate)
        self.done, self.at = done, at


@dataclass(slots=True)
class _Remembered:
    """What a watch knows of one transaction beyond the server's last word."""

    began: float
    seen: TransactionSeen | None = None
    pace: _Pace | None = None
    end: TransactionEnded | None = None
    ended: float | None = None
    missing_since: float | None = None
    """Since when no server has it, although it ran."""
    tasks: dict[str, TaskSeen] = field(default_factory=dict)
    ran_before: int = 0
    """Tasks that earlier servers gave, and that were seen here."""
    ran: int = 0
    """All that had been run by its end."""


class Memory:
    """What a watch remembers, from one answer to the next. Touches neither clock nor grid."""

    def __init__(self) -> None:
        self.bookmark: Bookmark = NO_BOOKMARK
        self._transactions: dict[str, _Remembered] = {}
        self._failovers: dict[int, FailoverSeen] = {}
        self._names: dict[str, str] = {}
        self._vitals: dict[str, Vitals] = {}
        self._slots: dict[str, list[float]] = {}
        """By peer: when the last task of each of its slots ended."""
        self._began: float | None = None

    def take(
        self, status: Status, now: float, me: str, address: str, warnings: tuple[str, ...]
    ) -> Snapshot:
        """Return the snapshot that an answer makes of what was known. ``me`` is left out."""
        first = self._began is None
        self._began = now if self._began is None else self._began
        others = [member for member in status.members if member.peer != me]
        self._names.update((member.peer, member.name) for member in others)
        self._note_vitals(others)
        slots = {member.peer: member.slots for member in others}
        for peer in [peer for peer in self._names if peer not in slots][:-GONE_PEERS_MAX]:
            del self._names[peer]
            self._slots.pop(peer, None)
        wall = now - status.clock
        for txn in status.transactions:
            self._known(txn.record, wall + txn.known_at)
        for entry in status.happened:
            if isinstance(entry, TaskRan):
                self._note_task(entry, wall, slots.get(entry.peer, 1))
            else:
                self._note_end(entry, wall)
        self.bookmark = status.latest
        self._note_failovers(status.failovers, None if first else now)
        here = {txn.record: self._seen(txn, now) for txn in status.transactions}
        self._forget(here)
        shown = [*here.values(), *self._absent(here, now)]
        running = [txn for txn in shown if txn.runs]
        over = [txn for txn in shown if not txn.runs]
        over.sort(key=lambda txn: -(txn.ended or 0.0))
        return Snapshot(
            at=now,
            sought_seconds=None,
            server=status.server.name,
            server_id=status.server.peer,
            address=address,
            term=status.reign.term,
            peers=tuple(_peer(member, self._vitals.get(member.peer)) for member in others),
            transactions=(*running, *over),
            failovers=tuple(self._failovers.values()),
            lacking=status.lacking,
            warnings=warnings,
        )

    def _note_vitals(self, members: list[MemberStatus]) -> None:
        """A new server has not heard yet how peers do: a moment ago is as good."""
        told = {member.peer: member.vitals or self._vitals.get(member.peer) for member in members}
        self._vitals = {peer: vitals for peer, vitals in told.items() if vitals is not None}

    def _known(self, record: str, began: float) -> _Remembered:
        known = self._transactions.setdefault(record, _Remembered(began))
        known.began = min(known.began, began)  # a later server has known it for less long
        return known

    def _note_task(self, entry: TaskRan, wall: float, slots: int) -> None:
        known = self._known(entry.record, wall + entry.began)
        if entry.attempt in known.tasks:
            return
        began, ended = wall + entry.began, wall + entry.ended
        slot = self._slot(entry.peer, began, ended, slots)
        name = self._names.get(entry.peer, entry.peer[:8])
        span = (entry.attempt, entry.kind, entry.start, entry.stop)
        known.tasks[entry.attempt] = TaskSeen(*span, name, entry.peer, slot, began, ended)
        while len(known.tasks) > TASKS_SHOWN:
            del known.tasks[next(iter(known.tasks))]

    def _slot(self, peer: str, began: float, ended: float, slots: int) -> int:
        """Which slot a task had: nobody says, but those that were free are known. Tasks come in
        the order of their ends; of the free slots the one that was so most lately is right."""
        lanes = self._slots.setdefault(peer, [])
        free = [n for n, until in enumerate(lanes) if until <= began + OVERLAP_SECONDS]
        if free:
            slot = max(free, key=lambda n: lanes[n])
        elif len(lanes) < max(1, slots):
            lanes.append(0.0)
            slot = len(lanes) - 1
        else:
            slot = min(range(len(lanes)), key=lambda n: lanes[n])
        lanes[slot] = max(lanes[slot], ended)
        return slot

    def _note_end(self, entry: TransactionEnded, wall: float) -> None:
        known = self._known(entry.record, wall + entry.known_at)
        known.end, known.ended = entry, wall + entry.ended
        known.ran = known.ran_before + entry.ran

    def _note_failovers(self, failovers: Iterable[Failover], at: float | None) -> None:
        for one in failovers:
            before = self._failovers.get(one.term)
            seen_at = before.at if before is not None else at
            seen = FailoverSeen(one.how, one.term, one.server_seconds, one.task_seconds, seen_at)
            self._failovers[one.term] = seen
        self._failovers = dict(sorted(self._failovers.items())[-FAILOVERS_SHOWN:])

    def _seen(self, txn: TransactionStatus, now: float) -> TransactionSeen:
        """One that the server has."""
        known = self._transactions[txn.record]
        known.missing_since = None
        if txn.state == "running":
            known.end = known.ended = None  # some of its result was lost: it runs again
        rate, eta = self._pace(known, txn, now)
        ended = txn.ended or known.ended
        before = known.seen
        if before is not None and txn.ran + known.ran_before < before.tasks_done:
            known.ran_before = before.tasks_done  # another server counts from nothing
        known.seen = TransactionSeen(
            record=txn.record,
            name=txn.name,
            owners=txn.owners,
            state=_state(txn.state, known.end),
            phase=txn.phase,
            items_done=txn.maps_done,
            items_total=txn.maps_total,
            partitions_done=txn.reduces_done,
            partitions_total=txn.reduces_total,
            tasks_running=txn.running,
            tasks_done=known.ran_before + txn.ran,
            detached=txn.detached,
            began=txn.began or known.began,
            ended=ended or None,
            rate=rate,
            eta_seconds=eta,
            failure=_failure(known.end),
            tasks=tuple(known.tasks.values()),
        )
        return known.seen

    @staticmethod
    def _pace(
        known: _Remembered, txn: TransactionStatus, now: float
    ) -> tuple[float | None, float | None]:
        if txn.state != "running" or txn.phase not in ("map", "reduce"):
            known.pace = None
            return None, None
        mapping = txn.phase == "map"
        done = txn.maps_done if mapping else txn.reduces_done
        total = txn.maps_total if mapping else txn.reduces_total
        if known.pace is None or known.pace.phase != txn.phase or done < known.pace.done:
            known.pace = _Pace(txn.phase, done, now)
        known.pace.note(done, now)
        rate = known.pace.rate
        return rate, (total - done) / rate if rate else None

    def _absent(self, here: dict[str, TransactionSeen], now: float) -> list[TransactionSeen]:
        """Those that the server does not have: any more, or as yet."""
        absent = [
            (record, known)
            for record, known in self._transactions.items()
            if record not in here
            and (known.end is not None or known.seen is not None)
            and not _leaves_nothing(known.end)
        ]
        return [_awaited(known, now) or _over(record, known, now) for record, known in absent]

    def _forget(self, here: dict[str, TransactionSeen]) -> None:
        """Of those that the server has no more, keep so many, the latest."""
        over = [record for record in self._transactions if record not in here]
        over.sort(key=lambda record: self._transactions[record].ended or float("inf"))
        for record in over[: max(0, len(over) - ENDED_SHOWN)]:
            del self._transactions[record]


def _peer(member: MemberStatus, vitals: Vitals | None) -> PeerSeen:
    return PeerSeen(
        id=member.peer,
        name=member.name,
        host=member.host,
        role="serves" if member.serving else "visitor" if member.visitor else "standby",
        slots=member.slots,
        given=member.running,
        holds=member.held_bytes,
        leaving=member.leaving,
        through=member.through,
        busy=vitals.busy if vitals is not None else None,
        load=vitals.load if vitals is not None else None,
        memory=vitals.memory if vitals is not None else None,
        received=vitals.received if vitals is not None else None,
        sent=vitals.sent if vitals is not None else None,
    )


def _state(state: str, end: TransactionEnded | None) -> str:
    """What people read: of what failed, whether it was cancelled."""
    return ended_as(end) if end is not None and state in ("failed", "finished") else state


def _failure(end: TransactionEnded | None) -> FailureSeen | None:
    if end is None or end.failure is None:
        return None
    failure = end.failure
    return FailureSeen(
        failure.kind,
        failure.message,
        failure.function,
        failure.key,
        failure.peer,
        failure.traceback,
    )


def _leaves_nothing(end: TransactionEnded | None) -> bool:
    """Whether it had no items, no name and no failure: a call on every peer, as of `grid doctor`,
    which is of interest while it runs."""
    return end is not None and end.failure is None and not end.items and not end.name


def _awaited(known: _Remembered, now: float) -> TransactionSeen | None:
    """One that ran under the last server, as it was then: it is thought to come back, a while."""
    seen = known.seen
    if seen is None or not seen.runs or known.end is not None:
        return None
    known.missing_since = known.missing_since or now
    if now > known.missing_since + AWAITED_SECONDS:
        return None
    known.pace = None
    return structs.replace(seen, state="awaited", tasks_running=0, rate=None, eta_seconds=None)


def _over(record: str, known: _Remembered, now: float) -> TransactionSeen:
    """One that has ended, by what was seen of it and what the server told of its end."""
    end, seen = known.end, known.seen
    if known.ended is None:
        known.ended = now  # the server that knew has died; no other has it
    whole = end is not None and end.failure is None
    items = end.items if end is not None else seen.items_total if seen else 0
    partitions = end.partitions if end is not None else seen.partitions_total if seen else 0
    return TransactionSeen(
        record=record,
        name=end.name if end is not None else seen.name if seen else "",
        owners=end.owners if end is not None else seen.owners if seen else (),
        state=ended_as(end) if end is not None else "gone",
        phase="",
        items_done=items if whole else seen.items_done if seen else 0,
        items_total=items,
        partitions_done=partitions if whole else seen.partitions_done if seen else 0,
        partitions_total=partitions,
        tasks_running=0,
        tasks_done=max(known.ran, seen.tasks_done if seen else 0),
        detached=seen.detached if seen else False,
        began=known.began,
        ended=known.ended,
        failure=_failure(end),
        tasks=tuple(known.tasks.values()),
    )
