"""Tasks, as the server sees them: given, sealed, failed, returned, lost with their peer."""

from msgspec import structs

from grid.messages import (
    TEXT_MAX,
    Address,
    Assign,
    CancelTask,
    Failure,
    Holding,
    Kind,
    LedgerEntry,
    LostOutputs,
    Output,
    PeerRef,
    Running,
    Source,
    TaskDone,
    TaskFailed,
    TaskReturned,
)
from grid.plan import Needless, Plan, Tile
from grid.registry import Transaction
from grid.roster import Member
from grid.run_queue import runs
from grid.scheduler import Choice, choose
from grid.server_state import ServerState

RETURN_SECONDS = 0.25
"""Pause before a range whose inputs could not be had is given again."""

BACK_SECONDS = 1.0
"""How long the outputs of a member that is gone, and has no neighbour to adopt them, are thought to
come back with it: longer than it takes to find another way to the server."""

FULL_SECONDS = 5.0
"""How long a peer without room for outputs is left alone."""

NO_ROOM_SECONDS = 60.0
"""How long a transaction waits for room where no peer has any: long enough to make some."""

NOBODY = PeerRef("", "", "", Address("", 0))


class Dispatcher:
    """Gives tasks and takes their outcomes."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._count = 0
        self._overlooked: dict[str, Transaction] = {}
        self._broke_off: dict[str, float] = {}
        """Hosts of members whose connection broke, and until when these are thought to be back."""

    # -- giving ------------------------------------------------------------------------

    def give(self, now: float) -> None:
        """Give all that can be given now."""
        self._give_calls(now)
        while (choice := choose(self._state, now)) is not None:
            self._give_one(choice, now)

    def _attempt(self) -> str:
        self._count += 1
        return f"{self._prefix()}{self._count}"

    def _prefix(self) -> str:
        """What the names of this reign's attempts begin with."""
        reign = self._state.reign
        return f"{reign.term}.{reign.id[:8]}."

    def _give_one(self, choice: Choice, now: float) -> None:
        txn, tile, member = choice.txn, choice.tile, choice.member
        attempt = self._attempt()
        txn.plans[choice.kind].give(tile, attempt, member.ref.peer, now)
        txn.news(choice.kind, tile.start, tile.stop, member.ref.peer, held=False)
        sources = txn.sources(choice.kind, self._state.find)
        assert sources is not None, "chosen only with its inputs at hand"
        self._order(txn, member, attempt, choice.kind, tile, sources)

    def _order(
        self,
        txn: Transaction,
        member: Member,
        attempt: str,
        kind: Kind,
        tile: Tile,
        sources: tuple[Source, ...] = (),
    ) -> None:
        member.assigned[attempt] = txn.meta.record
        self._state.order(
            member,
            Assign(
                attempt=attempt,
                record=txn.meta.record,
                kind=kind,
                start=tile.start,
                stop=tile.stop,
                owners=self.owners(txn),
                sources=sources,
                deaths=tile.deaths,
                riding=txn.riding_for(member.ref.peer, kind),
                whole=kind == "map" and tile.stop - tile.start == txn.meta.items,
            ),
        )

    def owners(self, txn: Transaction) -> tuple[PeerRef, ...]:
        """Where a record's code and items can be had."""
        members = (self._state.roster.named(owner.peer) for owner in txn.owners.values())
        return tuple(dict.fromkeys(member.ref for member in members if member is not None))

    def _give_calls(self, now: float) -> None:
        """A call on every member does not wait for a free slot: it is queued there."""
        for txn in self._state.registry.everywhere.values():
            if not runs(txn):
                continue
            given = set(txn.calls_given.values())
            for peer, holding in txn.calls.items():
                member = self._state.roster.named(peer)
                if member is None or member.departure is not None:
                    continue
                if max(member.full_until, txn.call_pauses.get(peer, 0.0)) > now:
                    continue
                if holding is None and peer not in given:
                    attempt = self._attempt()
                    txn.calls_given[attempt] = peer
                    txn.news("call", 0, 1, peer, held=False)
                    self._order(txn, member, attempt, "call", Tile(0, 1))

    def reclaim(self, member: Member, running: Running, now: float) -> bool:
        """Take up an attempt that an earlier server gave; False if its record is unknown."""
        txn = self._state.registry.get(running.record)
        if txn is None:
            return False
        peer = member.ref.peer
        if not self._credible(txn, member, running.attempt):
            taken = False
        elif running.kind == "call":
            taken = txn.calls.get(peer, NOBODY) is None
            if taken:
                txn.calls_given[running.attempt] = peer
        else:
            plan = txn.plans.get(running.kind)
            taken = (
                plan is not None
                and plan.has(running.start, running.stop)
                and plan.reclaim(running.start, running.stop, running.attempt, peer, now)
            )
        if taken:
            member.assigned[running.attempt] = running.record
            txn.news(running.kind, running.start, running.stop, peer, held=False)
        else:
            self._state.send(member, CancelTask(running.attempt))
        return True

    def _credible(self, txn: Transaction, member: Member, attempt: str) -> bool:
        """Whether an attempt can be what a member says: run once, and not one yet to be given.

        Two attempts of one name would never both end here, and what they hold would stay taken.
        """
        if attempt in member.assigned or attempt in txn.calls_given:
            return False
        if any(attempt in plan.attempts() for plan in txn.plans.values()):
            return False
        number = attempt.removeprefix(self._prefix())
        return number == attempt or (number.isdecimal() and int(number) <= self._count)

    # -- outcomes ----------------------------------------------------------------------

    def done(self, member: Member, message: TaskDone) -> Transaction | None:
        """A sealed output: also that of an attempt nobody here has given counts."""
        given = self._state.registry.get(member.assigned.pop(message.attempt, ""))
        member.unclaimed.pop(message.attempt, None)
        member.keep_one(message.holding)
        txn = self._state.registry.get(message.holding.output.record)
        if txn is not None:
            self._take_in(txn, member, message)
        if given is not None:  # of whatever it says that this is: the attempt is over
            self._over(given, message.attempt, member.ref.peer)
        return txn

    def _take_in(self, txn: Transaction, member: Member, message: TaskDone) -> None:
        output = message.holding.output
        if output.kind == "call":
            txn.calls_given.pop(message.attempt, None)
        txn.unfed.pop(member.ref.peer, None)
        txn.no_room_since = None
        txn.ran += message.attempt.startswith(self._prefix())
        news = self._state.credit(txn, message.holding, member.ref.peer)
        if news and message.sizes:
            txn.note_sizes(member.ref.peer, message.sizes)
        plan = txn.plans.get(output.kind)
        if message.result and news:
            txn.brought = output, message.result
        if plan is not None and plan.has(output.start, output.stop):
            txn.sizers[output.kind].note(output.stop - output.start, message.seconds)

    def _released(
        self, txn: Transaction, plan: Plan, attempt: str, peer: str, not_before: float = 0.0
    ) -> Tile | None:
        tile = plan.release(attempt)
        if tile is not None:
            if tile.overlooked:
                tile.overlooked = False
                self._overlooked[txn.meta.record] = txn
            tile.not_before = max(tile.not_before, not_before)
            txn.unsay(plan.kind, tile.start, tile.stop, peer)
        return tile

    def _ended(
        self, member: Member, attempt: str, not_before: float = 0.0
    ) -> tuple[Transaction, Plan | None, Tile | None] | None:
        """Take an attempt that ended without output from its member and its plan."""
        member.unclaimed.pop(attempt, None)
        txn = self._state.registry.get(member.assigned.pop(attempt, ""))
        return self._over(txn, attempt, member.ref.peer, not_before) if txn is not None else None

    def _over(
        self, txn: Transaction, attempt: str, peer: str, not_before: float = 0.0
    ) -> tuple[Transaction, Plan | None, Tile | None] | None:
        """Take an attempt from the plan it was given for, which is free again if not done."""
        if txn.calls_given.pop(attempt, None) is not None:
            txn.unsay("call", 0, 1, peer)
            return txn, None, None
        for plan in txn.plans.values():
            tile = self._released(txn, plan, attempt, peer, not_before)
            if tile is not None:
                return txn, plan, tile
        return None

    def failed(self, member: Member, message: TaskFailed) -> tuple[Transaction, Failure] | None:
        """User code raised, or a worker died. Return the transaction if that is its end."""
        ended = self._ended(member, message.attempt)
        if ended is None:
            return None
        txn, plan, tile = ended
        failure = message.failure
        if plan is None or tile is None:
            return self._call_failed(txn, member.ref.peer, failure)
        if failure.kind == "raised":
            tile.errors += 1
            return (txn, failure) if tile.errors > txn.meta.retries else None
        if failure.kind == "died":
            tile.deaths += 1
            if plan.kind == "map":
                tile = plan.isolate(tile, failure.item)
            return (txn, _after(tile, failure)) if tile.deaths >= txn.meta.attempts_max else None
        return txn, failure

    @staticmethod
    def _call_failed(
        txn: Transaction, peer: str, failure: Failure
    ) -> tuple[Transaction, Failure] | None:
        """A call on a member: tried again there if its worker died, and not too often."""
        txn.call_deaths[peer] = txn.call_deaths.get(peer, 0) + 1
        again = failure.kind == "died" and txn.call_deaths[peer] < txn.meta.attempts_max
        return None if again else (txn, failure)

    def returned(
        self, member: Member, message: TaskReturned, now: float
    ) -> tuple[Transaction, Failure] | None:
        """A task was handed back. Return the transaction if nobody can run it."""
        self._lose_everywhere(message.missing)
        if message.reason == "space":
            member.full_until = now + FULL_SECONDS
        pause = now + RETURN_SECONDS if message.reason == "inputs" else 0.0
        ended = self._ended(member, message.attempt, pause)
        if ended is None:
            return None
        txn, plan, _ = ended
        if message.reason == "inputs":
            txn.unfed[member.ref.peer] = None
        if plan is None:
            txn.call_pauses[member.ref.peer] = pause
        if message.reason == "space" and self._nobody_has_room(txn, now):
            return txn, Failure("space", message.detail, peer=member.ref.name)
        if message.reason != "module":
            return None
        txn.unable[member.ref.peer] = message.detail
        txn.calls.pop(member.ref.peer, None)
        able = [m for m in self._state.roster if m.slots and m.ref.peer not in txn.unable]
        return None if able else (txn, Failure("module", message.detail, peer=member.ref.name))

    def _nobody_has_room(self, txn: Transaction, now: float) -> bool:
        """Whether all who could run its tasks are full, and that for long."""
        if txn.no_room_since is None:
            txn.no_room_since = now
        able = [m for m in self._state.roster if m.slots and m.ref.peer not in txn.unable]
        full = all(member.full_until > now for member in able)
        return full and now - txn.no_room_since >= NO_ROOM_SECONDS

    def _lose_everywhere(self, outputs: tuple[Output, ...]) -> None:
        """Outputs are gone for good, at every holder."""
        for output in outputs:
            for member in self._state.roster:
                member.lost(output)
        self._lose(outputs, None)

    def _lose(self, outputs: tuple[Output, ...], holder: str | None) -> None:
        """Outputs no longer count as held, by this holder or (None) by anyone."""
        short: dict[str, Transaction] = {}
        for output in outputs:
            txn = self._state.registry.get(output.record)
            plan = txn.plans.get(output.kind) if txn else None
            if txn is not None and output.kind == "call":
                self._lose_call(txn, output)
            if txn is None or plan is None or not plan.has(output.start, output.stop):
                continue
            for peer in plan.holders(output):
                if holder in (None, peer):
                    txn.unsay(output.kind, output.start, output.stop, peer)
            if plan.lose(output, holder) is not None:
                short[output.record] = txn
        for txn in short.values():
            self._recount(txn)

    @staticmethod
    def _lose_call(txn: Transaction, output: Output) -> None:
        """The value of a call is gone: its member is to be called again."""
        held = txn.calls.get(output.producer)
        if held is not None and held.output == output:
            txn.calls[output.producer] = None
            txn.unsay("call", 0, 1, output.producer)

    def _recount(self, txn: Transaction) -> None:
        """After a loss: what someone holds and was needless until now, counts."""
        for member in self._state.roster:
            for holding in tuple(member.held.get(txn.meta.record, {}).values()):
                self._state.credit(txn, holding, member.ref.peer)

    def count_overlooked(self) -> list[Transaction]:
        """Count what members hold of ranges that somebody ran as a whole and does so no more.
        Return the transactions that this may have brought on."""
        overlooked, self._overlooked = self._overlooked, {}
        known = [t for r, t in overlooked.items() if self._state.registry.get(r) is t]
        for txn in known:
            self._recount(txn)
        return known

    def lost_outputs(self, message: LostOutputs) -> Transaction | None:
        """An owner could not fetch these from these peers; what nobody else has is run again."""
        for output, peer in message.missing:
            member = self._state.roster.named(peer)
            if member is not None:
                member.lost(output)
            self._lose((output,), peer)
        return self._state.registry.get(message.record)

    def keeps_only(self, member: Member, records: tuple[str, ...]) -> None:
        """A member no longer has what it held of other records; where that counted, it is lost."""
        for record in [record for record in member.held if record not in records]:
            outputs = tuple(member.held[record])
            member.drop(record, ())
            self._lose(outputs, member.ref.peer)

    # -- members that go ---------------------------------------------------------------

    def part(self, member: Member, now: float, *, well: bool) -> None:
        """Free what a gone member ran; hold back what it held while a neighbour may adopt it, or,
        unless it left ``well``, while it may be back: perhaps only its connection broke. So may a
        neighbour, whose connection led through the one that left."""
        peer, host = member.ref.peer, member.ref.host
        may_be_back = not well or now < self._broke_off.get(host, now)
        if not well:
            self._broke_off = {h: until for h, until in self._broke_off.items() if now < until}
            self._broke_off[host] = now + BACK_SECONDS
        for attempt in list(member.assigned):
            self._ended(member, attempt)
        adoptable = any(m.ref.peer != peer for m in self._state.roster.neighbours(host))
        patience = self._state.settings.silence_seconds if adoptable else BACK_SECONDS
        until = now + patience if adoptable or may_be_back else None
        for record, outputs in member.held.items():
            txn = self._state.registry.get(record)
            if txn is None:
                continue
            lost = [self._lose_at(txn, holding, peer, until) for holding in outputs.values()]
            if any(lost):
                self._recount(txn)
        for txn in self._state.registry:
            txn.calls.pop(peer, None)
            txn.sizes.pop(peer, None)
            txn.unfed.pop(peer, None)

    def _lose_at(self, txn: Transaction, holding: Holding, peer: str, until: float | None) -> bool:
        """Tell whether the loss of this output leaves a range without any."""
        output = holding.output
        plan = txn.plans.get(output.kind)
        if plan is None or not plan.has(output.start, output.stop):
            return False
        tile = plan.lose(output, peer)
        if tile is not None and until is not None:
            estate = self._estate(output, peer)
            plan.expect(tile.start, tile.stop, estate)
            txn.waiting[estate] = until
            held = LedgerEntry(output.kind, tile.start, tile.stop, estate, held=True)
            txn.expected.append(held)
        return tile is not None

    def _estate(self, output: Output, peer: str) -> str:
        """With whose estate an output of a gone peer will be announced: one that it had adopted
        lies in the folder of its producer, which someone has to adopt anew."""
        producer = output.producer
        if producer == peer or self._state.roster.named(producer) is not None:
            return peer
        self._state.buried.pop(producer, None)
        return producer

    def halt(self, txn: Transaction) -> None:
        """Stop every attempt of a transaction."""
        for plan in txn.plans.values():
            for attempt, tile in list(plan.attempts().items()):
                peer = tile.attempts[attempt]
                plan.release(attempt)
                self._state.stop(Needless(attempt, peer, tile.start, tile.stop))
        for attempt, peer in txn.calls_given.items():
            self._state.stop(Needless(attempt, peer, 0, 1))
        txn.calls_given.clear()


def _after(tile: Tile, failure: Failure) -> Failure:
    """Say how many workers it took to give up."""
    if tile.deaths == 1:
        return failure
    message = f"{tile.deaths} workers died on the same task; the last: {failure.message}"
    return structs.replace(failure, message=message[:TEXT_MAX])
