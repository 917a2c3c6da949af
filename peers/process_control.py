"""What a process of ours asks of the operating system for itself.

Each function does what it can on this system and never fails: a grid without death signals or
out-of-memory scores still works, with a second line of defence behind each.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1

_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def die_with_parent(parent: int, with_signal: signal.Signals) -> bool:
    """Have the kernel send ``with_signal`` when the parent's thread that started us ends.

    Exits at once if ``parent`` (its pid) is gone already. Returns whether the kernel will.
    """
    able = False
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        able = bool(libc.prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0) == 0)
    if os.getppid() != parent:
        os._exit(1)
    return able


def be_killed_first() -> None:
    """Offer this process to the kernel when memory runs out: a worker is easily replaced."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        pass  # not Linux, or not allowed; then the kernel chooses by size


def lower_priority(by: int) -> None:
    """Let others go first on a busy processor."""
    try:
        os.nice(by)
    except OSError:
        pass


def out_of_memory_kills() -> int:
    """Return how often the kernel killed a process here for want of memory, 0 if unknown."""
    kills = 0
    for path in _OOM_COUNTERS:
        try:
            text = path.read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                kills += int(count)
    return kills


class ResidentBytes:
    """Called, returns how much memory this process uses, 0 where that cannot be asked cheaply.

    It is asked often: the file is opened once, which takes six times as long as to read it.
    """

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._fd = -1
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def __call__(self) -> int:
        if self._fd < 0:
            return 0
        return int(os.pread(self._fd, 64, 0).split(None, 2)[1]) * self._page_bytes

    def close(self) -> None:
        """Let go of the file. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def give_back_memory() -> None:
    """Return to the system what was let go and is not used. Takes milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
