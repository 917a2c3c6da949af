"""Merging on disk gives what a dict would have held: keys, values, the order of both (P3, P7)."""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.functions import Functions
from grid.mapreduce import Chunk
from grid.pickling import freeze, thaw
from peers.chunks import encode_groups, open_groups
from peers.worker_channel import Limits
from peers.worker_memory import Memory
from peers.worker_merge import Merger, Spool, StoredOnDisk

# -1 and -2 have one hash, so no dividing parts them.
KEYS = st.sampled_from([-1, -2, 0, 1, "a", "b", ("a", 1), frozenset({1}), 2.5, *range(10, 40)])
VALUES = st.integers(0, 300) | st.lists(st.integers(0, 9), max_size=3)
PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=60)


def chunk_of(pairs: list[tuple[Any, Any]]) -> Chunk:
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: freeze(values, "a value of key", key) for key, values in groups.items()}


def merged(
    folder: Path, chunks: list[Chunk], memory_bytes: int, looks: list[bool]
) -> list[tuple[Any, list[Any]]]:
    """Merge; ``looks`` says after which chunks memory is looked at."""
    limits = Limits(memory_bytes)
    with (
        closing(Memory(limits)) as memory,
        Merger(Functions(), memory.watch(), Spool(str(folder), limits.piece_bytes)) as merger,
    ):
        for chunk, look in zip(chunks, itertools.cycle(looks), strict=False):
            merger.add(open_groups(encode_groups(chunk)))
            if look:
                merger.look()
        merger.settle()
        return [(key, list(thaw(values))) for key, values in merger.items()]


@given(
    chunks=st.lists(PAIRS.map(chunk_of), max_size=6),
    memory_bytes=st.sampled_from([1, 100, 1000, 1 << 30]),
    looks=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_on_disk_as_in_a_dict(
    tmp_path_factory: pytest.TempPathFactory,
    chunks: list[Chunk],
    memory_bytes: int,
    looks: list[bool],
) -> None:
    expected: dict[Any, list[Any]] = {}
    for chunk in chunks:
        for key, values in chunk.items():
            expected.setdefault(key, []).extend(thaw(values))
    folder = tmp_path_factory.mktemp("spool")
    assert merged(folder, chunks, memory_bytes, looks) == list(expected.items())
    assert list(folder.iterdir()) == []


def test_stored_values_can_be_walked_at_once_by_several(tmp_path: Path) -> None:
    stored = StoredOnDisk(Spool(str(tmp_path), 50), "k")
    for first in range(0, 100, 7):
        stored.append_frozen(list(range(first, min(100, first + 7))))
    assert list(zip(stored, stored, strict=True)) == [(n, n) for n in range(100)]
    assert (len(stored), stored[0], stored[-1], stored[95:]) == (100, 0, 99, [95, 96, 97, 98, 99])
    assert next(reversed(stored)) == 99
    assert 55 in stored
    assert stored.index(31) == 31
    with pytest.raises(IndexError):
        stored[100]
    with pytest.raises(AttributeError, match="no append"):
        stored.append(1)
