"""What a user holds of a submitted job: a future of its results.

A ``Transaction`` is a ``concurrent.futures.Future``, so ``wait`` and ``as_completed`` take it, and
it can be awaited. Its results are bytes until the user wants them: ``result()`` opens them once, in
the thread that asks, ``items()`` streams them without building a dict.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grid.effects import ShowProgress
from grid.errors import GridError, PeerClosed, TransactionCancelled
from peers.interruptible import InterruptibleFuture

if TYPE_CHECKING:
    from peers.results import Results


@dataclass(frozen=True)
class Progress:
    """How far a transaction is. Maps count items, reduces count partitions; ``executed_again``
    counts finished tasks that were executed once more, ``tasks_this_term`` finished tasks that the
    present server has given; ``peers`` are the ids of those at work."""

    maps_done: int = 0
    maps_total: int = 0
    reduces_done: int = 0
    reduces_total: int = 0
    finishing: bool = False
    term: int = 0
    executed_again: int = 0
    tasks_this_term: int = 0
    peers: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.maps_total and not self.reduces_total:
            return "no server has told of it yet"
        mapped = f"{self.maps_done} of {self.maps_total} items mapped"
        return f"{mapped}, {self.reduces_done} of {self.reduces_total} partitions reduced"


class Transaction(InterruptibleFuture[dict[Any, Any]]):
    """One submission of a job. Made by ``Peer.submit``.

    ``id`` names it; ``name`` is the one given to ``submit``, or empty.
    """

    def __init__(self, txn: str, name: str, cancel: Callable[[bool], None]) -> None:
        super().__init__()
        self.id = txn
        self.name = name
        self._cancel = cancel
        self._shown: ShowProgress | None = None
        self._process = os.getpid()
        self._opening = threading.Lock()
        self._claiming = threading.Lock()
        self._claimed = False
        self._results: Results | None = None
        self._names: tuple[str, ...] | None = None
        self._opened: dict[Any, Any] | GridError | None = None
        self._keys: list[Any] = []
        self._skipped: tuple[int, ...] = ()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "running"
        return f"<Transaction {self.name or self.id} {state}>"

    # -- for users ---------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> dict[Any, Any]:
        """Return the results, waiting at most ``timeout`` seconds.

        The dict is built at the first call and the same one is returned by every further call.
        Raises ``TimeoutError``, ``TransactionFailed`` (see ``grid.errors``) or ``PeerClosed``.
        """
        self._wait(timeout)
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
        if isinstance(self._opened, GridError):
            raise self._opened
        return self._opened

    def items(self, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Stream the results as (key, value) pairs, in the order of ``result()``, without building
        one dict. Waits for the end of the job first. May be called again."""
        self._wait(timeout)
        results, opened = self._results, self._opened
        if results is None:
            assert isinstance(opened, dict), "closed since the result was opened"
            return iter(opened.items())
        return self._named(results) if self._names is not None else results.pairs()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return why the transaction failed, or None. Waits as ``result`` does, and raises
        ``TransactionCancelled`` if it was withdrawn here."""
        try:
            return super().exception(timeout)
        except TransactionCancelled:
            raise
        except CancelledError:
            raise TransactionCancelled("cancelled by its owner") from None

    def cancel(self, *, all: bool = False) -> bool:  # noqa: A002 - the word users know
        """Withdraw this submission; False if it is done already.

        The job ends when its last owner withdraws, or at once for everyone with ``all=True``.
        """
        if not super().cancel():
            return False
        self._claim()
        self._cancel(all)
        return True

    @property
    def progress(self) -> Progress:
        """How far it is, as last heard."""
        shown = self._shown
        if shown is None:
            return Progress()
        return Progress(
            maps_done=shown.maps_done,
            maps_total=shown.maps_total,
            reduces_done=shown.reduces_done,
            reduces_total=shown.reduces_total,
            finishing=shown.finishing,
            term=shown.term,
            executed_again=shown.again,
            tasks_this_term=shown.ran,
            peers=shown.peers,
        )

    @property
    def skipped(self) -> list[Any]:
        """The keys of the items that ``on_error="skip"`` has left out, in datasource order."""
        return [self._keys[index] for index in self._skipped if index < len(self._keys)]

    def __await__(self) -> Generator[Any, None, dict[Any, Any]]:
        return self._awaited().__await__()

    async def _awaited(self) -> dict[Any, Any]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        def tell(_: object) -> None:
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:
                pass  # whoever awaited has given up: the loop is closed

        self.add_done_callback(tell)
        await ended
        # Opening large results takes long: not on the loop's thread.
        return await asyncio.to_thread(self.result)

    # -- for the peer ------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        if self._process != os.getpid():
            raise PeerClosed(f"{self!r} belongs to the process that submitted it, not to its fork")
        try:
            super().result(timeout)
        except TransactionCancelled:
            raise
        except CancelledError:
            raise TransactionCancelled("cancelled by its owner") from None
        except TimeoutError:
            if self.done():
                raise
            raise TimeoutError(f"not done within {timeout:g} s: {self._so_far()}") from None

    def _ends_within(self, seconds: float) -> bool:
        """Wait for its end, of whatever kind, at most so long; tell whether it has come."""
        try:
            self.exception(seconds)
        except TimeoutError:
            return self.done()
        except CancelledError:
            pass
        return True

    def _so_far(self) -> str:
        """How far it is, in words, for whoever has waited in vain."""
        return f"{self.progress}; it goes on, wait again for it"

    def _ipython_display_(self) -> None:
        """As the value of a notebook's cell: a bar that moves until it has ended."""
        from peers import notebook  # not for those who have none

        notebook.show(self)

    def _open(self) -> dict[Any, Any] | GridError:
        """Build the dict; a job whose results clash gives the same error every time."""
        assert self._results is not None
        try:
            if self._names is not None:
                return dict(self._named(self._results))
            return self._results.as_dict()
        except GridError as error:
            return error

    def _named(self, results: "Results") -> Iterator[tuple[str, Any]]:
        """The values of a call on every member, by the names of the members."""
        assert self._names is not None
        for name, pairs in zip(self._names, results.segments(), strict=True):
            yield name, pairs[0][1]

    def _hold(self) -> None:
        """The peer closes: a result that nobody has opened yet stays readable."""
        with self._opening:
            if isinstance(self._opened, dict):
                self._results = None
            elif self._results is not None:
                self._results.hold()

    def _show(self, shown: ShowProgress) -> None:
        self._shown = shown

    def _resolve(
        self, results: "Results", names: tuple[str, ...] | None, skipped: tuple[int, ...]
    ) -> None:
        """The result is here. Does nothing if the user cancelled a moment ago."""
        self._results = results
        self._names = names
        self._skipped = skipped
        if self._claim():
            self.set_result({})

    def _fail(self, error: BaseException) -> None:
        if self._claim():
            self.set_exception(error)

    def _claim(self) -> bool:
        """Take the one right to settle this future; False if it is settled or cancelled. The user
        may cancel in one thread while the outcome comes in another."""
        with self._claiming:
            first, self._claimed = not self._claimed, True
            return first and self.set_running_or_notify_cancel()
