"""The memory of a run: the most that its processes held at one time.

Counted is what each process has in memory, shared pages divided among those that share them (PSS),
and files in memory (tmpfs) that were not there before. Of memory that is shared through such files
the larger count is taken, not both. Looking costs the process that is looked at, so it is done in a
run whose time does not count, and with pauses.
"""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from scripts.benchmark.processes import descendants

PAUSE_SECONDS = 0.03
SHARE = 4
"""Pauses are so many times longer than looks."""

_NO_FILES = ("/sys", "/proc", "/run/lock")


class PeakMemory:
    """Looks, as long as the context lasts, at everything below this process."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._folders = _memory_folders()
        self._before = _files(self._folders)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = PAUSE_SECONDS
        while not self._stop.wait(pause):
            began = time.monotonic()
            self.megabytes = max(self.megabytes, self._now())
            pause = max(PAUSE_SECONDS, SHARE * (time.monotonic() - began))

    def _now(self) -> float:
        private, shared = 0, 0
        for pid in descendants():
            pss, pss_of_files = held_kilobytes(pid)
            private += pss - pss_of_files
            shared += pss_of_files
        files = _files(self._folders)
        spilled = sum(files[path] for path in files.keys() - self._before.keys())
        return (private + max(shared, spilled)) / 1024


def held_kilobytes(pid: int) -> tuple[int, int]:
    """A process's PSS, and how much of that is shared memory; zeros if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    fields = {line.partition(":")[0]: line.split() for line in lines[1:]}
    return int(fields["Pss"][1]), int(fields["Pss_Shmem"][1]) if "Pss_Shmem" in fields else 0


def _memory_folders() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(mount[1]) for mount in mounts if mount[2] == "tmpfs" and _holds_files(mount[1])]


def _holds_files(folder: str) -> bool:
    return not folder.startswith(_NO_FILES)


def _files(folders: list[Path]) -> dict[str, int]:
    """The kilobytes of each file."""
    found: dict[str, int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                status = path.lstat()
            except OSError:
                continue  # gone since it was listed
            found[str(path)] = status.st_blocks // 2
    return found
