"""Owners, as the server sees them: submissions, names, delivery, and the end of a transaction.

A detached transaction is owned by the peers that keep it on disk. It ends for others when each of
these has put its end there; only a cancel for everyone ends it early, and what a single asker
cannot fetch is no reason to forget it.

A record that was never accepted may have to wait: just after a failover the members of the old
server are still coming, and one of them may own the name (or be one of "everywhere"). Whatever
depends on who else is there waits until they had the time to report.
"""

from collections.abc import Callable

from grid.messages import (
    Accepted,
    Acknowledge,
    Adopt,
    AskResult,
    Cancel,
    Drop,
    Ended,
    Failed,
    Failure,
    Finished,
    Held,
    Holding,
    Kind,
    LedgerEntry,
    PeerRef,
    Rejected,
    Remembered,
    Retain,
    Submit,
)
from grid.ownership import KEEP_AGAIN_SECONDS
from grid.plan import Plan, Tile
from grid.registry import Owner, Transaction
from grid.roster import Member
from grid.server_state import ServerState

CANCELLED = "cancelled for everyone, by another owner or with `grid cancel`"

Waiting = Submit | AskResult | Acknowledge | Cancel


class Submissions:
    """Decides what becomes of submissions, acknowledgements and cancels."""

    def __init__(
        self,
        state: ServerState,
        owners: Callable[[Transaction], tuple[PeerRef, ...]],
        halt: Callable[[Transaction], None],
    ) -> None:
        self._state = state
        self._owner_refs = owners
        self._halt = halt
        self._undecided: list[tuple[int, Waiting]] = []
        self._withdrawn: dict[str, None] = {}
        """Records whose last owner here withdrew, before everyone had the time to report."""
        self._turn = 0

    # -- submitting --------------------------------------------------------------------

    def submit(self, member: Member, message: Submit, now: float) -> Transaction | None:
        """Take a submission: own, adopt, wait or refuse. Return the transaction now owned."""
        registry = self._state.registry
        record = message.meta.record
        if registry.cancelled(record):
            self._turn_down(member, message, now)
            return None
        txn = registry.get(record)
        if txn is None:
            txn = self._admit(member, message)
        if txn is None:
            return None
        self._own(txn, member, message, now)
        return txn

    def _turn_down(self, member: Member, message: Submit, now: float) -> None:
        """It was cancelled for everyone, perhaps before it was known here: then it is taken up, and
        fails at once, so that those who watch hear how it ended. The end of a detached one is
        announced by its keepers."""
        registry, withdrawn = self._state.registry, Failure("cancelled", CANCELLED)
        txn = registry.get(message.meta.record)
        if message.meta.keeping is not None or (txn is not None and txn.state != "failed"):
            self._state.send(member, Failed(message.txn, message.meta.record, withdrawn))
            return
        if txn is None:
            name = message.name if registry.named(message.name) is None else ""
            txn = registry.accept(message.meta, name, message.fingerprint, self._state.now)
        self._own(txn, member, message, now)
        self.fail(txn, withdrawn)

    def _admit(self, member: Member, message: Submit) -> Transaction | None:
        """Decide on a record that is not known here."""
        if message.meta.shape == "everywhere":
            if not self._state.settled:
                self._postpone(member, message)
                return None
            txn = self._state.registry.accept(message.meta, "", {}, now=self._state.now)
            able = (m for m in self._state.roster if m.slots and m.departure is None)
            txn.calls = {m.ref.peer: None for m in able}
            return txn
        if message.meta.keeping is not None and not (self._state.settled or message.accepted):
            # It may be revived, and who holds some of it, or knows of its end, still be coming.
            self._postpone(member, message)
            return None
        if not message.name:
            return self._state.registry.accept(message.meta, "", {}, now=self._state.now)
        return self._admit_named(member, message)

    def _postpone(self, member: Member, message: Waiting) -> None:
        """Decide later, when everyone had the time to report."""
        self._undecided.append((member.link, message))

    def _admit_named(self, member: Member, message: Submit) -> Transaction | None:
        registry = self._state.registry
        first = registry.named(message.name)
        if first is not None and (first.state == "failed" or self._stale(first, message)):
            first = None
        if first is not None and self._was_in_vain(first, (member.ref.peer, message.txn)):
            first = None
        if first is None:
            if not self._state.settled and not message.accepted:
                self._postpone(member, message)
                return None
            return registry.accept(
                message.meta, message.name, message.fingerprint, now=self._state.now
            )
        if message.accepted:
            # Accepted by an earlier server, and late: the name is taken, the work is still owed.
            return registry.accept(message.meta, "", {}, now=self._state.now)
        differs = conflict(first.fingerprint, message.fingerprint)
        if differs:
            text = f"the name {message.name!r} belongs to another job: {', '.join(differs)} differ"
            self._state.send(member, Rejected(message.txn, text, differs))
            return None
        if first.state == "finished":
            return first
        self._state.send(member, Adopt(message.txn, first.meta, self._owner_refs(first)))
        return None

    def _was_in_vain(self, first: Transaction, key: tuple[str, str]) -> bool:
        """One who found a finished result could not fetch it, and submits its own record. It has
        not the code of what runs again: if nobody else owns that, it is over."""
        if first.state != "running" or first.owners.pop(key, None) is None or first.owners:
            return False
        self.end(first)
        return True

    @staticmethod
    def _stale(first: Transaction, message: Submit) -> bool:
        """A finished result is passed over when it is not whole, or something fresh is wanted."""
        return first.state == "finished" and (message.fresh or not first.complete)

    def _own(self, txn: Transaction, member: Member, message: Submit, now: float) -> None:
        peer = member.ref.peer
        owner = Owner(peer, message.txn, found=message.meta.record != txn.meta.record)
        txn.resumed |= message.accepted
        txn.owners[peer, message.txn] = owner
        txn.ownerless_until = None
        self._state.accept(member, Accepted(message.txn, txn.meta.record))
        if message.meta.record == txn.meta.record:
            txn.riding = message.riding if message.riding.head else txn.riding
            self._expect(txn, message, now)
        self._snapshot(txn, message.ledger)
        self.deliver(txn)

    def _expect(self, txn: Transaction, message: Submit, now: float) -> None:
        """Hold back what the owner's ledger says is with peers that have not reported yet."""
        until = now + self._state.settings.silence_seconds
        for entry in message.ledger:
            known = self._state.roster.named(entry.peer) or entry.peer in self._state.buried
            plan = txn.plans.get(entry.kind)
            if known or plan is None or not plan.has(entry.start, entry.stop):
                continue
            if plan.expect(entry.start, entry.stop, entry.peer):
                txn.waiting[entry.peer] = until
                txn.expected.append(entry)

    @staticmethod
    def _snapshot(txn: Transaction, ledger: tuple[LedgerEntry, ...]) -> None:
        """Let the next news hold all that is known for an owner that is new here; and what is
        thought, unless it is alone and has said so itself."""
        for kind, plan in txn.plans.items():
            for tile in plan.outputs():
                for peer in (*tile.attempts.values(), *tile.holders):
                    txn.news(kind, tile.start, tile.stop, peer, held=tile.done)
        txn.expected = [
            entry
            for entry in txn.expected
            if txn.plans[entry.kind].awaits(entry.start, entry.stop, entry.peer)
        ]
        alone = len(txn.owners) == 1
        txn.entries += [entry for entry in txn.expected if not alone or entry not in ledger]
        txn.mark()

    # -- delivering --------------------------------------------------------------------

    def advance(self, txn: Transaction) -> None:
        """If that was the last output, the transaction is finished; its owners are told."""
        if txn.state == "running" and txn.complete:
            txn.state = "finished"
            txn.note_skipped()
            self._chronicle(txn, None)
        self.deliver(txn)
        self._answer(txn)
        self._conclude(txn, self._state.now)  # owners may have acknowledged what had to run again

    def _chronicle(self, txn: Transaction, failure: Failure | None) -> None:
        """Note its end for those who watch."""
        self._state.chronicle.note_end(txn, self._state.owners(txn), failure, self._state.now)

    def reopen(self, txn: Transaction) -> None:
        """Some of a result is gone: what is missing runs again, and its owners are told again.

        A result retained for latecomers that is no longer whole is nothing to keep.
        """
        if txn.retained_until is not None:
            if not txn.complete:
                self._send_away(txn)
                self.end(txn)
        elif txn.state == "finished":
            txn.state = "running"
            txn.touch()
            for owner in txn.owners.values():
                owner.told = False
            self.advance(txn)

    def fail(self, txn: Transaction, failure: Failure) -> None:
        """End a transaction without a result; its owners are told."""
        if txn.state != "running":
            return
        txn.state = "failed"
        txn.failure = failure
        self._chronicle(txn, failure)
        self._halt(txn)
        self.deliver(txn)
        self._answer(txn)
        self._conclude(txn, self._state.now)  # as when it finishes

    def deliver(self, txn: Transaction) -> None:
        """Tell every owner that has not been told how it ended. Without a quorum nobody is."""
        if self._state.lacking:
            return
        if txn.state == "finished" and not txn.complete:
            self._send_away(txn)
        waiting = [owner for owner in txn.owners.values() if not owner.told]
        if waiting and txn.state == "finished" and not txn.complete:
            self._run_again(txn)  # some was lost since; then they are told
        if txn.state == "running":
            return
        self._state.say_news(txn)  # whoever has the result can see that all of it was done
        for owner in waiting:
            member = self._state.roster.named(owner.peer)
            if member is None:
                continue
            owner.told = True
            if txn.failure is not None:
                self._state.send(member, Failed(owner.txn, txn.meta.record, txn.failure))
            else:
                self._state.send(member, self._finished(txn, member, owner.txn))

    def _send_away(self, txn: Transaction) -> None:
        """Who found a result that was lost before it could be told, as it cannot without a quorum,
        is to submit its own record again."""
        for key, owner in list(txn.owners.items()):
            if owner.found and not owner.told:
                del txn.owners[key]
                self._state.tell(owner.peer, Adopt(owner.txn, txn.meta, ()))

    def _run_again(self, txn: Transaction) -> None:
        """Of what its retained result was made from nothing was kept: it is not to be waited for
        from those who once had it, and may have gone since."""
        txn.state = "running"
        txn.touch()
        txn.retained_until = None
        for plan in txn.plans.values():
            for tile in [tile for tile in plan.outputs() if tile.holding is not None]:
                for peer in tuple(tile.holders):
                    self._lose_dropped(txn, plan, tile, peer)

    def _lose_dropped(self, txn: Transaction, plan: Plan, tile: Tile, peer: str) -> None:
        member = self._state.roster.named(peer)
        held = member.held.get(txn.meta.record, {}) if member is not None else {}
        if tile.holding is not None and tile.holding.output not in held:
            txn.unsay(plan.kind, tile.start, tile.stop, peer)
            plan.lose(tile.holding.output, peer)

    def _finished(self, txn: Transaction, member: Member, told: str) -> Finished:
        """Where its result is; or all of it, if it is small and nobody else may want it: a copy at
        its owner is what latecomers to a name find when who made it is gone."""
        found = self.sources(txn, member)
        output, brought = txn.brought or (None, b"")
        whole = [output] == [holding.output for holding, _ in found]
        result = brought if whole and not txn.name else b""
        return Finished(told, txn.meta.record, txn.meta, found, txn.skipped, result)

    def show_result(self, member: Member, message: AskResult) -> None:
        """Tell one who knows only its name where a finished result is. It becomes no owner: the
        result stays for as long as it would anyway."""
        txn = self._state.registry.named(message.name) or self._detached(message.name)
        if txn is not None and self._may_be_shown(txn):
            self._show(txn, member, message.txn)
        elif not self._state.settled:
            self._postpone(member, message)  # who remembers it may still be coming
        elif txn is not None and message.wait and (txn.detached or txn.state == "running"):
            txn.askers[member.ref.peer, message.txn] = None
            txn.mark()
        else:
            self._state.send(member, Rejected(message.txn, _no_result(message.name, txn)))

    def _detached(self, record: str) -> Transaction | None:
        txn = self._state.registry.get(record)
        return txn if txn is not None and txn.detached else None

    def _may_be_shown(self, txn: Transaction) -> bool:
        """Whether one who asks may hear of the end: of a detached transaction, once all of its
        keepers that are here have it on disk."""
        if not txn.detached:
            return txn.state == "finished" and txn.complete
        kept = txn.retained_until is not None and not txn.owners and self._state.settled
        return kept and (txn.state == "failed" or txn.complete)

    def _show(self, txn: Transaction, member: Member, asked: str) -> None:
        record = txn.meta.record
        if txn.failure is not None:
            self._state.send(member, Failed(asked, record, txn.failure))
            return
        self._state.send(member, self._finished(txn, member, asked))

    def settle(self, now: float) -> None:
        """Everyone had the time to report: what had to wait for that ends now, and is told."""
        for txn in list(self._state.registry):
            if txn.meta.record in self._withdrawn and not txn.owners:
                self.end(txn)
            else:
                self._conclude(txn, now)
                self._answer(txn)
        self._withdrawn.clear()

    def _answer(self, txn: Transaction) -> None:
        """Tell those who wait for the end, if it has come."""
        if txn.detached and not self._may_be_shown(txn):
            return
        if not txn.askers or txn.state == "running":
            return
        askers, txn.askers = txn.askers, {}
        for peer, asked in askers:
            member = self._state.roster.named(peer)
            if member is not None:
                self._show(txn, member, asked)

    def sources(self, txn: Transaction, near: Member) -> tuple[tuple[Holding, PeerRef], ...]:
        """Each result with a holder: itself, else one of its host, else any, in turn."""
        found: list[tuple[Holding, PeerRef]] = []
        self._turn += 1
        for holding, peers in txn.results():
            refs = [m.ref for m in map(self._state.roster.named, peers) if m is not None]
            if refs:
                mine = near.ref
                refs.sort(key=lambda ref: (ref.peer != mine.peer, ref.host != mine.host))
                best = [r for r in refs if r.host == refs[0].host or refs[0].host != mine.host]
                near_enough = refs[:1] if refs[0].peer == mine.peer else best
                found.append((holding, near_enough[self._turn % len(near_enough)]))
        return tuple(found)

    # -- ending ------------------------------------------------------------------------

    def acknowledge(self, member: Member, message: Acknowledge, now: float) -> None:
        """An owner has what it wanted; with the last one, all outputs may go."""
        txn = self._state.registry.get(message.record)
        if txn is None:
            self._part_unknown(member, message)
            return
        key = (member.ref.peer, message.txn)
        if txn.retained_until is not None:
            if txn.owners.pop(key, None) is not None and txn.detached:
                txn.keepers[member.ref.peer] = None
            self._answer(txn)
        elif key in txn.owners:
            txn.owners[key].acknowledged = True
        self._state.send(member, Ended(message.txn, message.record))
        self._conclude(txn, now)

    def cancel(self, member: Member, message: Cancel, now: float) -> None:
        """An owner withdraws; the last one, or one that speaks for all, ends the job."""
        registry = self._state.registry
        txn = registry.get(message.record)
        if message.all and (txn is None or txn.state == "running"):
            registry.cancel(message.record)
        if txn is None:
            self._withdraw_elsewhere(member, message, now)
            self._part_unknown(member, message)
            return
        txn.owners.pop((member.ref.peer, message.txn), None)
        self._state.send(member, Ended(message.txn, message.record))
        if message.all:
            self.fail(txn, Failure("cancelled", CANCELLED))
        if registry.get(message.record) is not txn:
            return  # no owner is left that has not acknowledged
        if not txn.owners and txn.retained_until is None:
            self._leave_ownerless(txn, now)
        else:
            self._conclude(txn, now)

    def _withdraw_elsewhere(self, member: Member, message: Cancel, now: float) -> None:
        """A name made this submission an owner of a finished record, and its peer withdrew before
        it heard of that: it is owed nothing there either."""
        key = (member.ref.peer, message.txn)
        for txn in [txn for txn in self._state.registry if key in txn.owners]:
            del txn.owners[key]
            if not txn.owners and txn.retained_until is None:
                self._leave_ownerless(txn, now)
            else:
                self._conclude(txn, now)

    def _leave_ownerless(self, txn: Transaction, now: float) -> None:
        """The last owner withdrew: that is the end, unless it is kept for whoever asks. Then it
        had no room for the end, and comes again soon; meanwhile those who wait go on waiting."""
        if txn.detached:
            patience = max(2 * KEEP_AGAIN_SECONDS, self._state.settings.orphan_run_seconds)
            txn.ownerless_until = now + patience
        elif self._others_may_come(txn):
            self._withdrawn[txn.meta.record] = None
        else:
            self.end(txn)

    def _others_may_come(self, txn: Transaction) -> bool:
        """Whether an earlier server knew it, so that it may have owners who are not here yet."""
        return txn.resumed and not self._state.settled

    def _part_unknown(self, member: Member, message: Acknowledge | Cancel) -> None:
        """An owner is done with a record that no one submitted here. Another owner may yet do so:
        until everyone had the time, nothing is dropped."""
        if not self._state.settled:
            self._postpone(member, message)
            return
        self._drop(message.record, ())
        self._state.registry.bury(message.record)
        self._state.send(member, Ended(message.txn, message.record))

    def _conclude(self, txn: Transaction, now: float) -> None:
        """When every owner has acknowledged: retain a named result, drop everything else. What
        had to run again, and is wanted by nobody now, ends: its owners have let go of its code."""
        owners = txn.owners.values()
        if txn.retained_until is not None or not owners:
            return
        if self._others_may_come(txn) or not all(owner.acknowledged for owner in owners):
            return
        if txn.state == "running":
            if not (txn.detached or txn.waiting):
                self.end(txn)
        elif txn.detached:
            self._retain_kept(txn, now)
        elif txn.name and txn.state == "finished":
            self._retain(txn, now)
        else:
            self.end(txn)

    def _retain(self, txn: Transaction, now: float) -> None:
        seconds = self._state.settings.retain_seconds
        txn.retained_until = now + seconds
        txn.owners.clear()
        results = txn.results()
        kinds = {holding.output.kind for holding, _ in results}
        others: list[Kind] = [kind for kind in txn.plans if kind not in kinds]
        self._drop(txn.meta.record, tuple(others))
        self.remember(txn, now)

    def remember(self, txn: Transaction, now: float) -> list[Member]:
        """Have a retained result remembered by everyone who holds some of it and stays, by two at
        least; return these, the first of those that have to fetch it before the others."""
        assert txn.retained_until is not None
        results = txn.results()
        holdings = tuple(holding for holding, _ in results)
        seconds = max(0.0, txn.retained_until - now)
        remembered = Remembered(txn.name, txn.fingerprint, txn.meta, holdings, seconds, txn.skipped)
        holders, others = self._keepers(results)
        for member in (*holders, *others):
            self._state.send(member, Retain(remembered, self.sources(txn, member)))
        return others + holders

    def _retain_kept(self, txn: Transaction, now: float) -> None:
        """Every keeper has the end on its disk: whoever asks may know, and nobody else need hold
        anything."""
        assert txn.meta.keeping is not None
        txn.retained_until = now + txn.meta.keeping.seconds
        txn.ownerless_until = None
        txn.keepers.update(dict.fromkeys(peer for peer, _ in txn.owners))
        txn.owners.clear()
        for member in self._state.roster:
            self.drop_needless(txn, member)
        self._answer(txn)

    def drop_needless(self, txn: Transaction, member: Member) -> None:
        """Of what has its end on its keepers' disks nobody else need hold anything. Also what is
        said to be held later goes: that word has crossed the order to drop it."""
        if not self.is_kept(txn.meta.record):
            return
        results = txn.results() if txn.state == "finished" else []
        kinds = [holding.output.kind for holding, _ in results[:1]]
        others = tuple(kind for kind in txn.plans if kind not in kinds)
        whole = all(any(peer in txn.keepers for peer in peers) for _, peers in results)
        dropped = others if member.ref.peer in txn.keepers or not whole else ()
        if not dropped:
            for holding, _ in results:
                txn.plans[holding.output.kind].lose(holding.output, member.ref.peer)
        if member.drop(txn.meta.record, dropped):
            self._state.send(member, Drop(txn.meta.record, dropped))

    def is_kept(self, record: str) -> bool:
        """Whether the end of this record is on its keepers' disks, whatever cannot be fetched."""
        txn = self._state.registry.get(record)
        return txn is not None and txn.detached and txn.retained_until is not None

    @staticmethod
    def shown_state(txn: Transaction) -> str:
        """What people read."""
        if txn.retained_until is None:
            return txn.state
        return "failed" if txn.state == "failed" else "retained"

    def _keepers(
        self, results: list[tuple[Holding, tuple[str, ...]]]
    ) -> tuple[list[Member], list[Member]]:
        """Everyone who holds some of a result; and more, until two of them are there to stay."""
        names = dict.fromkeys(peer for _, peers in results for peer in peers)
        staying = [m for m in self._state.roster if m.departure is None]
        holders = [m for m in staying if m.ref.peer in names]
        wanting = 2 - sum(m.serves for m in holders)
        others = [m for m in staying if m.serves and m.ref.peer not in names]
        return holders, others[: max(0, wanting)]

    def end(self, txn: Transaction) -> None:
        """Forget a transaction; its outputs and attempts go everywhere. Who still waits for its
        result is told that there is none."""
        if txn.state == "running":
            self._chronicle(txn, Failure("cancelled", "withdrawn by its owners"))
        self._halt(txn)
        record = txn.meta.record
        self._drop(record, ())
        self._state.registry.end(record)
        self._turn_away(txn)

    def _drop(self, record: str, kinds: tuple[Kind, ...]) -> None:
        for member in self._state.roster:
            if member.drop(record, kinds):
                self._state.send(member, Drop(record, kinds))

    # -- what members bring ------------------------------------------------------------

    def recall(self, member: Member, held: Held, now: float) -> None:
        """A member remembers an ended transaction: latecomers shall find it here too. One that is
        revived although it has failed, or was cancelled, ends here."""
        remembered = held.remembered
        registry = self._state.registry
        if remembered is None:
            return
        txn = registry.get(held.record)
        if txn is not None:
            txn.ended = remembered.ended
            if txn.detached:
                txn.keepers[member.ref.peer] = None
            if remembered.failure is not None and txn.detached:
                self.fail(txn, remembered.failure)
            return
        if registry.named(remembered.name):
            return
        txn = registry.accept(
            remembered.meta, remembered.name, remembered.fingerprint, now=self._state.now
        )
        if txn.detached:
            txn.keepers[member.ref.peer] = None
        txn.failure = remembered.failure
        txn.state = "finished" if txn.failure is None else "failed"
        txn.skipped = remembered.skipped
        txn.ended = remembered.ended
        txn.retained_until = now + remembered.seconds_left

    def part(self, member: Member, now: float) -> None:
        """An owner's peer is gone. It may come back; the last one is waited for, a while."""
        for txn in list(self._state.registry):
            txn.keepers.pop(member.ref.peer, None)
            for asker in [key for key in txn.askers if key[0] == member.ref.peer]:
                del txn.askers[asker]
            gone = [key for key in txn.owners if key[0] == member.ref.peer]
            for key in gone:
                del txn.owners[key]
            if gone and not txn.owners and txn.retained_until is None:
                txn.ownerless_until = now + self._state.settings.orphan_run_seconds
            elif gone:
                self._conclude(txn, now)
                self._answer(txn)

    def expire(self, now: float) -> None:
        """Stop what has no owner left; end what was retained long enough.

        An owner that was only cut off may come back: what is finished is left to its holders, who
        keep it for their own long orphan time.
        """
        for txn in list(self._state.registry):
            if self._was_kept_elsewhere(txn):
                self._retain_kept(txn, now)
            if self._is_over(txn, now):
                self.end(txn)
            elif txn.ownerless_until is not None and now >= txn.ownerless_until:
                if txn.state == "running":
                    self._chronicle(txn, Failure("cancelled", "none of its owners is left"))
                self._halt(txn)
                self._state.registry.forget(txn.meta.record)
                self._turn_away(txn)

    @staticmethod
    def _is_over(txn: Transaction, now: float) -> bool:
        """Whether it was retained long enough. One who came in that time is told first: without a
        quorum nobody is."""
        if txn.retained_until is None or now < txn.retained_until:
            return False
        return all(owner.told for owner in txn.owners.values())

    @staticmethod
    def _was_kept_elsewhere(txn: Transaction) -> bool:
        """Whether a member has its end on disk, and nobody is waited for who would put it there:
        its owners are gone, or heard of its end without owning it again."""
        if not txn.keepers or txn.owners or txn.retained_until is not None:
            return False
        return txn.state == "failed" or (txn.state == "finished" and txn.complete)

    def _turn_away(self, txn: Transaction) -> None:
        """Nobody is there who could go on with it: those who wait may ask again."""
        askers, txn.askers = txn.askers, {}
        for peer, asked in askers:
            self._state.tell(peer, Rejected(asked, _no_result(txn.name or txn.meta.record, None)))

    def decide(self) -> list[tuple[int, Waiting]]:
        """Take out what waited for everyone to report."""
        undecided, self._undecided = self._undecided, []
        return undecided


def _no_result(name: str, txn: Transaction | None) -> str:
    """Say why a name has no finished result."""
    maps = txn.plans.get("map") if txn is not None else None
    if txn is not None and txn.detached and txn.owners and maps is not None:
        far = f"{maps.done_count} of {maps.n} items are mapped"
        return f"{name!r} is not finished yet: {far}; `grid result --wait` waits for it"
    if txn is not None and txn.detached:
        return f"{name!r} is known, but the peers that keep it are not here now: ask again later"
    if txn is None or txn.retained_until is not None:
        return (
            f"no finished result named {name!r} is kept here: there was none, or its time is over"
        )
    if txn.state == "failed":
        return f"{name!r} has failed: its owners are told why"
    return f"{name!r} is not finished yet: ask again, or submit the same job under that name"


def conflict(first: dict[str, str], second: dict[str, str]) -> tuple[str, ...]:
    """Return the parts in which two fingerprints differ."""
    parts = dict.fromkeys((*first, *second))
    return tuple(part for part in parts if first.get(part) != second.get(part))
