"""What engines are given: data, functions over it, and how an answer is told from another.

``MapReduce`` is the work of most workloads. Its functions are plain ones, the very same for every
engine: ``mapfn(key, value)`` yields pairs, ``reducefn(key, values)`` makes a value of all values
of a key. Nothing here, and nothing that user functions import, needs more than Python itself.

A ``Digest`` is a sum over pairs, so it does not depend on their order, and cheap: 0.2 microseconds
a pair, which counts as the owner's reading of the answer, the same for all. It needs the same hash
seed in all processes that are compared: ``runs`` sees to that.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

Pair = tuple[Any, Any]

_MASK = (1 << 64) - 1


class Source(Protocol):
    """Items: unique keys, in order, and a value for each."""

    def list_keys(self) -> list[Any]: ...
    def value(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class Table:
    """Items whose values are at hand."""

    items: dict[Any, Any]

    def list_keys(self) -> list[Any]:
        return list(self.items)

    def value(self, key: Any) -> Any:
        return self.items[key]


@dataclass(frozen=True)
class TextFiles:
    """Every file of a folder is an item; its value is its text. Workers read the files."""

    folder: str

    def list_keys(self) -> list[str]:
        return sorted(str(path) for path in Path(self.folder).glob("*.txt"))

    def value(self, key: str) -> str:
        return Path(key).read_text(encoding="utf-8")


@dataclass(frozen=True)
class MapReduce:
    """A job, as every engine understands it. Without ``reducefn``: all values of a key."""

    source: Table | TextFiles
    mapfn: Callable[[Any, Any], Iterable[Pair]]
    reducefn: Callable[[Any, list[Any]], Any] | None = None

    @property
    def is_table(self) -> bool:
        """Whether the values are at hand, and have to be sent."""
        return isinstance(self.source, Table)


class Digest:
    """Tells answers apart, whatever the order of their pairs."""

    def __init__(self) -> None:
        self._sum = 0
        self._count = 0

    def add(self, pairs: Iterable[Pair]) -> "Digest":
        """Count all pairs; lists in them count by their content."""
        total, count = 0, 0
        for count, pair in enumerate(pairs, 1):  # noqa: B007
            try:
                total += hash(pair)
            except TypeError:
                total += hash((pair[0], tuple(pair[1])))
        self._sum = (self._sum + total) & _MASK
        self._count += count
        return self

    def __str__(self) -> str:
        return f"{self._count}-{self._sum:016x}"


def digest_of(values: Iterable[Any]) -> str:
    """The digest of values in their order."""
    return str(Digest().add(enumerate(values)))


def chunks(keys: list[Any], count: int) -> Iterator[list[Any]]:
    """Cut into at most ``count`` runs of neighbours, of nearly the same length, none empty."""
    bounds = [len(keys) * number // count for number in range(count + 1)]
    for start, stop in pairwise(bounds):
        if start < stop:
            yield keys[start:stop]
