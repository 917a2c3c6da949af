"""Run seeds: ``scripts/simulate --seeds 0..2000``, or tell one as a story: ``--seed 7 --story``."""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.scenario import Scenario


def run_seed(seed: int) -> tuple[int, list[str]]:
    """Run one seed; an exception of the cores is a broken promise too."""
    scenario = Scenario(seed)
    try:
        return seed, scenario.run()
    except Exception as error:
        return seed, [f"{type(error).__name__}: {error}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", default="0..500", help="A..B, B not included")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--story", action="store_true", help="print what happened")
    parser.add_argument("--jobs", type=int, default=2, help="processes to use")
    args = parser.parse_args()
    if args.seed is not None:
        return one(args.seed, story=args.story)
    first, _, last = args.seeds.partition("..")
    began = time.monotonic()
    failed = 0
    with ProcessPoolExecutor(args.jobs) as pool:
        for seed, wrong in pool.map(run_seed, range(int(first), int(last)), chunksize=20):
            if wrong:
                failed += 1
                print(
                    f"seed {seed}: {wrong[0]}\n    replay: scripts/simulate --seed {seed} --story"
                )
    count = int(last) - int(first)
    print(f"{count} grids, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


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


if __name__ == "__main__":
    sys.exit(main())
