"""Ask the grid to count words, line by line; every copy of this script is a peer of that grid.

    python examples/repl.py        # in several terminals, if you like

At the prompt GLOB> a glob, as in books/*.txt, counts the words of these files; @books/*.txt has
the workers read them; an empty line shows statistics from every peer. Kill any of the copies while
another waits, also the one that serves: the answer comes all the same. Ctrl-D or Ctrl-C leaves.

The command `grid repl` is the same without the peer: it visits a grid that others run.
"""

import os
import sys

from peers import GridError, Peer
from peers.cli.repl import converse


def main() -> None:
    with Peer() as peer:
        print(f"{peer.name} is process {os.getpid()}; {peer.server} serves", flush=True)
        converse(peer)


if __name__ == "__main__":
    try:
        main()
    except GridError as error:
        sys.exit(f"repl.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
