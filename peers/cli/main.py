"""The ``grid`` command: parses, sets up logging, runs one subcommand, turns errors into lines.

Each subcommand is a module with ``add(commands)``, which describes its arguments, and
``run(args) -> int``, which does it and returns the exit status. Results go to stdout, everything
said to a person to stderr.

Promises: the exit status is 0 if it was done, 1 if it could not be done (no grid answers, a job
failed), 2 if the command itself was wrong, 128 + N if signal N ended it. Whatever goes wrong is
said in a few lines; our own traceback is shown with ``-vv`` only.
"""

import argparse
import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from types import FrameType

from grid.errors import GridError, Misuse
from grid.suggest import did_you_mean
from peers.cli.options import Parser, misspelt, start_logging

log = logging.getLogger(__name__)

_DESCRIPTION = """\
A masterless MapReduce grid of ordinary machines.

Every process of a grid is the same: whoever holds the well-known port serves, and
when it dies another takes over. Start a peer in as many terminals or hosts as you
like, then give it work from any of them:

  grid up                     a peer that stays (start several)
  grid status                 who serves, who is there, what runs
  grid top                    the same, live, with what each peer and transaction does
  grid dashboard              the same as a web page, live
  grid submit wordcount:job   run the Job called `job` of wordcount.py here
  grid jobs                   which transactions there are, and how far
  grid logs -f NAME           what the code of a transaction prints, as it comes
  grid result NAME            print the result of a named transaction again
  grid cancel NAME            end a transaction for everyone
  grid repl                   ask about files, line by line: words, or your own functions
  grid chaos NAME             kill, freeze and cut off its peers, and see what that costs
  grid key                    which key is used; --new FILE makes one for several hosts
  grid doctor                 what is wrong with this host's part in it, and what to do
  grid drain PEER             have one peer leave well, as before a restart
  grid down                   end every peer that `grid up` started
"""

_EPILOG = """\
Settings come from flags, then from GRID_* variables (GRID_HOSTS, GRID_PORT, ...), and
should be the same on every host. `grid COMMAND --help` explains each command, with
examples. For scripts: what is found goes to stdout, all else to stderr; every command
takes --json.

exit status:
  0    it was done
  1    it could not be done: no grid answers, the job failed, there is no such result
  2    the command was wrong
  130  Ctrl-C ended it (128 + N: signal N did); what it had submitted is withdrawn
"""

_COMMANDS = (
    "up",
    "drain",
    "down",
    "status",
    "top",
    "dashboard",
    "jobs",
    "submit",
    "logs",
    "result",
    "cancel",
    "chaos",
    "repl",
    "key",
    "doctor",
)
"""Each a module of this package."""


class Ended(KeyboardInterrupt):
    """SIGTERM, told to the main thread as Ctrl-C is."""


class _ShowVersion(argparse.Action):
    """Looks for it only when it is asked for: what reads versions takes 15 ms to load."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        try:
            version = metadata.version("peergrid")
        except metadata.PackageNotFoundError:
            version = "of a checkout"
        print(f"grid {version}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    if argv is None:  # this process is ours: at its end, looking for garbage takes 30 ms
        atexit.register(gc.freeze)
    words = _command_first(sys.argv[1:] if argv is None else argv)
    parser = _parser(words)
    _check_first(parser, words)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        args.parser.error(misspelt(args.parser, unknown))
    start_logging(args.verbose)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        return _run(args)
    except BrokenPipeError:
        # Whoever read our output has left; nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(words: Sequence[str] = ()) -> Parser:
    """Describe the command that is meant; without words all. Each module loads what it needs."""
    parser = Parser(prog="grid", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, help="one of those above; each has a --help of its own"
    )
    for name in _COMMANDS:
        if not words or name == words[0]:
            import_module(f"peers.cli.{name}").add(commands)
    return parser


def _command_first(words: Sequence[str]) -> list[str]:
    """Read ``grid -v status`` as ``grid status -v``, and ``grid help status`` as people mean it."""
    early = list(takewhile(lambda word: word in ("-v", "-vv", "--verbose"), words))
    rest = list(words[len(early) :])
    if rest[:1] == ["help"]:
        rest = [*rest[1:2], "--help"]
    return [*rest[:1], *early, *rest[1:]]


def _check_first(parser: Parser, words: list[str]) -> None:
    """End with what is wrong with the first word, if it is no command."""
    first = words[0] if words else ""
    if first in (*_COMMANDS, "-h", "--help", "--version"):
        return
    if not first or first in ("-v", "-vv", "--verbose"):
        parser.error("say which command, as in `grid status`")
    if not first.startswith("-"):
        parser.error(f"there is no command {first!r}{did_you_mean(first, _COMMANDS)}")
    told = did_you_mean(first, ("--help", "--version"))
    parser.error(
        f"unknown argument {first!r}{told or '; flags come after the command, as in'}"
        + ("" if told else f" `grid status {first} ...`")
    )


def _run(args: argparse.Namespace) -> int:
    """Run the chosen subcommand; say what went wrong in lines, not in tracebacks."""
    name = args.parser.prog
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except Ended:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except GridError as error:
        print(f"{name}: {error}", file=sys.stderr)
        log.debug("the traceback of the line above", exc_info=True)
        return 2 if isinstance(error, Misuse) else 1
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        log.debug("the traceback of the line above", exc_info=True)
        return 1
    except Exception as error:
        print(
            f"{name}: our mistake: {type(error).__name__}: {error}. Please report it with what "
            f"the same command says with -vv.",
            file=sys.stderr,
        )
        log.debug("the traceback of the line above", exc_info=True)
        return 1
    return code


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    raise Ended
