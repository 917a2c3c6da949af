"""A process with peers that stay, and tell what they have computed, sent and received.

Started as a module, with the slots of each peer and how many there are. Says ``joined`` when all
are members; for each line that comes in, it says its counts as a line of JSON; when its input is
closed it leaves. Bytes are counted where the grid's messages go through Python's sockets: members
and the server, not the threads that move segments.
"""

import json
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any

counted = {"sent": 0, "received": 0}


def count_bytes() -> None:
    """Have every socket of this process count what the event loops send and receive by it."""
    plain: Any = socket.socket
    send, receive, receive_into = plain.send, plain.recv, plain.recv_into

    def counting_send(self: Any, data: Any, *more: Any) -> int:
        number: int = send(self, data, *more)
        counted["sent"] += number
        return number

    def counting_receive(self: Any, *more: Any) -> bytes:
        data: bytes = receive(self, *more)
        counted["received"] += len(data)
        return data

    def counting_receive_into(self: Any, *more: Any) -> int:
        number: int = receive_into(self, *more)
        counted["received"] += number
        return number

    plain.send, plain.recv, plain.recv_into = counting_send, counting_receive, counting_receive_into


def main() -> None:
    """Join, answer, leave."""
    slots, count = map(int, sys.argv[1:])
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
