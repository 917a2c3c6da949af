"""Members that leave well, as the server sees them: what they still owe, and when they may go.

A leaver is given nothing more. It may go when it runs nothing, and when all outputs that it has
alone, and that a transaction still needs, are safe: with a member that stays, or, as they share a
file system, because another peer of its host stays and will adopt the estate. What is not safe is
taken over by others, spread over them by size. Results on their way to an owner are waited for.
If nobody stays, there is nobody to wait for.

It promises that work finished by one who was told ``MayGo`` is not done again, as long as those
who took it over live. It promises no end: the leaver has a limit of its own, and goes then.
"""

from collections.abc import Callable

from grid.messages import (
    BYTES_MAX,
    AskDrain,
    Drained,
    DrainNow,
    Held,
    Holding,
    Kind,
    MayGo,
    NotTaken,
    Output,
    PeerRef,
    TakeOver,
    TaskReturned,
)
from grid.registry import Transaction
from grid.roster import Departure, Member
from grid.server_state import ServerState

TAKEN_AT_ONCE = 256
"""Outputs in one ``TakeOver``: they are announced together, so what has come is soon safe."""

Stayers = dict[str, Member]


class LeavingMembers:
    """Decides what becomes of what leaving members run and hold. ``retain`` has a retained result
    remembered by members that stay, and returns these."""

    def __init__(
        self, state: ServerState, retain: Callable[[Transaction, float], list[Member]]
    ) -> None:
        self._state = state
        self._retain = retain
        self._leavers: dict[str, tuple[Member, Departure]] = {}
        self._asked: dict[Output, str] = {}
        """Who was told to take over which output."""
        self._refused: dict[Output, dict[str, None]] = {}
        self._watchers: dict[str, dict[str, None]] = {}
        """Who wants to hear how a peer has left: peers, by the peer they asked about."""

    # -- what is heard -----------------------------------------------------------------

    def begin(self, member: Member) -> None:
        """A member wants to leave."""
        if member.departure is None:
            member.departure = Departure()
            self._leavers[member.ref.peer] = (member, member.departure)

    def ask(self, asker: Member, message: AskDrain) -> None:
        """Somebody wants another member to leave well, and to hear how that went."""
        self._watchers.setdefault(message.peer, {})[asker.ref.peer] = None
        self._state.tell(message.peer, DrainNow(message.seconds))

    def not_taken(self, member: Member, message: NotTaken) -> None:
        """One who was asked could not: it is not asked for these again."""
        for output in message.outputs:
            if self._asked.get(output) == member.ref.peer:
                del self._asked[output]
                self._refused.setdefault(output, {})[member.ref.peer] = None

    def announced(self, member: Member, held: Held) -> None:
        """Note what a member has taken over: how large it is, and from whom."""
        taken = [h for h in held.holdings if self._asked.get(h.output) == member.ref.peer]
        txn = self._state.registry.get(held.record)
        if not taken or txn is None:
            return
        if held.sizes:
            txn.note_sizes(member.ref.peer, held.sizes)
        for holding in taken:
            self._asked.pop(holding.output, None)  # a broken member may name one twice
            for leaver, departure in self._leavers.values():
                if holding.output in leaver.held.get(held.record, {}):
                    departure.passed_on += holding.bytes

    @staticmethod
    def ended(member: Member, message: object) -> None:
        """Count a task that came to its end at a member that is leaving."""
        if member.departure is None:
            return
        if isinstance(message, TaskReturned):
            member.departure.handed_back += 1
        else:
            member.departure.finished += 1

    def parted(self, member: Member, *, well: bool) -> None:
        """A member is gone: who watched it leave is told how it went."""
        departure = member.departure
        if departure is None and well:  # it had nothing to do or to pass on, and so did not wait
            self._tell_watchers(member, Departure(), well=True)
        if departure is not None:
            del self._leavers[member.ref.peer]
            if not departure.may_go:
                departure.handed_back += len(member.assigned)
                self._tell_watchers(member, departure, well=False)
        for watchers in self._watchers.values():
            watchers.pop(member.ref.peer, None)
        if not self._leavers:
            self._asked.clear()
            self._refused.clear()

    # -- who may go --------------------------------------------------------------------

    def review(self, now: float) -> bool:
        """Let go who may go, and have taken over what is not safe. Tell whether a transaction may
        have come to its end by that."""
        self._answer_watchers()
        leavers = [(m, going) for m, going in self._leavers.values() if not going.may_go]
        if not leavers:
            return False
        stayers = self._stayers()
        uncalled = [self._uncall(member) for member, _ in leavers]
        for member, departure in leavers:
            if not stayers or not self._is_needed(member, departure, stayers, now):
                departure.may_go = True
                self._state.send(member, MayGo())
                self._tell_watchers(member, departure, well=True)
        return any(uncalled)

    def _stayers(self) -> Stayers:
        """Those who are here for longer: peers, and visitors that wait for what they own."""
        waiting = {owner.peer for txn in self._state.registry for owner in txn.owners.values()}
        return {
            m.ref.peer: m
            for m in self._state.roster
            if m.departure is None and (m.serves or m.ref.peer in waiting)
        }

    def _uncall(self, member: Member) -> bool:
        """A call that the leaver has not begun is not expected of it any more."""
        peer = member.ref.peer
        needless = [
            txn
            for txn in self._state.registry
            if peer in txn.calls
            and txn.calls[peer] is None
            and peer not in txn.calls_given.values()
        ]
        for txn in needless:
            del txn.calls[peer]
        return bool(needless)

    def _is_needed(
        self, member: Member, departure: Departure, stayers: Stayers, now: float
    ) -> bool:
        """Whether something would be lost if the member went now; see to it that soon it is not."""
        heirs = any(stayer.ref.host == member.ref.host for stayer in stayers.values())
        owes = False
        for txn in self._of(member):
            if txn.retained_until is not None:
                owes |= self._have_retained(txn, member, departure, stayers, now)
            elif not heirs:
                owes |= self._have_taken(txn, member, stayers)
        busy = bool(member.assigned or member.unclaimed) or not self._state.settled
        # It may be the one that has to adopt the estate of another peer of its host.
        last = not heirs and any(txn.waiting for txn in self._state.registry)
        return owes or busy or last or self._is_read(member, stayers)

    def _of(self, member: Member) -> list[Transaction]:
        """The transactions of which a member holds something, save what is kept on disk for good
        by those who detached it."""
        known = [txn for txn in map(self._state.registry.get, member.held) if txn is not None]
        return [txn for txn in known if not (txn.detached and txn.retained_until is not None)]

    def _is_read(self, member: Member, stayers: Stayers) -> bool:
        """Whether an owner fetches a result of which this member holds some; or will, as a call's
        value can be had from nobody else."""
        for txn in self._of(member):
            ending = txn.state == "finished" or txn.meta.shape == "everywhere"
            if not ending or txn.state == "failed" or txn.retained_until is not None:
                continue
            holds = any(member.ref.peer in peers for _, peers in txn.results())
            owners = txn.owners.values()
            if holds and any(not o.acknowledged and o.peer in stayers for o in owners):
                return True
        return False

    # -- what is taken over ------------------------------------------------------------

    def _unsafe(self, txn: Transaction, member: Member, stayers: Stayers) -> list[Holding]:
        """The outputs of a member that its transaction needs and nobody has who stays."""
        kinds = needed_kinds(txn)
        unsafe: list[Holding] = []
        for output, holding in member.held[txn.meta.record].items():
            if output.kind in kinds and txn.plans[output.kind].has(output.start, output.stop):
                holders = txn.plans[output.kind].holders(output)
                if member.ref.peer in holders and not any(peer in stayers for peer in holders):
                    unsafe.append(holding)
        return unsafe

    def _have_taken(self, txn: Transaction, member: Member, stayers: Stayers) -> bool:
        """Ask others for what is not safe yet; tell whether that is to be waited for."""
        unsafe = self._unsafe(txn, member, stayers)
        orders: dict[str, list[Holding]] = {}
        load = {peer: stayer.held_bytes for peer, stayer in stayers.items()}
        under_way = False
        for holding in unsafe:
            if self._asked.get(holding.output) in stayers:
                under_way = True
                continue
            refused = self._refused.get(holding.output, {})
            able = [peer for peer in stayers if peer not in refused]
            if able:
                taker = min(able, key=load.__getitem__)
                load[taker] += holding.bytes
                self._asked[holding.output] = taker
                orders.setdefault(taker, []).append(holding)
        for peer, holdings in orders.items():
            self._order(stayers[peer], txn, holdings, member.ref)
        return under_way or bool(orders)

    def _order(
        self, taker: Member, txn: Transaction, holdings: list[Holding], holder: PeerRef
    ) -> None:
        for start in range(0, len(holdings), TAKEN_AT_ONCE):
            part = holdings[start : start + TAKEN_AT_ONCE]
            sources = tuple((holding, holder) for holding in part)
            self._state.send(taker, TakeOver(txn.meta.record, sources))

    def _have_retained(
        self,
        txn: Transaction,
        member: Member,
        departure: Departure,
        stayers: Stayers,
        now: float,
    ) -> bool:
        """A result for latecomers is to be remembered by others too: what an heir adopts has no
        memory of its name. Tell whether that is to be waited for."""
        unsafe = [holding.output for holding in self._unsafe(txn, member, stayers)]
        if any(output in self._refused for output in unsafe):
            return False
        under_way = all(self._asked.get(output) in stayers for output in unsafe)
        if txn.meta.record not in departure.remembered or not under_way:
            departure.remembered[txn.meta.record] = None
            for keeper in self._retain(txn, now)[:1]:
                self._asked.update(dict.fromkeys(unsafe, keeper.ref.peer))
        return bool(unsafe)

    # -- who watches -------------------------------------------------------------------

    def _tell_watchers(self, member: Member, departure: Departure, *, well: bool) -> None:
        drained = Drained(
            peer=member.ref.peer,
            known=True,
            well=well,
            finished=departure.finished,
            handed_back=departure.handed_back,
            passed_on=min(departure.passed_on, BYTES_MAX),
        )
        for watcher in self._watchers.pop(member.ref.peer, {}):
            self._state.tell(watcher, drained)

    def _answer_watchers(self) -> None:
        """Who asked about one that is not here hears so, once all had the time to report."""
        if not self._state.settled:
            return
        for peer in [peer for peer in self._watchers if self._state.roster.named(peer) is None]:
            for watcher in self._watchers.pop(peer):
                self._state.tell(watcher, Drained(peer))


def needed_kinds(txn: Transaction) -> tuple[Kind, ...]:
    """The kinds of outputs that a transaction still needs: those of the phase it works on, those
    that this phase reads, and what comes after; in the end, the results alone."""
    kinds = tuple(txn.plans)
    if txn.state == "failed" or not kinds:
        return ()
    phase = txn.phase()
    return kinds[-1:] if phase is None else kinds[max(0, kinds.index(phase) - 1) :]
