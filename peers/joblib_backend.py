"""joblib on the grid: ``register()``, then ``with joblib.parallel_config("grid", hosts=...)``.

Every ``Parallel`` inside, those of scikit-learn too, then runs on the grid: ``n_jobs=-1`` is as
many calls at once as the whole grid has slots. joblib makes batches of quick calls by itself.
A ``Parallel`` inside a call runs in that call's worker, one after the other: the slots are taken.

The settings are those of ``Peer``. One peer is started for each set of them, at first use, and kept
until the interpreter ends; or give your own, ``peer=...``, and close it yourself. joblib has to be
installed wherever there are slots.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from peers.executor import GridExecutor
from peers.peer import Peer

NAME = "grid"

_peers: dict[str, Peer] = {}
_starting = threading.Lock()


def register() -> None:
    """Make ``"grid"`` a backend of joblib."""
    register_parallel_backend(NAME, GridBackend)


def _shared(settings: dict[str, Any]) -> Peer:
    """The peer of these settings, started now if there is none that is open."""
    key = repr(sorted(settings.items()))
    with _starting:
        peer = _peers.get(key)
        if peer is None or peer.closed:
            peer = _peers[key] = Peer(**settings)
        return peer


class GridBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What joblib asks of a backend. Raises whatever ``Peer`` raises."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        peer: Peer | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._peer = peer if peer is not None else _shared(settings)
        self._most: int | None = None
        self._executor: GridExecutor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at once: of -1, as many as the grid has slots now."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is not None and n_jobs > 0:
            return n_jobs
        slots = sum(member.slots for member in self._peer.status().members)
        return max(1, slots + 1 + (-1 if n_jobs is None else n_jobs))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_options: Any) -> int:
        """Get ready for one ``Parallel``."""
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._most = n_jobs if n_jobs > 0 else None
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None]) -> Future[Any]:
        """Send a batch of calls."""
        if self._executor is None:
            self._executor = self._peer.executor(self._most)
        future = self._executor.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch, which has ended."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002 - joblib's name
        """Drop what runs and what waits; the next batch finds another executor."""
        if self._executor is not None:
            self._executor.abandon()
            self._executor = None

    def terminate(self) -> None:
        """A ``Parallel`` has ended; the peer stays for the next."""
        self.abort_everything()
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """What a ``Parallel`` inside of a call gets."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None
