"""What runs on the hosts of a test: one peer, which does what its standard input says.

Started as ``python agent.py SETTINGS`` (JSON, as ``Peer`` takes them). It says ``joined`` when it
has, then answers each line of input (JSON: a number, what to do, with what) by one line of output:
the number and the answer, or ``error`` and its text. Ends with its input, leaving well.

What it notes by itself is every change of whom it follows, with the time (of the monotonic clock,
which all processes of a machine share).
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from peers import Job, Peer, Transaction
from tests.hosts.jobs import leave_a_trace
from tests.live.jobs import answer, reducing_job, slow_job, total

_LOOK_SECONDS = 0.002


class Agent:
    """One peer and what it submitted."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.history: list[tuple[float, str, int]] = []
        self.transactions: dict[str, tuple[Transaction, dict[Any, Any]]] = {}
        self._over = threading.Event()
        self._notes = threading.Thread(target=self._note)
        self._notes.start()

    def close(self) -> None:
        self._over.set()
        self._notes.join()

    def _note(self) -> None:
        last: tuple[str, int] | None = None
        while not self._over.wait(_LOOK_SECONDS):
            now = (self.peer.server, self.peer.term)
            if now != last:
                self.history.append((time.monotonic(), *now))
                last = now

    # -- what it is told -------------------------------------------------------------------

    def do_follows(self) -> dict[str, Any]:
        """Whom it follows, as it knows without asking."""
        return {"server": self.peer.server, "term": self.peer.term, "serving": self.peer.serving}

    def do_history(self) -> list[tuple[float, str, int]]:
        """When it followed whom: time, name of the server (empty: none), term."""
        return self.history

    def do_status(self, timeout: float = 5.0) -> dict[str, Any]:
        status = self.peer.status(timeout)
        return {
            "server": status.server,
            "address": status.address,
            "term": status.term,
            "alone": status.alone,
            "members": sorted(member.name for member in status.members),
        }

    def do_submit(self, name: str, items: int, **options: Any) -> str:
        """A job of about 10 ms an item; ``name`` is for the lines that follow. Return its id."""
        self.transactions[name] = (self.peer.submit(slow_job(items), **options), answer(items))
        return self.transactions[name][0].id

    def do_fetch(self, name: str, record: str, items: int) -> None:
        """Wait, as anybody may, for the result of a detached job that another has submitted."""
        self.transactions[name] = (self.peer.fetch(record, wait=True), answer(items))

    def do_shuffle(self, name: str, items: int) -> None:
        """A job of 32 kB an item, which pass from those who map to those who reduce."""
        right = {item: 32768 * (item % 251) for item in range(items)}
        self.transactions[name] = (self.peer.submit(reducing_job(items)), right)

    def do_trace(self, name: str, items: int, folder: str) -> None:
        """A job of about 10 ms an item that leaves a file in ``folder`` each time one is mapped:
        its number, the host, and when."""
        Path(folder).mkdir()
        job = Job([folder] * items, leave_a_trace, reducefn=total)
        self.transactions[name] = (self.peer.submit(job), {"items": items})

    def do_keepers(self, record: str) -> list[str]:
        """The peers that keep a detached job, or its end, on disk."""
        found = [t.owners for t in self.peer.status().transactions if t.record == record]
        return sorted(name for names in found for name in names)

    def do_progress(self, name: str) -> dict[str, Any]:
        transaction, _ = self.transactions[name]
        now = transaction.progress
        return {
            "maps_done": now.maps_done,
            "term": now.term,
            "executed_again": now.executed_again,
            "tasks_this_term": now.tasks_this_term,
            "done": transaction.done(),
        }

    def do_result(self, name: str, timeout: float = 30.0) -> bool:
        """Wait for the result; return whether it is the right one."""
        transaction, right = self.transactions[name]
        return transaction.result(timeout) == right


def main() -> None:
    """Join, then do what each line says."""
    settings = json.loads(sys.argv[1])
    with Peer(**settings) as peer:
        agent = Agent(peer)
        print("joined", peer.server, peer.term, flush=True)
        try:
            for line in sys.stdin:
                number, what, given = json.loads(line)
                try:
                    said = json.dumps({"answer": getattr(agent, f"do_{what}")(**given)})
                except Exception as error:
                    said = json.dumps({"error": f"{type(error).__name__}: {error}"})
                print(f"{number}: {said}", flush=True)
        finally:
            agent.close()


if __name__ == "__main__":
    main()
