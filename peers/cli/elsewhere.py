"""``grid submit --on ENGINE``: the same job and flags, on another engine than the grid.

Results are printed as those of the grid are; what user code prints goes to stderr where the
engine forwards it at all. Ctrl-C cancels the job there.
"""

import argparse
import sys
from typing import IO, TYPE_CHECKING

from grid.errors import Misuse, TransactionFailed
from peers.cli.printing import print_results, print_skipped
from peers.cli.waiting import bars_shown
from peers.engines.choice import chosen, compute
from peers.engines.interface import Outcome, Request

if TYPE_CHECKING:
    from grid.job import Job

_GRID_ONLY = {
    "name": "--name",
    "fresh": "--fresh",
    "detached": "--detach",
    "priority": "--priority",
}


def run_elsewhere(job: "Job", args: argparse.Namespace, out: IO[str]) -> None:
    """Run the job on the engine that ``--on`` names, and print its results to ``out``."""
    for option, flag in _GRID_ONLY.items():
        if getattr(args, option):
            raise Misuse(f"{flag} is for the grid alone; --on {args.on} has nothing like it")
    chosen(args.on)  # what is wrong with the flag is told as that
    outcome = _outcome(job, args)
    print_skipped(outcome.skipped)
    print_results(outcome.results.items(), args, out)


def _outcome(job: "Job", args: argparse.Namespace) -> Outcome:
    with bars_shown(f"on {args.on}") as show:
        request = Request(
            job,
            on_error=args.on_error,
            retries=args.retries,
            deadline_seconds=args.deadline_seconds,
            progress=show,
        )
        try:
            return compute(request, args.on)
        except KeyboardInterrupt:
            print(f"{args.parser.prog}: cancelled", file=sys.stderr)
            raise
        except Misuse as error:
            raise TransactionFailed(str(error)) from error  # by the job: the command was right
