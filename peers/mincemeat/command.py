"""``python -m peers.mincemeat [options] [HOST]``: work for a server, as the original's command did.

Waits for a server if there is none yet, works until it is done, and ends; with ``--loop`` waits for
the next. The exit status is 0 when the server was done, 1 if it cannot be joined (the password),
2 if the command was wrong, 130 after Ctrl-C and 143 after SIGTERM.
"""

import argparse
import logging
import signal
import socket
import sys
import threading
import time
from types import FrameType

from grid.errors import GridError, Misuse
from peers.mincemeat import DEFAULT_PORT
from peers.mincemeat.client import Client
from peers.mincemeat.joining import check_port

RETRY_SECONDS = 0.2

_DESCRIPTION = """\
Work for a mincemeat server, or in a grid of peers with the same password, and never serve.
Start as many as the machine has cores, in the folder of the program: its modules are imported and
its files opened from there.
"""


def run_client(arguments: list[str] | None = None) -> None:
    """Be the command. Returns when the server was done, exits otherwise."""
    options = _parser().parse_args(arguments)
    if options.loud or options.verbose:
        logging.basicConfig(level=logging.DEBUG if options.loud else logging.INFO)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        while True:
            _work(options)
            if not options.loop:
                return
    except KeyboardInterrupt:
        sys.exit(130)
    except (GridError, OSError) as error:
        sys.exit(f"mincemeat: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m peers.mincemeat",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("host", nargs="?", default="", metavar="HOST", help="(localhost)")
    parser.add_argument("-p", "--password", default="", help="the server's password")
    parser.add_argument(
        "-P", "--port", type=_port, default=DEFAULT_PORT, help=f"the server's port ({DEFAULT_PORT})"
    )
    parser.add_argument("-l", "--loop", action="store_true", help="then wait for the next server")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what happens")
    parser.add_argument("-V", "--loud", action="store_true", help="say everything")
    return parser


def _port(text: str) -> int:
    try:
        return check_port(text)
    except Misuse as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)  # leaving well on the way


def _work(options: argparse.Namespace) -> None:
    """Wait for a server and work for it until it is done."""
    said = ""
    while True:
        client = Client()
        client.password = options.password
        try:
            client.conn(options.host, options.port)
        except socket.gaierror as error:
            if not options.loop:
                raise OSError(f"no host is called {options.host!r}: {error.strerror}") from error
        except OSError as error:
            where = f"{options.host or 'localhost'}:{options.port}"
            now = f"waiting for a server at {where} ({error}); Ctrl-C leaves"
            if now != said:
                print(f"mincemeat: {now}", file=sys.stderr, flush=True)  # noqa: T201
                said = now
        else:
            return
        time.sleep(RETRY_SECONDS)
