"""The processes of a run: which they are, that none is left, and what others computed meanwhile.

Whoever measures adopts the orphans among its descendants (a subreaper, as an init process is), so
that also what a rival's daemons used is counted, and everything a run has started can be found and
ended, by its number.
"""

import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.02


def adopt_orphans() -> None:
    """From now on processes below this one that lose their parent become children of this one."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int | None = None) -> list[int]:
    """All living processes below ``root``, or below this process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [root or os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _parent(entry: Path) -> int | None:
    """The parent of a process; None for one that is gone or only waits to be reaped."""
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[1])


def end_descendants(grace_seconds: float = GRACE_SECONDS) -> int:
    """Wait for what a run has left behind, then kill it; return how many had to be killed."""
    deadline = time.monotonic() + grace_seconds
    while _left() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    killed = 0
    while left := _left():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass  # it has ended just now
        time.sleep(POLL_SECONDS)
    return killed


def _left() -> list[int]:
    """Reap what has ended; return what has not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    return descendants()


def name_of(pid: int) -> str:
    """The short name of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


class Others:
    """How many cores everybody else used, from now to ``cores``: all processes that are not below
    this one, with those of theirs that have ended, and the host of this machine."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._used = _used_by_others()

    def cores(self) -> float:
        """The average; a hundredth more or less is the kernel's own counting."""
        seconds = time.monotonic() - self._at
        return max(0.0, (_used_by_others() - self._used) / seconds)


def _used_by_others() -> float:
    """Seconds so far. What is below this process is not asked: some of what rivals start is never
    waited for by who started it, and then nobody counts what it used."""
    own = {os.getpid(), *descendants()}
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    ticks = sum(_ticks(pid) for pid in pids if pid not in own)
    stolen = int(Path("/proc/stat").read_text().split("\n")[0].split()[8])
    return (ticks + stolen) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    """What a process used, and those of its children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])
