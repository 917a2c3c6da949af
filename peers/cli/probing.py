"""The work that ``grid chaos`` has done meanwhile: small jobs whose answers are known.

Every job gathers its own numbers by their rest, so that a number that is missing, is there twice,
or belongs elsewhere shows in the answer. Jobs go the ordinary way, ``Peer.submit``, two at a time.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grid.errors import GridError
from grid.job import Job

if TYPE_CHECKING:
    from peers.peer import Peer
    from peers.transaction import Transaction

ITEMS = 40
RESTS = 4
ITEM_SECONDS = 0.02
"""Long enough that most faults find tasks under way, short enough for many in a second."""

OPEN_JOBS = 2
"""While one ends, another gives everybody work."""

POLL_SECONDS = 0.05

PATIENCE_SECONDS = 60.0
"""A result that did not come for so long, with a grid that has a server again, is lost."""

Answer = dict[int, list[int]]


def tell_rest(number: int, value: int) -> Iterator[tuple[int, int]]:
    """Map: the number, by its rest."""
    time.sleep(ITEM_SECONDS)
    yield number % RESTS, value


def gather(_rest: int, values: list[int]) -> list[int]:
    """Reduce: all of them, so that none can make up for another."""
    return sorted(values)


def numbers_of(job: int) -> range:
    """The numbers that a job, and no other, is about."""
    return range(job * ITEMS, (job + 1) * ITEMS)


@dataclass(frozen=True)
class Findings:
    """What was wrong, in numbers that jobs are about; and what was done again. ``lost`` did not
    come, ``doubled`` came again, ``wrong`` came that no one asked for, or under another key."""

    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    again: int = 0
    reasons: tuple[str, ...] = ()

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(
            self.jobs + other.jobs,
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.wrong + other.wrong,
            self.again + other.again,
            self.reasons + other.reasons,
        )

    def __sub__(self, earlier: "Findings") -> "Findings":
        """What was found since."""
        return Findings(
            self.jobs - earlier.jobs,
            self.lost - earlier.lost,
            self.doubled - earlier.doubled,
            self.wrong - earlier.wrong,
            self.again - earlier.again,
            self.reasons[len(earlier.reasons) :],
        )

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


NOTHING = Findings()


def judge(job: int, answer: Answer) -> Findings:
    """Compare the answer of a job with the one that it has."""
    wanted = Counter((number % RESTS, number) for number in numbers_of(job))
    got = Counter((rest, value) for rest, values in answer.items() for value in values)
    more = got - wanted
    doubled = sum(count for pair, count in more.items() if pair in wanted)
    return Findings(1, (wanted - got).total(), doubled, more.total() - doubled)


class Probe:
    """Keeps jobs running on the grid of ``peer``, on a thread of its own, and judges them."""

    def __init__(self, peer: "Peer") -> None:
        self._peer = peer
        self._open: list[tuple[int, Transaction]] = []
        self._judged = Findings()
        self._delivered: Counter[int] = Counter()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="grid-probe", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Submit no more, and wait for what is open: what does not come is lost."""
        self._ending.set()
        self._thread.join()
        again = sum(count - 1 for count in self._delivered.values())
        if again:
            said = f"{again} results were delivered again"
            self._judged += Findings(doubled=again, reasons=(said,))

    def abandon(self) -> None:
        """Withdraw what is open: nobody wants to know any more."""
        self._ending.set()
        for _, transaction in list(self._open):
            transaction.cancel()

    @property
    def findings(self) -> Findings:
        """What was found until now; of the open jobs only what was done again."""
        again = sum(transaction.progress.executed_again for _, transaction in list(self._open))
        return replace(self._judged, again=self._judged.again + again)

    @property
    def jobs_submitted(self) -> int:
        return self._judged.jobs + len(self._open)

    def _run(self) -> None:
        job = 0
        while self._open or not self._ending.is_set():
            if len(self._open) < OPEN_JOBS and not self._ending.is_set():
                self._open.append((job, self._submit(job)))
                job += 1
                continue
            self._wait_for_first()

    def _submit(self, job: int) -> "Transaction":
        numbers = numbers_of(job)

        def delivered(answer: Answer) -> None:
            for values in answer.values():
                self._delivered.update(values)

        values = dict(zip(numbers, numbers, strict=True))
        return self._peer.submit(Job(values, tell_rest, reducefn=gather, resultfn=delivered))

    def _wait_for_first(self) -> None:
        """Wait for the oldest job; give it up when it is far too late."""
        job, transaction = self._open[0]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                found = judge(job, transaction.result(POLL_SECONDS))
                break
            except (FutureTimeout, CancelledError, GridError) as error:
                if not transaction.done() and time.monotonic() < deadline:
                    continue
                reason = (
                    str(error) if transaction.done() else f"no result in {PATIENCE_SECONDS:g} s"
                )
                found = Findings(1, lost=ITEMS, reasons=(f"job {job}: {reason}",))
                transaction.cancel()
                break
        found += Findings(again=transaction.progress.executed_again)
        self._judged += found
        self._open.pop(0)
