"""What a forked child does first: it lets go of every descriptor of its parent's peers.

A child that kept the well-known port, a connection or the lock of a spool folder would keep them
alive when its parent dies. It has no threads of the parent's and no identity; a ``Peer`` that it
uses starts anew. The parent's objects are kept for good, since they would close their descriptors
when they are collected, by numbers that by then belong to something else.
"""

import asyncio
import atexit
import os
import weakref
from pathlib import Path
from typing import Protocol


class Forkable(Protocol):
    """Something with descriptors that must not live on in a child."""

    def after_fork(self) -> tuple[object, list[int]]:
        """In the child: forget what runs; return it, and the descriptors to close."""
        ...

    def close(self) -> None: ...


_living: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_buried: list[object] = []
_registered = False
_TELLS_FILES = Path("/proc/self/fd").is_dir()


def watch(forkable: Forkable) -> None:
    """Take care of this one in forked children, and close it when the interpreter ends."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_in_child)
        atexit.register(_at_exit)
    _living.add(forkable)


def loop_filenos(loop: asyncio.AbstractEventLoop) -> list[int]:
    """The descriptors of a loop itself: its selector, and the pair of sockets that wakes it.

    No public name leads to them; where a loop has none of these names, it has nothing to close.
    """
    parts = [getattr(loop, name, None) for name in ("_selector", "_ssock", "_csock")]
    filenos = [getattr(part, "fileno", None) for part in parts]
    return [] if loop.is_closed() else [fileno() for fileno in filenos if fileno is not None]


def open_beneath(*places: str) -> list[int]:
    """The descriptors whose files are named like one of ``places`` or lie beneath it.

    Another thread may have had a file of ours open for a moment, just when this process forked;
    nobody else knows of it. Empty where the system does not tell.
    """
    found: list[int] = []
    for name in os.listdir("/proc/self/fd") if _TELLS_FILES else []:  # noqa: PTH208 - no object
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except OSError:
            continue  # the listing's own
        if target.startswith(places):
            found.append(int(name))
    return found


def _in_child() -> None:
    for forkable in list(_living):
        buried, fds = forkable.after_fork()
        _buried.append(buried)
        for fd in dict.fromkeys(fds):
            try:
                os.close(fd)
            except OSError:
                pass  # closed by the parent a moment before it forked


def _at_exit() -> None:
    for forkable in list(_living):
        forkable.close()
