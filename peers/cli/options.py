"""What every subcommand shares: the flags of a grid, how they become settings, logging.

A flag wins over its ``GRID_*`` variable, which ``peers.configuration`` reads. A password is never
a flag, since flags can be read by every user of the host.

Promises: a flag is taken only in full (no abbreviations, which would change meaning when flags are
added), and a misspelt one is answered with the nearest.
"""

import argparse
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.logging import RichHandler

import peers
from grid.errors import BadKey, CannotJoin
from grid.suggest import did_you_mean
from peers.cli.waiting import spinning
from peers.configuration import Configuration, configure

if TYPE_CHECKING:
    from peers.peer import Peer, PeerStatus

VISIT_SECONDS = 1.5
"""How long a command looks for a grid: several times what a failover takes on one host."""

SILENT_SECONDS = 8.0
"""How much longer it looks if somebody holds a port and says nothing: a frozen server is replaced
by then, and one of an overloaded machine has answered."""

ANSWER_SECONDS = 5.0
"""A server that was joined a moment ago and does not answer in this time has died: longer than a
failover."""

LOG_COLUMNS = 400

_GRID_SETTINGS = (
    "hosts",
    "listen",
    "advertise",
    "port",
    "port_span",
    "grid",
    "key_file",
    "join_timeout",
    "quorum",
)
PEER_SETTINGS = ("slots", "memory_limit", "name", "workers", "spool", "journal")

log = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """Takes flags only in full, keeps the line breaks of its texts, shows errors in short."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n`{self.prog} --help` explains.\n")


def misspelt(parser: argparse.ArgumentParser, unknown: list[str]) -> str:
    """Say which arguments are not known, with the nearest flag."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    first = next((text for text in unknown if text.startswith("-")), unknown[0])
    hint = did_you_mean(first.split("=")[0], flags) if first.startswith("-") else ""
    return f"unknown argument {first!r}{hint}"


def add_command(commands: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    """Add a subcommand with the flags that all have."""
    parser: argparse.ArgumentParser = commands.add_parser(name, description=description)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say on stderr what happens; -vv says everything",
    )
    return parser


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which grid is meant."""
    group = parser.add_argument_group("which grid (also as GRID_HOSTS, GRID_PORT, ...)")
    group.add_argument(
        "--hosts", metavar="A,B,...", help="hosts of the grid, the same list everywhere"
    )
    group.add_argument(
        "--listen", metavar="A,B,...", help="own addresses to listen on (all; alone: loopback)"
    )
    group.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        help="where others find this peer, if not at an address of its own (containers, NAT)",
    )
    group.add_argument("--port", type=int, metavar="N", help="well-known port (11235)")
    group.add_argument(
        "--port-span", type=int, metavar="N", help="this port and its fallbacks, in number (3)"
    )
    group.add_argument("--grid", metavar="NAME", help="name of the grid (grid)")
    group.add_argument(
        "--key-file",
        metavar="FILE",
        help="the grid's key, made with `grid key --new FILE` (your own key, on one host)",
    )
    group.add_argument(
        "--password-file",
        metavar="FILE",
        help="a file whose first line is the grid's password; or set GRID_PASSWORD",
    )
    group.add_argument(
        "--join-timeout", type=float, metavar="SECONDS", help="how long to look for the grid"
    )
    group.add_argument(
        "--quorum",
        type=int,
        metavar="N",
        help="a server with fewer peers gives no work: for those who must not have two halves (0)",
    )


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a peer that works."""
    group = parser.add_argument_group("this peer (also as GRID_SLOTS, GRID_NAME, ...)")
    group.add_argument(
        "--slots", type=int, metavar="N", help="tasks at once (the cores); 0 runs none"
    )
    group.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="memory of this peer with its workers, as in 512M or 4G (half of the host's); what "
        "does not fit goes to disk",
    )
    group.add_argument("--name", help="what people read (host and process id)")
    group.add_argument(
        "--workers", choices=("process", "thread"), help="run tasks in processes (default)"
    )
    group.add_argument("--spool", metavar="FOLDER", help="where outputs are kept meanwhile")
    group.add_argument(
        "--journal", metavar="FOLDER", help="where detached transactions are kept (beside your key)"
    )


def given(args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Return the settings that flags gave, as ``Peer`` takes them: those that say which grid is
    meant, and ``more``. Raises ``BadKey``."""
    settings = {name: getattr(args, name) for name in (*_GRID_SETTINGS, *more)}
    if args.password_file is not None:
        settings["password"] = read_secret(Path(args.password_file), "password")
    return {name: value for name, value in settings.items() if value is not None}


def grid_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags that say which grid is meant, for another command on the same grid."""
    named = ((name, getattr(args, name)) for name in (*_GRID_SETTINGS, "password_file"))
    pairs = [
        ("--" + name.replace("_", "-"), str(value)) for name, value in named if value is not None
    ]
    return [text for pair in pairs for text in pair]


def configuration(args: argparse.Namespace) -> Configuration:
    """Return what flags and variables say together. Raises ``Misuse``."""
    return configure(given(args))


@contextmanager
def visit(args: argparse.Namespace) -> "Iterator[Peer]":
    """Join the grid without serving or working, and leave it again. Raises ``CannotJoin``."""
    settings = given(args)
    told = "join_timeout" in settings or "GRID_JOIN_TIMEOUT" in os.environ
    # GRID_SLOTS and GRID_NAME are about peers that stay; a command is another process.
    name = f"grid-{args.parser.prog.split()[-1]}-{os.getpid()}"
    looks = () if told else (VISIT_SECONDS, SILENT_SECONDS)
    try:
        with spinning("looking for the grid"):
            peer = _visitor(settings | {"name": name}, looks)
    except CannotJoin as error:
        if type(error) is not CannotJoin:
            raise  # a grid answered and said no: that says more
        log.info("%s", error)
        raise CannotJoin(_nobody(configuration(args), str(error))) from error
    with peer:
        yield peer


def _visitor(settings: dict[str, Any], looks: tuple[float, ...]) -> "Peer":
    """Join, looking for so long, and again if somebody was silent. Raises ``CannotJoin``."""
    if not looks:
        return peers.Peer(**settings, slots=0, serves=False)
    try:
        return peers.Peer(**settings, slots=0, serves=False, join_timeout=looks[0])
    except CannotJoin as error:
        if len(looks) == 1 or ": silent (" not in str(error):
            raise
    log.info("somebody is there and silent: looking for %g s more", looks[1])
    return _visitor(settings, looks[1:])


def ask(peer: "Peer") -> "PeerStatus":
    """Ask the server how the grid is. Raises ``CannotJoin`` when none answers."""
    try:
        return peer.status(ANSWER_SECONDS)
    except TimeoutError as error:
        raise CannotJoin(str(error)) from error


def _nobody(meant: Configuration, reasons: str) -> str:
    """Say in one line that there is no grid; and who else sits on its ports, if anyone."""
    hosts = ", ".join(meant.hosts) or "this host"
    ports = meant.settings.ports
    where = f"port {ports[0]}" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]}"
    others = [reason for reason in reasons.partition(". ")[2].split("; ") if _is_odd(reason)]
    there = "; ".join(_in_words(reason) for reason in others)
    told = f". There: {there}" if others else " (-v says what was tried)"
    return (
        f"no grid named {meant.settings.grid!r} answers on {hosts}, {where}. Start one with "
        f"`grid up`{told}"
    )


def _in_words(reason: str) -> str:
    """What is said of an address, without the name of the failure, which is for programs."""
    _, bracket, words = reason.partition(" (")
    return words.removesuffix(")") if bracket else reason


def _is_odd(reason: str) -> bool:
    """Whether a port did something else than to have nobody behind it."""
    return ": " in reason and ": refused (" not in reason


def read_secret(path: Path, what: str) -> str:
    """Read a password, or ``what`` else nobody may read. Raises ``BadKey``."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o027:
                raise BadKey(f"{path} can be read or changed by others: run `chmod 600 {path}`")
            secret = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise BadKey(f"cannot read the {what} file {path}: {reason}") from error
    if not secret:
        raise BadKey(f"the first line of {path} is empty; it should be the {what}")
    return secret


def start_logging(verbose: int) -> None:
    """Show warnings, with ``-v`` also what happens, with ``-vv`` everything, on stderr."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    # A log file must not be folded to the 80 columns of a terminal that is not there.
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else LOG_COLUMNS)
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False, markup=False)
    handler.setFormatter(logging.Formatter("%(message)s", datefmt="[%X]"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("grid", "peers"):
        logging.getLogger(name).setLevel(level)
