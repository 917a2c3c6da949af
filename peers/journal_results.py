"""The results beside a journal: the segments of ended transactions, as files.

They are named as in any peer's spool, so a peer of this host finds them there. Promises: a file is
here whole and synced, or not at all; what was saved is read against its digest before anybody is
told of it. Raises ``OSError`` where a file cannot be written or read.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from grid.messages import Holding
from peers.segment import record_prefix, segment_name

_COPY_BYTES = 1 << 20


class ResultFiles:
    """The folder of results; ``peer`` is who writes."""

    def __init__(self, folder: Path, peer: str) -> None:
        self.folder = folder
        self._peer = peer

    def save(self, holdings: Sequence[Holding], sources: Sequence[Path]) -> tuple[bytes, ...]:
        """Keep copies of these segments, all synced; return their digests."""
        pairs = zip(holdings, sources, strict=True)
        digests = tuple(self._save(source, segment_name(held.output)) for held, source in pairs)
        if digests:
            _sync_folder(self.folder)
        return digests

    def _save(self, source: Path, name: str) -> bytes:
        written = self.folder / f"{name}.{self._peer}.tmp"
        written.unlink(missing_ok=True)
        try:
            os.link(source, written, follow_symlinks=False)
        except OSError:  # another disk, or a file system without links
            _copy(source, written)
        digest = _digest_synced(written)
        written.replace(self.folder / name)
        return digest

    def changed(self, holdings: Sequence[Holding], digests: Sequence[bytes]) -> str:
        """Name what of these segments is not what was saved, or nothing."""
        for holding, digest in zip(holdings, digests, strict=True):
            path = self.folder / segment_name(holding.output)
            try:
                found = _digest_synced(path)
            except OSError as error:
                return f"{path}: {error.strerror}"
            if found != digest:
                return f"{path} was changed"
        return ""

    def remove(self, record: str) -> None:
        """Remove all segments of a record."""
        for path in self.folder.glob(f"{record_prefix(record)}*"):
            path.unlink(missing_ok=True)


def _copy(source: Path, path: Path) -> None:
    with source.open("rb") as read, path.open("xb") as written:
        while piece := read.read(_COPY_BYTES):
            written.write(piece)


def _digest_synced(path: Path) -> bytes:
    """Sync a file and return the digest of its content."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        os.fsync(fd)
    return digest


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
