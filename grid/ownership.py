"""The owner's side of a transaction: its ledger, and its way from pending to acknowledged.

::

    pending ──Finished──> fetching ──ResultFetched──> resolved ──Ended──> gone
       │                     │  └──ResultMissing: the server runs it again, still fetching
       └──Failed / Cancel ───┴──────────────────────> resolved ──Ended──> gone

A transaction never goes back, but for one whose result was found finished under its name and is
lost before it is fetched: it was never run for us, so it is submitted once more. A fetch outlives
the reign that began it, and the user hears of it exactly once, at the arrow into resolved (P3).
Until the server confirms with ``Ended``, the acknowledgement or the cancel is repeated on every
rejoin; until resolved, the submission is, with the ledger (P2).

Who only asks for the finished result of a name goes the same way, with less: it says ``AskResult``
instead of ``Submit``, owns nothing, and so parts without a word. Who ends the record of others
begins at resolved.

The owners of a detached transaction are its *keepers*. Its end, result or failure, goes to disk
(``FetchResult.keep``) before it is acknowledged; no user hears of it from here, only who asks. A
keeper that leaves withdraws nothing, and one that has no room steps back and comes again.
"""

from msgspec import structs

from grid.effects import AdoptRecord, ClientEffect, Deliver, FetchResult, Reject, RejectName
from grid.effects import ShowProgress as Show
from grid.messages import (
    NOTHING_RIDING,
    Accepted,
    Acknowledge,
    Adopt,
    AskResult,
    Cancel,
    Ended,
    Failed,
    Failure,
    Finished,
    FromClient,
    Holding,
    LostOutputs,
    Output,
    PeerRef,
    Progress,
    RecordMeta,
    Rejected,
    Riding,
    Submit,
)
from grid.owned import Ledger, Owned, OwnedTable

ADOPT_AGAIN_SECONDS = 0.2
"""Pause before a named submission is repeated after its first owner could not be reached."""


ASK_AGAIN_SECONDS = 0.5
"""Pause before one who asks for a result tries again what did not work."""

ASKS_MAX = 10
"""So often one who waits is told that there is nothing before its user is: who keeps it may have
been started a moment ago, and give others the time to come before it says what it keeps."""

FETCHES_MAX = 5
"""So often a result that was asked for is fetched in vain before its user hears of it."""

KEPT_AGAIN_SECONDS = 1.0
"""Pause before a keeper asks again where the result is that it could not fetch: where others have
the end on disk already, nothing is run again, and nobody else has news for it."""

KEEP_AGAIN_SECONDS = 30.0
"""Pause before a keeper that had no room tries again: somebody has to make room meanwhile."""

NOT_KNOWN = RecordMeta("", "mapreduce", 0, 1, False)
"""The record of a result that was asked for by name, until the server says which it is."""


class Ownership:
    """The transactions of one owner. Methods return effects and messages for the server."""

    def __init__(self) -> None:
        self._owned = OwnedTable()

    def __len__(self) -> int:
        return sum(owned.state != "resolved" for owned in self._owned.values())

    # -- the user's side ---------------------------------------------------------------

    def submit(
        self,
        txn: str,
        meta: RecordMeta,
        name: str,
        fingerprint: dict[str, str],
        fresh: bool,
        deadline: float | None,
        riding: Riding = NOTHING_RIDING,
        not_before: float | None = None,
    ) -> list[FromClient]:
        owned = Owned(txn, meta, name, fingerprint, fresh, Ledger(meta), deadline, riding)
        self._owned.add(owned)
        if not_before is not None:
            self._owned.wake(owned, not_before)
        return [self._submission(owned)] if not_before is None else []

    def ask(
        self, txn: str, name: str, *, wait: bool = False, certain: bool = False
    ) -> list[FromClient]:
        """Want the finished result of a name, without having the job."""
        meta = structs.replace(NOT_KNOWN, record=name)  # as it is for a detached transaction
        owned = Owned(txn, meta, name, {}, False, Ledger(meta), None, asked=True)
        owned.wait, owned.certain = wait, certain
        self._owned.add(owned)
        return [self._submission(owned)]

    def end(self, txn: str, record: str) -> list[FromClient]:
        """End a record for everyone, whoever owns it; said until the server confirms."""
        meta = structs.replace(NOT_KNOWN, record=record)
        owned = Owned(txn, meta, "", {}, False, Ledger(meta), None, state="resolved")
        owned.parting = Cancel(txn, record, all=True)
        self._owned.add(owned)
        return [owned.parting]

    def cancel(
        self, txn: str, everyone: bool, failure: Failure
    ) -> tuple[list[ClientEffect], list[FromClient]]:
        """Withdraw: the user hears of it now, the server until it confirms."""
        owned = self._owned.get(txn)
        if owned is None or owned.state == "resolved":
            return [], []
        return [Reject(txn, failure)], self._part(
            owned, Cancel(txn, (owned.found or owned.meta).record, everyone)
        )

    def _part(self, owned: Owned, parting: FromClient) -> list[FromClient]:
        """The user has heard; the server is told, unless nothing was owned."""
        if owned.asked:
            self._owned.remove(owned.txn)
            return []
        owned.state = "resolved"
        owned.parting = parting
        return [parting]

    def withdraw_all(self, failure: Failure) -> tuple[list[ClientEffect], list[FromClient]]:
        """The peer closes: nothing of it is left open. What it keeps for others goes on."""
        effects: list[ClientEffect] = []
        messages: list[FromClient] = []
        for txn in [owned.txn for owned in self._owned.values() if not owned.kept]:
            more, said = self.cancel(txn, False, failure)
            effects += more
            messages += said
        return effects, messages

    # -- the server's side -------------------------------------------------------------

    def _submission(self, owned: Owned) -> FromClient:
        owned.again_at = None
        if owned.asked:
            return AskResult(owned.txn, owned.name, owned.wait)
        return Submit(
            txn=owned.txn,
            meta=owned.meta,
            name=owned.name,
            fingerprint=owned.fingerprint,
            fresh=owned.fresh and not owned.accepted,
            accepted=owned.accepted,
            ledger=owned.ledger.entries(),
            riding=owned.riding,
        )

    def resubmissions(self) -> list[FromClient]:
        """Everything unfinished or unconfirmed, said on every rejoin."""
        return [
            owned.parting if owned.parting is not None else self._submission(owned)
            for owned in self._owned.values()
            if not (owned.found and owned.state == "fetching")
        ]

    def accepted(self, message: Accepted) -> None:
        """The server has taken it up; said of a submission that was withdrawn meanwhile, to come
        again, it means nothing."""
        owned = self._owned.get(message.txn)
        if owned is None or owned.meta.record != message.record:
            return
        if owned.state != "pending" or owned.again_at is None:
            owned.accepted = True

    def rejected(self, message: Rejected, now: float) -> list[ClientEffect]:
        owned = self._owned.get(message.txn)
        if owned is not None and owned.wait and (owned.certain or owned.asks < ASKS_MAX):
            owned.asks += 1
            self._owned.wake(owned, now + ASK_AGAIN_SECONDS)
            return []
        self._owned.remove(message.txn)
        if owned is None or owned.state == "resolved":
            return []
        return [RejectName(message.txn, message.message, message.conflict)]

    def adopt(self, message: Adopt, now: float) -> list[ClientEffect]:
        """Another owner was first: own its record instead of ours."""
        owned = self._owned.get(message.txn)
        if owned is None or owned.state != "pending":
            return []
        if not message.owners:
            self._owned.wake(owned, now + ADOPT_AGAIN_SECONDS)
            return []
        return [AdoptRecord(message.txn, message.meta, message.owners)]

    def adopted(self, txn: str, meta: RecordMeta) -> list[FromClient]:
        owned = self._owned.get(txn)
        if owned is None or owned.state != "pending":
            return []
        self._owned.rename(owned, meta)
        owned.ledger = Ledger(meta)
        owned.riding = NOTHING_RIDING
        return [self._submission(owned)]

    def not_adopted(self, txn: str, now: float) -> None:
        """The first owner could not be reached: submit our own record again, soon."""
        owned = self._owned.get(txn)
        if owned is not None and owned.state == "pending":
            self._owned.wake(owned, now + ADOPT_AGAIN_SECONDS)

    def progress(self, message: Progress, term: int) -> list[ClientEffect]:
        effects: list[ClientEffect] = []
        for owned in self._owned.of_record(message.record):
            if owned.state != "resolved":
                owned.ledger.note(message)
                effects.append(self._show(owned, message, term))
        return effects

    @staticmethod
    def _show(owned: Owned, message: Progress, term: int) -> Show:
        return Show(
            txn=owned.txn,
            term=term,
            maps_done=message.maps_done,
            maps_total=message.maps_total,
            reduces_done=message.reduces_done,
            reduces_total=message.reduces_total,
            finishing=message.finishing,
            again=owned.ledger.again,
            ran=message.ran,
            peers=owned.ledger.peers(),
        )

    def finished(self, message: Finished) -> tuple[list[ClientEffect], list[FromClient]]:
        """The outputs are there: fetch them, once, or again if some were run anew; unless they
        came along. What is kept on disk is fetched: it has to be a file."""
        owned = self._owned.get(message.txn)
        if owned is None or owned.state == "resolved":
            return [], []
        if owned.state == "fetching" and not owned.awaiting_run:
            return [], []
        others = owned.asked or message.record != owned.meta.record
        owned.found = message.meta if others else None
        owned.state = "fetching"
        owned.awaiting_run = False
        owned.again_at = None
        owned.skipped = message.skipped
        if message.result and not owned.kept:
            return self._delivered(owned, message.holdings, message.result)
        keep = None
        if owned.kept:
            held = tuple(holding for holding, _ in message.holdings)
            keep = structs.replace(owned.end(message.skipped), holdings=held)
        return [FetchResult(owned.txn, message.record, message.holdings, keep)], []

    def fetched(
        self, txn: str, holdings: tuple[tuple[Holding, PeerRef], ...]
    ) -> tuple[list[ClientEffect], list[FromClient]]:
        """All of the result is in this peer's hands: the user hears of it, the server too."""
        owned = self._owned.get(txn)
        if owned is None or owned.state != "fetching":
            return [], []
        if owned.kept:
            return [], self._part(owned, Acknowledge(txn, owned.meta.record))
        return self._delivered(owned, holdings)

    def _delivered(
        self, owned: Owned, holdings: tuple[tuple[Holding, PeerRef], ...], result: bytes = b""
    ) -> tuple[list[ClientEffect], list[FromClient]]:
        meta = owned.found or owned.meta
        parting = self._part(owned, Acknowledge(owned.txn, meta.record))
        return [Deliver(owned.txn, meta, holdings, owned.skipped, result)], parting

    def missing(
        self, txn: str, missing: tuple[tuple[Output, str], ...], reason: str, now: float
    ) -> tuple[list[ClientEffect], list[FromClient]]:
        """Some of the result is gone from the peers that had it: the server is asked to have it run
        again, unless there are others.

        A result that was found finished cannot be run again by us, who never had its record: we
        submit our own, or ask, once more; who asks, not for ever.
        """
        owned = self._owned.get(txn)
        if owned is None or owned.state != "fetching":
            return [], []
        lost = LostOutputs((owned.found or owned.meta).record, missing)
        if owned.found is None:
            owned.awaiting_run = True
            owned.again_at = None
            if owned.kept:
                self._owned.wake(owned, now + KEPT_AGAIN_SECONDS)
            return [], [lost]
        owned.found = None
        owned.state = "pending"
        if not owned.asked:
            return [], [lost, self._submission(owned)]
        owned.fetches += 1
        if owned.fetches < FETCHES_MAX:
            self._owned.wake(owned, now + ASK_AGAIN_SECONDS)
            return [], [lost]
        self._owned.remove(txn)
        why = f"there is a result of {owned.name!r}, but it cannot be fetched: {reason}"
        return [RejectName(txn, why, ())], [lost]

    def unkept(self, txn: str, now: float) -> list[FromClient]:
        """A keeper has no room for the end of a detached transaction: it steps back, so that the
        others need not wait for it, and comes again; as one that was not accepted yet, so that a
        new server hears of the end from others first."""
        owned = self._owned.get(txn)
        if owned is None or owned.state != "fetching" or not owned.kept:
            return []
        owned.state = "pending"
        owned.accepted = False
        self._owned.wake(owned, now + KEEP_AGAIN_SECONDS)
        return [Cancel(txn, owned.meta.record)]

    def awaits_run(self, txn: str) -> bool:
        """Whether what is missing of its result is to be run again."""
        owned = self._owned.get(txn)
        return owned is not None and owned.awaiting_run

    def failed(self, message: Failed) -> tuple[list[ClientEffect], list[FromClient]]:
        owned = self._owned.get(message.txn)
        if owned is None or owned.state == "resolved":
            return [], []
        if owned.kept:
            return self._keep_failure(owned, message.failure), []
        said = self._part(owned, Acknowledge(message.txn, owned.meta.record))
        if said and message.record != owned.meta.record:
            # The finished record of our name was lost, and failed when it was run again.
            said = [Acknowledge(message.txn, message.record), *said]
        return [Reject(message.txn, message.failure)], said

    @staticmethod
    def _keep_failure(owned: Owned, failure: Failure) -> list[ClientEffect]:
        """Put a failure on disk before it is acknowledged; unless another end is going there."""
        if owned.state == "fetching" and not owned.awaiting_run:
            return []
        owned.state = "fetching"
        owned.awaiting_run = False
        owned.again_at = None
        owned.deadline = None
        return [FetchResult(owned.txn, owned.meta.record, (), owned.end(failure=failure))]

    def ended(self, message: Ended) -> None:
        """The server has nothing more to do for us."""
        owned = self._owned.get(message.txn)
        if owned is not None and owned.state == "resolved":
            self._owned.remove(message.txn)

    def kept(self) -> list[RecordMeta]:
        """The detached transactions that are seen through here."""
        return [o.meta for o in self._owned.values() if o.kept and o.state != "resolved"]

    # -- who wants to know -------------------------------------------------------------

    def of_record(self, record: str) -> list[str]:
        """The transactions that run this record for somebody here, who would see its prints."""
        return [owned.txn for owned in self._owned.of_record(record) if not owned.kept]

    def deadline(self) -> float | None:
        """When ``due`` has something to do."""
        return self._owned.deadline()

    def due(self, now: float) -> tuple[list[ClientEffect], list[FromClient]]:
        """End what is past its deadline; repeat submissions whose pause is over."""
        effects: list[ClientEffect] = []
        messages: list[FromClient] = []
        for owned in self._owned.due(now):
            if owned.deadline is not None and now >= owned.deadline:
                late = Failure("deadline", "the transaction's deadline_seconds passed")
                owned.deadline = None
                more, said = self._too_late(owned, late)
                effects += more
                messages += said
            elif owned.again_at is not None and now >= owned.again_at:
                messages.append(self._submission(owned))
        return effects, messages

    def _too_late(self, owned: Owned, late: Failure) -> tuple[list[ClientEffect], list[FromClient]]:
        if owned.kept:  # once it is on disk it is announced, which ends it for everyone
            return self._keep_failure(owned, late), []
        return self.cancel(owned.txn, False, late)
