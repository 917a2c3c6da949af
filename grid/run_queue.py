"""The transactions that may have something to run, the most deserving first.

Higher priority first; among equals the one with the fewest attempts under way, then the oldest.
Kept in that order from step to step, so that giving a task costs the same however many transactions
wait. Who changes what counts here says so (``Transaction.touch``); what has ended, or has no owner,
is passed over and let go of, until it is touched again.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grid.registry import Transaction

Rank = tuple[int, int, int]


class RunQueue:
    """Ordered by rank. Not to be changed while it is walked."""

    def __init__(self) -> None:
        self._ranks: list[Rank] = []
        self._rank_of: dict[str, Rank] = {}
        self._by_number: dict[int, Transaction] = {}
        self.touched: dict[str, Transaction] = {}
        """What may have another rank by now."""
        self._over: list[Transaction] = []
        """What was found not to run when last looked at."""

    def __bool__(self) -> bool:
        return bool(self._ranks or self.touched)

    def walk(self) -> "Iterator[Transaction]":
        """Yield what may run, as long as it is asked for."""
        for txn in self._over:
            self.remove(txn)
        for txn in self.touched.values():
            self._put(txn)
        self._over.clear()
        self.touched.clear()
        for _, _, number in self._ranks:
            txn = self._by_number[number]
            if runs(txn):
                yield txn
            else:
                self._over.append(txn)

    def remove(self, txn: "Transaction") -> None:
        """Let go of it, if it is here."""
        rank = self._rank_of.pop(txn.meta.record, None)
        if rank is not None:
            del self._ranks[bisect_left(self._ranks, rank)]
            del self._by_number[rank[2]]

    def _put(self, txn: "Transaction") -> None:
        rank = (-txn.meta.priority, txn.active, txn.number)
        if self._rank_of.get(txn.meta.record) == rank:
            return
        self.remove(txn)
        if runs(txn):
            insort(self._ranks, rank)
            self._rank_of[txn.meta.record] = rank
            self._by_number[txn.number] = txn


def runs(txn: "Transaction") -> bool:
    """Whether something of it may be given. Without an owner there is nobody to have code and items
    from: what was given goes on, nothing more is given."""
    return txn.state == "running" and bool(txn.owners)
