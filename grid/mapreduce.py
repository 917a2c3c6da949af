"""Map, combine, group, reduce, finish: what a job means, for one process and for the grid alike.

Workers and ``Job.run()`` call the same functions here, so there is no second implementation that
could differ. The pieces, in the order of use:

- ``Grouper`` (or ``map_items``) maps items one after the other and groups their pairs by key;
  ``drain`` hands over what it holds as *chunks*, one for each partition that has any, in columns;
- ``merge`` joins the chunks of one partition in datasource order;
- ``reduce_partition`` makes results of them; ``finish`` makes final results of all results;
- ``assemble`` makes the dict, and refuses two results with one key.

Keys come in the order of first appearance and values in datasource order, so an answer does not
depend on how items were cut into tasks. Values inside chunks, and results on their way to
``finishfn``, are frozen (``grid.pickling``): opaque to whoever moves them, and independent copies
for every function that gets them. The pairs of an item must fit into memory if it may be left out
(``skip``) or is collected; a result must, and nothing else.

Not here: where chunks are kept, when a grouper is drained, who runs what.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice, repeat
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from grid.errors import BadJob
from grid.functions import Function, Functions
from grid.partition import PLAIN_KEYS, check_key, partitions_of
from grid.pickling import IMMUTABLE, Frozen, StoredValues, copy_of, freeze, joined, show, thaw

if TYPE_CHECKING:
    from grid.job import Job

Chunk = dict[Any, Frozen]
"""What items emitted for one partition: key -> its values, opaque."""


_Part = tuple[list[Any], list[int], list[Any]]


class Columns(NamedTuple):
    """A chunk as flat lists: ``counts[i]`` of the values belong to ``keys[i]``, the first ones to
    the first key; negative where they are pickles. Without ``counts``, each key has one."""

    keys: list[Any]
    counts: list[int] | None
    values: list[Any]


Pair = tuple[Any, Any]

Lists = dict[Any, list[Any]]
"""Values by key, in a map. A key is checked once, when it first appears."""


class Groups(Protocol):
    """The merged groups of a partition: a chunk, or what is told one by one from elsewhere."""

    def items(self) -> Iterable[tuple[Any, Frozen]]: ...


BATCH = 512
"""Pairs taken from a generator at a time: enough that counting them costs nothing."""

_SEQUENCES = frozenset({tuple, list})
"""Few pairs in one of these are grouped as they are: to ask for an iterator costs as much again."""

COMBINE_PAIRS = 50_000
"""Pairs held before ``combinefn`` is worth a first pass over them."""


class UserFault(Exception):
    """A user function raised, or returned what it must not. Caught by whoever runs tasks.

    ``function`` is its role ("mapfn"), ``key`` the clipped ``repr`` of the item's key (map and
    collect) or of the key at hand (combine, reduce, finish), ``cause`` what it raised, ``index``
    the item's index or -1.
    """

    def __init__(self, function: str, key: str, cause: Exception, index: int = -1) -> None:
        super().__init__(function, key, cause, index)
        self.function = function
        self.key = key
        self.cause = cause
        self.index = index

    def as_raised(self) -> Exception:
        """Return what the user raised, with a note of where."""
        where = f" on key {self.key}" if self.key else ""
        self.cause.add_note(f"raised by {self.function}{where}")
        return self.cause

    def __str__(self) -> str:
        return (
            f"{self.function} failed on key {self.key}: {type(self.cause).__name__}: {self.cause}"
        )


# ------------------------------------------------------------------------------ map


class Grouper:
    """Maps items and groups what they emit.

    ``size`` is the number of pairs held. With ``skip``, an item whose mapfn or collectfn fails
    counts for nothing and its index is added to ``skipped``; otherwise ``UserFault`` is raised and
    the grouper is of no further use. ``on_many`` is called now and then in the middle of an item
    with many pairs, when what is held may be drained as well as after it.
    """

    def __init__(
        self,
        functions: Functions,
        *,
        skip: bool = False,
        on_many: Callable[[], None] | None = None,
    ) -> None:
        self.size = 0
        self._on_many = on_many
        self.skipped: list[int] = []
        self._functions = functions
        self._skip = skip
        # An item stands alone until it is complete if it may fail alone or is collected.
        self._alone = skip or functions.collectfn is not None
        self._groups: Lists = {}
        self._item: Lists = {}
        self._map = (
            _mapper(functions, self._item, None)
            if self._alone
            else (_mapper(functions, self._groups, self._count))
        )
        self._combine_at = self._combine_first = (
            sys.maxsize if functions.combinefn is None else COMBINE_PAIRS
        )

    def add_items(self, items: Iterable[tuple[int, Any, Any]]) -> None:
        """Map items (index, key, value). A value is its function's to keep and change. What gives
        the items may drain what is held before it gives the next."""
        add = self._add_alone if self._alone else self._map
        for index, key, value in items:
            try:
                count = add(key, value)
            except UserFault as fault:
                fault.index = index
                if not self._skip:
                    raise
                self.skipped.append(index)
                continue
            self.size += count
            if self.size >= self._combine_at:
                self._combine_many()

    def drain(self, partitions: int) -> Iterator[tuple[int, Columns]]:
        """Hand over all that is held, as chunks by ascending partition, and start empty.

        Raises ``UserFault`` if combinefn fails; and, while chunks are taken, ``NotPicklable`` if a
        value cannot travel.
        """
        if self._functions.combinefn is not None:
            self._combine()
        groups = self._groups
        parts: defaultdict[int, _Part] = defaultdict(_new_part)
        numbers = partitions_of(groups, partitions)
        for number, key, held in zip(numbers, groups, groups.values(), strict=True):
            keys, counts, values = parts[number]
            keys.append(key)
            counts.append(len(held))
            values += held
        groups.clear()  # the very same dict: an item may be adding to it
        self.size, self._combine_at = 0, self._combine_first
        return ((number, _frozen_columns(*parts.pop(number))) for number in sorted(parts))

    def _count(self, pairs: int) -> None:
        """So many pairs more are held, and the item has others."""
        self.size += pairs
        if self.size >= self._combine_at:
            self._combine_many()
        if self._on_many is not None:
            self._on_many()

    def _combine_many(self) -> None:
        self._combine()
        self._combine_at = max(COMBINE_PAIRS, 2 * self.size)

    def _add_alone(self, key: Any, value: Any) -> int:
        """Map and collect an item, and only then add what came of it."""
        mine, mapped = self._groups, self._item
        mapped.clear()
        self._map(key, value)
        count = 0
        for out, values in _collected(self._functions, key, mapped).items():
            count += len(values)
            held = mine.get(out)
            if held is None:
                mine[out] = values
            else:
                held += values
        return count

    def _combine(self) -> None:
        groups = self._groups
        for key, values in groups.items():
            if len(values) > 1:
                self.size -= len(values) - 1
                groups[key] = [_combined(self._functions, key, _apart(key, values))]


def map_items(
    functions: Functions,
    items: Iterable[tuple[int, Any, Any]],
    *,
    skip: bool = False,
) -> Grouper:
    """Map all ``items`` (index, key, value); return the grouper, to be drained."""
    grouper = Grouper(functions, skip=skip)
    grouper.add_items(items)
    return grouper


def _new_part() -> _Part:
    return [], [], []


def _frozen_columns(keys: list[Any], counts: list[int], values: list[Any]) -> Columns:
    """Make a chunk of keys and their values. Raises ``NotPicklable``."""
    if not IMMUTABLE.issuperset(map(type, values)):
        left = iter(values)
        lists = [list(islice(left, count)) for count in counts]
        return columns_of(keys, list(map(freeze, lists, repeat("a value of key"), keys)))
    one_each = counts.count(1) == len(counts)
    return Columns(keys, None if one_each else counts, values)


def columns_of(keys: list[Any], held: Collection[Frozen]) -> Columns:
    """Return keys and their frozen values as a chunk."""
    counts = [len(group) if type(group) is list else -len(group) for group in held]
    one_each = counts.count(1) == len(counts)
    return Columns(keys, None if one_each else counts, list(chain.from_iterable(held)))


def _mapper(
    functions: Functions, groups: Lists, count: Callable[[int], None] | None
) -> Callable[[Any, Any], int]:
    """Return what maps one item, adds its pairs to ``groups``, and returns how many they are,
    without those that ``count`` was told of."""
    mapfn = functions.mapfn
    if mapfn is None:
        return partial(_add_values, groups)

    def add_pairs(key: Any, value: Any) -> int:
        try:
            pairs = mapfn(key, value)
        except Exception as error:
            raise UserFault("mapfn", show(key), error) from error
        if type(pairs) in _SEQUENCES and len(pairs) < BATCH:
            _group(groups, pairs, "mapfn", key)
            return len(pairs)
        return 0 if pairs is None else _take(groups, pairs, "mapfn", key, count)

    return add_pairs


def _add_values(groups: Lists, key: Any, value: Any) -> int:
    """Add what an item is worth where there is no mapfn: a list is the values."""
    values = value if isinstance(value, list) else [value]
    check_key(key)
    groups[key] = groups.get(key, []) + values
    return len(values)


def _collected(functions: Functions, key: Any, groups: Lists) -> Lists:
    """Run collectfn, if there is one, over the pairs of the item with this key."""
    collectfn = functions.collectfn
    if collectfn is None:
        return groups
    for out, values in groups.items():
        groups[out] = _apart(out, values)
    results: Lists = {}
    try:
        if functions.collect_pairs:
            pairs = collectfn(iter(groups.items()))
        else:
            pairs = [(out, collectfn(out, values)) for out, values in groups.items()]
    except Exception as error:
        raise UserFault("collectfn", show(key), error) from error
    _take(results, pairs, "collectfn", key, None)
    collected: Lists = {}
    for out, values in results.items():
        # A list is the value list; anything else is the one value.
        lists = [value if isinstance(value, list) else [value] for value in values]
        collected[out] = list(chain.from_iterable(lists))
    return collected


def _combined(functions: Functions, key: Any, values: Sequence[Any]) -> Any:
    assert functions.combinefn is not None
    try:
        return functions.combinefn(key, values)
    except Exception as error:
        raise UserFault("combinefn", show(key), error) from error


def _apart(key: Any, values: list[Any]) -> list[Any]:
    """Return ``values`` with every mutable one an independent copy."""
    return list(_opened(key, freeze(values, "a value of key", key)))


def _opened(key: Any, values: Frozen) -> Sequence[Any]:
    """Thaw the values of ``key``: what pickles need not unpickle."""
    try:
        return thaw(values)
    except Exception as error:
        raise UserFault("unpickling of a value", show(key), error) from error


# ------------------------------------------------------------------------------ reduce


def merged(*chunks: Columns) -> Chunk:
    """Return the groups in these chunks, which come in datasource order."""
    groups: Chunk = {}
    for chunk in chunks:
        merge(groups, chunk)
    return groups


def merge(groups: Chunk, columns: Columns) -> None:
    """Add a chunk to ``groups``. Chunks are added in datasource order."""
    keys, counts, values = columns
    if counts is None:
        _merge_singles(groups, keys, values)
        return
    held_by = groups.get
    start = 0
    for key, count in zip(keys, counts, strict=True):
        stop = start + abs(count)
        held = held_by(key)
        part: Frozen = values[start:stop]
        start = stop
        if count < 0:
            part = tuple(part)
        if held is None:
            groups[key] = part
        elif type(held) is list and type(part) is list:
            held += part
        else:
            groups[key] = joined(held, part)


def _merge_singles(groups: Chunk, keys: list[Any], values: list[Any]) -> None:
    """Add a chunk of one value a key, as most are where keys are many."""
    if not groups:
        groups.update({key: [value] for key, value in zip(keys, values, strict=True)})
        return
    for key, value in zip(keys, values, strict=True):
        held = groups.get(key)
        if held is None:
            groups[key] = [value]
        elif type(held) is list:
            held.append(value)
        else:
            groups[key] = joined(held, [value])


def combine(functions: Functions, groups: Chunk) -> None:
    """Have ``combinefn``, if there is one, make one value of the values of each key that has more,
    stored ones excepted. Raises ``UserFault`` and ``NotPicklable``."""
    if functions.combinefn is None:
        return
    for key, values in groups.items():
        if len(values) > 1 and not isinstance(values, StoredValues):
            value = _combined(functions, key, _opened(key, values))
            groups[key] = freeze([value], "a value of key", key)


def reduce_partition(functions: Functions, groups: Groups) -> Iterator[Pair]:
    """Yield the results of merged groups: one (key, value) a key, or what reducefn makes of them.

    With a ``finishfn`` the values are frozen, for ``finish`` alone; without, they are the results.
    Raises ``UserFault``; ``NotPicklable`` if a result cannot travel to finishfn.
    """
    results = _reduced(functions, groups)
    if functions.finishfn is None:
        return results
    return ((key, freeze([value], "the result of key", key)) for key, value in results)


def _reduced(functions: Functions, groups: Groups) -> Iterator[Pair]:
    reducefn, combinefn = functions.reducefn, functions.combinefn
    inputs = _reduce_inputs(groups)
    if combinefn is not None:
        inputs = _all_combined(functions, inputs, always=reducefn is None)
    if reducefn is None:
        return inputs
    if functions.reduce_pairs:
        return _call_with_iterator(reducefn, "reducefn", inputs)
    return _call_with_each(reducefn, "reducefn", inputs)


def _reduce_inputs(groups: Groups) -> Iterator[Pair]:
    return (
        (key, values if type(values) is list else _opened(key, values))
        for key, values in groups.items()
    )


def _all_combined(functions: Functions, inputs: Iterator[Pair], *, always: bool) -> Iterator[Pair]:
    """Combine the values of each key: to a result if ``always``, else to a list of one value."""
    for key, values in inputs:
        if always:
            yield key, _combined(functions, key, values)
        else:
            yield key, [_combined(functions, key, values)] if len(values) > 1 else values


def finish(functions: Functions, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield the final results from what ``reduce_partition`` yielded, of all partitions in order.

    Without a ``finishfn`` they are ``pairs``. Raises ``UserFault``.
    """
    finishfn = functions.finishfn
    if finishfn is None:
        return iter(pairs)
    inputs = ((key, _opened(key, values)[0]) for key, values in pairs)
    if functions.finish_pairs:
        return _call_with_iterator(finishfn, "finishfn", inputs)
    return _call_with_each(finishfn, "finishfn", inputs)


def assemble(pairs: Iterable[Pair]) -> dict[Any, Any]:
    """Return the results as a dict; raise ``BadJob`` if two have one key."""
    results: dict[Any, Any] = {}
    count = 0
    for count, (key, value) in enumerate(pairs, 1):  # noqa: B007
        if key in results:
            raise BadJob(
                f"two results have the key {show(key)}: reducefn or finishfn yielded it twice; "
                f"yield each key once"
            )
        results[key] = value
    return results


def run(job: "Job", on_error: str = "raise") -> dict[Any, Any]:
    """Run ``job`` here, one item after the other, and return its results: the sequential oracle.

    Keys are listed once, values read one at a time and never changed. A user's exception comes out
    as it is, with a note of the function and key, so that a debugger stops where it was raised;
    with ``on_error="skip"`` items that fail in mapfn or collectfn are left out instead.
    ``resultfn`` is called once, with None for the transaction, and may raise.
    """
    items = (
        (index, key, copy_of(job.value(key), "the value of key", key))
        for index, key in enumerate(job.keys())
    )
    try:
        results, _ = compute(job.functions, items, job.partitions, skip=on_error == "skip")
    except UserFault as fault:
        cause = fault.as_raised()
    else:
        job.deliver(None, results)
        return results
    raise cause


def compute(
    functions: Functions, items: Iterable[tuple[int, Any, Any]], partitions: int, *, skip: bool
) -> tuple[dict[Any, Any], list[int]]:
    """Compute the results of ``items`` (index, key, value) here, one after the other; return them
    and the indices of the items left out. Raises ``UserFault``, ``BadJob`` and ``NotPicklable``."""
    grouper = map_items(functions, items, skip=skip)
    chunks = (merged(chunk) for _, chunk in grouper.drain(partitions))
    reduced = chain.from_iterable(reduce_partition(functions, chunk) for chunk in chunks)
    return assemble(finish(functions, reduced)), grouper.skipped


# ------------------------------------------------------------------------------ calling


def _take(
    groups: Lists, pairs: Any, role: str, key: Any, count: Callable[[int], None] | None
) -> int:
    """Add the pairs that a function returned to ``groups``, in batches. ``count`` is told of each
    but the last, whose length is returned."""
    where = partial(show, key)
    iterator = _iterator(pairs, role, where)
    while True:
        batch = _next_batch(iterator, BATCH, role, where)
        _group(groups, batch, role, key)
        if len(batch) < BATCH:
            return len(batch)
        if count is not None:
            count(len(batch))


def _group(groups: Lists, batch: Sequence[Any], role: str, key: Any) -> None:
    """Add pairs to ``groups``."""
    held_by = groups.get
    try:
        for out, value in batch:
            held = held_by(out)
            if held is None:
                if type(out) not in PLAIN_KEYS:
                    check_key(out)
                groups[out] = [value]
            else:
                held.append(value)
    except Exception as error:
        raise UserFault(role, show(key), _bad_pair(role, batch) or error) from error


def _call_with_each(function: Function, role: str, inputs: Iterator[Pair]) -> Iterator[Pair]:
    """Call the form ``f(k, vs) -> v`` on every input."""
    for key, values in inputs:
        try:
            result = function(key, values)
        except UserFault:
            raise  # stored values are opened as they are walked
        except Exception as error:
            raise UserFault(role, show(key), error) from error
        yield key, result


def _call_with_iterator(function: Function, role: str, inputs: Iterator[Pair]) -> Iterator[Pair]:
    """Call the form ``f(iterator of (k, vs))`` and yield its pairs, lazily if it is lazy."""
    last: list[Any] = []

    def remembered() -> Iterator[Pair]:
        for pair in inputs:
            last[:] = pair[:1]
            yield pair

    def where() -> str:
        return show(last[0]) if last else ""

    try:
        pairs = function(remembered())
    except UserFault:
        raise  # another function failed while this one asked for its next input
    except Exception as error:
        raise UserFault(role, where(), error) from error
    for batch in _batches(pairs, 1, role, where):
        if (bad := _bad_pair(role, batch)) is not None:
            raise UserFault(role, where(), bad)
        yield from map(tuple, batch)


def _batches(pairs: Any, size: int, role: str, where: Callable[[], str]) -> Iterator[list[Any]]:
    """Yield what a function returned, up to ``size`` pairs at a time."""
    iterator = _iterator(pairs, role, where)
    while batch := _next_batch(iterator, size, role, where):
        yield batch


def _next_batch(
    iterator: Iterator[Any], size: int, role: str, where: Callable[[], str]
) -> list[Any]:
    """Return up to ``size`` pairs more; wrap what the function raises meanwhile."""
    try:
        return list(islice(iterator, size))
    except UserFault:
        raise
    except Exception as error:
        raise UserFault(role, where(), error) from error


def _iterator(pairs: Any, role: str, where: Callable[[], str]) -> Iterator[Any]:
    """Return an iterator over what a function returned. Raises ``UserFault`` if it is none."""
    if type(pairs) is GeneratorType or type(pairs) is list:
        return iter(pairs)  # as nearly always; to ask what else it may be costs as much as a pair
    if isinstance(pairs, Mapping):
        pairs = pairs.items()
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        problem = f"{role} must return an iterable of (key, value) pairs, not {show(pairs)}"
        raise UserFault(role, where(), BadJob(problem))
    return iter(pairs)


def _bad_pair(role: str, batch: Sequence[Any]) -> BadJob | None:
    """Return what is wrong with the first bad pair, or None if all are fit."""
    for pair in batch:
        try:
            key, _ = pair
        except (TypeError, ValueError):
            return BadJob(f"{role} must give (key, value) pairs; it gave {show(pair)}")
        try:
            check_key(key)
        except BadJob as error:
            return BadJob(f"{role} gave a bad key: {error}")
    return None
