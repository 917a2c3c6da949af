"""A process with peers that stay, and tell what they have computed, sent and received.

Started as a module, with the slots of each peer and how many there are. Says ``joined`` when all
are members; for each line that comes in, it says its counts as a line of JSON; when its input is
closed it leaves. Bytes are counted as they are handed to sockets, before they are encrypted.
"""

import json
import os
import socket
import ssl
import sys
import time
from contextlib import ExitStack
from typing import Any

CROWD_NICE = 15
"""Of many peers in a process: what they compute would be spread over many machines, and must not
starve those that serve, each of which would have a machine of its own."""

counted = {"sent": 0, "received": 0}


def count_bytes() -> None:
    """Have every socket of this process, plain or encrypted, count what goes through it."""
    for kind, out, into in ((socket.socket, "send", "recv"), (ssl.SSLSocket, "send", "read")):
        _count(kind, out, "sent")
        _count(kind, into, "received")


def _count(kind: Any, method: str, what: str) -> None:
    plain = getattr(kind, method)

    def counting(self: Any, *arguments: Any, **named: Any) -> Any:
        moved = plain(self, *arguments, **named)
        counted[what] += moved if isinstance(moved, int) else len(moved)
        return moved

    setattr(kind, method, counting)


def main() -> None:
    """Join, answer, leave."""
    slots, count = map(int, sys.argv[1:])
    if count > 1:
        os.nice(CROWD_NICE)
    count_bytes()
    from peers import Peer  # after the sockets count

    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Peer(slots=slots))
        print("joined", flush=True)
        for _ in sys.stdin:
            print(json.dumps({**counted, "seconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    main()
