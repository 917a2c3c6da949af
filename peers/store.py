"""The folders in which the peers of one host keep their segments.

::

    <root>/<tag>/            one grid on this host (0700); ``.lock`` guards changes of folders
    <root>/<tag>/<peer id>/  one peer's segments; ``lock`` is held (flock) while that peer lives

A peer owns its own folder and any it has *adopted*: those of dead peers whose lock it could take.
An adopted folder keeps its name, so the path of any output follows from its holder and its
``Output``. All coordination between the peers of a host is by flock, which the kernel lets go
however a process dies; nothing here trusts a pid, a time or a note that somebody left.

Promises: an estate is adopted by one peer; a live peer's folder is never touched; when the last
peer of a tag leaves well nothing of the tag remains, also when two leave at the same moment;
folders and files of other users, and links, are neither used nor followed. Every method may be
called from any thread. Does not do: writing segments (the workers do, into ``folder``), deciding
what is still needed.
"""

import itertools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from grid.errors import GridError, Misuse
from grid.messages import Held, Holding, Kind, Output
from grid.settings import PARTITIONS_MAX
from peers.private_folders import (
    NAME,
    files_in,
    flock,
    make_private,
    peer_folders,
    remove_folder,
    try_lock,
    unlock,
)
from peers.segment import (
    SEALED,
    SLICE,
    SegmentCorrupt,
    SegmentMissing,
    SegmentSlice,
    check_segment,
    read_header,
    record_prefix,
    segment_name,
    slice_name,
)
from peers.segment_writer import spool_full, write_file

logger = logging.getLogger(__name__)

_COPY_BYTES = 1 << 20

_TAG_LOCK = ".lock"

_TAG_LOCK_SECONDS = 5.0
"""It is held for milliseconds; whoever holds it longer was stopped, and is not waited for."""


_TAG_LOCK_PAUSES = (0.001, 0.05)
"""Between looks whether it is free, the first and the longest: hundreds of peers may wait, and
leave the processor to who holds it."""


class SpoolBusy(GridError):
    """Another process holds the lock of the spool and does not let go."""


def default_root() -> Path:
    """Return ``$GRID_SPOOL``, or a folder of this user in the system's temporary folder."""
    configured = os.environ.get("GRID_SPOOL")
    if configured:
        return Path(configured)
    return Path(tempfile.gettempdir()) / f"peergrid-{os.geteuid()}"


class Store:
    """One peer's segments. Opening it makes and locks its folder.

    ``root`` is the spool (``None``: ``default_root()``), ``tag`` names the grid, ``peer`` is the
    id of this peer. Raises ``Misuse`` where the folder cannot be made or is somebody else's, and
    ``SpoolBusy`` where another process sits on the lock.
    """

    def __init__(self, root: Path | str | None, tag: str, peer: str) -> None:
        for name in (tag, peer):
            if not NAME.fullmatch(name):
                raise Misuse(f"{name!r} cannot name a folder; use letters, digits, '.', '_', '-'")
        self._default_root = root is None and "GRID_SPOOL" not in os.environ
        self._root = Path(root) if root is not None else default_root()
        self._tag_folder = self._root / tag
        self._counter = itertools.count(1)
        self._guard = threading.Lock()
        self._locks: dict[str, int] = {}
        self._tag_lock_fd = -1
        self.shelf: Path | None = None
        """A folder of segments that is not the spool's, to be read where the spool has none."""
        self.folder = self._tag_folder / peer
        try:
            with self._tag_locked():
                make_private(self.folder)
                fd = try_lock(self.folder)
        except OSError as error:
            raise _unusable(self._root, error) from error
        if fd is None:
            raise Misuse(f"another live process already uses {self.folder}")
        self._locks[peer] = fd

    @property
    def place(self) -> str:
        """Where the spool is: peers with the same read and adopt each other's segments."""
        return str(self._root.resolve())

    # ------------------------------------------------------------------ segments

    def holdings(self) -> list[Held]:
        """Return what this peer holds, own and adopted, from the headers on disk."""
        return _held(path for folder in self._owned_folders() for path in _sealed_files(folder))

    def sizes(self, outputs: Iterable[Output]) -> tuple[int, ...]:
        """Sum the bytes of these outputs of one record's maps, by partition."""
        paths = [self.path_of(output) for output in outputs if output.kind == "map"]
        held = _held(path for path in paths if path is not None)
        return held[0].sizes if held else ()

    def path_of(self, output: Output) -> Path | None:
        """Return where this peer keeps the whole segment of ``output``, or ``None``."""
        name = segment_name(output)
        return _first_file(folder / name for folder in [*self._owned_folders(), *self._shelves()])

    def path_in(self, holder: str, output: Output) -> Path | None:
        """Return where any peer of this host keeps ``output``, or ``None``.

        ``holder`` is looked at first; after it the other folders, since it may be the adopter.
        """
        name = segment_name(output)
        if NAME.fullmatch(holder):
            path = f"{self._tag_folder}/{holder}/{name}"  # asked for every input of every reduce
            if os.path.isfile(path):  # noqa: PTH113
                return Path(path)
        folders = [*peer_folders(self._tag_folder), *self._shelves()]
        return _first_file(folder / name for folder in folders)

    def _shelves(self) -> list[Path]:
        return [self.shelf] if self.shelf is not None else []

    def link(self, output: Output, source: Path | str) -> Path:
        """Keep a copy of the whole segment at ``source`` in the own folder; return its path.

        Costs no space where ``source`` is on the same disk. Raises ``SegmentMissing``,
        ``SegmentCorrupt``, ``SpoolFull`` or ``OSError``.
        """
        header = read_header(source)
        if header.output != output or not header.whole:
            raise SegmentCorrupt(f"{source} is not the whole segment of {output}")
        path = self.folder / segment_name(output)
        try:
            os.link(source, path, follow_symlinks=False)
        except FileExistsError:
            pass  # we have it already, and equal names are equal contents
        except FileNotFoundError as error:
            raise SegmentMissing(f"{source} is not there") from error
        except OSError:
            _copy(Path(source), path)  # another disk, or a file system without links
        return path

    def incoming(self, output: Output) -> Path:
        """Return a path in the own folder to which a segment or slice of ``output`` may be
        written, to be taken."""
        return self.folder / f"{segment_name(output)}.{next(self._counter)}{SLICE}"

    def take(self, output: Output, incoming: Path) -> Path:
        """Keep the segment or slice of ``output`` that was written to ``incoming``; return where.

        A whole segment becomes a holding; a slice is kept only until ``discard`` or ``drop``. All
        of it is checked. Raises ``SegmentCorrupt``, ``SegmentMissing`` or ``OSError``.
        """
        header = check_segment(incoming)
        if header.output != output:
            raise SegmentCorrupt(f"fetched {header.output} where {output} was asked for")
        name = segment_name(output)
        if not header.whole:
            name = slice_name(output, header.first, header.stop)
        incoming.rename(self.folder / name)
        return self.folder / name

    def discard(self, paths: Iterable[Path]) -> None:
        """Remove these files, such as slices a task has read. Missing ones are fine."""
        for path in paths:
            assert path.parent in self._owned_folders(), f"{path} is not this peer's"
            path.unlink(missing_ok=True)

    def drop(self, record: str, kinds: Iterable[Kind] = ()) -> int:
        """Remove all outputs of ``record``, or only those of ``kinds``; return how many files."""
        return self.drop_each([(record, tuple(kinds))])

    def drop_each(self, unwanted: Iterable[tuple[str, tuple[Kind, ...]]]) -> int:
        """As ``drop``, for several records at once."""
        prefixes: list[str] = []
        for record, kinds in unwanted:
            prefix = record_prefix(record)
            prefixes += [f"{prefix}{kind}-" for kind in kinds] or [prefix]
        return self._remove_starting(tuple(prefixes))

    def drop_output(self, output: Output) -> int:
        """Remove one output and slices of it; return how many files were removed."""
        return self._remove_starting((segment_name(output),))

    # ------------------------------------------------------------------ folders

    def adopt(self) -> list[tuple[str, list[Held]]]:
        """Take over the folders of this host's dead peers; return each with what it holds.

        Damaged and unfinished files are removed. A folder that holds nothing is removed too, but
        is reported, so that its peer's outputs are known to be gone. Raises ``SpoolBusy``.
        """
        taken: list[tuple[str, Path]] = []
        with self._tag_locked():
            for folder in self._foreign_folders():
                fd = try_lock(folder)
                if fd is not None:
                    self._own(folder.name, fd)
                    taken.append((folder.name, folder))
        estates = []
        for peer, folder in taken:
            try:
                held = self._sift(folder)
            except OSError as error:
                logger.warning("leaves the folder %s to others: %s", folder, error)
                self._give_up(folder, remove=False)
                continue
            estates.append((peer, held))
            logger.info("adopted the segments of a dead peer peer=%s records=%d", peer, len(held))
        return estates

    def _sift(self, folder: Path) -> list[Held]:
        """Return what an adopted folder holds; it goes if that is nothing."""
        for path in files_in(folder):
            if not path.name.endswith(SEALED):
                path.unlink(missing_ok=True)
        held = _held(_sealed_files(folder))
        if not held:
            self._give_up(folder, remove=True)
        return held

    def sweep(self) -> int:
        """At start: if no other peer of this tag lives, remove what dead ones left.

        Returns how many folders were removed. Nobody can claim them any more: their owners were
        peers of this host. Raises ``SpoolBusy``.
        """
        with self._tag_locked():
            dead = self._dead_folders()
            for folder, fd in dead or ():
                remove_folder(folder)
                unlock(fd)
        return len(dead or ())

    def leave(self, *, all_stay: bool = False) -> None:
        """Let go of all folders, at closing. A second call does nothing.

        The last peer of the tag removes everything of it. While others live, or if ``all_stay``,
        folders which hold segments stay behind, unlocked, for another to adopt.
        """
        with self._guard:
            if not self._locks:
                return
        try:
            with self._tag_locked():
                dead = self._dead_folders() if not all_stay else None
                for folder, fd in dead or ():
                    remove_folder(folder)
                    unlock(fd)
                for folder in self._owned_folders():
                    self._give_up(folder, remove=dead is not None or not _holds_any(folder))
                if dead is not None:
                    self._remove_tag()
        except SpoolBusy as error:
            logger.warning("left the spool without clearing it: %s", error)
            for folder in self._owned_folders():
                self._give_up(folder, remove=False)

    def filenos(self) -> list[int]:
        """Return the descriptors that a forked child must close: they hold this peer's locks."""
        fds = [*self._locks.values(), self._tag_lock_fd]
        return [fd for fd in fds if fd >= 0]

    def _own(self, peer: str, fd: int) -> None:
        with self._guard:
            self._locks[peer] = fd

    def _owned_folders(self) -> list[Path]:
        with self._guard:
            return [self._tag_folder / peer for peer in self._locks]

    def _foreign_folders(self) -> list[Path]:
        owned = set(self._owned_folders())
        return [folder for folder in peer_folders(self._tag_folder) if folder not in owned]

    def _dead_folders(self) -> list[tuple[Path, int]] | None:
        """Lock and return all other folders, or ``None`` as soon as one has a live peer.

        Called with the tag locked, so the locks taken here are nobody else's business.
        """
        dead: list[tuple[Path, int]] = []
        for folder in self._foreign_folders():
            fd = try_lock(folder)
            if fd is None:
                for _, locked in dead:
                    unlock(locked)
                return None
            dead.append((folder, fd))
        return dead

    def _give_up(self, folder: Path, *, remove: bool) -> None:
        with self._guard:
            fd = self._locks.pop(folder.name, None)
        if remove:
            remove_folder(folder)
        if fd is not None:
            unlock(fd)

    def _remove_tag(self) -> None:
        """Remove the tag's folder. One who waits for its lock makes it anew (``_tag_locked``)."""
        (self._tag_folder / _TAG_LOCK).unlink(missing_ok=True)
        try:
            self._tag_folder.rmdir()
            if self._default_root:
                self._root.rmdir()
        except OSError:
            pass  # not empty: someone is coming, or another grid lives here

    def _remove_starting(self, prefixes: tuple[str, ...]) -> int:
        removed = 0
        for folder in self._owned_folders():
            unwanted = [path for path in files_in(folder) if path.name.startswith(prefixes)]
            for path in unwanted:
                path.unlink(missing_ok=True)
            removed += len(unwanted)
            if unwanted and folder != self.folder and not _holds_any(folder):
                self._give_up(folder, remove=True)  # an estate that is used up
        return removed

    @contextmanager
    def _tag_locked(self) -> Iterator[None]:
        """Hold the lock under which folders of the tag come and go.

        The last one to leave removes the lock itself, so whoever got it checks that what it
        locked is still what others would lock, and begins again otherwise.
        """
        deadline = time.monotonic() + _TAG_LOCK_SECONDS
        while True:
            self._make_tag_folder()
            fd = self._lock_tag(deadline)
            if fd is not None:
                break
        self._tag_lock_fd = fd
        try:
            yield
        finally:
            self._tag_lock_fd = -1
            unlock(fd)

    def _make_tag_folder(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            owner = self._root.stat().st_uid
            if owner not in (0, os.geteuid()):
                raise Misuse(
                    f"the spool folder {self._root} belongs to user {owner}; "
                    "set GRID_SPOOL to a folder of yours"
                )
            make_private(self._tag_folder)
        except FileNotFoundError:
            pass  # removed by a leaver this moment; the caller tries again

    def _lock_tag(self, deadline: float) -> int | None:
        path = self._tag_folder / _TAG_LOCK
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        try:
            self._wait_for_tag_lock(fd, deadline)
        except BaseException:
            os.close(fd)
            raise
        try:
            if os.path.samestat(path.stat(), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass
        unlock(fd)
        return None

    def _wait_for_tag_lock(self, fd: int, deadline: float) -> None:
        pause = _TAG_LOCK_PAUSES[0]
        while not flock(fd):
            if time.monotonic() > deadline:
                raise SpoolBusy(
                    f"another process holds {self._tag_folder / _TAG_LOCK} for more than "
                    f"{_TAG_LOCK_SECONDS:g} seconds; is it stopped? Wake or end it, or set "
                    "GRID_SPOOL to another folder"
                )
            time.sleep(pause)
            pause = min(2 * pause, _TAG_LOCK_PAUSES[1])


def _held(paths: Iterable[Path]) -> list[Held]:
    """Read the headers of sealed files; group them by record. Damaged files are removed."""
    holdings: dict[str, list[Holding]] = {}
    sizes: dict[str, list[int]] = {}
    for path in paths:
        try:
            header = read_header(path)
            if segment_name(header.output) != path.name:
                raise SegmentCorrupt(f"{path} says that it is {header.output}")
        except SegmentMissing:
            continue
        except SegmentCorrupt as error:
            logger.warning("removed a damaged segment: %s", error)
            path.unlink(missing_ok=True)
            continue
        record = header.output.record
        holdings.setdefault(record, []).append(header.holding)
        if header.output.kind == "map":
            sums = sizes.setdefault(record, [])
            sums += [0] * (header.partitions - len(sums))
            for partition, length in zip(header.chunk_partitions, header.chunk_bytes, strict=True):
                sums[partition] += length
    return [
        Held(
            record,
            tuple(sorted(held, key=lambda holding: msgspec.structs.astuple(holding.output))),
            tuple(sizes.get(record, ())),
        )
        for record, held in sorted(holdings.items())
    ]


def _sealed_files(folder: Path) -> list[Path]:
    return [path for path in files_in(folder) if path.name.endswith(SEALED)]


def _holds_any(folder: Path) -> bool:
    return bool(_sealed_files(folder))


def _first_file(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _copy(source: Path, path: Path) -> None:
    write_file(path, SegmentSlice(source, 0, PARTITIONS_MAX).pieces(_COPY_BYTES))


def _unusable(root: Path, error: OSError) -> GridError:
    full = spool_full(root, error)
    return full or Misuse(
        f"cannot use the spool folder {root}: {error.strerror}; "
        "set GRID_SPOOL to a folder in which you may write"
    )
