"""Folders for one user alone, and locks on them that the kernel lets go.

A folder of a peer holds a file ``lock``, on which that peer has a flock for as long as it lives,
however it dies. Folders are made 0700; those of other users, and links in their place, are
refused. Which folders there are and whose, ``peers.store`` knows.
"""

import fcntl
import logging
import os
import re
import shutil
import stat
from pathlib import Path

from grid.errors import Misuse

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a tag or a peer id may look like: no separator, no leading dot."""

LOCK = "lock"
"""The file in a peer's folder on which the living peer holds its lock."""


def flock(fd: int) -> bool:
    """Lock a file for this process alone; return whether that was possible now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Let go explicitly: a forked child may still have a copy of the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def try_lock(folder: Path) -> int | None:
    """Lock a peer's folder; ``None`` while that peer lives or if the folder is not ours to take."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(folder / LOCK, flags, 0o600)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_uid == os.geteuid() and flock(fd):
            return fd
    except OSError as error:  # a file system without locks, or one that is in trouble
        logger.warning("cannot lock %s: %s", folder / LOCK, error)
    os.close(fd)
    return None


def make_private(folder: Path) -> None:
    """Make ``folder`` for this user alone, or check that it is so. Raises ``Misuse``."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise Misuse(
            f"{folder} is not a folder of this user; remove it, or set GRID_SPOOL to another place"
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def peer_folders(tag_folder: Path) -> list[Path]:
    """Return the folders of peers, in the order of their names; only real folders of ours."""
    try:
        with os.scandir(tag_folder) as entries:
            found = [
                tag_folder / entry.name
                for entry in entries
                if NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    return sorted(found)


def files_in(folder: Path) -> list[Path]:
    """Return the files in a peer's folder, but not its lock."""
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if entry.name != LOCK]
    except FileNotFoundError:
        return []


def remove_folder(folder: Path) -> None:
    """Remove a folder we hold the lock of; the lock goes last."""
    for path in files_in(folder):
        try:
            path.unlink(missing_ok=True)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
    try:
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        logger.warning("could not remove %s: %s", folder, error)
