"""One peer of the witness grid: it keeps two jobs going, and may hold the interpreter's lock.

A C function called through ``ctypes.PyDLL`` keeps the lock: while it runs no thread of this process
runs, neither the client's nor the server's, as with a user's extension that does not let go. Every
second a line of JSON tells what has been seen so far (``Seen``); warnings and changes of role go to
standard error, one a line. The process leaves well when its standard input ends.
"""

import ctypes
import json
import logging
import sys
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field
from typing import Any

from grid.errors import TransactionCancelled
from grid.failure_detector import FailureDetector
from grid.job import Job
from peers import Peer, Transaction
from tests.witness.load import load, right

HELD_SECONDS = 2.0
BREATH_SECONDS = 0.5
"""Between two holds: one heartbeat, in which the other threads do what has piled up."""

AHEAD = 2
"""Jobs that an owner has open, so that the grid never runs dry."""


@dataclass
class Seen:
    """What one peer has seen since all members were there."""

    name: str
    jobs: int = 0
    tasks_again: int = 0
    burned_seconds: float = 0.0
    holds: int = 0
    held_seconds_max: float = 0.0
    silence_seconds_max: float = 0.0
    samples: int = 0
    terms: list[int] = field(default_factory=list)
    members_min: int = 0
    wrong: list[str] = field(default_factory=list)


def measure_silence(seen: Seen) -> None:
    """Note the longest silence that a failure detector of this process was about to judge."""
    judge = FailureDetector.silent

    def silent(self: FailureDetector, now: float) -> list[int]:
        longest = max((now - at for at in self._heard.values()), default=0.0)
        seen.silence_seconds_max = max(seen.silence_seconds_max, longest)
        return judge(self, now)

    FailureDetector.silent = silent  # type: ignore[method-assign]


def own_jobs(peer: Peer, seen: Seen, over: threading.Event) -> None:
    """Keep ``AHEAD`` jobs open until told to stop; check each result."""
    opened: deque[tuple[Job, Transaction]] = deque()
    number = 0
    while not over.is_set():
        while len(opened) < AHEAD:
            job = load(number)
            opened.append((job, peer.submit(job)))
            number += 1
        job, txn = opened.popleft()
        try:
            results = txn.result()
        except (CancelledError, TransactionCancelled):
            return
        except Exception as error:
            if not over.is_set():
                seen.wrong.append(f"job {number}: {type(error).__name__}: {error}")
            return
        if not right(job, results):
            seen.wrong.append(f"job {number} has a wrong result")
        seen.jobs += 1
        seen.tasks_again += txn.progress.executed_again
        seen.burned_seconds += sum(job.datasource)
    for _, txn in opened:
        txn.cancel()


def hold(seen: Seen, over: threading.Event) -> None:
    """Hold the interpreter's lock again and again."""
    usleep = ctypes.PyDLL(None).usleep
    while not over.wait(BREATH_SECONDS):
        began = time.monotonic()
        usleep(ctypes.c_uint(round(HELD_SECONDS * 1e6)))
        seen.holds += 1
        seen.held_seconds_max = max(seen.held_seconds_max, time.monotonic() - began)


def sample(peer: Peer, seen: Seen) -> None:
    """Look at the grid once."""
    try:
        status = peer.status()
    except TimeoutError:
        seen.wrong.append("no server answered")
        return
    seen.samples += 1
    seen.members_min = min(seen.members_min, len(status.members))
    if status.term not in seen.terms:
        seen.terms.append(status.term)


def watch_input(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def live(
    *, name: str, members: int, owner: bool = False, hog: bool = False, **settings: Any
) -> None:
    """Be one peer until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    seen = Seen(name, members_min=members)
    measure_silence(seen)
    over = threading.Event()
    threading.Thread(target=watch_input, args=(over,), daemon=True).start()
    with Peer(name=name, **settings) as peer:
        print("joined", flush=True)
        while len(peer.status().members) < members and not over.wait(0.1):
            pass  # a newcomer takes a server that does not answer it for frozen
        busy = []
        if owner:
            busy.append(threading.Thread(target=own_jobs, args=(peer, seen, over), daemon=True))
        if hog:
            busy.append(threading.Thread(target=hold, args=(seen, over), daemon=True))
        for thread in busy:
            thread.start()
        while not over.wait(1.0):
            sample(peer, seen)
            print("seen", json.dumps(asdict(seen)), flush=True)
