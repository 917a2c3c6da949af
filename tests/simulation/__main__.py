"""Whole grids in virtual time: ``--seeds 0..2000``; one told as a story: ``--seed 7 --story``.

``--minutes 30`` goes on by the clock, from a seed of its own or from ``--first``. ``--peers 1000``
kills the servers of one large grid and counts. ``--replay FILE`` has the cores decide again what a
peer's trace recorded. One grid in ten has detached work, in one of six user code raises.
"""

import argparse
import itertools
import random
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from tests.simulation import large, replay
from tests.simulation.scenario import Scenario

CHUNK = 20
"""Seeds that one process runs at a time."""

AHEAD = 3
"""Chunks that wait for each process."""

TOLD_EVERY = 5000
"""Grids, so that one sees how far a long run is."""

FIRST_MAX = 10**9


def run_seed(seed: int) -> tuple[int, list[str]]:
    return seed, run(Scenario(seed))


def run(scenario: Scenario) -> list[str]:
    """Run a grid; an exception of the cores is a broken promise too."""
    try:
        return scenario.run()
    except Exception as error:
        return [*scenario.world.wrong, f"{type(error).__name__}: {error}"]


def run_seeds(seeds: list[int]) -> list[tuple[int, list[str]]]:
    return [run_seed(seed) for seed in seeds]


def outcomes(seeds: Iterable[int], jobs: int, until: float) -> Iterator[tuple[int, list[str]]]:
    """Run seeds in order, as long as there are any and it is not yet ``until``."""
    left = iter(seeds)
    flying: deque[Future[list[tuple[int, list[str]]]]] = deque()
    with ProcessPoolExecutor(jobs) as pool:
        while True:
            while len(flying) < AHEAD * jobs and time.monotonic() < until:
                chunk = list(itertools.islice(left, CHUNK))
                if not chunk:
                    break
                flying.append(pool.submit(run_seeds, chunk))
            if not flying:
                return
            yield from flying.popleft().result()


def run_many(seeds: Iterable[int], jobs: int, seconds: float) -> int:
    """Run seeds, tell of each that fails how to see it again, and sum up."""
    began = time.monotonic()
    count = failed = 0
    for seed, wrong in outcomes(seeds, jobs, began + seconds):
        count += 1
        if wrong:
            failed += 1
            replayed = f"scripts/simulate --seed {seed} --story"
            print(f"seed {seed}: {wrong[0]}\n    replay: {replayed}", flush=True)
        if count % TOLD_EVERY == 0:
            print(summary(count, failed, began), flush=True)
    print(summary(count, failed, began))
    return 1 if failed else 0


def summary(count: int, failed: int, began: float) -> str:
    took = time.monotonic() - began
    return f"{count} grids, {failed} failed, {took:.0f} s, {count / took:.1f} grids/s"


def one(seed: int, *, story: bool) -> int:
    scenario = Scenario(seed)
    try:
        scenario.run()
    finally:
        if story:
            print(scenario.shape)
            print("\n".join(scenario.world.log))
    print("\n".join(scenario.world.wrong) or "every promise held")
    return 1 if scenario.world.wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", default="0..500", help="A..B, B not included")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--story", action="store_true", help="print what happened")
    parser.add_argument("--minutes", type=float, help="seed after seed, for so long")
    parser.add_argument("--first", type=int, help="the first seed of --minutes; else drawn")
    parser.add_argument("--jobs", type=int, default=2, help="processes to use")
    parser.add_argument("--peers", type=int, help="one large grid of so many peers")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a trace that a peer wrote")
    args = parser.parse_args()
    if args.replay is not None:
        return replay.report(args.replay)
    if args.peers is not None:
        return large.report(args.peers)
    if args.seed is not None:
        return one(args.seed, story=args.story)
    if args.minutes is not None:
        first = random.SystemRandom().randrange(FIRST_MAX) if args.first is None else args.first
        print(f"from seed {first}", flush=True)
        return run_many(itertools.count(first), args.jobs, 60 * args.minutes)
    first, _, last = args.seeds.partition("..")
    return run_many(range(int(first), int(last)), args.jobs, float("inf"))


if __name__ == "__main__":
    sys.exit(main())
