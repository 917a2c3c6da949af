"""Tables that several subcommands print."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from rich import box
from rich.cells import cell_len
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


def fitting_table(columns: dict[str, list[str]], spare: Iterable[str], width: int) -> Table:
    """Make a table of columns by their headings; where it is wider than this, those that one can
    ``spare`` are left out, in that order."""
    kept = dict(columns)
    for heading in spare:
        if _width(kept) > width:
            kept.pop(heading, None)
    table = make_table(*kept)
    for row in zip(*kept.values(), strict=True):
        table.add_row(*map(escape, row))
    return table


def _width(columns: dict[str, list[str]]) -> int:
    """How wide a table of these columns is, with a space at both sides of each, and between."""
    widest = (max(map(cell_len, (heading, *cells))) for heading, cells in columns.items())
    return sum(cells + 3 for cells in widest) - 1


def transactions_table(transactions: Iterable[TransactionStatus], width: int) -> Table:
    """Show transactions, a row each, as far as they fit into so many columns."""
    shown = list(transactions)
    columns = {
        "record": [txn.record[:RECORD_SHOWN] for txn in shown],
        "name": [txn.name or ("(detached)" if txn.detached else "-") for txn in shown],
        "state": [txn.state for txn in shown],
        "map": [f"{txn.maps_done}/{txn.maps_total}" for txn in shown],
        "reduce": [f"{txn.reduces_done}/{txn.reduces_total}" for txn in shown],
        "owners": [", ".join(txn.owners) or "-" for txn in shown],
    }
    if any(txn.detached for txn in shown):
        began_and_took = [_times(txn) for txn in shown]
        columns["began"] = [began for began, _ in began_and_took]
        columns["took"] = [took for _, took in began_and_took]
    return fitting_table(columns, ("began", "took", "owners", "reduce", "map"), width)


def _times(txn: TransactionStatus) -> tuple[str, str]:
    """When a detached transaction began and how long it took, by the clocks of its peers."""
    if not txn.detached:
        return "-", "-"
    began = datetime.fromtimestamp(txn.began).strftime("%Y-%m-%d %H:%M:%S")
    took = timedelta(seconds=round(max(0.0, txn.ended - txn.began)))
    return began, str(took) if txn.ended else "-"
