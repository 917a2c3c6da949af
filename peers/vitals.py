"""How this peer does, for those who watch: load, memory, bytes moved. Measured when it is asked.

Memory is what the peer's process and all its descendants have resident; pages that they share are
counted once for each. What a system does not tell is zero.
"""

import os
import threading
from pathlib import Path

from grid.events import SelfMeasured
from grid.messages import BYTES_MAX

PROCESSES_MAX = 4096
"""No peer has so many; one that is looked at while it goes wild is not looked at for long."""


class Traffic:
    """Bytes of data received from and sent to other peers, counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0
        self.sent = 0

    def count(self, *, received: int = 0, sent: int = 0) -> None:
        with self._lock:
            self.received += received
            self.sent += sent


def measure(traffic: Traffic) -> SelfMeasured:
    """See how this process and its descendants do. Reads a file or two for each of them."""
    return SelfMeasured(
        load=max(0.0, load()),
        memory=min(memory_bytes(os.getpid()), BYTES_MAX),
        received=min(traffic.received, BYTES_MAX),
        sent=min(traffic.sent, BYTES_MAX),
    )


def load() -> float:
    """How many processes of this host want to run, over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def memory_bytes(pid: int) -> int:
    """What a process and its descendants have resident."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = [pid]
    pages = 0
    for one in pids:  # grows while it is read
        pages += _resident_pages(one)
        if len(pids) < PROCESSES_MAX:
            pids += _children(one)
    return pages * page


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # it has just ended, or this is no Linux


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - names are all that is wanted
        told = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in threads]
    except OSError:
        return []
    return [int(child) for line in told for child in line.split()]
