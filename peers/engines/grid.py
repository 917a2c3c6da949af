"""The peer grid as an engine: joins, submits, waits, and leaves again."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peers.engines.interface import Outcome, Request

if TYPE_CHECKING:
    from peers.peer import Peer

POLL_SECONDS = 0.1


class Grid:
    """Runs jobs on the grid of ``peer``; without one, on the one that ``GRID_*`` variables name.

    Then this process is one of its peers meanwhile, and a whole grid if there is no other. Ctrl-C
    withdraws the job.
    """

    def __init__(self, peer: "Peer | None" = None) -> None:
        self._peer = peer

    def run(self, request: Request) -> Outcome:
        if self._peer is not None:
            return _run(self._peer, request)
        from peers.peer import Peer  # loads TLS, which the other engines do not need

        seconds = request.connect_seconds
        settings: dict[str, Any] = {} if seconds is None else {"join_timeout": seconds}
        with Peer(**settings) as peer:
            return _run(peer, request)


def _run(peer: "Peer", request: Request) -> Outcome:
    transaction = peer.submit(
        request.job,
        on_error=request.on_error,
        retries=request.retries,
        deadline_seconds=request.deadline_seconds,
        **request.grid_options,
    )
    try:
        while not transaction._ends_within(POLL_SECONDS):
            request.show(transaction.progress)
        results = transaction.result()
    except BaseException:
        transaction.cancel()
        raise
    last = transaction.progress  # what the server told last may be older than the results
    request.show(replace(last, maps_done=last.maps_total, reduces_done=last.reduces_total))
    return Outcome(results, transaction.skipped)
