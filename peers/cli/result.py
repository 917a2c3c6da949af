"""``grid result``: print the result of a named transaction that has finished.

The name is all that is needed: the peers that keep the result give it to whoever asks.
"""

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from grid.errors import Misuse, NoResult
from grid.suggest import did_you_mean
from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.printing import add_result_options, check_result_options, print_results
from peers.cli.waiting import wait_shown

if TYPE_CHECKING:
    from peers.peer import Peer

_DESCRIPTION = """\
Print the result of a named transaction that has finished, as `grid submit` does:

  grid submit wordcount:job --name words
  grid result words
  grid result words --output words.json

Results are kept for some minutes after the last owner got its own; `grid jobs` shows
them as retained. The exit status is 1 if there is none of that name (yet, or any
more), or if no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "result", run, "print a finished named result", _DESCRIPTION)
    parser.add_argument("name", metavar="NAME", help="as given to `grid submit --name NAME`")
    add_result_options(parser)
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch and print. Raises ``NoResult``."""
    check_result_options(args)
    if not args.name:
        raise Misuse("'' is no name; `grid jobs` shows the names there are")
    with visit(args) as peer:
        transaction = peer.fetch(args.name)
        with redirect_stdout(sys.stderr):
            wait_shown(peer, transaction)
        try:
            results = transaction.items()
        except NoResult as error:
            raise NoResult(f"{error}{_hint(peer, args.name)}") from error
        print_results(results, args)
    return 0


def _hint(peer: "Peer", name: str) -> str:
    """Which other name may have been meant."""
    names = [txn.name for txn in ask(peer).transactions if txn.name]
    if name in names:
        return ""
    return did_you_mean(name, names) or "; `grid jobs` shows the names there are"
