"""Bytes of keys and values inside a segment.

A *chunk* is what one drain of a map, or one stretch of results, wrote for one partition. It is
columnar: one list of keys, one flat list of values and, between them, how many values belong to
each key (negative where a grouper froze them to pickles, see ``grid.pickling``). Three flat lists
pickle faster and smaller than a dict of lists, and small value lists are what a shuffle is made
of.

Plain pickle does the work. Where it cannot (values of classes defined in ``__main__``, lambdas)
the chunk is pickled again by cloudpickle, and where that fails as well the culprit is searched
and named. Chunks are opened by workers and by the owner of the results only: never by the
threads that speak with other peers.
"""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import cloudpickle

from grid.errors import NotPicklable
from grid.mapreduce import Chunk, Columns, columns_of, merged
from grid.pickling import PROTOCOL, Frozen, show

_FIRST_PIECE_VALUES = 256


class Pairs(NamedTuple):
    """A run of results: ``keys[i]`` belongs to ``values[i]``."""

    keys: list[Any]
    values: list[Any]


def encode_columns(columns: Columns) -> bytes:
    """Return what a grouper drained for one partition. Raises ``NotPicklable`` naming the key."""
    return _dumps((columns.keys, columns.counts, columns.values))


def encode_groups(groups: Chunk) -> bytes:
    """Return groups as a chunk. Raises ``NotPicklable`` naming the key."""
    return encode_columns(columns_of(list(groups), groups.values()))


def open_groups(chunk: bytes) -> Columns:
    """Return what was encoded, to be merged."""
    return Columns(*pickle.loads(chunk))


def decode_groups(chunk: bytes) -> Chunk:
    """Return what ``encode_groups`` was given, keys in the same order."""
    return merged(open_groups(chunk))


def encode_in_pieces(
    groups: Iterable[tuple[Any, Frozen]], piece_bytes: int
) -> Iterator[tuple[list[Any], bytes]]:
    """Yield groups in chunks of about ``piece_bytes``, each with its keys; the values of a key may
    be spread over several, in order. Raises ``NotPicklable`` naming the key.

    How many values make a piece is learnt from the last one.
    """
    room = _FIRST_PIECE_VALUES
    piece: Chunk = {}
    count = 0
    for key, values in groups:
        start = 0
        while True:
            part = _part(values, start, room - count)
            piece[key] = part
            count += max(1, len(part))
            start += len(part)
            if count >= room:
                data = encode_groups(piece)
                yield list(piece), data
                room = max(1, min(4 * room, room * piece_bytes // len(data)))
                piece, count = {}, 0
            if start >= len(values):
                break
    if piece:
        yield list(piece), encode_groups(piece)


def _part(values: Frozen, start: int, most: int) -> Frozen:
    """Return up to ``most`` of the values from ``start``, frozen as they are."""
    if start == 0 and len(values) <= most:
        return values
    if type(values) is list:
        return values[start : start + most]
    return tuple(values[start : start + most])


def encode_pairs(keys: Sequence[Any], values: Sequence[Any]) -> bytes:
    """Return results as a chunk: one value a key. Raises ``NotPicklable`` naming the key."""
    return _dumps((list(keys), None, list(values)))


def decode_pairs(chunk: bytes) -> Pairs:
    """Return the keys and values of a chunk written by ``encode_pairs``."""
    keys, _, values = pickle.loads(chunk)
    return Pairs(keys, values)


def _dumps(columns: tuple[list[Any], list[int] | None, list[Any]]) -> bytes:
    try:
        return pickle.dumps(columns, protocol=PROTOCOL)
    except Exception:
        return _cloud_dumps(columns)  # it knows more types; only its refusal is final


def _cloud_dumps(columns: tuple[list[Any], list[int] | None, list[Any]]) -> bytes:
    try:
        chunk: bytes = cloudpickle.dumps(columns, protocol=PROTOCOL)
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
            return NotPicklable(_refusal(f"the key {show(key)}", key, why))
    owners = chain.from_iterable(
        [key] * abs(count) for key, count in zip(keys, counts or [1] * len(keys), strict=True)
    )
    for key, value in zip(owners, values, strict=False):
        why = _why_refused(value)
        if why is not None:
            where = f"the value {show(value)} of key {show(key)}"
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
        cloudpickle.dumps(thing, protocol=PROTOCOL)
    except Exception as error:
        return error
    return None
