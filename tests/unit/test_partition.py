"""Equal keys share a partition, in every process (P3: answers do not depend on who computed)."""

import datetime
import subprocess
import sys
from collections import Counter, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import BadJob
from grid.partition import check_key, partition_of

Point = namedtuple("Point", "x y")
Name = StrEnum("Name", {"RED": "red"})
Number = IntEnum("Number", {"ONE": 1})
Colour = Enum("Colour", "RED GREEN")

numbers: Any = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.fractions(),
    st.decimals(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.sampled_from(
        [np.int64(1), np.uint8(2), np.float32(0.5), np.float64(3), np.bool_(True), np.complex64(1)]
    ),
)
plain: Any = st.one_of(numbers, st.text(max_size=2), st.binary(max_size=2), st.none())
keys: Any = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=4,
)


@given(keys, keys)
def test_equal_keys_have_equal_partitions(first: Any, second: Any) -> None:
    if hash(first) == hash(second) and first == second:
        assert partition_of(first, 1 << 20) == partition_of(second, 1 << 20)


@given(keys, st.integers(1, 300))
def test_every_key_has_a_partition(key: Any, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


@pytest.mark.parametrize(
    "same",
    [
        [1, 1.0, True, Decimal(1), Decimal("1.00"), Fraction(1), 1 + 0j, np.int64(1), np.bool_(1)],
        [0.5, Fraction(1, 2), Decimal("0.5"), np.float16(0.5), np.longdouble(0.5)],
        [0.0, -0.0, 0, False, np.float32(-0.0)],
        [10**30, Decimal(10**30), Fraction(10**30)],
        [float("inf"), Decimal("inf"), np.float64("inf")],
        ["red", Name.RED, np.str_("red")],
        [b"red", np.bytes_(b"red")],
        [Number.ONE, 1],
        [(1, 2), Point(1, 2), Point(1.0, Decimal(2))],
        [frozenset([1, "a", (2,)]), frozenset([(2.0,), True, "a"])],
    ],
)
def test_equal_keys_of_many_types(same: list[Any]) -> None:
    for key in same:
        assert key == same[0]
        assert partition_of(key, 1 << 20) == partition_of(same[0], 1 << 20)
        assert partition_of((key, "x"), 1 << 20) == partition_of((same[0], "x"), 1 << 20)


def test_other_types_share_one_partition() -> None:
    others = [None, Colour.RED, Colour.GREEN, datetime.date(2020, 1, 1), np.datetime64("2020"), len]
    assert len({partition_of(key, 256) for key in others}) == 1


NAN = float("nan")


@pytest.mark.parametrize(
    "key",
    [
        NAN,
        Decimal("nan"),
        Decimal("snan"),
        complex(0, NAN),
        np.float32("nan"),
        np.datetime64("NaT", "s"),
        (1, (2, NAN)),
        frozenset([NAN]),
        Point("a", Decimal("nan")),
        (frozenset([("x", NAN)]),),
    ],
)
def test_nan_is_refused(key: Any) -> None:
    for refuse in (lambda: partition_of(key, 256), lambda: check_key(key)):
        with pytest.raises(BadJob, match=r"NaN.* cannot be a key|nan.* cannot be a key|NaT"):
            refuse()


@pytest.mark.parametrize("key", [[1], {}, set(), (1, [2]), bytearray(b"a"), np.array([1])])
def test_unhashable_keys_are_named(key: Any) -> None:
    with pytest.raises(BadJob, match="cannot be a key: unhashable"):
        partition_of(key, 256)


def test_surrogates_and_huge_numbers_are_keys() -> None:
    partition_of("\udcff.txt", 256)
    partition_of(Decimal("1e999999999"), 256)
    partition_of(-(10**400), 256)


@pytest.mark.parametrize(
    "keys",
    [
        [f"word{n}" for n in range(4096)],
        range(4096),
        range(0, 4096 * 256, 256),
        [n / 8 for n in range(4096)],
        [(n, n + 1) for n in range(4096)],
        [frozenset([n, n * 7 + 1]) for n in range(4096)],
    ],
)
def test_partitions_are_even(keys: Any) -> None:
    counts = Counter(partition_of(key, 256) for key in keys)
    assert len(counts) == 256
    assert max(counts.values()) < 16 * 4


PRINT_PARTITIONS = """
from decimal import Decimal
from fractions import Fraction
from enum import Enum
from grid.partition import partition_of
Colour = Enum("Colour", "RED GREEN")
keys = ["a", "\\u20ac", b"a", 1, -1, 2.5, 10**40, Decimal("0.1"), Fraction(1, 3), 1j, None,
    Colour.RED, ("a", 1, b"x"), frozenset(["a", "b", "c", 4]), (frozenset([("x", "y"), "z"]),),
    float("inf")]
print([partition_of(key, 65536) for key in keys])
"""


def test_partitions_do_not_depend_on_the_hash_seed() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINT_PARTITIONS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(printed) == 1
    assert printed.pop().strip()
