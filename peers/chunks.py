"""Bytes of keys and values inside a segment.

A *chunk* is what one drain of a map, or one stretch of results, wrote for one partition. It is
columnar: one list of keys, one flat list of values and, between them, how many values belong to
each key. Pickling three flat lists takes about a third of the time of a dict of lists and makes
smaller files, which is what a shuffle of many small value lists is made of.

Plain pickle does the work. Where it cannot (values of classes defined in ``__main__``, lambdas)
the chunk is pickled again by cloudpickle, and where that fails as well the culprit is searched
and named. Chunks are opened by workers and by the owner of the results only: never by the
threads that speak with other peers.
"""

import pickle
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import cloudpickle

from grid.errors import NotPicklable

REPR_MAX = 200
"""Longer keys and values are cut in messages: an error is for reading."""


class Pairs(NamedTuple):
    """A run of results: ``keys[i]`` belongs to ``values[i]``."""

    keys: list[Any]
    values: list[Any]


def encode_groups(groups: Mapping[Any, list[Any]]) -> bytes:
    """Return ``{key: [value, ...]}`` as a chunk. Raises ``NotPicklable`` naming the key."""
    keys = list(groups)
    values = list(chain.from_iterable(groups.values()))
    counts = None
    if len(values) != len(keys) or not all(groups.values()):
        counts = [len(held) for held in groups.values()]
    return _dumps((keys, counts, values))


def decode_groups(chunk: bytes) -> dict[Any, list[Any]]:
    """Return the ``{key: [value, ...]}`` of a chunk, keys in the order they were written."""
    keys, counts, values = pickle.loads(chunk)
    if counts is None:
        return {key: [value] for key, value in zip(keys, values, strict=True)}
    groups: dict[Any, list[Any]] = {}
    start = 0
    for key, count in zip(keys, counts, strict=True):
        groups[key] = values[start : start + count]
        start += count
    return groups


def encode_pairs(keys: Sequence[Any], values: Sequence[Any]) -> bytes:
    """Return results as a chunk: one value a key. Raises ``NotPicklable`` naming the key."""
    return _dumps((list(keys), None, list(values)))


def decode_pairs(chunk: bytes) -> Pairs:
    """Return the keys and values of a chunk written by ``encode_pairs``."""
    keys, _, values = pickle.loads(chunk)
    return Pairs(keys, values)


def clip(value: object, limit: int = REPR_MAX) -> str:
    """Return the ``repr`` of ``value`` cut to ``limit`` characters, whatever its class does."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _dumps(columns: tuple[list[Any], list[int] | None, list[Any]]) -> bytes:
    try:
        return pickle.dumps(columns, protocol=5)
    except Exception:
        return _cloud_dumps(columns)  # it knows more types; only its refusal is final


def _cloud_dumps(columns: tuple[list[Any], list[int] | None, list[Any]]) -> bytes:
    try:
        chunk: bytes = cloudpickle.dumps(columns, protocol=5)
    except Exception as error:
        raise _culprit(columns, error) from error
    return chunk


def _culprit(
    columns: tuple[list[Any], list[int] | None, list[Any]], error: Exception
) -> NotPicklable:
    """Name the key or value which cannot travel, by trying them one at a time."""
    keys, counts, values = columns
    for key in keys:
        why = _why_refused(key)
        if why is not None:
            return NotPicklable(_refusal(f"the key {clip(key)}", key, why))
    owners = chain.from_iterable(
        [key] * count for key, count in zip(keys, counts or [1] * len(keys), strict=True)
    )
    for key, value in zip(owners, values, strict=False):
        why = _why_refused(value)
        if why is not None:
            where = f"the value {clip(value)} of key {clip(key)}"
            return NotPicklable(_refusal(where, value, why))
    return NotPicklable(_refusal("the keys and values of this task together", columns, error))


def _refusal(what: str, value: object, why: Exception) -> str:
    name = type(value).__name__
    return (
        f"{what} ({name}) cannot be sent to another process: {type(why).__name__}: {why}. "
        "Emit something that pickles, for example plain data"
    )


def _why_refused(thing: Any) -> Exception | None:
    try:
        cloudpickle.dumps(thing, protocol=5)
    except Exception as error:
        return error
    return None
