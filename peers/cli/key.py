"""``grid key``: which key this grid uses, and how to make one for several hosts."""

import argparse
from typing import Any

from peers.cli.options import add_command, add_grid_options, configuration
from peers.keys import KEY_FILE_VARIABLE, find_key, new_key_file
from peers.security import key_tag

_DESCRIPTION = """\
Show which key the grid uses: where it comes from, and a tag by which to compare it with
another host's (equal tags, equal keys) without showing it. On one host nothing has to be
done: the first command makes a key that only you can read. For several hosts:

  grid key --new grid.key        make a key file, once
  scp grid.key otherhost:        bring it to every host, readable by you alone
  grid up --key-file grid.key --hosts thishost,otherhost     on each of them
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "key", run, "which key is used; make one", _DESCRIPTION)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--new", metavar="FILE", help="make a new random key in FILE")
    what.add_argument("--show", action="store_true", help="print the secret itself, nothing else")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Make a key, show it, or say which it is."""
    if args.new is not None:
        path = new_key_file(args.new)
        print(f"made {path}")
        print(f"Use it on every host: --key-file {path}, or {KEY_FILE_VARIABLE}={path}")
        return 0
    meant = configuration(args)
    key = find_key(
        password=meant.password, key_file=meant.key_file, loopback_only=meant.loopback_only
    )
    if args.show:
        print(key.reveal())
        return 0
    grid = meant.settings.grid
    print(f"path    {key.path or '-'}")
    print(f"source  {key.source}")
    print(f"tag     {key_tag(grid, key)} (of this key in the grid named {grid!r})")
    return 0
