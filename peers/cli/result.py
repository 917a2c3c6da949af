"""``grid result``: print the result of a named or detached transaction that has finished.

The name or id is all that is needed: the peers that keep the result give it to whoever asks.
"""

import argparse
from typing import TYPE_CHECKING, Any

from grid.errors import Misuse, NoResult
from grid.suggest import did_you_mean
from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.printing import (
    add_result_options,
    check_result_options,
    print_results,
    stdout_for_results,
)
from peers.cli.waiting import wait_shown

if TYPE_CHECKING:
    from peers.peer import Peer

_DESCRIPTION = """\
Print the result of a named transaction that has finished, as `grid submit` does:

  grid submit wordcount:job --name words
  grid result words
  grid result words --output words.json

Results are kept for some minutes after the last owner got its own; `grid jobs` shows
them as retained. Those of detached transactions are kept on disk, for a week if
nothing else was set, and found by the id, or the beginning of it:

  grid submit wordcount:job --detach    # prints 3f9ad80c...
  grid result 3f9a --wait

The exit status is 1 if the job failed (its traceback is shown), if there is no result
of that name (yet, or any more), or if no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "result", run, _DESCRIPTION)
    parser.add_argument(
        "name", metavar="NAME|ID", help="as given to `grid submit --name`, or printed by --detach"
    )
    parser.add_argument(
        "--wait", action="store_true", help="until it has ended; else say if it has not"
    )
    add_result_options(parser)
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch and print. Raises ``NoResult``."""
    check_result_options(args)
    if not args.name:
        raise Misuse("'' is no name; `grid jobs` shows the names there are")
    with stdout_for_results() as out, visit(args) as peer:
        transaction = peer.fetch(_meant(peer, args.name), wait=args.wait)
        wait_shown(peer, transaction)
        try:
            results = transaction.items()
        except NoResult as error:
            raise NoResult(f"{error}{_hint(peer, args.name)}") from error
        print_results(results, args, out)
    return 0


def _meant(peer: "Peer", which: str) -> str:
    """Return the id of the detached transaction that begins so, if there is one; else the name."""
    transactions = ask(peer).transactions
    begins = [txn.record for txn in transactions if txn.detached and txn.record.startswith(which)]
    named = any(txn.name == which for txn in transactions)
    if named or not begins:
        return which
    if len(begins) > 1:
        raise Misuse(f"{which!r} may be any of {', '.join(begins)}; write more of the id")
    return begins[0]


def _hint(peer: "Peer", name: str) -> str:
    """Which other name may have been meant."""
    names = [txn.name for txn in ask(peer).transactions if txn.name]
    if name in names:
        return ""
    return did_you_mean(name, names) or "; `grid jobs` shows the names there are"
