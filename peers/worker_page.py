"""A few bytes of memory that a peer and one of its workers share.

The worker notes there which item it is on, at the price of a store into memory, so that even a
worker that died in native code leaves word of it. Behind that, the interpreter's crash handler
writes where the worker was. The memory is an unnamed file: it has no path and is gone with its
descriptors.
"""

import mmap
import os
import sys

REPORT_START = 4096
"""The first page is mapped and holds the item; the crash report follows it in the file."""

_REPORT_BYTES_MAX = 16 << 10
_NO_ITEM = -1


class Page:
    """One end of the shared memory, over descriptor ``fd``, which it then owns. ``cell[0]`` is the
    item the worker is on, for who notes very many."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, REPORT_START)
        self.cell = memoryview(self._map)[:8].cast("q")

    @classmethod
    def create(cls) -> "Page":
        """Make a new one that no item was noted in."""
        page = cls(_unnamed_file())
        page.item = None
        return page

    @property
    def item(self) -> int | None:
        """The item the worker is on."""
        index = self.cell[0]
        return None if index == _NO_ITEM else index

    @item.setter
    def item(self, index: int | None) -> None:
        self.cell[0] = _NO_ITEM if index is None else index

    def report(self) -> str:
        """Return what the crash handler wrote, if anything."""
        text = os.pread(self.fd, _REPORT_BYTES_MAX, REPORT_START)
        return text.decode("utf-8", "replace").strip("\0")

    def close(self) -> None:
        """Let go of memory and descriptor. A second call does nothing."""
        if self.fd >= 0:
            self.cell.release()
            self._map.close()
            os.close(self.fd)
            self.fd = -1


def _unnamed_file() -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("grid-worker", os.MFD_CLOEXEC)
    else:
        import tempfile  # a helper starts 3 ms sooner without

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, REPORT_START)
    return fd
