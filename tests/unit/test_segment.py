"""Segments and chunks: what goes in comes out, and nothing damaged or foreign does."""

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import NotPicklable
from grid.mapreduce import Chunk
from grid.messages import Output
from peers.chunks import decode_groups, decode_pairs, encode_groups, encode_pairs
from peers.segment import (
    MAGIC,
    Segment,
    SegmentCorrupt,
    SegmentMissing,
    SegmentSlice,
    check_segment,
    parse,
    read_header,
    read_partitions,
    segment_name,
    slice_name,
)
from peers.segment_writer import Sealed, SegmentWriter, SpoolFull, spool_full, write_file

OUTPUT = Output("r" * 40, "map", 0, 8, "producer", 1)
PARTITIONS = 16

atoms = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats()


def seal(
    folder: Path,
    chunks: list[tuple[int, bytes]],
    output: Output = OUTPUT,
    memory_bytes_max: int = 1 << 20,
    skipped: tuple[int, ...] = (),
) -> Sealed:
    with SegmentWriter(folder, output, PARTITIONS, memory_bytes_max) as writer:
        for partition, data in chunks:
            writer.add(partition, data)
        return writer.seal(skipped)


def by_partition(chunks: list[tuple[int, bytes]]) -> list[tuple[int, list[bytes]]]:
    grouped: dict[int, list[bytes]] = {}
    for partition, data in chunks:
        grouped.setdefault(partition, []).append(data)
    return sorted(grouped.items())


# ------------------------------------------------------------------ chunks


values_lists = st.lists(atoms, max_size=4) | st.lists(st.binary(), min_size=1).map(tuple)


@given(st.dictionaries(st.text() | st.integers(), values_lists))
def test_groups_come_back_as_they_were(groups: dict[Any, Any]) -> None:
    back = decode_groups(encode_groups(groups))
    assert repr(back) == repr(groups)  # repr: NaN and 1/True must come back exactly


def test_pairs_come_back_in_order() -> None:
    keys, values = decode_pairs(encode_pairs(["b", "a", "b"], [1, (2,), None]))
    assert keys == ["b", "a", "b"]
    assert values == [1, (2,), None]


def test_functions_and_local_classes_travel_as_values() -> None:
    class Local:
        size = 7

    pairs = decode_pairs(encode_pairs("ab", [lambda n: n + 1, Local()]))
    assert pairs.values[0](1) == 2
    assert pairs.values[1].size == 7


def test_an_unpicklable_value_is_named_with_its_key(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        groups: Chunk = {"good": [1, 2], "bad": [3, file]}
        with pytest.raises(NotPicklable, match=r"the value <_io.TextIOWrapper .*of key 'bad'"):
            encode_groups(groups)
        with pytest.raises(NotPicklable, match=r"of key 'second'.*cannot be sent"):
            encode_pairs(["first", "second"], [1, file])


def test_an_unpicklable_key_is_named() -> None:
    import threading

    with pytest.raises(NotPicklable, match=r"the key <unlocked .*lock.*\(lock\)"):
        encode_groups({threading.Lock(): [1]})


# ------------------------------------------------------------------ format


@given(
    chunks=st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.binary(max_size=40)), max_size=30),
    memory_bytes_max=st.sampled_from([0, 30, 1 << 20]),
    bounds=st.tuples(st.integers(0, PARTITIONS), st.integers(0, PARTITIONS)),
)
def test_every_range_of_partitions_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    chunks: list[tuple[int, bytes]],
    memory_bytes_max: int,
    bounds: tuple[int, int],
) -> None:
    """Spilled or not, whole or sliced, from disk or from memory: the same chunks in order."""
    folder = tmp_path_factory.mktemp("segments")
    first, stop = sorted(bounds)
    sealed = seal(folder, chunks, memory_bytes_max=memory_bytes_max)
    path = folder / segment_name(OUTPUT)
    wanted = by_partition([chunk for chunk in chunks if first <= chunk[0] < stop])
    assert [file.name for file in folder.iterdir()] == [path.name]
    assert read_partitions(path, first, stop) == wanted
    content = b"".join(SegmentSlice(path, first, stop).pieces(7))
    assert len(content) == SegmentSlice(path, first, stop).nbytes
    assert parse(content)[1] == wanted
    write_file(folder / slice_name(OUTPUT, first, stop), [content])
    assert read_partitions(folder / slice_name(OUTPUT, first, stop), 0, PARTITIONS) == wanted
    assert sealed.holding.bytes == sum(len(data) for _, data in chunks) == sum(sealed.sizes)
    assert sealed.sizes == read_header(path).sizes


def test_the_header_tells_the_holding(tmp_path: Path) -> None:
    sealed = seal(tmp_path, [(3, b"abc")], skipped=(5, 7))
    header = read_header(tmp_path / segment_name(OUTPUT))
    assert header.holding == sealed.holding
    assert header.skipped == (5, 7)
    assert header.whole
    part = parse(b"".join(SegmentSlice(tmp_path / segment_name(OUTPUT), 2, 4).pieces(9)))[0]
    assert (part.first, part.stop, part.whole) == (2, 4, False)


def test_the_sizes_of_a_range_and_a_walk_over_it(tmp_path: Path) -> None:
    seal(tmp_path, [(1, b"aa"), (2, b"bbb"), (2, b"c"), (9, b"dd")])
    with Segment(tmp_path / segment_name(OUTPUT)) as segment:
        part = segment.part(2, 9)
        assert list(part.sizes()) == [(2, 3), (2, 1)]
        assert list(segment.walk(2, 9)) == [(2, b"bbb"), (2, b"c")]
        assert list(segment.walk(0, 16)) == [(1, b"aa"), (2, b"bbb"), (2, b"c"), (9, b"dd")]
    assert list(part.walk(0, 16)) == list(part.walk(2, 3)) == [(2, b"bbb"), (2, b"c")]
    assert list(part.walk(3, 16)) == []


def test_only_maps_report_sizes(tmp_path: Path) -> None:
    output = Output("r", "reduce", 0, 8, "p", 2)
    assert seal(tmp_path, [(0, b"x")], output).sizes == ()


def test_names_differ_and_stay_in_their_folder() -> None:
    evil = Output("../../etc", "map", 0, 1, "/root", 1)
    assert "/" not in segment_name(evil)
    names = {
        segment_name(Output(record, "map", 0, stop, producer, counter))
        for record in ("a" * 40, "a" * 41)
        for stop in (1, 2)
        for producer in ("b" * 40, "b" * 41)
        for counter in (1, 2)
    }
    assert len(names) == 16


@pytest.mark.parametrize("position", [0, 7, 9, 14, 30, -1])
def test_a_flipped_byte_is_noticed(tmp_path: Path, position: int) -> None:
    seal(tmp_path, [(3, b"abc" * 50)])
    path = tmp_path / segment_name(OUTPUT)
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(SegmentCorrupt):
        read_partitions(path, 0, PARTITIONS)
    with pytest.raises(SegmentCorrupt):
        check_segment(path)
    with pytest.raises(SegmentCorrupt):
        parse(bytes(content))


@given(cut=st.integers(0, 200), junk=st.binary(max_size=3))
def test_cut_or_lengthened_files_are_noticed(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("segments")
    seal(folder, [(3, b"abc" * 50)])
    path = folder / segment_name(OUTPUT)
    whole = path.read_bytes()
    damaged = whole[:cut] + junk
    if damaged == whole:
        return
    path.write_bytes(damaged)
    with pytest.raises(SegmentCorrupt):
        read_header(path)
    with pytest.raises(SegmentCorrupt):
        parse(damaged)


@given(st.binary(max_size=300))
def test_garbage_is_never_a_segment(junk: bytes) -> None:
    with pytest.raises(SegmentCorrupt):
        parse(MAGIC + junk)


def test_missing_links_and_strange_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SegmentMissing):
        read_header(tmp_path / "nothing")
    seal(tmp_path, [(3, b"abc")])
    (tmp_path / "link").symlink_to(tmp_path / segment_name(OUTPUT))
    with pytest.raises(SegmentCorrupt):
        read_header(tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SegmentCorrupt, match="not a file of this user"):
        read_header(tmp_path / "fifo")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    seal(tmp_path, [(3, b"abc")])
    os.chown(tmp_path / segment_name(OUTPUT), 12345, -1)
    with pytest.raises(SegmentCorrupt, match="not a file of this user"):
        read_header(tmp_path / segment_name(OUTPUT))


# ------------------------------------------------------------------ writing


def test_abandoning_leaves_nothing(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, OUTPUT, PARTITIONS, memory_bytes_max=4) as writer:
        writer.add(1, b"spilled at once")
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_dead_writer_are_replaced(tmp_path: Path) -> None:
    dead = SegmentWriter(tmp_path, OUTPUT, PARTITIONS, memory_bytes_max=0)
    dead.add(1, b"half of it")
    seal(tmp_path, [(2, b"all")], memory_bytes_max=0)
    assert read_partitions(tmp_path / segment_name(OUTPUT), 0, PARTITIONS) == [(2, [b"all"])]
    dead.abandon()


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(spool_full(tmp_path, error), SpoolFull)
    assert spool_full(tmp_path, OSError(errno.EACCES, "Permission denied")) is None


def test_a_write_beyond_the_file_size_limit_is_spool_full(tmp_path: Path) -> None:
    """EFBIG stands for a full disk: both stop a write half way. Nothing may be left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SpoolFull, match="GRID_SPOOL"):
            seal(tmp_path, [(1, b"x" * 5000)])
        with pytest.raises(SpoolFull):
            seal(tmp_path, [(1, b"x" * 5000)], memory_bytes_max=0)
        with pytest.raises(SpoolFull):
            write_file(tmp_path / "slice", [b"x" * 5000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
