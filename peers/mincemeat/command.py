"""``python -m peers.mincemeat [options] [HOST]``: work for a server, as the original's command did.

Waits for a server if there is none yet, works until it is done, and ends; with ``--loop`` waits for
the next. The exit status is 0 when the server was done, 1 if it cannot be joined (the password),
2 if the command was wrong, 130 after Ctrl-C and 143 after SIGTERM.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType

from grid.errors import GridError, Misuse
from peers.keys import PASSWORD_VARIABLE
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
    worker = Worker(options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, worker.on_sigterm)
    try:
        worker.work()
    except KeyboardInterrupt:
        sys.exit(130)
    except (GridError, OSError) as error:
        sys.exit(f"mincemeat: {error}")
    if worker.stopped.is_set():
        sys.exit(128 + signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m peers.mincemeat",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("host", nargs="?", default="", metavar="HOST", help="(localhost)")
    parser.add_argument(
        "-p",
        "--password",
        default=os.environ.get(PASSWORD_VARIABLE, ""),
        help=f"the server's password ({PASSWORD_VARIABLE}, or none)",
    )
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


class Worker:
    """Clients, one after the other, for one server after the other if ``--loop`` was said."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.stopped = threading.Event()
        self._options = options
        self._client = Client()
        self._said = ""

    def on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """Leave as soon as can be, and well."""
        self.stopped.set()
        self._client.handle_close()

    def work(self) -> None:
        """Return when the server was done, or when stopped."""
        while not self.stopped.is_set():
            if self._served() and not self._options.loop:
                return
            self.stopped.wait(RETRY_SECONDS)

    def _served(self) -> bool:
        """Work for a server until it is done; False if there was none."""
        options = self._options
        self._client = Client()
        self._client.password = options.password
        try:
            if not self.stopped.is_set():
                self._client.conn(options.host, options.port)
        except socket.gaierror as error:
            if not options.loop:
                raise OSError(f"no host is called {options.host!r}: {error.strerror}") from error
            self._say(str(error))
            return False
        except OSError as error:
            self._say(str(error))
            return False
        self._said = ""
        return True

    def _say(self, reason: str) -> None:
        """Say once what is waited for, and why it is not there."""
        where = f"{self._options.host or 'localhost'}:{self._options.port}"
        if reason != self._said:
            self._said = reason
            text = f"mincemeat: waiting for a server at {where} ({reason}); Ctrl-C leaves"
            print(text, file=sys.stderr, flush=True)  # noqa: T201
