"""Tables that several subcommands print."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grid.messages import TransactionStatus

RECORD_SHOWN = 12
"""So much of a record's digest is shown: enough to tell any two apart."""

_NUMBERS = (
    *("slots", "running", "holds", "map", "reduce", "cores", "load", "memory free", "busy"),
    *("memory", "received", "sent", "rate", "left", "took"),
)
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
    shown = list(transactions)
    times = ("began", "took") if any(txn.detached for txn in shown) else ()
    table = make_table("record", "name", "state", "map", "reduce", "owners", *times)
    for txn in shown:
        table.add_row(
            txn.record[:RECORD_SHOWN],
            escape(txn.name) or ("(detached)" if txn.detached else "-"),
            txn.state,
            f"{txn.maps_done}/{txn.maps_total}",
            f"{txn.reduces_done}/{txn.reduces_total}",
            escape(", ".join(txn.owners)) or "-",
            *(_times(txn) if times else ()),
        )
    return table


def _times(txn: TransactionStatus) -> tuple[str, str]:
    """When a detached transaction began and how long it took, by the clocks of its peers."""
    if not txn.detached:
        return "-", "-"
    began = datetime.fromtimestamp(txn.began).strftime("%Y-%m-%d %H:%M:%S")
    took = timedelta(seconds=round(max(0.0, txn.ended - txn.began)))
    return began, str(took) if txn.ended else "-"
