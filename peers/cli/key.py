"""``grid key``: which key this grid uses, and how to make one for several hosts."""

import argparse
from typing import Any

from peers.cli.options import add_command, add_grid_options, configuration
from peers.cli.printing import add_json_option, print_json
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
    parser = add_command(commands, "key", run, _DESCRIPTION)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--new", metavar="FILE", help="make a new random key in FILE")
    what.add_argument("--show", action="store_true", help="print the secret itself, nothing else")
    add_json_option(parser, "one JSON object")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Make a key, show it, or say which it is."""
    if args.new is not None:
        path = new_key_file(args.new)
        how = f"--key-file {path}, or {KEY_FILE_VARIABLE}={path}"
        _say(args, {"path": str(path)}, f"made {path}\nUse it on every host: {how}")
        return 0
    meant = configuration(args)
    key = find_key(
        password=meant.password, key_file=meant.key_file, loopback_only=meant.loopback_only
    )
    if args.show:
        _say(args, {"key": key.reveal()}, key.reveal())
        return 0
    grid = meant.settings.grid
    kept, tag = str(key.path) if key.path else None, key_tag(grid, key)
    _say(
        args,
        {"path": kept, "source": key.source, "tag": tag, "grid": grid},
        f"path    {kept or '-'}\n"
        f"source  {key.source}\n"
        f"tag     {tag} (of this key in the grid named {grid!r})",
    )
    return 0


def _say(args: argparse.Namespace, facts: dict[str, Any], text: str) -> None:
    if args.json:
        print_json(facts)
    else:
        print(text)
