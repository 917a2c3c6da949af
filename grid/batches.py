"""How large a batch should be: tens of milliseconds each, longer in a long phase, smaller at the
end.

The first batches are small, because nothing is known; then the measured time per item decides. A
batch has at most four times the items that were done before, so that one light item does not
mislead, and never takes more than its share of what is left, so that all slots end together,
unless a task of its own would cost more than that is worth. Where much is left batches are longer:
each one's output is merged with all others'.
"""

from grid.messages import TASK_RANGE_MAX

GROWTH = 4
ITEMS_MAX = TASK_RANGE_MAX
SHARES = 3
"""What is left is cut in this many batches a slot: enough to even out differences in speed."""

WORTH_SECONDS = 0.005
"""Several times what a task costs the grid: less work than this is not divided."""

STRETCH = 4
"""A batch of a long phase takes at most so many times what a batch should: others that share the
grid wait for it to end."""

LONG_SHARES = 20
"""A phase is long while each slot has more than so many batches to do."""

QUICK_SECONDS = 0.25
"""Tasks shorter than this are given ahead of a free slot, so that no slot waits for a message."""


class BatchSizer:
    """Learns the cost of one phase of one transaction."""

    def __init__(self, task_seconds: float) -> None:
        self._task_seconds = task_seconds
        self._seconds_per_item: float | None = None
        self._seen = 0
        self._task_cost = 0.0

    def note(self, items: int, seconds: float) -> None:
        """Learn from a finished task."""
        cost = seconds / items
        old = self._seconds_per_item
        self._seconds_per_item = cost if old is None else 0.7 * old + 0.3 * cost
        self._task_cost = seconds if old is None else 0.7 * self._task_cost + 0.3 * seconds
        self._seen += items

    @property
    def quick(self) -> bool:
        """Whether tasks are known to be short."""
        return self._seconds_per_item is not None and self._task_cost < QUICK_SECONDS

    def expected_seconds(self, items: int) -> float | None:
        """How long so many items should take; None before anything is known."""
        return None if self._seconds_per_item is None else self._seconds_per_item * items

    def size(self, left: int, slots: int) -> int:
        """How many items the next batch should have, of ``left`` for ``slots``."""
        if self._seconds_per_item is None:
            return 1
        cost = max(self._seconds_per_item, 1e-9)
        long = cost * left / (LONG_SHARES * max(1, slots))
        seconds = max(self._task_seconds, min(long, STRETCH * self._task_seconds))
        share = max(left // (SHARES * max(1, slots)), min(left, int(WORTH_SECONDS / cost)))
        return max(1, min(int(seconds / cost), share, GROWTH * self._seen, ITEMS_MAX))
