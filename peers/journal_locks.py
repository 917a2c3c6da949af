"""Which peers that keep something in a journal are alive: a file each, locked while it lives.

The kernel lets a lock go however its process dies, so nothing here trusts a pid or a time. Files of
the dead are removed by whoever looks.
"""

import os
from pathlib import Path

from peers.private_folders import LOCK, flock, unlock


class KeeperLocks:
    """The folder of locks, and in it the one of ``peer``, held from now on."""

    def __init__(self, folder: Path, peer: str) -> None:
        self._folder = folder
        self._mine = folder / f"{peer}.{LOCK}"
        self._fd = _lock_new(self._mine)

    def living(self) -> list[str]:
        """The peers that live, this one too."""
        paths = [p for p in self._folder.iterdir() if p == self._mine or _is_held(p)]
        return [path.name.removesuffix(f".{LOCK}") for path in paths]

    def let_go(self) -> None:
        """End this peer's lock. May be repeated."""
        if self._fd >= 0:
            self._mine.unlink(missing_ok=True)
            unlock(self._fd)
            self._fd = -1


def _lock_new(path: Path) -> int:
    """Make and lock this peer's own file. Another peer may take it for one that was left, and
    remove it, until it is locked."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if flock(fd) and path.exists() and os.path.samestat(path.stat(), os.fstat(fd)):
            return fd
        os.close(fd)


def _is_held(path: Path) -> bool:
    """Whether the peer whose file this is lives; the file of one that does not is removed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    if not flock(fd):
        os.close(fd)
        return True
    path.unlink(missing_ok=True)
    unlock(fd)
    return False
