"""Results at their owner: streamed from disk, and readable after the folder is gone."""

import gc
import os
from pathlib import Path

import pytest

from grid.messages import Output
from peers import results
from peers.chunks import encode_pairs
from peers.results import Results
from peers.segment import segment_name
from peers.segment_writer import SegmentWriter


def sealed(folder: Path, number: int) -> Path:
    """A segment of three chunks, of two pairs each."""
    output = Output("r", "reduce", number, number + 1, "p", 1)
    with SegmentWriter(folder, output, 4) as writer:
        for partition in range(3):
            first = number * 10 + partition * 2
            writer.add(partition, encode_pairs([first, first + 1], ["x", "y"]))
        writer.seal()
    return folder / segment_name(output)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted


@pytest.mark.parametrize("room", [0, 100, 1 << 20])
def test_a_result_outlives_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What is too large to be taken into memory is kept open instead, until nobody wants it."""
    monkeypatch.setattr(results, "HELD_BYTES_MAX", room)
    gc.collect()
    before = descriptors()
    kept = Results(tuple(sealed(tmp_path, number) for number in range(3)))
    expected = list(kept.pairs())
    assert [key for key, _ in expected] == [*range(6), *range(10, 16), *range(20, 26)]
    begun = kept.pairs()
    assert next(begun) == expected[0]
    kept.hold()
    assert list(tmp_path.iterdir()) == []
    assert list(begun) == expected[1:]
    for _ in range(2):
        assert list(kept.pairs()) == expected
    assert kept.as_dict() == dict(expected)
    assert (descriptors() > before) == (room < 1 << 20)
    del kept, begun
    gc.collect()
    assert descriptors() == before
