"""What a target is, and how the bytes that feed it are changed."""

import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Bytewise = Callable[[bytes], bytes]
"""Changes bytes knowing nothing of them: libFuzzer, or ``scrambled``."""


@dataclass(frozen=True)
class Target:
    """``run`` raises only where a promise is broken. ``seeds`` makes the first inputs; ``mutate``
    returns a change of an input, and calls its third argument for changes that know nothing.
    ``bounded`` says that ``run`` looks at its memory."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, random.Random, Bytewise], bytes]
    bounded: bool = False


def scrambled(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with a few bytes changed, put in or left out."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(changed))
        match rng.randrange(3):
            case 0:
                changed[at:at] = rng.randbytes(rng.randint(1, 4))
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case _:
                changed[at : at + 1] = rng.randbytes(1)
    return bytes(changed)


_KEPT_BYTES_PER_BYTE = 256
"""What a byte may become: an empty name in a list of names is one byte, and an object of fifty."""


@contextmanager
def memory_bounded(fed: int, at_least: int) -> Iterator[None]:
    """Check that what runs inside takes memory in proportion to the bytes it was fed.

    Starts ``tracemalloc`` where that was not done, as the engine does: starting costs it kilobytes
    that it never gives back.
    """
    begun_here = not tracemalloc.is_tracing()
    if begun_here:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if begun_here:
            tracemalloc.stop()
    assert peak < at_least + _KEPT_BYTES_PER_BYTE * fed, f"{fed} bytes took {peak} bytes"
