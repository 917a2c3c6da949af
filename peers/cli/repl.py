"""``grid repl``: ask the grid about files, line by line.

A line is a glob, and its answer the most common words of the files that match; or a function of the
user's and a glob, and its answer what the function made of them. Every line is a transaction of its
own, so any number of REPLs can share a grid, and a server that dies while one waits costs it
nothing but a moment.

Promises: Ctrl-C while a job runs withdraws that job and gives the prompt back; at the prompt, and
at the end of the input, the REPL leaves. What goes wrong with one line is said, and the next is
asked for. Where the input is no terminal, lines are echoed after the prompt, so that what was
printed reads as a session, and the exit status tells whether every line was answered.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from grid.errors import GridError, Misuse
from grid.suggest import did_you_mean
from peers.cli.answers import Answer, Counted, Mapped, Statistics, Text, Transactions
from peers.cli.completion import line_editing
from peers.cli.counting import count_words, gather, read_and_count, statistics, total
from peers.cli.loading import load_function
from peers.cli.options import add_command, add_grid_options, visit
from peers.cli.printing import add_json_option, print_json_line, stdout_for_results
from peers.cli.waiting import wait_shown
from peers.interruptible import lines

if TYPE_CHECKING:
    from grid.job import Job
    from peers.peer import Peer
    from peers.transaction import Transaction

PROMPT = "GLOB> "

TOP = 20
"""So many words fit on a screen with the line that asked for them."""

STATISTICS_SECONDS = 5.0
"""Statistics need a free slot of every peer; who waits at a prompt is rather told that some are
busy."""

COMMANDS = (":help", ":jobs", ":peers", ":quit")

_FUNCTION = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
"""``module:function``, as against a path or a glob."""

_LINES = """\
  books/*.txt      the most common words of these files of this host; workers read them
                   where they have the same files, and are sent them where they have not
  @books/*.txt     the same, of files that all workers have: only names are sent
  wordcount:words books/*.txt
                   what words(path, text) of wordcount.py in this folder yields for them:
                   for each key the sum, or the list if there is more than numbers
  wordcount:words wordcount:total books/*.txt
                   the same, reduced by the function total(key, values)
  :peers           statistics from every peer; the empty line does the same
  :jobs            the transactions of the grid
  :help, :quit     these lines; leave"""

_DESCRIPTION = f"""\
Ask the grid about files, line by line, at the prompt GLOB>. A line is one of

{_LINES}

Several REPLs can share a grid, and any peer may be killed meanwhile, also the one that
serves. On a terminal, the up key brings back lines, also those of earlier sessions, and
the tab key completes files, modules, functions and commands. Ctrl-C withdraws the job
that runs; Ctrl-D leaves. Lines may come from a pipe:

  echo 'books/*.txt' | grid repl

With --json every line is answered by a line of JSON, and there is no prompt:

  echo 'books/*.txt' | grid repl --json | jq .words

The exit status is 1 if no grid answers, or if a line from a pipe had no answer.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "repl", run, _DESCRIPTION)
    parser.add_argument(
        "--top",
        type=int,
        default=TOP,
        metavar="N",
        help=f"show the N most common words, or first results ({TOP})",
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
    if as_json:
        with stdout_for_results() as out:
            return _converse(peer, top, out)
    with line_editing(COMMANDS) if sys.stdin.isatty() else nullcontext():
        all_answered = _converse(peer, top)
    print(flush=True)
    return all_answered


def _converse(peer: "Peer", top: int, json: IO[str] | None = None) -> bool:
    """Answer as people read it, or to ``json``."""
    all_answered = True
    piped = None if sys.stdin.isatty() and json is None else lines(sys.stdin)
    while True:
        try:
            line = (
                input(PROMPT) if piped is None else _next(piped, quiet=json is not None)
            ).strip()
        except EOFError:
            return all_answered
        if line == ":quit":
            return all_answered
        try:
            answer = _answer(peer, line)
            if json is not None:
                print_json_line(answer.as_json(top), json)
            else:
                answer.show(top)
        except (GridError, TimeoutError) as error:
            all_answered = False
            print(error, file=sys.stderr, flush=True)
            if json is not None:
                print_json_line({"line": line, "error": str(error)}, json)
        except KeyboardInterrupt as interrupt:
            all_answered = False
            if type(interrupt) is not KeyboardInterrupt:
                raise  # SIGTERM: it is this process that shall end, not the job
            print("cancelled", file=sys.stderr, flush=True)


def _next(piped: Iterator[str], *, quiet: bool) -> str:
    """Read a line that nobody sees typed. Raises ``EOFError`` at the end."""
    if not quiet:
        print(PROMPT, end="", flush=True)
    line = next(piped, None)
    if line is None:
        raise EOFError
    if not quiet:
        print(line, flush=True)
    return line


def _answer(peer: "Peer", line: str) -> Answer:
    if line.startswith(":"):
        return _command(peer, line)
    if not line:
        return _ask_everyone(peer, line)
    words = line.split(maxsplit=1)
    if _FUNCTION.fullmatch(words[0]) and not Path(line).exists():
        return _map(peer, line)
    transaction, seconds = _run(peer, _word_count(line))
    return Counted(line, transaction.result(), transaction.progress.maps_total, seconds)


def _command(peer: "Peer", line: str) -> Answer:
    match line:
        case ":help":
            return Text(line, _LINES)
        case ":peers":
            return _ask_everyone(peer, line)
        case ":jobs":
            return Transactions(line, peer.status().transactions)
        case _:
            hint = did_you_mean(line, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
            raise Misuse(f"{line!r} is no command{hint}")


# ------------------------------------------------------------------------------ jobs


def _word_count(line: str) -> "Job":
    """Make the job of a line. Raises ``Misuse`` for a name that is no file."""
    from peers import Files, Job

    if line.startswith("@"):
        files = Files(line[1:].strip(), mode="path")
        return Job(files, read_and_count, combinefn=total, reducefn=total)
    files = Files(line, errors="replace")
    return Job(files, count_words, combinefn=total, reducefn=total)


def _map(peer: "Peer", line: str) -> Mapped:
    """Run a function, and a second to reduce if there is one, over the files of a line."""
    transaction, seconds = _run(peer, _function_job(line))
    return Mapped(line, transaction.result(), transaction.progress.maps_total, seconds)


def _function_job(line: str) -> "Job":
    """Make the job of a line that begins with a function. Raises ``Misuse``, ``BadJob``."""
    from peers import Files, Job

    spec, _, rest = line.partition(" ")
    rest = rest.strip()
    mapfn, reducefn = load_function(spec), gather
    second, _, after = rest.partition(" ")
    if _FUNCTION.fullmatch(second) and not Path(rest).exists():
        reducefn, rest = load_function(second), after.strip()
    if not rest:
        raise Misuse(f"{line!r} names no files; write them after it, as in {spec} *.txt")
    if rest.startswith("@"):
        return Job(Files(rest[1:].strip(), mode="path"), mapfn, reducefn=reducefn)
    return Job(Files(rest, errors="replace"), mapfn, reducefn=reducefn)


def _run(peer: "Peer", job: "Job") -> "tuple[Transaction, float]":
    """Run a job to its end; Ctrl-C withdraws it. Return how many seconds it took."""
    began = time.monotonic()
    transaction = peer.submit(job)
    try:
        wait_shown(peer, transaction)
    except KeyboardInterrupt:
        transaction.cancel()
        raise
    transaction.result()  # raises, if it failed
    return transaction, time.monotonic() - began


def _ask_everyone(peer: "Peer", line: str) -> Statistics:
    said: dict[str, dict[str, Any]] = {}
    try:
        said = peer.run_everywhere(statistics, timeout=STATISTICS_SECONDS)
    except TimeoutError:
        print("some peers are busy: only what the server knows is shown", file=sys.stderr)
    return Statistics(line, peer.status(), said)
