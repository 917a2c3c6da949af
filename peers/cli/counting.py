"""What ``grid repl`` has the workers do. Apart from the rest, so that workers load nothing else."""

import os
import platform
import re
from collections import Counter
from pathlib import Path
from typing import Any

_WORD = re.compile(r"\w+")


def count_words(_path: str, text: str) -> Counter[str]:
    """Count the words of a text that came with the task, or that its worker has as well."""
    return Counter(_WORD.findall(text.lower()))


def read_and_count(path: str, _path: str) -> Counter[str]:
    """Count the words of a file that the worker itself has to have."""
    return count_words(path, Path(path).read_text(encoding="utf-8", errors="replace"))


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


def gather(_key: Any, values: list[Any]) -> Any:
    """Numbers added up; anything else as it came."""
    numbers = all(isinstance(value, int | float) for value in values)
    return sum(values) if numbers else values


def statistics() -> dict[str, Any]:
    """What a peer's host is like now; sizes in bytes."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count() or 1,
        "load": os.getloadavg()[0],
        "memory_free": os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }
