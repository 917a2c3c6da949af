"""Dask as an engine: futures of tasks, on a cluster that is there or on one of this host.

A map is one task, whose output stays on its worker. For each reduce, small tasks pick its slices
out of every map's output; Dask runs them where that output is, so only what a reduce needs is
moved. (Its p2p shuffle takes tables and arrays alone, and ``dask.bag`` promises no order of
values.) Outputs are bytes in plain containers, which Dask's workers measure and spill. What a lost
worker held the scheduler computes again. ``retries`` is Dask's own: of tasks that raise; deaths
it counts by itself (``distributed.scheduler.allowed-failures``).

Not here: starting clusters of several hosts, or Dask's own security, which its configuration has.
"""

import asyncio
import logging
import operator
import os
import pickle
import select
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from grid.errors import CannotJoin, GridError, Misuse, TransactionFailed, WorkerLost
from peers.engines import tasks, versions
from peers.engines.course import carry_out
from peers.engines.interface import CONNECT_SECONDS, Outcome, Request, Started

try:
    import dask.config
    import distributed
    import distributed.comm
    from distributed.scheduler import KilledWorker
except ImportError as error:
    raise Misuse(
        f"on='dask' needs Dask, which is not installed here ({error}): pip install 'peergrid[dask]'"
    ) from error

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""A cluster of this host takes a second or two, on a machine with nothing else to do."""

PACKAGES = ("cloudpickle", "dask", "distributed")


class Dask:
    """Runs jobs on the cluster at ``address``, or of ``client``. Without either: of the client
    that this process has, at the address in Dask's configuration, or on this host's own cores."""

    def __init__(self, address: str, client: Any = None) -> None:
        self._address = address
        self._client = client

    def run(self, request: Request) -> Outcome:
        with self._connected(request) as client:
            return carry_out(
                request, lambda recipe, _deadline: DaskCluster(client, request, recipe)
            )

    @contextmanager
    def _connected(self, request: Request) -> Iterator[Any]:
        address = self._address or dask.config.get("scheduler-address", "")
        if (client := self._client or (None if self._address else _present())) is not None:
            yield client
        elif address:
            with _client(address, request) as client:
                yield client
        else:
            with _own_cluster() as address, _client(address, request) as client:
                yield client


class DaskCluster:
    """A connected cluster; see ``Cluster``. Raises ``CannotJoin`` if it has no workers in time,
    ``Refused`` if it has other versions."""

    def __init__(self, client: Any, request: Request, recipe: tasks.Recipe) -> None:
        self._client = client
        self._where = f"the Dask cluster at {client.scheduler.address}"
        self._futures: list[Any] = []
        self._retries = request.retries
        self._run = f"{recipe.name[:6]}{uuid.uuid4().hex[:6]}"
        self._await_workers(request.connect_seconds or CONNECT_SECONDS)
        self._check_versions()
        self.slots = sum(client.nthreads().values())
        self.slices = request.job.partitions
        # A task, not scattered data: so that it can be had again when its worker is lost.
        self._recipe = self._submit("code", tasks.Recipe, *recipe)

    def map(self, share: tasks.Share) -> Started:
        name = f"map-{share.start}"
        whole = self._submit(name, tasks.map_share, share, self._recipe)
        return Started(
            share.what, self._submit(f"{name}-told", operator.itemgetter(0), whole), whole
        )

    def reduce(self, maps: Sequence[Started], first: int, stop: int) -> Started:
        pieces = [
            self._submit(f"pick-{first}-{number}", pick, one.output, first, stop)
            for number, one in enumerate(maps)
        ]
        what = f"the partitions {first} to {stop - 1}"
        whole = self._submit(f"reduce-{first}", reduce_picked, self._recipe, pieces)
        return Started(what, whole, whole)

    def finish(self, reduces: Sequence[Started]) -> Started:
        outputs = [one.output for one in reduces]
        whole = self._submit("finish", tasks.finish_all, self._recipe, outputs)
        return Started("finishfn", whole, whole)

    def ended(self, waiting: Sequence[Started], seconds: float) -> list[Started]:
        futures = {one.told: one for one in waiting}
        try:
            with self._client.as_current():
                done = distributed.wait(
                    list(futures), timeout=seconds, return_when="FIRST_COMPLETED"
                )
        except TimeoutError:
            self._check_connection()
            return []
        except CancelledError as error:
            raise self._lost(error) from error
        return [futures[future] for future in done.done]

    def told(self, task: Started) -> tasks.Told:
        if task.told is task.output:  # of a reduce it is enough to know that it has ended well
            self._ask(task, task.told.exception)
            return tasks.Told()
        told: tasks.Told = self._ask(task, task.told.result)
        return told

    def output(self, task: Started) -> list[bytes]:
        chunks: list[bytes] = self._ask(task, task.output.result)
        return chunks

    def cancel(self) -> None:
        try:
            self._client.cancel(self._futures, force=True)
        except Exception as error:  # the scheduler has gone, and the tasks with it
            log.debug("cannot cancel: %s", error)

    # -- tasks -------------------------------------------------------------------------

    def _submit(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        future = self._client.submit(
            function,
            *args,
            key=f"peergrid-{self._run}-{len(self._futures)}-{name}",
            pure=False,
            retries=self._retries or None,
        )
        self._futures.append(future)
        return future

    def _ask(self, task: Started, ask: Callable[[], Any]) -> Any:
        """Return the result, or exception, of a task that has ended; raise what it means."""
        try:
            answer = ask()
            if isinstance(answer, BaseException):
                raise answer
            return answer
        except tasks.Failed:
            raise
        except KilledWorker as error:
            raise WorkerLost(
                f"the worker processes that had {task.what} died, time after time ({error}). "
                f"Call job.run() to see it in this process, which may end too"
            ) from error
        except CancelledError as error:
            raise self._lost(error) from error
        except Exception as error:
            raise TransactionFailed(
                f"{self._where} could not run {task.what}: {type(error).__name__}: {error}"
            ) from error

    # -- the cluster -------------------------------------------------------------------

    def _await_workers(self, seconds: float) -> None:
        try:
            self._client.wait_for_workers(1, timeout=seconds)
        except TimeoutError as error:
            raise CannotJoin(
                f"{self._where} has had no worker for {seconds:g} s: start some there"
            ) from error

    def _check_versions(self) -> None:
        expression = versions.probe(PACKAGES)
        answers = {
            f"the Dask worker at {address}": answer
            for address, answer in self._client.run(eval, expression).items()
        }
        answers["the Dask scheduler"] = self._client.run_on_scheduler(eval, expression)
        versions.check(versions.here(PACKAGES), answers)

    def _check_connection(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise self._lost(ConnectionError(f"the client is {self._client.status}"))

    def _lost(self, error: BaseException) -> GridError:
        return TransactionFailed(
            f"{self._where} was lost while the job ran ({type(error).__name__}), and what was "
            f"computed with it: run the job again when the cluster is back"
        )


def pick(mapped: tuple[tasks.Told, dict[int, tasks.Piece]], first: int, stop: int) -> bytes:
    """Return slices ``first..stop`` of a map's output, as one piece that Dask moves untouched: a
    task of its own, which runs where the output is."""
    _, pieces = mapped
    return pickle.dumps([pieces[number] for number in range(first, stop) if number in pieces])


def reduce_picked(recipe: tasks.Recipe, picked: list[bytes]) -> list[bytes]:
    """Reduce what was picked from each map, in the order of the maps."""
    return tasks.reduce_pieces(recipe, chain.from_iterable(map(pickle.loads, picked)))


# ------------------------------------------------------------------ clients


def _present() -> Any:
    """Return the client that this process has, or None."""
    try:
        return distributed.default_client()
    except ValueError:
        return None


@contextmanager
def _client(address: str, request: Request) -> Iterator[Any]:
    seconds = request.connect_seconds or CONNECT_SECONDS
    full = _full(address)
    try:
        with ThreadPoolExecutor(1) as crew:  # the caller's thread may have a loop of its own
            crew.submit(asyncio.run, _greet(full, seconds)).result()
        client = distributed.Client(full, timeout=seconds, set_as_default=False)
    except Exception as error:
        raise CannotJoin(
            f"no Dask scheduler answers at {address}: {type(error).__name__}: {error}. Is that its "
            f"address, and can this host reach it?"
        ) from error
    with client:
        yield client


async def _greet(address: str, seconds: float) -> None:
    """Connect and disconnect. Dask's client bounds its dialling, but would wait for ever to be
    greeted by something that is silent: another service, or a scheduler that stands still."""
    arguments = distributed.Security().get_connection_args("client")
    dialling = distributed.comm.connect(address, timeout=seconds, **arguments)
    try:
        comm = await asyncio.wait_for(dialling, seconds + 1)  # after Dask's own, which says more
    except TimeoutError:
        raise TimeoutError(f"connected, but not greeted within {seconds:g} s") from None
    await comm.close()


def _full(address: str) -> str:
    """Return an address as Dask writes it: encrypted if Dask's configuration asks for that."""
    if "://" in address:
        return address
    encrypted = dask.config.get("distributed.comm.require-encryption", None)
    return f"{'tls' if encrypted else 'tcp'}://{address}"


@contextmanager
def _own_cluster() -> Iterator[str]:
    """A cluster of this host while it is needed; yields the scheduler's address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "peers.engines.dask_local"],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the client, which cancels
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
            address = process.stdout.readline().strip() if ready else ""
            if not address:
                raise CannotJoin("a Dask cluster of this host did not start; see what it says")
            yield address
        finally:
            process.stdin.close()


def _environment() -> dict[str, str]:
    """This process's, without the grid's secret, and such that this package is found there."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
    root = str(Path(__file__).resolve().parents[2])
    paths = [path for path in (root, given.get("PYTHONPATH")) if path]
    return given | {"PYTHONPATH": os.pathsep.join(paths)}
