"""Where a task should run: among those with room, where its bytes are, then the least loaded."""

from grid.messages import Kind
from grid.plan import Tile
from grid.registry import Transaction
from grid.roster import Member


def choose_member(members: list[Member], txn: Transaction, kind: Kind, tile: Tile) -> Member:
    """Return the best of ``members`` (not empty) for a task.

    Reduces go to the host that holds most of their input; equal hosts, and all other tasks, go to
    the member with the smallest load for its slots, the first to have joined among equals. Who
    could not get at the inputs of this transaction's tasks comes last: in a network that is cut in
    places, a task would otherwise go back and forth to the same idle member for ever.
    """
    near = _bytes_by_host(members, txn, tile) if kind == "reduce" and _spread(members) else {}

    def rank(member: Member) -> tuple[bool, int, float]:
        load = len(member.assigned) / member.slots
        return (member.ref.peer in txn.unfed, -near.get(member.ref.host, 0), load)

    return min(members, key=rank)


def _spread(members: list[Member]) -> bool:
    return len({member.ref.host for member in members}) > 1


def _bytes_by_host(members: list[Member], txn: Transaction, tile: Tile) -> dict[str, int]:
    near: dict[str, int] = {}
    for member in members:
        row = txn.sizes.get(member.ref.peer, [])
        near[member.ref.host] = near.get(member.ref.host, 0) + sum(row[tile.start : tile.stop])
    return near
