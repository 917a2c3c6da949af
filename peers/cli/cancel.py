"""``grid cancel``: end a transaction for everyone, whoever owns it.

The transaction is named as ``grid jobs`` shows it. The server is told until it has confirmed, the
next server too; the command waits until the transaction runs no more.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grid.errors import CannotJoin, GridError, Misuse
from grid.messages import TransactionStatus
from grid.suggest import did_you_mean
from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.tables import RECORD_SHOWN
from peers.cli.waiting import spinning

if TYPE_CHECKING:
    from peers.peer import Peer

CANCEL_SECONDS = 15.0
"""Several times what a failover takes."""

POLL_SECONDS = 0.05

_DESCRIPTION = """\
End a transaction for everyone, whoever owns it: its owners are told that it was
cancelled. Say which by its name, or by the beginning of its record:

  grid jobs
  grid cancel words
  grid cancel 3f9a        # also the id that `grid submit --detach` printed

The exit status is 1 if none of that name or record runs, or if no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "cancel", run, _DESCRIPTION)
    parser.add_argument("which", metavar="NAME|RECORD", help="as `grid jobs` shows it")
    add_json_option(parser, "what was ended, as one JSON object")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Find it, end it, wait until it has ended."""
    if not args.which:
        raise Misuse("'' is no name and no record; `grid jobs` shows those there are")
    with visit(args) as peer:
        found = find(args.which, ask(peer).transactions)
        peer.end(found.record)
        with spinning(f"cancelling {_label(found)}"):
            _wait_ended(peer, found.record)
    if args.json:
        print_json({"record": found.record, "name": found.name})
    else:
        print(f"cancelled {_label(found)}", file=sys.stderr)
    return 0


def find(which: str, transactions: Sequence[TransactionStatus]) -> TransactionStatus:
    """Return the running transaction of that name, else of that beginning of a record.

    Raises ``GridError`` if there is none, ``Misuse`` if there are several.
    """
    named = [txn for txn in transactions if txn.name == which]
    meant = named or [txn for txn in transactions if txn.record.startswith(which)]
    running = [txn for txn in meant if txn.state == "running"]
    if len(running) == 1:
        return running[0]
    if running:
        several = ", ".join(map(_label, running))
        raise Misuse(f"{which!r} may be any of {several}; write more of the record")
    if meant:
        raise GridError(f"{_label(meant[0])} does not run: it is {meant[0].state}")
    names = [txn.name for txn in transactions if txn.name]
    hint = did_you_mean(which, names) or "; `grid jobs` shows those there are"
    raise GridError(f"no transaction has the name, or a record that begins with, {which!r}{hint}")


def _label(txn: TransactionStatus) -> str:
    record = txn.record[:RECORD_SHOWN]
    return f"{txn.name!r} ({record})" if txn.name else record


def _wait_ended(peer: "Peer", record: str) -> None:
    deadline = time.monotonic() + CANCEL_SECONDS
    while any(t.record == record and t.state == "running" for t in ask(peer).transactions):
        if time.monotonic() > deadline:
            raise CannotJoin(
                f"not confirmed within {CANCEL_SECONDS:g} s; ask `grid jobs` how it is, then again"
            )
        time.sleep(POLL_SECONDS)
