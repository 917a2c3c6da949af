"""``grid submit module:job``: run a job of a module of the user's on a grid that is there.

The command joins as a visitor: it owns the transaction, gives values and takes the result, and
neither serves nor runs tasks. So whichever peer dies, the job goes on; if the command itself is
ended, the job is withdrawn (unless it is named and has other owners, or is detached: then the
command ends at once, and leaves the job and its data to peers that stay).

What user code prints on the workers goes to stderr, so that stdout holds the results alone.
"""

import argparse
import sys
from typing import IO, TYPE_CHECKING, Any

from grid.errors import Misuse, TransactionFailed
from grid.job import Job
from peers.cli.elsewhere import run_elsewhere
from peers.cli.loading import load_job
from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.printing import (
    add_result_options,
    check_result_options,
    print_json,
    print_results,
    print_skipped,
    stdout_for_results,
)
from peers.cli.waiting import spinning, wait_shown, warn_if_idle

if TYPE_CHECKING:
    from peers.peer import Peer
    from peers.transaction import Transaction

_OPTIONS = ("name", "fresh", "priority", "retries", "deadline_seconds", "on_error", "detached")

_DESCRIPTION = """\
Run a Job on the grid and print its results. MODULE:NAME is a Job in a module of this
folder, or a function that makes one. For this wordcount.py, `grid submit wordcount:job`:

  from peers import Files, Job

  def words(path, text):
      for word in text.split():
          yield word, 1

  def total(word, counts):
      return sum(counts)

  job = Job(Files("books/*.txt"), words, reducefn=total)

Results are printed as lines of key, tab, value, or written as the flags say:

  grid submit wordcount:job --output counts.json
  grid submit wordcount:job --name words       # `grid result words` prints it again
  grid submit wordcount:job --on-error skip    # without the items whose function raises
  grid result --wait $(grid submit wordcount:job --detach)    # outlives this command
  grid submit wordcount:job --on dask://head:8786    # on a Dask cluster instead

On a terminal bars show how far it is. Ctrl-C cancels the job. The exit status is 1 if
the job failed or no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "submit", run, _DESCRIPTION)
    parser.add_argument("job", metavar="MODULE:NAME", help="as in wordcount:job")
    add_result_options(parser)
    how = parser.add_argument_group("how it is run")
    how.add_argument(
        "--on",
        default="grid",
        metavar="ENGINE",
        help="grid; or local, dask, dask://HOST:PORT, ray, ray://HOST:PORT (docs/outgrowing.md)",
    )
    how.add_argument("--name", help="share it: the same name and job anywhere is one transaction")
    how.add_argument(
        "--ship",
        default="",
        metavar="A,B,...",
        help="send these modules along, to hosts that do not have their files: the job's own, too",
    )
    how.add_argument(
        "--fresh", action="store_true", help="do not take a finished result of that name"
    )
    how.add_argument(
        "--detach",
        action="store_true",
        dest="detached",
        help="leave it to peers that stay; print its id, for `grid result ID`",
    )
    how.add_argument("--priority", type=int, default=0, metavar="N", help="higher goes first (0)")
    how.add_argument(
        "--retries", type=int, default=0, metavar="N", help="of an item whose function raises (0)"
    )
    how.add_argument(
        "--deadline", type=float, dest="deadline_seconds", metavar="SECONDS", help="give up then"
    )
    how.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="of an item whose function raises: end the job, or leave the item out",
    )
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Submit, wait, print."""
    check_result_options(args)
    with stdout_for_results() as out:
        job = with_modules(load_job(args.job), args.ship)
        if args.on != "grid":
            run_elsewhere(job, args, out)
            return 0
        with visit(args) as peer:
            if args.detached:
                warn_if_idle(peer)
                _detach(peer, job, args, out)
            else:
                transaction = _finished(peer, job, args)
                print_skipped(transaction.skipped)
                print_results(transaction.items(), args, out)
    return 0


def with_modules(job: Job, names: str) -> Job:
    """The job, with these modules sent along as well."""
    more = [name.strip() for name in names.split(",") if name.strip()]
    return Job(
        job.datasource,
        **job.functions.named(),
        resultfn=job.resultfn,
        ship=(*job.ship, *more),
        partitions=job.partitions,
    )


def _detach(peer: "Peer", job: Job, args: argparse.Namespace, out: IO[str]) -> None:
    """Submit, and say only what to ask for later."""
    if args.output is not None or args.limit is not None:
        raise Misuse("--detach prints an id, no results; give --output to `grid result ID`")
    with spinning("handing it to peers that stay"):
        transaction = peer.submit(job, **_options(args))
    if args.json:
        print_json({"id": transaction.id}, out)
    else:
        print(transaction.id, file=out)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}


def _finished(peer: "Peer", job: Job, args: argparse.Namespace) -> "Transaction":
    """Submit and wait for the end, showing progress. Raises what ended the job."""
    transaction = peer.submit(job, **_options(args))
    try:
        wait_shown(peer, transaction)
    except KeyboardInterrupt:
        transaction.cancel()
        print(f"{args.parser.prog}: cancelled", file=sys.stderr)
        raise
    try:
        transaction.items()  # raises, if it failed
    except Misuse as error:
        raise TransactionFailed(str(error)) from error  # by the job: the command was right
    return transaction
