"""``grid jobs``: the transactions of the grid. For people, or with ``--json`` for scripts."""

import argparse
from typing import Any

from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.status import transaction_as_json
from peers.cli.tables import make_console, transactions_table

_DESCRIPTION = """\
Show the grid's transactions: the record each of them runs, its name, how far it is,
and the peers that own it. Those that are detached are shown until the time is over
for which their ends are kept, with when they began and how long they took.

  grid jobs
  grid jobs --json | jq -r '.[] | select(.state == "running") | .name'

States:

  running    tasks are given to peers
  finished   its owners are fetching the result
  failed     its owners are being told why; if detached, `grid result` tells it
  retained   its owners have the result; whoever submits the same job under the same
             name gets it at once; if detached, `grid result` prints it

The exit status is 1 if no grid answers; a grid without transactions is no error.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "jobs", run, _DESCRIPTION)
    add_json_option(parser, "a JSON list")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show."""
    with visit(args) as peer:
        transactions = ask(peer).transactions
    if args.json:
        print_json([transaction_as_json(txn) for txn in transactions])
    elif transactions:
        console = make_console()
        console.print(transactions_table(transactions, console.width))
    else:
        print("no transactions")
    return 0
