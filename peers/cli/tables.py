"""Tables that several subcommands print."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grid.messages import TransactionStatus

RECORD_SHOWN = 12
"""So much of a record's digest is shown: enough to tell any two apart."""

_NUMBERS = ("slots", "running", "holds", "map", "reduce", "cores", "load", "memory free")
_COLUMNS = 200


def make_console() -> Console:
    """Where tables are printed: stdout, in colour on a terminal."""
    console = Console(highlight=False)
    if console.is_terminal:
        return console
    # Outside a terminal a table must not be folded to 80 columns: scripts and logs read it.
    return Console(highlight=False, width=_COLUMNS)


def make_table(*headings: str) -> Table:
    """Make a table; columns of numbers are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    return table


def transactions_table(transactions: Iterable[TransactionStatus]) -> Table:
    """Show transactions, a row each."""
    table = make_table("record", "name", "state", "map", "reduce", "owners")
    for txn in transactions:
        table.add_row(
            txn.record[:RECORD_SHOWN],
            escape(txn.name) or "-",
            txn.state,
            f"{txn.maps_done}/{txn.maps_total}",
            f"{txn.reduces_done}/{txn.reduces_total}",
            escape(", ".join(txn.owners)) or "-",
        )
    return table
