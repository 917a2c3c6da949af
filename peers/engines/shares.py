"""Cutting a job for a cluster: items into shares to map, slices into ranges to reduce.

Values go along with their share, each pickled on its own, so that a function that changes what it
is given changes nothing else, however often a task runs. Of a file only its name, size and time
go: the task reads it.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Any

from grid.job import Job
from grid.mapreduce import UserFault
from grid.pickling import Frozen, is_immutable, show
from peers.engines.tasks import Share
from peers.files import Reference
from peers.shipping import pickle_value

SHARES_PER_SLOT = 4
"""Enough that a slow share at the end holds up little."""

SHARE_BYTES = 32 << 20
"""Input of one share: it passes through the memory of one worker."""

RANGE_BYTES = 64 << 20
"""Input of one reduce, for the same reason."""

KEYS_SHOWN = 10
"""Keys in the name of a share."""

RANGES_LEAST = 32
"""Reduces there are at most for the sake of busy slots alone: each costs a small task a share."""


class Shares:
    """The shares of one job. ``keys`` are listed once, in datasource order."""

    def __init__(
        self, job: Job, shipped: Sequence[str], slots: int, slices: int, *, skip: bool
    ) -> None:
        self.keys = job.keys()
        self._job = job
        self._shipped = shipped
        self._each = max(1, -(-len(self.keys) // (slots * SHARES_PER_SLOT)))
        self._slices = slices
        self._skip = skip

    def __iter__(self) -> Iterator[Share]:
        """Yield the shares in order, reading values as they are reached.

        Raises ``UserFault`` for a datasource that raises, ``NotPicklable``.
        """
        items: list[tuple[Any, Frozen]] = []
        start = weight = 0
        for index, key in enumerate(self.keys):
            item, weighs = self._item(key, by_value=False)
            if items and (len(items) == self._each or weight + weighs > SHARE_BYTES):
                yield self._share(start, items)
                items, start, weight = [], index, 0
            items.append(item)
            weight += weighs
        if items:
            yield self._share(start, items)

    def again(self, share: Share, by_value: Set[int]) -> Share:
        """Return the share with the values of these indices read here."""
        items = [
            self._item(self.keys[index], by_value=index in by_value)[0]
            for index in range(share.start, share.stop)
        ]
        return self._share(share.start, items)

    def _share(self, start: int, items: list[tuple[Any, Frozen]]) -> Share:
        pickled = pickle_value(items, "the keys", [key for key, _ in items], self._shipped)
        partitions, stop = self._job.partitions, start + len(items)
        what = _named(self.keys[start:stop])
        return Share(what, start, stop, pickled, partitions, self._slices, self._skip)

    def _item(self, key: Any, *, by_value: bool) -> tuple[tuple[Any, Frozen], int]:
        """Return what is sent of an item, and how much work it means in bytes."""
        reference = getattr(self._job.datasource, "reference", None)
        try:
            value = self._job.value(key) if reference is None or by_value else reference(key)
        except Exception as error:
            raise UserFault("the datasource", show(key), error) from error
        if isinstance(value, Reference):
            return (key, [value]), _length(value)
        if is_immutable(value):
            return (key, [value]), len(value) if isinstance(value, str | bytes) else 8
        pickled = pickle_value(value, "the value of key", key, self._shipped)
        return (key, (pickled,)), len(pickled)


def _named(keys: Sequence[Any]) -> str:
    """Return what to call these items in an error: by their keys, of many the first and the last.
    A cluster knows tasks alone, so which of the items of one it was cannot be said."""
    if len(keys) == 1:
        return f"the item with key {show(keys[0])}"
    shown = list(map(show, keys[:KEYS_SHOWN]))
    if len(keys) > KEYS_SHOWN:
        shown[-1] = f"... {show(keys[-1])}"
    return f"one of {len(keys)} items, with the keys {', '.join(shown)}"


def _length(reference: Reference) -> int:
    stop = reference.size if reference.stop is None else reference.stop
    return stop - reference.start


def ranges(sizes: dict[int, int], slices: int, slots: int) -> list[tuple[int, int]]:
    """Cut the slices that have anything into ranges of about equal bytes, in order: two for each
    slot, within reason, and more if they would be large."""
    total = sum(sizes.values())
    wanted = max(min(2 * slots, RANGES_LEAST), -(-total // RANGE_BYTES))
    cuts: list[tuple[int, int]] = []
    first, held, left = 0, 0, total
    for number in range(slices):
        size = sizes.get(number, 0)
        if held and held + size / 2 > left / max(1, wanted - len(cuts)):
            cuts.append((first, number))
            first, left, held = number, left - held, 0
        held += size
    if held:
        cuts.append((first, slices))
    return cuts


def partitions_in(first: int, stop: int, slices: int, partitions: int) -> int:
    """Return how many partitions the slices ``first..stop`` are."""
    return -(-stop * partitions // slices) - -(-first * partitions // slices)
