"""Twin primes: a job without a reduce, whose finishfn puts the pieces together.

    python examples/maponly.py
    python examples/maponly.py --below 3000000

Each item is a stretch of numbers, and mapfn yields one pair for it: where it starts, and the twin
primes found. No two items share a key, so there is nothing to reduce. Without reducefn the values
of a key are the list of all that was yielded under it (here always of one); finishfn gets every
key with its list in a single call, when all is mapped, and what it yields is the result.

Run it in several terminals at once and they are one grid that searches once.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator

from peers import GridError, Job, Peer

STRETCH = 10_000

Twins = list[tuple[int, int]]


def find_twins(start: int, stop: int) -> Iterator[tuple[int, Twins]]:
    """Find the pairs (p, p + 2) of primes whose first is in ``start..stop``."""
    primes = set(primes_of(start, stop + 2))
    yield start, [(p, p + 2) for p in range(start, stop) if p in primes and p + 2 in primes]


def primes_of(start: int, stop: int) -> list[int]:
    """Sieve one stretch, from ``start`` to just before ``stop``."""
    is_prime = bytearray([1]) * (stop - start)
    for number in range(max(0, 2 - start)):
        is_prime[number] = 0
    for divisor in range(2, int(stop**0.5) + 1):
        first = max(divisor * divisor, -(-start // divisor) * divisor)
        for multiple in range(first, stop, divisor):
            is_prime[multiple - start] = 0
    return [start + index for index, prime in enumerate(is_prime) if prime]


def summary(stretches: Iterable[tuple[int, list[Twins]]]) -> Iterator[tuple[str, object]]:
    """Once, over everything: how many there are, the first few and the last."""
    twins = sorted(pair for _, lists in stretches for found in lists for pair in found)
    yield "count", len(twins)
    yield "first", twins[:5]
    yield "last", twins[-1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--below", type=int, default=300_000, metavar="N", help="(300000)")
    below = parser.parse_args().below
    stretches = {start: min(start + STRETCH, below) for start in range(0, below, STRETCH)}
    job = Job(stretches, find_twins, finishfn=summary)
    with Peer() as peer:
        results = peer.submit(job, name=f"twins below {below}").result()
    print(f"{results['count']} twin primes below {below}")
    print("first:", *results["first"])
    print("last:", *results["last"])


if __name__ == "__main__":
    try:
        main()
    except GridError as error:
        sys.exit(f"maponly.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
