"""How much memory a peer may use, and what each of its workers gets of it.

``memory_limit`` is for a peer with all of its processes. Where none is set it is half of what there
is: of the machine's memory, or of what its container may use if that is less. From it goes what a
peer and its workers take before they hold any data; the rest is divided among the slots, and each
worker writes to disk what does not fit into its part (``peers.worker_memory``).

Not counted: what user functions keep, one result, the dict that ``result()`` builds. Files in a
spool that is itself in memory (tmpfs) are not counted either: give ``spool`` a folder on a disk.
"""

import os
import re
from pathlib import Path

from grid.errors import Misuse

SHARE = 2
"""The default limit is one part in so many of the memory there is: others need some too."""

PEER_BYTES = 64 << 20
"""What a peer and its helper take by themselves: interpreters, TLS, the tables of a server."""

WORKER_BYTES = 16 << 20
"""What a worker takes before its first value."""

DATA_BYTES_MIN = 8 << 20
"""The least that a worker gets for data: with less it would do little else than write to disk."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?")


def parse_size(text: str) -> int:
    """Return the bytes that ``"512M"``, ``"1.5G"`` or ``"1000000"`` means. Raises ``Misuse``."""
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None:
        raise Misuse(f"{text[:40]!r} is no size; write a number of bytes, or as in 512M or 1.5G")
    return int(float(match[1]) * _UNITS[match[2]])


def show_size(size: int) -> str:
    """Return a size as people write it, such as ``512M``."""
    for unit in ("T", "G", "M", "K"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.3g}{unit}"
    return str(size)


def worker_bytes(memory_limit: int, slots: int) -> int:
    """Return how many bytes of data each of ``slots`` workers may hold; 0 as a limit is the
    default. Raises ``Misuse`` if a limit that was set leaves next to nothing."""
    fixed = PEER_BYTES + slots * WORKER_BYTES
    if not memory_limit:
        memory_limit = total_memory() // SHARE
    elif slots and memory_limit < fixed + slots * DATA_BYTES_MIN:
        least = show_size(fixed + slots * DATA_BYTES_MIN)
        raise Misuse(
            f"memory_limit={show_size(memory_limit)} is too little for {slots} slots: a peer and "
            f"its workers take {show_size(fixed)} before they hold data; give {least} or more, or "
            "fewer slots"
        )
    return max(DATA_BYTES_MIN, (memory_limit - fixed) // max(1, slots))


def total_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process and others may use together: the machine's, or
    a limit on any of the control groups (version 2 or 1) that this process is in."""
    limits = [_machine(root), *_group_limits(root)]
    return min(limits)


def _machine(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits(root: Path) -> list[int]:
    """The limits on our groups and on those that these are in; none where there is no limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    groups = root / "sys/fs/cgroup"
    found: list[int] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found += _limits_above(groups, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits_above(groups / "memory", path, "memory.limit_in_bytes")
    return found


def _limits_above(top: Path, path: str, name: str) -> list[int]:
    folder = top / path.lstrip("/")
    found: list[int] = []
    for each in (folder, *folder.parents):
        if not each.is_relative_to(top):
            break
        try:
            text = (each / name).read_text().strip()
        except OSError:
            continue  # the root has none, and in a container our path may be another one outside
        if text.isdigit():
            found.append(int(text))
    return found
