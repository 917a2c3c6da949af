"""The jobs of the conformance suite: every form of every function, and data that is hard to carry.

``JOBS`` maps a name to a function that makes the job, given a folder with files of its own. What
``Job.run()`` answers is right, whatever engine is asked.
"""

import dataclasses
import functools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from peers import Files, Job, Lines

TEXTS = {
    "first": "the cat sat on the mat and the dog sat on the cat",
    "second": "a dog and a cat are not a mat",
    "third": "",
    "fourth": "mat mat mat",
}

Pairs = Iterable[tuple[Any, Any]]


def words(_key: Any, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(_key: Any, values: Iterable[int]) -> int:
    return sum(values)


def totals(pairs: Pairs) -> Iterator[tuple[Any, int]]:
    for key, values in pairs:
        yield key, sum(values)


def by_remainder(key: int, value: int) -> Iterator[tuple[int, tuple[int, int]]]:
    for divisor in (2, 3, 5):
        yield value % divisor, (key, divisor)


def as_dict(key: str, text: str) -> dict[str, Any] | None:
    return {key: len(text), "all": text} if text else None


def mean_and_count(_key: Any, values: list[int]) -> list[Any]:
    """Not associative, and a list: its members become the values."""
    return [sum(values) / len(values), len(values)]


def longest_only(pairs: Pairs) -> Iterator[tuple[Any, Any]]:
    """Of one item's pairs, those with the longest key; to see which pairs it gets together."""
    found = list(pairs)
    longest = max((len(key) for key, _ in found), default=0)
    yield from ((key, len(values)) for key, values in found if len(key) == longest)


def renamed(pairs: Pairs) -> Iterator[tuple[Any, Any]]:
    for key, values in pairs:
        yield f"{key}?", values
        yield f"{key}!", len(values)


def share_of(key: Any, value: int) -> tuple[Any, int]:
    return key, value * 10


def top(pairs: Pairs, count: int = 3) -> Iterator[tuple[int, list[Any]]]:
    """All results in one call."""
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    yield from enumerate(map(list, ordered[:count]))


def how_many(pairs: Pairs) -> dict[str, int]:
    return {"results": len(list(pairs))}


def longest_first(_key: Any, values: list[str]) -> str:
    return max(values, key=len)


def spread(key: int, value: int) -> Iterator[tuple[str, int]]:
    """Nearly everything has one key."""
    for number in range(200):
        yield "crowd" if number else f"alone {key}", value + number


def in_order(_key: Any, values: list[int]) -> tuple[int, int]:
    """Differs with any other order of values."""
    return len(values), functools.reduce(lambda seen, value: (seen * 31 + value) % 65521, values)


def spelled(key: str, value: str) -> Iterator[tuple[Any, Any]]:
    yield value, key
    yield value.encode("utf-8", "surrogatepass"), value
    yield (value, None), value[::-1]


def odd_keys(key: int, _value: Any) -> Iterator[tuple[Any, int]]:
    for odd in (1, 1.0, True, Decimal(1), Fraction(2, 2), np.int64(1), None, b"1", "1", (1, "a")):
        yield odd, key
    yield frozenset({1, 2, key % 2}), key
    yield Point(key % 3, 0), key
    yield 0.1 + key, key


def large(key: int, value: int) -> Iterator[tuple[int, bytes]]:
    yield key % 3, bytes([key]) * value


def checksum(_key: Any, values: list[bytes]) -> tuple[int, int]:
    return sum(map(len, values)), zlib.crc32(b"".join(values))


def halves(key: int, row: Any) -> Iterator[tuple[str, Any]]:
    yield "left", row[: len(row) // 2]
    yield "right", row[len(row) // 2 :] * key
    yield str(row.dtype), row.sum()


def stacked(_key: Any, arrays: list[Any]) -> Any:
    return np.concatenate([np.atleast_1d(one) for one in arrays])


@dataclass(frozen=True)
class Point:
    """A key and value of a class of the user's."""

    x: int
    y: int


def points(key: int, value: int) -> Iterator[tuple[Point, Point]]:
    yield Point(value % 3, 0), Point(key, value)


def farthest(_key: Any, values: list[Point]) -> Point:
    return max(values, key=lambda point: (point.y, point.x))


def append_and_count(key: int, value: list[int]) -> Iterator[tuple[str, Any]]:
    """Changes what it is given, and emits one object twice."""
    value.append(key)
    yield "lengths", len(value)
    yield "values", value
    yield "again", value


def pop_all(_key: Any, values: list[Any]) -> list[Any]:
    """Changes what it is given."""
    for value in values:
        if isinstance(value, list):
            value.append("seen")
    return [values.pop() for _ in range(len(values))]


def clear_all(_key: Any, value: list[Any]) -> list[Any]:
    value.append("finished")
    return value


def folded(_key: Any, values: list[list[int]]) -> list[int]:
    """A combiner that changes the first of what it is given."""
    first = values[0]
    for value in values[1:]:
        first += value
    return first


def listed(key: int, value: int) -> Iterator[tuple[int, list[int]]]:
    yield value % 4, [key, value]


def lengths(path: str, text: Any) -> Iterator[tuple[str, Any]]:
    yield Path(path).name, (type(text).__name__, len(text), zlib.crc32(repr(text).encode()))


def lines_of(key: tuple[str, int, int], text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        yield Path(key[0]).name, line


class Squares:
    """A datasource of the user's, without a length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[str]:
        return iter([f"n{number}" for number in range(self.count)])

    def __getitem__(self, key: str) -> int:
        return int(key[1:]) ** 2


class Strangers(Files):
    """Files that only their owner has: a reference leads nowhere."""

    def reference(self, key: str) -> Any:
        return dataclasses.replace(super().reference(key), path=f"{key} elsewhere")

    def __getitem__(self, key: str) -> Any:
        return super().reference(key).read()


class Adder:
    """A callable object, with state."""

    def __init__(self, more: int) -> None:
        self.more = more

    def __call__(self, _key: Any, values: list[int]) -> int:
        return sum(values) + self.more


def _closure(more: int) -> Callable[..., Any]:
    def add(key: int, value: int) -> list[tuple[str, int]]:
        return [(f"{key % 4}", value + more)]

    return add


def _local_class() -> Job:
    @dataclass(frozen=True)
    class Local:
        count: int

    return Job(
        list(range(40)),
        lambda key, value: [(key % 4, Local(value))],
        reducefn=lambda _key, values: Local(sum(value.count for value in values)),
    )


def _files(folder: Path) -> Path:
    (folder / "a.txt").write_text("one two\nthree\n\nfour five six", encoding="utf-8")
    (folder / "b.txt").write_bytes("zürich\r\nβeta\r\n日本\n".encode() * 50)
    (folder / "c.txt").write_text("", encoding="utf-8")
    return folder


def leave_a_mark(folder: str, role: str) -> None:
    """One more byte in a file, however many processes do so."""
    descriptor = os.open(f"{folder}/{role}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)


def marking_job(folder: Path) -> Job:
    """A job whose collectfn and finishfn leave a mark for each call."""
    place = str(folder)

    def collect(_key: Any, values: list[int]) -> int:
        leave_a_mark(place, "collectfn")
        return sum(values)

    def finish(pairs: Pairs) -> list[tuple[Any, Any]]:
        leave_a_mark(place, "finishfn")
        return list(pairs)

    return Job(
        list(range(30)),
        lambda key, value: [("sum", key), ("sum", value)],
        collectfn=collect,
        reducefn=total,
        finishfn=finish,
    )


NUMBERS = list(range(100))
SHARED = [0]

JOBS: dict[str, Callable[[Path], Job]] = {
    "words": lambda _: Job(TEXTS, words, reducefn=total),
    "value lists": lambda _: Job(NUMBERS, by_remainder),
    "a mapping, or nothing": lambda _: Job(TEXTS, as_dict),
    "collectfn": lambda _: Job(TEXTS, words, collectfn=mean_and_count),
    "collectfn of pairs": lambda _: Job(TEXTS, words, collectfn=longest_only, reducefn=total),
    "combinefn": lambda _: Job(TEXTS, words, combinefn=total, reducefn=total),
    "combinefn alone": lambda _: Job(TEXTS, words, combinefn=total),
    "collectfn and combinefn": lambda _: Job(
        TEXTS, words, collectfn=total, combinefn=total, reducefn=total
    ),
    "reducefn of pairs": lambda _: Job(TEXTS, words, reducefn=totals),
    "reducefn that renames": lambda _: Job(TEXTS, words, reducefn=renamed),
    "reducefn is dict": lambda _: Job(TEXTS, words, reducefn=dict),
    "finishfn": lambda _: Job(TEXTS, words, reducefn=total, finishfn=share_of),
    "finishfn of pairs": lambda _: Job(TEXTS, words, reducefn=total, finishfn=top),
    "finishfn without reducefn": lambda _: Job(
        TEXTS, words, finishfn=lambda _key, values: len(values)
    ),
    "no mapfn": lambda _: Job({"a": [1, 2], "b": 3, "c": [], "d": [[4]]}, reducefn=pop_all),
    "no mapfn, pairs": lambda _: Job({"a": [1, 2], "b": 3}, reducefn=totals, finishfn=how_many),
    "skew": lambda _: Job(NUMBERS, spread, reducefn=in_order),
    "skew, combined": lambda _: Job(NUMBERS, spread, combinefn=total, reducefn=total),
    "nothing": lambda _: Job([], words, reducefn=total),
    "nothing, finished": lambda _: Job({}, words, reducefn=totals, finishfn=how_many),
    "no pairs": lambda _: Job(NUMBERS, lambda _key, _value: None, finishfn=how_many),
    "unicode": lambda _: Job(
        {"ä": "zürich", "\ud800": "lone \udfff", "e\u0301": "é", "日本": "🐈 🐕‍🦺", "": "\0"},
        spelled,
    ),
    "odd keys": lambda _: Job(NUMBERS[:20], odd_keys, reducefn=in_order),
    "large values": lambda _: Job([700_000] * 9, large, reducefn=checksum),
    "large items": lambda _: Job(
        [[bytes(1 << 20)] * 2 for _ in range(6)],
        lambda key, value: [(key % 2, len(value[0]))],
        reducefn=total,
    ),
    "arrays": lambda _: Job(np.arange(60.0).reshape(12, 5), halves, reducefn=stacked),
    "arrays as values": lambda _: Job(
        {number: np.arange(number, dtype="int32") for number in range(2, 9)}, halves
    ),
    "classes": lambda _: Job(NUMBERS, points, reducefn=farthest),
    "a class of a function": lambda _: _local_class(),
    "a callable object": lambda _: Job(NUMBERS, _closure(7), reducefn=Adder(3)),
    "a partial": lambda _: Job(
        TEXTS, words, reducefn=total, finishfn=functools.partial(top, count=2)
    ),
    "a datasource": lambda _: Job(Squares(50), lambda key, value: [(value % 7, key)]),
    "changing what is given": lambda _: Job(
        [SHARED, SHARED, [1, 2], SHARED], append_and_count, reducefn=pop_all, finishfn=clear_all
    ),
    "changing what is combined": lambda _: Job(NUMBERS, listed, combinefn=folded),
    "one partition": lambda _: Job(TEXTS, words, reducefn=total, partitions=1),
    "many partitions": lambda _: Job(
        NUMBERS, lambda key, _: [(key, key), (-key - 1, key)], reducefn=total, partitions=1000
    ),
    "files": lambda folder: Job(Files(f"{_files(folder)}/*.txt"), lengths),
    "files as bytes": lambda folder: Job(Files(f"{_files(folder)}/*.txt", mode="bytes"), lengths),
    "files as paths": lambda folder: Job(
        Files(f"{_files(folder)}/*.txt", mode="path"), lambda _, path: [(path, len(path))]
    ),
    "files of their owner's": lambda folder: Job(Strangers(f"{_files(folder)}/*.txt"), lengths),
    "lines": lambda folder: Job(Lines(f"{_files(folder)}/*.txt", bytes_per_item=64), lines_of),
}
