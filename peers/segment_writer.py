"""Writing segments: chunks are collected, spilled when they are many, and sealed as one file.

The format is ``peers.segment``. A segment is written under a temporary name in its folder and
renamed, so a file with a sealed name is whole. It is never fsynced: what a crash of the machine
loses is computed again. Chunks that do not fit into memory go to a run file beside it and are put
together at the end by copying bytes, without unpickling one.

Promises: after ``seal`` the file is there and whole; after anything else (an error, ``abandon``,
leaving the ``with`` block) nothing of it is. Only a killed process leaves temporary files, whose
names ``unsealed_names`` tells. A full disk is ``SpoolFull``.
"""

import errno
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from grid.errors import GridError
from grid.messages import Holding, Output
from peers.segment import (
    UNSEALED,
    Header,
    encode_header,
    read_exactly,
    segment_name,
    unsealed_names,
)

MEMORY_BYTES_MAX = 64 << 20
"""What a writer holds before it spills. A worker's share of a small machine."""

_BUFFER_BYTES = 64 << 10
"""What is small is gathered to this much before it is written. Room for more costs the one small
segment of a small task more than to write it (``peers.worker_channel.RECEIVE_BYTES``)."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolFull(GridError):
    """The segment could not be written: the disk is full or a quota is used up."""


class Sealed(NamedTuple):
    """What a writer made: the holding, for maps its bytes by partition, and all of the file where
    it is small and was asked for."""

    holding: Holding
    sizes: tuple[int, ...]
    content: bytes = b""


class _Chunk(NamedTuple):
    """A chunk not yet sealed: in memory, or at ``offset`` of the run file."""

    partition: int
    length: int
    crc: int
    data: bytes | None
    offset: int


class SegmentWriter:
    """Collects the chunks of one output and seals them as one file.

    ``partitions`` is how many there are in all. Chunks of one partition keep the order of their
    ``add``. Ends with ``seal`` or ``abandon``; as a context manager it abandons what was not
    sealed. Raises ``SpoolFull`` when the disk is full, ``OSError`` when the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path | str,
        output: Output,
        partitions: int,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        self._output = output
        self._partitions = partitions
        self._memory_bytes_max = memory_bytes_max
        # Strings: to join a ``Path`` takes longer than to write a small segment.
        unsealed, runs = unsealed_names(output)
        self._path = f"{folder}/{segment_name(output)}"
        self._unsealed_path = f"{folder}/{unsealed}"
        self._unsealed = False
        self._runs_path = f"{folder}/{runs}"
        self._runs: BinaryIO | None = None
        self._runs_bytes = 0
        self._memory_bytes = 0
        self._chunks: list[_Chunk] = []
        self._spilled = 0

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abandon()

    def add(self, partition: int, data: bytes) -> None:
        """Add a chunk; spills when more than ``memory_bytes_max`` bytes are held."""
        assert 0 <= partition < self._partitions, f"partition {partition} of {self._partitions}"
        self._chunks.append(_Chunk(partition, len(data), zlib.crc32(data), data, 0))
        self._memory_bytes += len(data)
        if self._memory_bytes > self._memory_bytes_max:
            self.spill()

    def spill(self) -> None:
        """Move every chunk held in memory to the run file."""
        try:
            if self._runs is None:
                self._runs = _create(self._runs_path)
            for index in range(self._spilled, len(self._chunks)):
                chunk = self._chunks[index]
                assert chunk.data is not None
                self._runs.write(chunk.data)
                self._chunks[index] = chunk._replace(data=None, offset=self._runs_bytes)
                self._runs_bytes += chunk.length
            self._runs.flush()
        except OSError as error:
            raise self._failed(error) from error
        self._spilled = len(self._chunks)
        self._memory_bytes = 0

    def seal(self, skipped: tuple[int, ...] = (), *, content_bytes_max: int = 0) -> Sealed:
        """Write the file, give it its name, and return what it holds; its content too, if that is
        no larger than ``content_bytes_max``."""
        chunks = sorted(self._chunks, key=lambda chunk: chunk.partition)
        header = Header(
            self._output,
            self._partitions,
            0,
            self._partitions,
            skipped,
            [chunk.partition for chunk in chunks],
            [chunk.length for chunk in chunks],
            [chunk.crc for chunk in chunks],
        )
        start = encode_header(header)
        size = len(start) + sum(header.chunk_bytes)
        content = b""
        pieces: Iterator[bytes] = chain((start,), self._contents(chunks))
        try:
            if size <= content_bytes_max:
                content = b"".join(pieces)
                pieces = iter((content,))
            self._unsealed = True
            _write(self._unsealed_path, pieces)
            os.rename(self._unsealed_path, self._path)  # noqa: PTH104 - see above
        except OSError as error:
            raise self._failed(error) from error
        self._unsealed = False
        self.abandon()
        sizes = header.sizes if self._output.kind == "map" else ()
        return Sealed(header.holding, sizes, content)

    def abandon(self) -> None:
        """Remove what was written and not sealed. A second call does nothing."""
        if self._runs is not None:
            runs, self._runs = self._runs, None
            try:
                runs.close()
            except OSError:
                pass  # a full disk again; the file goes anyway
            Path(self._runs_path).unlink(missing_ok=True)
        self._chunks.clear()
        if self._unsealed:
            self._unsealed = False
            Path(self._unsealed_path).unlink(missing_ok=True)

    def _contents(self, chunks: list[_Chunk]) -> Iterator[bytes]:
        for chunk in chunks:
            if chunk.data is not None:
                yield chunk.data
            else:
                assert self._runs is not None
                runs, path = self._runs.fileno(), Path(self._runs_path)
                yield read_exactly(runs, chunk.length, chunk.offset, path)

    def _failed(self, error: OSError) -> GridError | OSError:
        self.abandon()
        return spool_full(Path(self._path), error) or error


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write ``pieces`` under a temporary name, as they come, and rename it to ``path``.

    Raises ``SpoolFull``, ``OSError`` or what ``pieces`` raise; then nothing is left behind.
    """
    unsealed = path.with_name(path.name + UNSEALED)
    try:
        _write(str(unsealed), pieces)
        unsealed.rename(path)
    except BaseException as error:
        unsealed.unlink(missing_ok=True)
        full = spool_full(path, error) if isinstance(error, OSError) else None
        if full is not None:
            raise full from None
        raise


def spool_full(path: Path, error: OSError) -> SpoolFull | None:
    """Return what to raise when writing ``path`` failed for want of room, else ``None``."""
    if error.errno not in _FULL:
        return None
    return SpoolFull(
        f"no room to write {path.name} in {path.parent}: {error.strerror}; "
        "free space there, or set GRID_SPOOL to a folder on a larger disk"
    )


def _write(path: str, pieces: Iterable[bytes | memoryview]) -> None:
    with _create(path) as file:
        for piece in pieces:
            file.write(piece)


def _create(path: str) -> BinaryIO:
    """Open a new file, readable too; one that a dead writer left under this name is replaced."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        Path(path).unlink()
        fd = os.open(path, flags, 0o600)
    return os.fdopen(fd, "wb", buffering=_BUFFER_BYTES)
