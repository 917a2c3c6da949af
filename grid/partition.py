"""From a key to its partition: the same in every process, on every host, under any hash seed.

Keys that are equal always have the same partition, whatever their types: numbers go by Python's
numeric hash (so 1, 1.0, True, ``Decimal(1)`` and ``numpy.int64(1)`` are one key), str and bytes by
content, tuples and frozensets from their members. Every other type goes to one fixed partition:
right, if not parallel. A key with NaN in it equals nothing, not even itself, and is refused.

Keys are never ordered. Nothing here protects against keys chosen to collide.
"""

import numbers
from collections.abc import Collection, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zlib import crc32

from grid.errors import BadJob
from grid.pickling import show

OTHER = 0
"""The code of keys of every other type."""

PLAIN_KEYS = frozenset({str, int, bytes})
"""Exact types of which everything can be a key. A ``bool`` can too, but few keys are."""

_BUILTIN_NUMBERS = frozenset({int, float, bool, complex, Decimal, Fraction})

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: spreads sums and neighbours


def partition_of(key: Any, partitions: int) -> int:
    """Return the partition of ``key``, from 0 to ``partitions - 1``.

    Raises ``BadJob`` if ``key`` is unhashable or contains NaN.
    """
    return partitions_of((key,), partitions)[0]


def partitions_of(keys: Iterable[Any], partitions: int) -> list[int]:
    """Return the partition of each of ``keys``. Raises as ``partition_of``."""
    return [
        # What most keys are is done here: a call would take as long as the rest of it.
        crc32(key.encode("utf-8", "surrogatepass")) % partitions
        if type(key) is str
        else crc32(b"%d" % hash(key)) % partitions
        if type(key) is int
        else _checked_code(key) % partitions
        for key in keys
    ]


def _checked_code(key: Any) -> int:
    check_key(key)
    return _code(key)


def check_key(key: Any) -> None:
    """Raise ``BadJob`` if ``key`` cannot be a key: it is unhashable or contains NaN."""
    if type(key) in PLAIN_KEYS:
        return
    try:
        hash(key)
    except TypeError as error:
        raise BadJob(
            f"{show(key)} cannot be a key: {error}; use a tuple, a frozenset or text"
        ) from None
    if _has_nan(key):
        raise BadJob(
            f"{show(key)} cannot be a key: it contains NaN, which equals nothing, not even "
            f"itself; use None or text for what is missing"
        )


def check_keys(keys: Collection[Any]) -> None:
    """Raise as ``check_key`` does for the first of ``keys`` that cannot be one."""
    if not PLAIN_KEYS.issuperset(map(type, keys)):
        for key in keys:
            check_key(key)


def _has_nan(key: Any) -> bool:
    if isinstance(key, tuple | frozenset):
        return any(map(_has_nan, key))
    # Only NaN and its like (NaT) differ from themselves.
    return not isinstance(key, str | bytes) and bool(key != key)


def _code(key: Any) -> int:
    """Return 64 bits that are equal for equal keys."""
    if isinstance(key, str):
        return crc32(str.encode(key, "utf-8", "surrogatepass"))
    if isinstance(key, bytes):
        return crc32(key)
    if isinstance(key, tuple):
        code = len(key)
        for member in key:
            code = _mixed(code ^ _code(member))
        return code
    if isinstance(key, frozenset):
        return _mixed(sum(_mixed(_code(member)) for member in key) + len(key))
    return _number_code(key)


def _mixed(code: int) -> int:
    code = (code * _ODD + 1) & _MASK
    return code ^ (code >> 29)


def _number_code(key: Any) -> int:
    value = key if type(key) in _BUILTIN_NUMBERS else _builtin_twin(key)
    if value is None:
        return OTHER
    # As text: fractions differ in few high bits of their hashes, but in many of their digits.
    return crc32(b"%d" % hash(value))


def _builtin_twin(key: Any) -> Any:
    """Return the builtin number that equals ``key``, or None if there is none.

    Other number types need not hash the same in every process; builtin ones do.
    """
    try:
        if isinstance(key, Decimal):  # a subclass of it
            return Decimal(key)
        value = _converted(key)
        return value if value is not None and bool(value == key) else None
    except (TypeError, ValueError, ArithmeticError):
        return None  # a number only by name


def _converted(key: Any) -> int | float | complex | Fraction | None:
    kind = getattr(getattr(key, "dtype", None), "kind", "")
    if kind in ("m", "M"):
        return None  # numpy's dates and times count as numbers there, but equal Python's
    if kind == "b":
        return bool(key)
    if isinstance(key, numbers.Integral):
        return int(key)
    if isinstance(key, numbers.Rational):
        return Fraction(int(key.numerator), int(key.denominator))
    if isinstance(key, numbers.Real):
        return float(key)
    return complex(key) if isinstance(key, numbers.Complex) else None
