"""Results at their owner: streamed from disk, and readable after the folder is gone."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grid.messages import Output
from peers import results
from peers.chunks import encode_pairs
from peers.collector import paused_collector
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


SEEN: list[bool] = []


class Noting:
    """Notes, when it is opened, whether the collector is on."""

    def __reduce__(self) -> tuple[object, ...]:
        return _note, ()


def _note() -> Noting:
    SEEN.append(gc.isenabled())
    return Noting()


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_rests_while_results_are_opened(on: bool) -> None:
    SEEN.clear()
    opened = Results((), [[encode_pairs([n], [Noting()])] for n in range(2)])
    try:
        if not on:
            gc.disable()
        assert len(opened.as_dict()) == 2
        assert gc.isenabled() == on
    finally:
        gc.enable()
    assert SEEN == [False, False]


def test_pauses_of_several_are_one_and_end_in_a_forked_child() -> None:
    with paused_collector():
        with paused_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    script = """
import gc, os
from peers.collector import paused_collector
with paused_collector():
    child = os.fork()
    if child == 0:
        os._exit(not gc.isenabled())
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
