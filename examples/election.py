"""Watch an election: each instance says whether it serves or follows, and when that changes.

    python examples/election.py        # in several terminals

One of them serves. End it, however you like (its process id is shown: kill -9 it): another says
that it serves now, in the next term, and the others that they follow it. Freeze it (kill -STOP):
another takes over after some seconds; thaw it (kill -CONT): it finds the better server and
follows. Ctrl-C leaves.
"""

import os
import sys
import time

from peers import GridError, Peer

LOOK_SECONDS = 0.05


def role(peer: Peer) -> str:
    """What this peer is now, in words."""
    if peer.serving:
        return f"serves, term {peer.term}"
    if peer.server:
        return f"follows {peer.server}, term {peer.term}"
    return "follows nobody: looking for a server"


def main() -> None:
    with Peer() as peer:
        print(f"{peer.name} is process {os.getpid()}; Ctrl-C leaves", flush=True)
        shown = ""
        while not peer.wait_until_down(LOOK_SECONDS):
            now = role(peer)
            if now != shown:
                print(f"{time.strftime('%H:%M:%S')} {peer.name} {now}", flush=True)
                shown = now


if __name__ == "__main__":
    try:
        main()
    except GridError as error:
        sys.exit(f"election.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
