"""Which task goes to whom next: priority, then fairness between transactions, then free slots.

The order of transactions is ``grid.run_queue``'s. A member is given tasks for its free slots, and
as many again ahead of time when tasks are quick, so that no slot waits for a message. Stragglers:
when nothing is left to give, idle slots run again what takes much longer than expected; the first
result wins.
"""

from msgspec import Struct

from grid.messages import Kind
from grid.placement import choose_member
from grid.plan import Tile
from grid.registry import Transaction
from grid.roster import Member
from grid.run_queue import RunQueue
from grid.server_state import ServerState

STRAGGLER_FACTOR = 4
STRAGGLER_SECONDS_MIN = 2.0
"""A task is a straggler when it takes this many times what it should, and at least so long."""


class Choice(Struct, frozen=True):
    """A task for a member."""

    txn: Transaction
    kind: Kind
    tile: Tile
    member: Member


def open_members(state: ServerState, now: float) -> list[Member]:
    """The members that may be given something."""
    return [
        m
        for m in state.roster
        if m.full_until <= now and len(m.assigned) < 2 * m.slots and m.departure is None
    ]


def able(txn: Transaction, kind: Kind, members: list[Member]) -> list[Member]:
    """Those of ``members`` that can take one more task of this transaction."""
    ahead = 2 if kind in txn.sizers and txn.sizers[kind].quick else 1
    return [
        m for m in members if len(m.assigned) < ahead * m.slots and m.ref.peer not in txn.unable
    ]


def choose(state: ServerState, now: float) -> Choice | None:
    """Return the next task to give, or None when there is none or nobody to take it."""
    queue = state.registry.queue
    if not queue:
        return None  # first, as every heartbeat asks, and there may be many members
    members = open_members(state, now)
    for txn in queue.walk():
        if not members:
            return None
        kind = txn.phase()
        if not kind or txn.plans[kind].next_free(now) is None:
            continue
        candidates = able(txn, kind, members)
        if not candidates:
            # It is next, but may not be given ahead: what gets free is for it, and is not filled
            # ahead with the quick tasks of one less deserving.
            members = [m for m in members if m.ref.peer in txn.unable]
            continue
        if txn.sources(kind, state.find) is None:
            continue
        tile = txn.next_tile(kind, now, state.roster.slots())
        if tile is not None:
            return Choice(txn, kind, tile, choose_member(candidates, txn, kind, tile))
    return _straggler(queue, members, now)


def _straggler(queue: RunQueue, members: list[Member], now: float) -> Choice | None:
    idle = [m for m in members if len(m.assigned) < m.slots]
    if not idle:
        return None
    for txn in queue.walk():
        kind = txn.phase()
        if kind is None or not txn.meta.speculate:
            continue
        for tile in txn.plans[kind].given():
            expected = txn.sizers[kind].expected_seconds(tile.stop - tile.start)
            if len(tile.attempts) > 1 or expected is None:
                continue
            if now - tile.given_at < max(STRAGGLER_SECONDS_MIN, STRAGGLER_FACTOR * expected):
                continue
            barred = (*tile.attempts.values(), *txn.unable, *txn.unfed)
            others = [m for m in idle if m.ref.peer not in barred]
            if others:
                return Choice(txn, kind, tile, others[0])
    return None
