"""What a forked child does first: it lets go of every descriptor of its parent's peers.

A child that kept the well-known port, a connection or the lock of a spool folder would keep them
alive when its parent dies. It has no threads of the parent's and no identity; a ``Peer`` that it
uses starts anew. The parent's objects are kept, unreachable, so that nothing closes a descriptor
number that by then belongs to something else.
"""

import atexit
import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something with descriptors that must not live on in a child."""

    def after_fork(self) -> list[int]:
        """In the child: forget what runs; return the descriptors to close."""
        ...

    def close(self) -> None: ...


_living: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_registered = False


def watch(forkable: Forkable) -> None:
    """Take care of this one in forked children, and close it when the interpreter ends."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_in_child)
        atexit.register(_at_exit)
    _living.add(forkable)


def _in_child() -> None:
    for forkable in list(_living):
        for fd in forkable.after_fork():
            try:
                os.close(fd)
            except OSError:
                pass  # closed by the parent a moment before it forked


def _at_exit() -> None:
    for forkable in list(_living):
        forkable.close()
