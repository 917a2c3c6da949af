"""The cyclic collector, paused while many objects are made that all stay.

While results are opened, every object that is made is one that stays; to walk them again and again
meanwhile takes longer than to open them. The pause is for a chunk of them, some milliseconds, and
then the collector is as it was. It is of the whole process, so threads that pause it at one time
share one pause. Who switches the collector off in another thread within these milliseconds finds
it on again after them: nothing tells who switched it off.
"""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_pauses = 0
_was_on = False


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep the collector off meanwhile, if it is on."""
    global _pauses, _was_on
    with _lock:
        if _pauses == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if _pauses == 0 and _was_on:
                gc.enable()


def _in_child() -> None:
    """A forked child has none of the threads that paused."""
    global _lock, _pauses
    _lock = threading.Lock()
    if _pauses and _was_on:
        gc.enable()
    _pauses = 0


os.register_at_fork(after_in_child=_in_child)
