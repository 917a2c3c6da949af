"""``python -m peers``: the ``grid`` command, also where it is not on the PATH."""

import sys

from peers.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
