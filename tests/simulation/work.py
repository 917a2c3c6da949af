"""The work that simulated tasks do: small, checkable, and sensitive to order.

Item ``i`` yields the pairs ``(i % 7, i)`` and ``(i % 3, -i)``; a reduce keeps the value lists. So
the right answer is one nested list for each key, and any loss, repetition or disorder shows.
"""

import ast
from collections.abc import Iterable

from grid.messages import RIDING_BYTES_MAX
from tests.simulation.world import Content


def pairs(item: int) -> tuple[tuple[int, int], ...]:
    return ((item % 7, item), (item % 3, -item))


def _grouped(flat: Iterable[tuple[int, int]]) -> Content:
    groups: dict[int, list[int]] = {}
    for key, value in flat:
        groups.setdefault(key, []).append(value)
    return tuple((key, tuple(values)) for key, values in groups.items())


def map_content(start: int, stop: int) -> Content:
    return _grouped(pair for item in range(start, stop) for pair in pairs(item))


def reduce_content(contents: list[Content], partitions: int, keep: range) -> Content:
    """Merge contents given in order of their ranges; keep some partitions."""
    return _grouped(
        (key, value)
        for content in contents
        for key, values in content
        if key % partitions in keep
        for value in values
    )


def sizes_of(partitions: int, content: Content, kind: str) -> tuple[int, ...]:
    if kind != "map":
        return ()
    sizes = [0] * partitions
    for key, values in content:
        sizes[key % partitions] += len(values)
    return tuple(sizes)


def in_a_message(content: Content) -> bytes:
    """A content as it rides in messages; empty if it is too large."""
    said = repr(content).encode()
    return said if len(said) <= RIDING_BYTES_MAX else b""


def from_a_message(said: bytes) -> Content:
    content: Content = ast.literal_eval(said.decode())
    return content


def oracle(items: int) -> dict[int, tuple[int, ...]]:
    """The sequential answer."""
    return dict(map_content(0, items))
