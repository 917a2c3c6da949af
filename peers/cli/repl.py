"""``grid repl``: ask the grid to count words, line by line.

A line is a glob, and its answer the most common words of the files that match. Every line is a
transaction of its own, so any number of REPLs can share a grid, and a server that dies while one
waits costs it nothing but a moment.

Promises: Ctrl-C while a job runs withdraws that job and gives the prompt back; at the prompt, and
at the end of the input, the REPL leaves. What goes wrong with one line is said, and the next is
asked for. Where the input is no terminal, lines are echoed after the prompt, so that what was
printed reads as a session.
"""

import argparse
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.markup import escape

from grid.errors import GridError, Misuse
from grid.messages import MemberStatus
from peers.cli.counting import count_words, read_and_count, statistics, total
from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.tables import make_console, make_table
from peers.cli.waiting import wait_shown, warn_if_idle

if TYPE_CHECKING:
    from grid.job import Job
    from peers.peer import Peer

PROMPT = "GLOB> "

TOP = 20
"""So many words fit on a screen with the line that asked for them."""

STATISTICS_SECONDS = 5.0
"""Statistics need a free slot of every peer; who waits at a prompt is rather told that some are
busy."""

_DESCRIPTION = """\
Count words, line by line, at the prompt GLOB>. A line is one of

  books/*.txt      the most common words of these files of this host; workers read them
                   where they have the same files, and are sent them where they have not
  @books/*.txt     the same, of files that all workers have: only names are sent
                   (the empty line) statistics from every peer

Several REPLs can share a grid, and any peer may be killed meanwhile, also the one that
serves. Ctrl-C withdraws the job that runs; Ctrl-D leaves. Lines may come from a pipe:

  echo 'books/*.txt' | grid repl

The exit status is 1 if no grid answers.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "repl", run, "count words, line by line", _DESCRIPTION)
    parser.add_argument(
        "--top", type=int, default=TOP, metavar="N", help=f"show the N most common words ({TOP})"
    )
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Visit the grid until the input ends."""
    if args.top < 0:
        raise Misuse(f"--top {args.top}: give a number of words, 0 or more")
    with visit(args) as peer:
        converse(peer, args.top)
    return 0


def converse(peer: "Peer", top: int = TOP) -> None:
    """Answer lines of standard input until it ends, or Ctrl-C at the prompt is raised."""
    with suppress(ImportError):
        import readline  # noqa: F401 - input() then has editing and history
    while True:
        try:
            line = _ask().strip()
        except EOFError:
            break
        try:
            _answer(peer, line, top)
        except (GridError, TimeoutError) as error:
            print(error, file=sys.stderr, flush=True)
        except KeyboardInterrupt as interrupt:
            if type(interrupt) is not KeyboardInterrupt:
                raise  # SIGTERM: it is this process that shall end, not the job
            print("cancelled", file=sys.stderr, flush=True)
    print(flush=True)


def _ask() -> str:
    """Read a line. Raises ``EOFError`` at the end."""
    if sys.stdin.isatty():
        return input(PROMPT)
    print(PROMPT, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    print(line.rstrip("\n"), flush=True)
    return line


def _answer(peer: "Peer", line: str, top: int) -> None:
    if line:
        _count(peer, line, top)
    else:
        _show_statistics(peer)


# ------------------------------------------------------------------------------ words


def _job(line: str) -> "Job":
    """Make the job of a line. Raises ``Misuse`` for a name that is no file."""
    from peers import Files, Job

    if line.startswith("@"):
        files = Files(line[1:].strip(), mode="path")
        return Job(files, read_and_count, combinefn=total, reducefn=total)
    files = Files(line, errors="replace")
    return Job(files, count_words, combinefn=total, reducefn=total)


def _count(peer: "Peer", line: str, top: int) -> None:
    began = time.monotonic()
    transaction = peer.submit(_job(line))
    try:
        warn_if_idle(peer)
        wait_shown(peer, transaction)
    except KeyboardInterrupt:
        transaction.cancel()
        raise
    counts = transaction.result()
    common = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    for word, count in common[:top]:
        print(f"{count:9} {word}")
    files = transaction.progress.maps_total
    print(
        f"{sum(counts.values())} words, {len(counts)} different, in {files} "
        f"{'file' if files == 1 else 'files'}, {time.monotonic() - began:.2f} s",
        flush=True,
    )


# ------------------------------------------------------------------------------ statistics


def _show_statistics(peer: "Peer") -> None:
    """A table of all peers: what the server knows of each, and what each says of itself."""
    said: dict[str, dict[str, Any]] = {}
    try:
        said = peer.run_everywhere(statistics, timeout=STATISTICS_SECONDS)
    except TimeoutError:
        print("some peers are busy: only what the server knows is shown", file=sys.stderr)
    status = peer.status()
    table = make_table(
        *("peer", "role", "slots", "running", "holds"),
        *("python", "cores", "load", "memory free"),
    )
    for member in status.members:
        if member.visitor:
            continue
        own = said.get(member.name) or said.get(f"{member.name}#{member.peer[:6]}")
        table.add_row(*_known(member), *_told(own))
    visitors = sum(member.visitor for member in status.members)
    console = make_console()
    console.print(table)
    console.print(
        f"[bold]{escape(status.server)}[/] serves, term {status.term}; "
        f"{visitors} visiting, {len(status.transactions)} transactions",
    )


def _known(member: MemberStatus) -> tuple[str, ...]:
    return (
        escape(member.name),
        "serves" if member.serving else "standby",
        str(member.slots),
        str(member.running),
        decimal(member.held_bytes) if member.held_bytes else "-",
    )


def _told(own: dict[str, Any] | None) -> tuple[str, ...]:
    if own is None:
        return ("-",) * 4
    free = decimal(own["memory_free"])
    return (own["python"], str(own["cores"]), f"{own['load']:.2f}", free)
