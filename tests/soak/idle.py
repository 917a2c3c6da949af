"""Hundreds of idle peers lose their server: how long until all of them are back?

The grid has a few peers in processes of their own, so that killing a server kills nobody else, and
the crowd: many peers to a process, without slots, so that hundreds fit on one machine. All are
real: sockets, TLS, threads. A visitor in this process counts the members. Reported: the time until
all had joined, and for each ``kill -9`` of the server the time until all are back, the processor
time that this cost the new server, and all together.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peers import Peer, PeerStatus
from tests.live.harness import Process, Site

SERVERS = 9
"""The first server and as many successors as a roster names."""

PER_PROCESS = 50
LOOK_SECONDS = 0.05

READY_SECONDS = 6.0
"""Between two kills: idle members have made ready for the next server by then."""

PATIENCE_SECONDS = 120.0

CROWD = """
import sys
from contextlib import ExitStack
from peers import Peer
with ExitStack() as stack:
    for number in range(int(sys.argv[2])):
        stack.enter_context(Peer(name=f"{sys.argv[1]}.{number}", slots=0)).status()
    print("joined", flush=True)
    sys.stdin.read()
"""


@dataclass
class Return:
    """All are back after ``seconds``; the rest is processor time. ``server_cpu`` is None if the new
    server shares its process with others."""

    seconds: float
    term: int
    server_cpu: float | None
    all_cpu: float


class Crowd:
    """``count`` idle peers on one site, beside those that will be killed."""

    def __init__(self, site: Site, count: int) -> None:
        self._site = site
        self._servers = [site.start(f"server{number}", slots=0) for number in range(SERVERS)]
        self._watch: Peer = site.here("watch", serves=False)
        began = time.monotonic()
        parts = [min(PER_PROCESS, count - first) for first in range(0, count, PER_PROCESS)]
        for number, part in enumerate(parts):
            site.run(f"crowd{number}", CROWD, f"crowd{number}", str(part))
        self._members = SERVERS + count + 1
        self._until(lambda status: len(status.members) >= self._members)
        self.joined_seconds = time.monotonic() - began

    def end(self) -> None:
        """Kill all of them: to leave one after the other would take hundreds a minute or more. The
        one that watches removes their folders when it leaves."""
        for process in self._site.processes:
            process.kill()

    def kill_server(self) -> Return | None:
        """Kill the server's process; None if it is one of the crowd's, which others live in."""
        time.sleep(READY_SECONDS)
        before = self._watch.status(PATIENCE_SECONDS)
        victim = next((p for p in self._servers if p.name == before.server), None)
        if victim is None:
            return None
        self._servers.remove(victim)
        spent = self._spent()
        victim.kill()
        killed_at = time.monotonic()
        self._members -= 1
        after = self._until(
            lambda status: status.term > before.term and len(status.members) >= self._members
        )
        seconds = time.monotonic() - killed_at
        costs = {name: now - spent[name] for name, now in self._spent().items()}
        return Return(seconds, after.term, costs.get(after.server), sum(costs.values()))

    def _until(self, is_so: Callable[[PeerStatus], bool]) -> PeerStatus:
        """Look now and then, as each look costs the server a walk over all members."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                status = self._watch.status(PATIENCE_SECONDS / 10)
            except TimeoutError:
                status = None
            if status is not None and is_so(status):
                return status
            told = "nothing" if status is None else f"{len(status.members)} members"
            assert time.monotonic() < deadline, f"{self._members} members awaited, seen {told}"
            time.sleep(LOOK_SECONDS)

    def _spent(self) -> dict[str, float]:
        living = [p for p in self._site.processes if p.process.poll() is None]
        return {process.name: _processor_seconds(process) for process in living}


def _processor_seconds(process: Process) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(site: Site, count: int, kills: int) -> bool:
    """Measure and print; tell whether all came back each time."""
    try:
        crowd = Crowd(site, count)
        print(f"all joined after {crowd.joined_seconds:.1f} s")
        for _ in range(kills):
            back = crowd.kill_server()
            if back is None:
                print("the server shares its process with others of the crowd: not killed")
                break
            own = "" if back.server_cpu is None else f"new server {back.server_cpu:.2f} s, "
            print(
                f"all back after {back.seconds:.2f} s under term {back.term}; processor time: "
                f"{own}all peers {back.all_cpu:.2f} s"
            )
        crowd.end()
    except AssertionError as error:
        print(f"WRONG: {error}")
        return False
    return True
