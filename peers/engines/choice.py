"""``run(job, on=...)``: one job, whatever computes it.

``on`` is ``"grid"``, ``"local"``, ``"dask"``, ``"dask://host:port"``, ``"ray"`` or
``"ray://host:port"``; also a ``Peer`` or a ``distributed.Client`` that is there already. An engine
is imported when it is asked for, so that each needs only its own extra.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from grid.errors import Misuse
from grid.job import Job
from grid.pickling import show
from grid.suggest import did_you_mean
from peers import submission
from peers.engines.interface import Engine, Outcome, Request

if TYPE_CHECKING:
    from peers.transaction import Progress

NAMES = ("grid", "local", "dask", "ray")

log = logging.getLogger(__name__)


def run(
    job: Job,
    *,
    on: Any = "grid",
    on_error: Literal["raise", "skip"] = "raise",
    retries: int = 0,
    deadline_seconds: float | None = None,
    connect_seconds: float | None = None,
    progress: "Callable[[Progress], None] | None" = None,
    **grid_options: Any,
) -> dict[Any, Any]:
    """Compute ``job`` on an engine and return its results, the same whichever it is.

    ``on_error``, ``retries`` and ``deadline_seconds`` mean what they do for ``Peer.submit``;
    ``name`` and the others that it takes are for the grid alone. ``connect_seconds`` is how long
    to look for a cluster, ``progress`` is called in this thread with a ``Progress`` now and then.
    ``resultfn`` is called once; if it raises that is logged. Ctrl-C cancels the job there.

    Raises what ``Peer.submit(job).result()`` does: ``Misuse`` (also for an engine that is not
    installed), ``CannotJoin`` if the cluster cannot be reached, ``Refused`` if it has other
    versions, ``TransactionFailed`` and its kinds for a job that failed.
    """
    outcome = compute(
        Request(job, on_error, retries, deadline_seconds, connect_seconds, progress, grid_options),
        on,
    )
    if outcome.skipped:
        shown = ", ".join(map(show, outcome.skipped[:10]))
        log.warning("left out, since a function raised: count=%d %s", len(outcome.skipped), shown)
    return outcome.results


def compute(request: Request, on: Any) -> Outcome:
    """Check a request, and have the engine that ``on`` names carry it out. Raises as ``run``."""
    submission.check(
        request.job,
        {
            "on_error": request.on_error,
            "retries": request.retries,
            "deadline_seconds": request.deadline_seconds,
            **request.grid_options,
        },
    )
    engine, calls_resultfn = chosen(on)
    if not calls_resultfn:
        for name in request.grid_options:
            raise Misuse(f"{name}= is for on='grid' alone; on={show(on)} has nothing like it")
    outcome = engine.run(request)
    if not calls_resultfn:
        _deliver(request.job, outcome)
    return outcome


def chosen(on: Any) -> tuple[Engine, bool]:
    """Return the engine that is meant, and whether it calls ``resultfn`` and has the options of
    the peer grid. Raises ``Misuse``."""
    if not isinstance(on, str):
        return _wrapped(on)
    name, _, address = on.partition("://")
    match name:
        case "grid" if on == name:
            from peers.engines.grid import Grid

            return Grid(), True
        case "local" if on == name:
            from peers.engines.local import Local

            return Local(), False
        case "dask":
            _check_address(on, address)
            from peers.engines.dask import Dask

            return Dask(address), False
        case "ray":
            _check_address(on, address)
            from peers.engines.ray import Ray

            return Ray(address), False
        case _:
            known = "use 'grid', 'local', 'dask', 'dask://HOST:PORT', 'ray' or 'ray://HOST:PORT'"
            hint = did_you_mean(name, NAMES) or f"; {known}"
            raise Misuse(f"on={show(on)} is no engine{hint}")


def _check_address(on: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if "://" in on and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        default = "8786" if on.startswith("dask") else "10001, of its client server"
        raise Misuse(f"on={show(on)} lacks a host or port; the usual port is {default}")


def _wrapped(on: Any) -> tuple[Engine, bool]:
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(on).__mro__}
    if "peers.Peer" in kinds:
        from peers.engines.grid import Grid

        return Grid(on), True
    if "distributed.Client" in kinds:
        from peers.engines.dask import Dask

        return Dask("", on), False
    raise Misuse(f"on={show(on)} is no engine; use a name such as 'grid', a Peer or a dask Client")


def _deliver(job: Job, outcome: Outcome) -> None:
    try:
        job.deliver(None, outcome.results)
    except Exception:
        log.exception("resultfn raised; the result stands")
