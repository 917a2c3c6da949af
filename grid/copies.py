"""Keepers of detached transactions that stay away: others keep a copy in their place.

A detached transaction shall be on the disks of ``copies`` hosts, or of all if there are fewer. The
server counts the hosts of the keepers that are here; peers of one host share a journal, so however
many they are, they are one copy. If there have been too few for ``replace_seconds``, a peer of
another host is told to fetch a copy from those who have one: of the job and its items while it runs
(``BecomeKeeper``), of the end and the result once it has ended (``Retain``).

Nothing has to be remembered from reign to reign: a new server counts anew. One peer is asked at a
time for each transaction, and only by the server, so no two are asked at once but in two halves of
a cut grid; then there are more copies than were wanted, which harms nothing. Who was asked and
cannot, or says nothing for long, is passed over for another. A keeper that comes back is one more.
"""

from collections.abc import Callable

from msgspec import Struct

from grid.messages import BecomeKeeper, Holding, PeerRef, Remembered, Retain
from grid.registry import Transaction
from grid.roster import Member
from grid.server_state import ServerState

ASKED_AT_ONCE = 4
"""Transactions copied at once: many may have lost a keeper with one host."""

ASKED_SECONDS = 300.0
"""After so long one who was asked is taken to be unable: a large job takes minutes to copy."""


Sources = Callable[[Transaction, Member], tuple[tuple[Holding, PeerRef], ...]]


class _Asked(Struct, frozen=True):
    peer: str
    until: float


class Copies:
    """Who is to keep what, beside those who do. ``sources`` says from whom a member can fetch a
    result."""

    def __init__(self, state: ServerState, sources: Sources) -> None:
        self._state = state
        self._sources = sources
        self._too_few_since: dict[str, float] = {}
        self._asked: dict[str, _Asked] = {}
        self._unable: dict[str, dict[str, None]] = {}

    def review(self, now: float) -> None:
        """Look at every detached transaction, now and then."""
        if not self._state.settled or self._state.lacking:
            return
        for record in list(self._too_few_since):
            if self._state.registry.get(record) is None:
                self._has_enough(record)
        for txn in self._state.registry:
            if txn.detached:
                self._review(txn, now)

    def not_taken(self, member: Member, record: str) -> None:
        """One who was asked could not."""
        asked = self._asked.get(record)
        if asked is not None and asked.peer == member.ref.peer:
            self._pass_over(record)

    def _review(self, txn: Transaction, now: float) -> None:
        record = txn.meta.record
        keepers = self.keepers(txn)
        able = self._able(keepers)
        if not self._too_few(txn, keepers, able):
            self._has_enough(record)
            return
        since = self._too_few_since.setdefault(record, now)
        if not keepers or now - since < self._state.settings.replace_seconds:
            return
        asked = self._asked.get(record)
        if asked is not None and any(asked.peer == member.ref.peer for member in keepers):
            del self._asked[record]  # it has a copy: there may be more wanted
        elif asked is not None:
            if now < asked.until and self._state.roster.named(asked.peer) is not None:
                return
            self._pass_over(record)
        if len(self._asked) < ASKED_AT_ONCE:
            self._ask(txn, keepers, able, now)

    def keepers(self, txn: Transaction) -> list[Member]:
        """The members that have it on disk: its owners while it runs, then who has its end."""
        peers = txn.keepers if txn.retained_until is not None else [p for p, _ in txn.owners]
        found = [self._state.roster.named(peer) for peer in dict.fromkeys(peers)]
        return [member for member in found if member is not None]

    def _able(self, keepers: list[Member]) -> list[Member]:
        """The first member of each other host that could keep a copy."""
        hosts = {member.ref.host: member for member in keepers}
        able: dict[str, Member] = {}
        for member in self._state.roster:
            if member.serves and member.departure is None and member.ref.host not in hosts:
                able.setdefault(member.ref.host, member)
        return list(able.values())

    @staticmethod
    def _too_few(txn: Transaction, keepers: list[Member], able: list[Member]) -> bool:
        """Whether there is another host for a copy that is wanted. While its end goes to the disks
        of its keepers there is nothing to copy, and nothing where a result is not whole."""
        assert txn.meta.keeping is not None
        ended = txn.state != "running"
        copied = txn.retained_until is not None and (txn.failure is not None or txn.complete)
        hosts = {member.ref.host for member in keepers}
        return bool(able) and copied >= ended and len(hosts) < txn.meta.keeping.copies

    def _has_enough(self, record: str) -> None:
        self._too_few_since.pop(record, None)
        self._asked.pop(record, None)
        self._unable.pop(record, None)

    def _pass_over(self, record: str) -> None:
        asked = self._asked.pop(record)
        self._unable.setdefault(record, {})[asked.peer] = None

    def _ask(self, txn: Transaction, keepers: list[Member], able: list[Member], now: float) -> None:
        record = txn.meta.record
        unable = self._unable.get(record, {})
        found = [member for member in able if member.ref.peer not in unable]
        if not found:
            # All have been asked in vain. They are asked again, after the same time.
            self._has_enough(record)
            return
        chosen = found[txn.number % len(found)]  # so that not one host gets them all
        self._asked[record] = _Asked(chosen.ref.peer, now + ASKED_SECONDS)
        if txn.retained_until is not None:
            self._retain(txn, chosen, txn.retained_until - now)
        else:
            refs = tuple(member.ref for member in keepers)
            self._state.send(chosen, BecomeKeeper(txn.meta, refs))

    def _retain(self, txn: Transaction, member: Member, seconds_left: float) -> None:
        """Have the end of a transaction, and its result, kept on one more disk."""
        sources = () if txn.failure is not None else self._sources(txn, member)
        end = Remembered(
            name="",
            fingerprint={},
            meta=txn.meta,
            holdings=tuple(holding for holding, _ in sources),
            seconds_left=max(0.0, seconds_left),
            skipped=txn.skipped,
            failure=txn.failure,
            ended=txn.ended,
        )
        self._state.send(member, Retain(end, sources))
