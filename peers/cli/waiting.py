"""Waiting, with progress bars for a transaction, and a spinner for what has no number.

Both are on stderr and vanish when the waiting is over; where stderr is no terminal, nothing is
shown. The waiting for a transaction is in short pieces, so that Ctrl-C is heard at once.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner

if TYPE_CHECKING:
    from peers.peer import Peer
    from peers.transaction import Progress as Done
    from peers.transaction import Transaction

POLL_SECONDS = 0.1

SPIN_AFTER_SECONDS = 0.4
"""What is over sooner is not worth a line that comes and goes."""

IDLE_SECONDS = 1.0
"""So long a job's end may go unnoticed while the server is asked whether anybody has slots."""


def wait_shown(peer: "Peer", transaction: "Transaction") -> None:
    """Wait until the transaction has ended, however it does, and show how far it is.

    That it waits is shown first, also while no server answers; Ctrl-C is heard in all of it.
    """
    with _bars() as bars:
        _show(bars, peer, transaction)
        if not transaction._ends_within(POLL_SECONDS):
            warn_if_idle(peer)
        while not transaction._ends_within(POLL_SECONDS):
            _show(bars, peer, transaction)
        _show(bars, peer, transaction)


@contextmanager
def bars_shown(note: str) -> Iterator[Callable[["Done"], None]]:
    """Yield what is to be told how far a job is, where nobody serves: ``note`` is shown instead."""
    with _bars() as bars:
        yield lambda done: _update(bars, done, f"finishing; {note}" if done.finishing else note)


def warn_if_idle(peer: "Peer") -> None:
    """Say so on stderr if nobody is there to run tasks."""
    try:
        members = peer.status(IDLE_SECONDS).members
    except TimeoutError:
        return  # the server has just died, or stands still; the job will wait for the next
    if not any(member.slots for member in members):
        print("no peer of this grid has slots: the job waits for one that has", file=sys.stderr)


@contextmanager
def spinning(text: str) -> Iterator[None]:
    """Say on a terminal's stderr what is waited for, if that takes longer than a moment."""
    if not sys.stderr.isatty():
        yield
        return
    waiting = Spinner("dots", f"{escape(text)} ...")
    status = Live(waiting, console=Console(file=sys.stderr), transient=True, redirect_stdout=False)
    late = threading.Timer(SPIN_AFTER_SECONDS, status.start)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()
        status.stop()


@contextmanager
def _bars() -> Iterator[Progress]:
    """Progress bars on a terminal's stderr; nothing elsewhere."""
    bars = Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    for phase in ("map", "reduce"):
        bars.add_task(phase, total=None, note="")
    with bars:
        yield bars


def _show(bars: Progress, peer: "Peer", transaction: "Transaction") -> None:
    now = transaction.progress
    server = peer.server
    note = f"{server} serves, term {peer.term}" if server else "no server: looking for one"
    _update(bars, now, f"{_beyond(now)}{note}")


def _beyond(now: "Done") -> str:
    """What goes on where the bars have come to their ends."""
    if now.finishing:
        return "finishing; "
    whole = now.maps_total and now.maps_done == now.maps_total
    return "fetching the result; " if whole and now.reduces_done == now.reduces_total else ""


def _update(bars: Progress, now: "Done", note: str) -> None:
    maps, reduces = bars.task_ids
    bars.update(maps, completed=now.maps_done, total=now.maps_total or None, note=note)
    bars.update(reduces, completed=now.reduces_done, total=now.reduces_total or None)
