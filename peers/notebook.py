"""A transaction as the value of a notebook's cell: a bar that moves, and holds up nothing.

The bar is a piece of HTML that a thread shows anew while the transaction runs. What is shown of a
user's is text: names and messages are escaped.
"""

import threading
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.transaction import Transaction

SHOWN_EVERY_SECONDS = 0.25


def show(transaction: "Transaction") -> None:
    """Show the bar below the cell that runs now. Needs IPython, which whoever calls this has."""
    from IPython.display import HTML, display

    handle: Any = display(HTML(bar(transaction)), display_id=True)
    if handle is not None and not transaction.done():
        moving = threading.Thread(target=_move, args=(transaction, handle), name="grid-bar")
        moving.daemon = True  # the kernel ends when it is told to
        moving.start()


def _move(transaction: "Transaction", handle: Any) -> None:
    from IPython.display import HTML

    over = False
    while not over:
        over = transaction._ends_within(SHOWN_EVERY_SECONDS)
        handle.update(HTML(bar(transaction)))


def bar(transaction: "Transaction") -> str:
    """How far it is, as HTML."""
    now = transaction.progress
    done, total = now.maps_done + now.reduces_done, now.maps_total + now.reduces_total
    title = escape(transaction.name or transaction.id)
    said = escape(_said(transaction))
    if transaction.done():
        done = total = max(total, 1)
    value = f' value="{done}" max="{total}"' if total else ""
    return f'<div><progress{value} aria-label="{title}"></progress> <b>{title}</b> {said}</div>'


def _said(transaction: "Transaction") -> str:
    """How far it is, in words."""
    if not transaction.done():
        return str(transaction.progress)
    if transaction.cancelled():
        return "cancelled"
    error = transaction.exception()
    return "done" if error is None else f"failed: {str(error).partition(chr(10))[0]}"
