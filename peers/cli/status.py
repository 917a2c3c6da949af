"""``grid status``: who serves, who is there, what runs. For people, or with ``--json`` for scripts.

The process that asks is a visitor of the grid for a moment; it is left out of what it shows.
"""

import argparse
from typing import TYPE_CHECKING, Any

import msgspec
from rich.filesize import decimal
from rich.markup import escape

from grid.messages import Failover, MemberStatus, TransactionStatus
from peers.cli.options import add_command, add_grid_options, ask, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.tables import fitting_table, make_console, transactions_table

if TYPE_CHECKING:
    from peers.peer import PeerStatus
    from peers.snapshot import FailoverSeen

_DESCRIPTION = """\
Show the grid: its server and term, its peers with their slots, and its transactions.

  grid status
  grid status --json | jq .slots
  grid status --port 11300 --grid night      # another grid than the usual one

A peer serves, or is a standby that takes over when the server dies, or is a visitor: a
command that asks or waits. `running` counts the tasks it works on now, `holds` what it
keeps of their outputs. "through" names the peer that leads to the server one who cannot
reach it. Below: how long the latest losses of a server lasted, until the next one served
and until its first task ran, as the grid itself measured. The exit status is 1 if no
grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "status", run, _DESCRIPTION)
    add_json_option(parser, "one JSON object")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show."""
    with visit(args) as peer:
        status = ask(peer)
        me = peer.id
    if args.json:
        print_json(as_json(status, me))
    else:
        _show(status, me)
    return 0


def as_json(status: "PeerStatus", me: str) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "server": status.server,
        "address": status.address,
        "term": status.term,
        "slots": sum(member.slots for member in status.members),
        "peers": [msgspec.to_builtins(member) for member in status.members if member.peer != me],
        "transactions": [transaction_as_json(txn) for txn in status.transactions],
        "failovers": [_as_dict(failover) for failover in status.failovers],
        "lacking": status.lacking,
        "warnings": list(status.warnings),
    }


def transaction_as_json(txn: TransactionStatus) -> dict[str, Any]:
    """Return what ``--json`` prints of a transaction: without what means something only to its
    server, and null for times that nobody knows."""
    facts: dict[str, Any] = msgspec.to_builtins(txn)
    del facts["known_at"]
    return facts | {"began": txn.began or None, "ended": txn.ended or None}


def remarks(status: "PeerStatus") -> list[str]:
    """What people should know beside the table: failovers, a quorum that is not there."""
    lines = [failover_line(failover) for failover in status.failovers]
    if status.lacking:
        more = f"{status.lacking} more {'peer' if status.lacking == 1 else 'peers'}"
        lines.append(f"no quorum: no work is given until {more} joined")
    return lines + [f"warning: {text}" for text in status.warnings]


def failover_line(failover: "Failover | FailoverSeen") -> str:
    """Say what a failover took."""
    line = (
        f"server lost ({failover.how}): next server, term {failover.term}, after "
        f"{show_seconds(failover.server_seconds)}"
    )
    if failover.task_seconds is None:
        return line
    return f"{line}, first task after {show_seconds(failover.task_seconds)}"


def show_seconds(seconds: float) -> str:
    """A short time for people: in milliseconds up to a second."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _as_dict(failover: Failover) -> dict[str, Any]:
    return {
        "how": failover.how,
        "term": failover.term,
        "server_seconds": failover.server_seconds,
        "task_seconds": failover.task_seconds,
    }


def _show(status: "PeerStatus", me: str) -> None:
    console = make_console()
    members = [member for member in status.members if member.peer != me]
    peers = sum(not member.visitor for member in members)
    slots = sum(member.slots for member in members)
    facts = ((peers, "peer"), (slots, "slot"), (len(status.transactions), "transaction"))
    counts = ", ".join(f"{n} {what if n == 1 else what + 's'}" for n, what in facts)
    console.print(
        f"[bold]{escape(status.server)}[/] serves at {escape(status.address)}, term {status.term}: "
        f"{counts}"
    )
    several = len({member.host for member in members}) > 1
    columns = {
        "peer": [member.name for member in members],
        "role": [_role(member) for member in members],
        "slots": [str(member.slots) for member in members],
        "running": [str(member.running) for member in members],
        "holds": [decimal(m.held_bytes) if m.held_bytes else "-" for m in members],
    }
    if several:  # on one host it would say nothing
        columns["host"] = [member.host for member in members]
    console.print(fitting_table(columns, ("holds", "host", "running"), console.width))
    for line in remarks(status):
        console.print(line, markup=False)
    if status.transactions:
        console.print(transactions_table(status.transactions, console.width))


def _role(member: MemberStatus) -> str:
    role = "serves" if member.serving else "visitor" if member.visitor else "standby"
    role += ", leaving" if member.leaving else ""
    return f"{role} through {member.through}" if member.through else role
