"""The time of day: for people, and for what outlives every process and the boot of its host.

A clock on the wall jumps when it is set. Nothing else is counted by it, and nothing else reads it.
"""

import time


def time_of_day() -> float:
    """Seconds since 1970."""
    return time.time()
