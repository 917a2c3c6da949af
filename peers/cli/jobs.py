"""``grid jobs``: the transactions of the grid. For people, or with ``--json`` for scripts."""

import argparse
import json
from typing import Any

import msgspec

from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.tables import make_console, transactions_table

_DESCRIPTION = """\
Show the grid's transactions: the record each of them runs, its name, how far it is,
and the peers that own it. States:

  running    tasks are given to peers
  finished   its owners are fetching the result
  failed     its owners are being told why
  retained   its owners have the result; whoever submits the same job under the same
             name gets it at once

The exit status is 1 if no grid answers; a grid without transactions is no error.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "jobs", run, "which transactions there are", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="a JSON list, for scripts")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show."""
    with visit(args) as peer:
        transactions = ask(peer).transactions
    if args.json:
        print(json.dumps([msgspec.to_builtins(txn) for txn in transactions], indent=2))
    elif transactions:
        make_console().print(transactions_table(transactions))
    else:
        print("no transactions")
    return 0
