"""How many calls of an executor go out together, as one task of the grid.

Nothing is known of a function until one of its calls has ended, so its first calls go out alone.
Then what calls took decides: tens of milliseconds together, since results come back when the last
call of a task has ended. A call that takes long tells at once that others may; that it was an
exception is believed slowly. Few calls that are left are shared by all slots, unless a task of
its own would cost more than they do.
"""

from collections.abc import Hashable, Iterable

from msgspec import Struct

CALLS_MAX = 4096
"""Calls in a task: their futures are resolved at one go, which should take a few milliseconds."""

GROWTH = 4
"""A task has at most so many times the calls of the largest before: one quick call may mislead."""

SHARES = 3
"""What waits is cut in this many tasks a slot, to even out differences in speed."""

WORTH_SECONDS = 0.005
"""About what a task costs the grid: less work than this is not divided."""

QUICK_SECONDS = 0.25
"""Of tasks shorter than this twice as many are under way as there are slots, so that no slot waits
for the next."""

BELIEF = 0.3
"""How much one task counts against what was known before."""

FUNCTIONS_MAX = 1024
"""So many functions are remembered."""


class _Cost(Struct):
    """What a call of one function is expected to take, and the most calls a task of it had."""

    seconds: float
    largest: int


class Pacer:
    """Learns what the calls of each function take. A function is any key that tells it apart."""

    def __init__(self, task_seconds: float) -> None:
        self._task_seconds = task_seconds
        self._costs: dict[Hashable, _Cost] = {}

    def note(self, function: Hashable, calls: int, seconds: float, longest: float) -> None:
        """Learn from calls that ended together: what all took, and the longest of them."""
        mean = seconds / calls
        cost = self._costs.get(function)
        if cost is None:
            if len(self._costs) >= FUNCTIONS_MAX:
                del self._costs[next(iter(self._costs))]
            self._costs[function] = _Cost(max(mean, self._alarm(longest)), calls)
            return
        cost.seconds = max((1 - BELIEF) * cost.seconds + BELIEF * mean, self._alarm(longest))
        cost.largest = max(cost.largest, calls)

    def _alarm(self, longest: float) -> float:
        """One call that fills a task by itself may have held back the results of others."""
        return longest if longest >= self._task_seconds else 0.0

    def count(self, waiting: int, slots: int, functions: Iterable[Hashable]) -> int:
        """How many of the calls that wait, whose ``functions`` these are, go out together now."""
        share = waiting // (SHARES * max(1, slots))
        total = 0.0
        count = 0
        for function in functions:
            cost = self._costs.get(function)
            if cost is None or count >= min(CALLS_MAX, GROWTH * cost.largest):
                break
            total += cost.seconds
            if count and total > self._task_seconds:
                break
            count += 1
            if count >= share and total >= WORTH_SECONDS:
                break
        return max(1, count)

    def tasks(self, slots: int, function: Hashable) -> int:
        """How many tasks may be under way before one with this function is added."""
        cost = self._costs.get(function)
        quick = cost is not None and cost.seconds < QUICK_SECONDS
        return max(1, slots) * (2 if quick else 1)
