"""``grid repl``: ask the grid to count words, line by line.

A line is a glob, and its answer the most common words of the files that match. Every line is a
transaction of its own, so any number of REPLs can share a grid, and a server that dies while one
waits costs it nothing but a moment.

Promises: Ctrl-C while a job runs withdraws that job and gives the prompt back; at the prompt, and
at the end of the input, the REPL leaves. What goes wrong with one line is said, and the next is
asked for. Where the input is no terminal, lines are echoed after the prompt, so that what was
printed reads as a session, and the exit status tells whether every line was answered.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from rich.filesize import decimal
from rich.markup import escape

from grid.errors import GridError, Misuse
from grid.messages import MemberStatus
from peers.cli.counting import count_words, read_and_count, statistics, total
from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.printing import add_json_option, print_json_line
from peers.cli.tables import make_console, make_table
from peers.cli.waiting import wait_shown

if TYPE_CHECKING:
    from grid.job import Job
    from peers.peer import Peer, PeerStatus

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

With --json every line is answered by a line of JSON, and there is no prompt:

  echo 'books/*.txt' | grid repl --json | jq .words

The exit status is 1 if no grid answers, or if a line from a pipe had no answer.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "repl", run, "count words, line by line", _DESCRIPTION)
    parser.add_argument(
        "--top", type=int, default=TOP, metavar="N", help=f"show the N most common words ({TOP})"
    )
    add_json_option(parser, "each answer as a line of JSON")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Visit the grid until the input ends."""
    if args.top < 0:
        raise Misuse(f"--top {args.top}: give a number of words, 0 or more")
    with visit(args) as peer:
        all_answered = converse(peer, args.top, as_json=args.json)
    return 0 if all_answered or sys.stdin.isatty() else 1


def converse(peer: "Peer", top: int = TOP, *, as_json: bool = False) -> bool:
    """Answer lines of standard input until it ends, or Ctrl-C at the prompt is raised.

    Return whether every line was answered.
    """
    with suppress(ImportError):
        import readline  # noqa: F401 - input() then has editing and history
    all_answered = True
    while True:
        try:
            line = _ask(quiet=as_json).strip()
        except EOFError:
            break
        try:
            answer = _answer(peer, line)
            if as_json:
                print_json_line(answer.as_json(top))
            else:
                answer.show(top)
        except (GridError, TimeoutError) as error:
            all_answered = False
            print(error, file=sys.stderr, flush=True)
            if as_json:
                print_json_line({"line": line, "error": str(error)})
        except KeyboardInterrupt as interrupt:
            all_answered = False
            if type(interrupt) is not KeyboardInterrupt:
                raise  # SIGTERM: it is this process that shall end, not the job
            print("cancelled", file=sys.stderr, flush=True)
    if not as_json:
        print(flush=True)
    return all_answered


def _ask(*, quiet: bool) -> str:
    """Read a line. Raises ``EOFError`` at the end."""
    if sys.stdin.isatty() and not quiet:
        return input(PROMPT)
    if not quiet:
        print(PROMPT, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    if not quiet:
        print(line.rstrip("\n"), flush=True)
    return line


def _answer(peer: "Peer", line: str) -> "Counted | Statistics":
    return _count(peer, line) if line else _ask_everyone(peer)


# ------------------------------------------------------------------------------ words


def _job(line: str) -> "Job":
    """Make the job of a line. Raises ``Misuse`` for a name that is no file."""
    from peers import Files, Job

    if line.startswith("@"):
        files = Files(line[1:].strip(), mode="path")
        return Job(files, read_and_count, combinefn=total, reducefn=total)
    files = Files(line, errors="replace")
    return Job(files, count_words, combinefn=total, reducefn=total)


@dataclass
class Counted:
    """The words of the files that a line names."""

    line: str
    counts: dict[str, int]
    files: int
    seconds: float

    def common(self, top: int) -> list[tuple[str, int]]:
        return sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:top]

    def show(self, top: int) -> None:
        for word, count in self.common(top):
            print(f"{count:9} {word}")
        print(
            f"{sum(self.counts.values())} words, {len(self.counts)} different, in {self.files} "
            f"{'file' if self.files == 1 else 'files'}, {self.seconds:.2f} s",
            flush=True,
        )

    def as_json(self, top: int) -> dict[str, Any]:
        return {
            "line": self.line,
            "common": self.common(top),
            "words": sum(self.counts.values()),
            "different": len(self.counts),
            "files": self.files,
            "seconds": round(self.seconds, 3),
        }


def _count(peer: "Peer", line: str) -> Counted:
    began = time.monotonic()
    transaction = peer.submit(_job(line))
    try:
        wait_shown(peer, transaction)
    except KeyboardInterrupt:
        transaction.cancel()
        raise
    counts = transaction.result()
    files = transaction.progress.maps_total
    return Counted(line, counts, files, time.monotonic() - began)


# ------------------------------------------------------------------------------ statistics


@dataclass
class Statistics:
    """All peers: what the server knows of each, and what each says of itself."""

    status: "PeerStatus"
    said: dict[str, dict[str, Any]]

    def rows(self) -> Iterator[tuple[MemberStatus, dict[str, Any] | None]]:
        for member in self.status.members:
            if not member.visitor:
                own = self.said.get(member.name)
                yield member, own or self.said.get(f"{member.name}#{member.peer[:6]}")

    def show(self, _top: int) -> None:
        table = make_table(
            *("peer", "role", "slots", "running", "holds"),
            *("python", "cores", "load", "memory free"),
        )
        for member, own in self.rows():
            table.add_row(*_known(member), *_told(own))
        visitors = sum(member.visitor for member in self.status.members)
        open_ = len(self.status.transactions)
        console = make_console()
        console.print(table)
        console.print(
            f"[bold]{escape(self.status.server)}[/] serves, term {self.status.term}; "
            f"{visitors} visiting, {open_} {'transaction' if open_ == 1 else 'transactions'}",
        )

    def as_json(self, _top: int) -> dict[str, Any]:
        peers = [msgspec.to_builtins(member) | (own or {}) for member, own in self.rows()]
        return {
            "line": "",
            "server": self.status.server,
            "term": self.status.term,
            "peers": peers,
        }


def _ask_everyone(peer: "Peer") -> Statistics:
    said: dict[str, dict[str, Any]] = {}
    try:
        said = peer.run_everywhere(statistics, timeout=STATISTICS_SECONDS)
    except TimeoutError:
        print("some peers are busy: only what the server knows is shown", file=sys.stderr)
    return Statistics(peer.status(), said)


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
