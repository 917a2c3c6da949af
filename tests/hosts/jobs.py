"""Functions of jobs that tell on which host they ran."""

import time
from collections.abc import Iterator
from pathlib import Path


def leave_a_trace(key: int, folder: str) -> Iterator[tuple[str, int]]:
    """One file for each time an item is mapped, with the host's name, in about 10 ms."""
    Path(folder, f"{key}-{Path.home().name}-{time.monotonic_ns()}").touch()
    time.sleep(0.01)
    yield "items", 1
