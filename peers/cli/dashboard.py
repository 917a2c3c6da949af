"""``grid dashboard``: the grid as a web page, live; for Prometheus too.

The process that serves the page is a visitor of the grid: it neither works nor serves, and follows
whoever does, so the page goes on when the server is killed.
"""

import argparse
import secrets
import sys
from pathlib import Path
from typing import Any

from grid.errors import BadKey, GridError, Misuse
from peers.cli.options import add_command, add_grid_options, read_secret, visit
from peers.cli.printing import add_json_option, print_json_line

PORT = 8235

TOKEN_BYTES = 32
TOKEN_LENGTH_MIN = 16

_DESCRIPTION = """\
Show the grid as a web page, live, until Ctrl-C: the server and who would take over, what
each failover took, peers, transactions with their failures, and buttons that cancel.

  grid dashboard
  grid dashboard --web-port 0                any free port
  grid dashboard --web-address 0.0.0.0       for other hosts too
  grid dashboard --token-file token.txt      the same token each time

Open the address that it prints: it has a token, which is new each time and which everyone
needs, on this host too. The page is not encrypted: over a network you do not trust, leave
it on loopback and use `ssh -L 8235:localhost:8235 HOST`. /metrics is for Prometheus,
/healthz for whoever watches over the process.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "dashboard", run, _DESCRIPTION)
    parser.add_argument(
        "--web-address",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="own address of the page (%(default)s); other hosts can reach any but loopback",
    )
    parser.add_argument(
        "--web-port",
        metavar="N",
        type=int,
        default=PORT,
        help="port of the page (%(default)s); 0 is any that is free",
    )
    parser.add_argument(
        "--called",
        metavar="NAME",
        action="append",
        default=[],
        help="another name that browsers may use for this host, such as a proxy's; again for more",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help="a file whose first line is the token (a new one)"
    )
    add_json_option(parser, "where the page is, as one JSON object")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is ended."""
    try:
        from peers.dashboard.serving import Dashboard, bind
    except ImportError as error:
        raise GridError(
            f"the page needs starlette and uvicorn, which are not installed here ({error}): "
            "pip install 'peergrid[dashboard]'"
        ) from error
    token = _token(args.token_file)
    if not 0 <= args.web_port < 1 << 16:
        raise Misuse(f"--web-port {args.web_port} is no port; give a number from 1 to 65535, or 0")
    with bind(args.web_address, args.web_port) as door, visit(args) as peer:
        dashboard = Dashboard(peer, door, token, args.called)
        if args.json:
            print_json_line({"url": dashboard.url, "port": dashboard.port, "token": token})
        else:
            print(dashboard.url, flush=True)
            print(_remark(dashboard.loopback), file=sys.stderr)
        dashboard.run()
    return 0


def _token(path: str | None) -> str:
    """Make a token, or read it. Raises ``BadKey``."""
    if path is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    token = read_secret(Path(path), "token")
    if len(token) < TOKEN_LENGTH_MIN or not all("!" <= c <= "~" for c in token):
        raise BadKey(
            f"the first line of {path} should be at least {TOKEN_LENGTH_MIN} letters and digits; "
            f"`python3 -c 'import secrets; print(secrets.token_urlsafe())'` makes a good one"
        )
    return token


def _remark(loopback: bool) -> str:
    if loopback:
        return "open this address in a browser on this host; Ctrl-C ends the page"
    return (
        "open this address in a browser; other hosts reach the page, with this token, and it is "
        "not encrypted; Ctrl-C ends it"
    )
