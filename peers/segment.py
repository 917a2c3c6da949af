"""A segment: one sealed, checksummed, self-describing file of one attempt's output.

::

    magic+version (8 bytes)  |  length and crc32 of the header  |  header (msgpack)  |  chunks

The header names the output, the partitions it covers and, for every chunk in file order, its
partition, length and crc32. Chunks are sorted by partition, and within one partition they stand
in the order they were added (datasource order), so a range of partitions is one range of bytes.

A *slice* of a segment (some partitions of it) is itself a segment and is read by the same code.
File names follow from the ``Output`` alone, so any peer of the host can tell where one would be.

Promises: a damaged, cut or foreign file is never taken for a segment (``SegmentCorrupt``), a
missing one is ``SegmentMissing``, and links or files of other users are not followed or read.
Does not do: writing (``peers.segment_writer``); folders, locks and who owns what
(``peers.store``).
"""

import os
import stat
import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from grid.errors import GridError
from grid.messages import Count, Holding, Output
from grid.settings import PARTITIONS_MAX

MAGIC = b"PGseg\x00\x02\n"
"""Ends in the version of the format; a file of another version is not read."""

SEALED, SLICE, UNSEALED = ".seg", ".part", ".tmp"
"""How file names end: a whole segment, some partitions of one, work in progress."""

_PREFIX = struct.Struct("<8sII")
_FIRST_READ = 16 << 10
"""Holds the header of a usual segment (256 chunks), so that most take one read."""


_WALK_BYTES = 256 << 10
"""Read at once by who walks: enough that reading costs little, and next to nothing to hold."""


class SegmentMissing(GridError):
    """There is no such segment: dropped, never sealed, or its folder is gone."""


class SegmentCorrupt(GridError):
    """The file is not the segment it should be: damaged, cut, or somebody else's."""


class Header(Struct, frozen=True):
    """What a segment says of itself.

    It covers partitions ``first..stop`` of ``partitions``; chunk ``i`` of the file belongs to
    partition ``chunk_partitions[i]`` (ascending) and has ``chunk_bytes[i]`` bytes.
    """

    output: Output
    partitions: int
    first: int
    stop: int
    skipped: tuple[int, ...]
    chunk_partitions: Sequence[int]
    chunk_bytes: Sequence[int]
    chunk_crcs: Sequence[int]

    @property
    def whole(self) -> bool:
        """Whether this is all of the output, not a slice."""
        return self.first <= 0 and self.stop >= self.partitions

    @property
    def holding(self) -> Holding:
        """The output as its holder announces it."""
        return Holding(self.output, sum(self.chunk_bytes), self.skipped)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes by partition, for every partition."""
        sizes = [0] * self.partitions
        for partition, length in zip(self.chunk_partitions, self.chunk_bytes, strict=True):
            sizes[partition] += length
        return tuple(sizes)


class _Written(Struct, frozen=True, array_like=True):
    """A header as it stands in the file. What it says of chunks is in machine words, since every
    reduce reads the headers of all maps."""

    output: Output
    partitions: Annotated[int, Meta(ge=1, le=PARTITIONS_MAX)]
    first: Count
    stop: Count
    skipped: tuple[Count, ...]
    chunk_partitions: bytes
    chunk_bytes: bytes
    chunk_crcs: bytes


_header_decoder = msgspec.msgpack.Decoder(_Written)


def _words(code: str, numbers: Sequence[int]) -> bytes:
    words = array(code, numbers)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _numbers(code: str, words: bytes) -> "array[int]":
    """Raises ``ValueError`` for a part of a word."""
    numbers = array(code)
    numbers.frombytes(words)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


# --------------------------------------------------------------------------------- names


def record_prefix(record: str) -> str:
    """Return how the file names of all outputs of ``record`` begin."""
    return _digest(record) + "-"


def segment_name(output: Output) -> str:
    """Return the file name of the whole segment of ``output``."""
    return (
        f"{record_prefix(output.record)}{output.kind}-{output.start}-{output.stop}-"
        f"{_digest(output.producer)}-{output.counter}{SEALED}"
    )


def slice_name(output: Output, first: int, stop: int) -> str:
    """Return the file name of a slice of ``output`` that covers partitions ``first..stop``."""
    return f"{segment_name(output)}.{first}-{stop}{SLICE}"


def unsealed_names(output: Output) -> tuple[str, str]:
    """Return the names a writer of ``output`` uses before it seals: the file and its runs."""
    name = segment_name(output)
    return f"{name}{UNSEALED}", f"{name}.runs{UNSEALED}"


@lru_cache(1024)
def _digest(text: str) -> str:
    """Names come from other peers, so they are hashed: no text can point outside a folder."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


# --------------------------------------------------------------------------------- reading


class Segment:
    """A segment opened for reading. Use it as a context manager, or ``close`` it.

    Raises ``SegmentMissing`` or ``SegmentCorrupt`` on opening and on reading.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._fd = open_own_file(path)
        try:
            self.header, self._data_start = self._read_header()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, first: int, stop: int) -> list[tuple[int, list[bytes]]]:
        """Return the non-empty partitions of ``first..stop``, ascending, each with its chunks."""
        low, high = _chunk_range(self.header, first, stop)
        data = _read_chunks(self._fd, self.header, self._data_start, low, high, self.path)
        return _split(self.header, low, high, data, self.path)

    def walk(self, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the chunks of partitions ``first..stop`` in order, each with its partition; a few
        of them are in memory at a time."""
        return _walk(self._fd, self.header, self._data_start, first, stop, self.path)

    def part(self, first: int, stop: int) -> "SegmentPart":
        """Return partitions ``first..stop``, to be read later."""
        before = self.header.chunk_bytes[: _chunk_range(self.header, first, stop)[0]]
        header = self.slice_header(first, stop)
        return SegmentPart(self.path, header, self._data_start + sum(before))

    def slice_header(self, first: int, stop: int) -> Header:
        """Return the header of partitions ``first..stop`` as a segment of their own."""
        low, high = _chunk_range(self.header, first, stop)
        header = self.header
        return Header(
            header.output,
            header.partitions,
            max(first, header.first),
            min(stop, header.stop),
            header.skipped,
            header.chunk_partitions[low:high],
            header.chunk_bytes[low:high],
            header.chunk_crcs[low:high],
        )

    def stretch(self, first: int, stop: int, piece_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of partitions ``first..stop`` in pieces, unchecked."""
        low, high = _chunk_range(self.header, first, stop)
        start = self._data_start + sum(self.header.chunk_bytes[:low])
        end = start + sum(self.header.chunk_bytes[low:high])
        for offset in range(start, end, piece_bytes):
            yield read_exactly(self._fd, min(piece_bytes, end - offset), offset, self.path)

    def _read_header(self) -> tuple[Header, int]:
        size = os.fstat(self._fd).st_size
        start = os.pread(self._fd, _FIRST_READ, 0)
        length = _header_bytes(start, self.path)
        if _PREFIX.size + length > size:
            raise SegmentCorrupt(f"{self.path} is cut off in its header")
        if _PREFIX.size + length > len(start):
            start = os.pread(self._fd, _PREFIX.size + length, 0)
        header = _decode_header(start, self.path)
        if _PREFIX.size + length + sum(header.chunk_bytes) != size:
            raise SegmentCorrupt(f"{self.path} has {size} bytes, which is not what it says")
        return header, _PREFIX.size + length


class SegmentPart:
    """Some partitions of a segment, whose header was read before. The file is opened again to be
    read, and may have gone meanwhile. Raises as ``Segment`` does."""

    def __init__(self, path: Path | str, header: Header, start: int) -> None:
        self._path, self._header, self._start = path, header, start

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield the partition and the bytes of each chunk."""
        return zip(self._header.chunk_partitions, self._header.chunk_bytes, strict=True)

    def walk(self, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield those of partitions ``first..stop`` as ``Segment.walk`` does."""
        fd = open_own_file(self._path)
        try:
            yield from _walk(fd, self._header, self._start, first, stop, self._path)
        finally:
            os.close(fd)


def _walk(
    fd: int, header: Header, start: int, first: int, stop: int, where: Path | str
) -> Iterator[tuple[int, bytes]]:
    low, high = _chunk_range(header, first, stop)
    while low < high:
        middle, length = low, 0
        while middle < high and (middle == low or length < _WALK_BYTES):
            length += header.chunk_bytes[middle]
            middle += 1
        data = _read_chunks(fd, header, start, low, middle, where)
        for partition, chunks in _split(header, low, middle, data, where):
            for chunk in chunks:
                yield partition, chunk
        low = middle


def _read_chunks(
    fd: int, header: Header, start: int, low: int, high: int, where: Path | str
) -> bytes:
    """Return the chunks ``low..high`` of a file in which the first one begins at ``start``."""
    start += sum(header.chunk_bytes[:low])
    length = sum(header.chunk_bytes[low:high])
    return read_exactly(fd, length, start, where) if length else b""


def read_header(path: Path | str) -> Header:
    """Return the header of a segment file. Raises as ``Segment`` does."""
    with Segment(path) as segment:
        return segment.header


def read_partitions(path: Path | str, first: int, stop: int) -> list[tuple[int, list[bytes]]]:
    """Return the chunks of the non-empty partitions ``first..stop``. Raises as ``Segment``."""
    with Segment(path) as segment:
        return segment.read(first, stop)


class SegmentSlice:
    """Partitions ``first..stop`` of a segment, as the content of a segment file that is not read
    before it is wanted. Its chunks are not checked: whoever gets them does.

    Raises as ``Segment`` does, also while it is read: the file may go meanwhile.
    """

    def __init__(self, path: Path | str, first: int, stop: int) -> None:
        self._path, self._first, self._stop = path, first, stop
        with Segment(path) as segment:
            header = segment.slice_header(first, stop)
        self._begin = encode_header(header)
        self.nbytes = len(self._begin) + sum(header.chunk_bytes)

    def pieces(self, piece_bytes: int) -> Iterator[bytes]:
        """Yield its content, at most so much at a time."""
        for start in range(0, len(self._begin), piece_bytes):
            yield self._begin[start : start + piece_bytes]
        with Segment(self._path) as segment:
            yield from segment.stretch(self._first, self._stop, piece_bytes)


def check_segment(path: Path | str) -> Header:
    """Read all of a segment, a piece at a time, and return its header. Raises as ``Segment``."""
    with Segment(path) as segment:
        for _ in segment.walk(0, segment.header.partitions):
            pass
        return segment.header


def parse(content: bytes) -> tuple[Header, list[tuple[int, list[bytes]]]]:
    """Return header and checked chunks of a segment held in memory, such as a fetched slice.

    Raises ``SegmentCorrupt``.
    """
    header, start = _header_of(content)
    count = len(header.chunk_bytes)
    return header, _split(header, 0, count, content[start:], "the fetched segment")


def _header_of(content: bytes) -> tuple[Header, int]:
    """Return the header of a segment held in memory, and where its chunks begin; its length is
    checked, its chunks are not.

    Raises ``SegmentCorrupt``.
    """
    where = "the fetched segment"
    header = _decode_header(content, where)
    start = _PREFIX.size + _header_bytes(content, where)
    if start + sum(header.chunk_bytes) != len(content):
        raise SegmentCorrupt(f"{where} has {len(content)} bytes, which is not what it says")
    return header, start


def open_own_file(path: Path | str) -> int:
    """Open a regular file of this user for reading and return its descriptor.

    Raises ``SegmentMissing``, or ``SegmentCorrupt`` for a link or a file of somebody else.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SegmentMissing(f"{path} is not there") from error
    except OSError as error:
        raise SegmentCorrupt(f"{path} cannot be opened: {error.strerror}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise SegmentCorrupt(f"{path} is not a file of this user")
    return fd


def _chunk_range(header: Header, first: int, stop: int) -> tuple[int, int]:
    partitions = header.chunk_partitions
    return bisect_left(partitions, first), bisect_left(partitions, stop)


def _split(
    header: Header, low: int, high: int, data: bytes, where: object
) -> list[tuple[int, list[bytes]]]:
    """Cut ``data`` into chunks ``low..high``, check each, and group them by partition."""
    found: list[tuple[int, list[bytes]]] = []
    offset = 0
    for index in range(low, high):
        length = header.chunk_bytes[index]
        chunk = data[offset : offset + length]
        offset += length
        if len(chunk) != length or zlib.crc32(chunk) != header.chunk_crcs[index]:
            raise SegmentCorrupt(f"chunk {index} of {where} is damaged")
        partition = header.chunk_partitions[index]
        if found and found[-1][0] == partition:
            found[-1][1].append(chunk)
        else:
            found.append((partition, [chunk]))
    return found


def read_exactly(fd: int, length: int, offset: int, where: object) -> bytes:
    """Return ``length`` bytes of ``fd`` from ``offset``. Raises ``SegmentCorrupt`` at its end."""
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            raise SegmentCorrupt(f"{where} became shorter while it was read")
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _header_bytes(content: bytes, where: object) -> int:
    if len(content) < _PREFIX.size:
        raise SegmentCorrupt(f"{where} is too short for a segment")
    magic, length, _ = _PREFIX.unpack_from(content)
    if magic != MAGIC:
        raise SegmentCorrupt(
            f"{where} is no segment that this version reads: use the version that wrote it, or "
            f"submit the job again"
        )
    return int(length)


def _decode_header(content: bytes, where: object) -> Header:
    length = _header_bytes(content, where)
    encoded = content[_PREFIX.size : _PREFIX.size + length]
    if zlib.crc32(encoded) != _PREFIX.unpack_from(content)[2]:
        raise SegmentCorrupt(f"the header of {where} is damaged")
    try:
        written = _header_decoder.decode(encoded)
        partitions = _numbers("I", written.chunk_partitions)
        lengths, crcs = _numbers("Q", written.chunk_bytes), _numbers("I", written.chunk_crcs)
    except ValueError as error:  # msgspec's own, text that is not UTF-8, and a part of a word
        raise SegmentCorrupt(f"the header of {where} makes no sense: {error}") from error
    if not len(partitions) == len(lengths) == len(crcs):
        raise SegmentCorrupt(f"the header of {where} lists its chunks unevenly")
    if list(partitions) != sorted(partitions):
        raise SegmentCorrupt(f"the header of {where} lists its chunks out of order")
    if partitions and partitions[-1] >= written.partitions:
        raise SegmentCorrupt(f"the header of {where} names a partition it cannot have")
    return Header(
        written.output,
        written.partitions,
        written.first,
        written.stop,
        written.skipped,
        partitions,
        lengths,
        crcs,
    )


def encode_header(header: Header) -> bytes:
    """Return how a segment with this header begins; its chunks follow."""
    written = _Written(
        header.output,
        header.partitions,
        header.first,
        header.stop,
        header.skipped,
        _words("I", header.chunk_partitions),
        _words("Q", header.chunk_bytes),
        _words("I", header.chunk_crcs),
    )
    encoded = msgspec.msgpack.encode(written)
    return _PREFIX.pack(MAGIC, len(encoded), zlib.crc32(encoded)) + encoded
