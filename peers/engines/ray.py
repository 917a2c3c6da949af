"""Ray as an engine: remote tasks, on a cluster that is there or on one of this host.

A map returns an object for each slice of its output (``num_returns``), and a reduce takes the
objects of its slices: Ray's object store holds, spills and moves them, and its scheduler runs
tasks where most of their inputs are. Objects of a lost node are made again from their lineage.
``retries`` is Ray's own: it counts exceptions and lost workers together, of which the latter are
retried three times at least.

Ray itself waits for a lost head without end, so everything asked of it is ``Watched``.

Not here: connecting (``ray_connecting.py``), starting clusters of several hosts, or environments
for them (``runtime_env``).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from grid.errors import CannotJoin, GridError, Misuse, TransactionFailed, WorkerLost
from grid.messages import Failure
from peers.engines import tasks, versions
from peers.engines.course import carry_out
from peers.engines.interface import CONNECT_SECONDS, Deadline, Outcome, Request, Started
from peers.engines.watched import END_SECONDS, Watched, within

try:
    import ray
    import ray.exceptions
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from peers.engines.ray_connecting import connected, place
except ImportError as error:
    raise Misuse(
        f"on='ray' needs Ray, which is not installed here ({error}): pip install 'peergrid[ray]'"
    ) from error

log = logging.getLogger(__name__)

DEATHS_MAX = 3
"""Lost workers that a task survives, as Ray has it by default."""

SLICES_LEAST = 64
"""Objects that a map returns at least, if there are as many partitions: small ones cost little,
and a reduce must fit into the memory of a worker."""

PACKAGES = ("cloudpickle", "ray")


class Ray:
    """Runs jobs on the cluster whose client server is at ``address``. Without one: on the cluster
    that this process has joined, at ``RAY_ADDRESS``, or on this host's own cores."""

    def __init__(self, address: str) -> None:
        self._address = address

    def run(self, request: Request) -> Outcome:
        with connected(self._address, request):
            clusters: list[RayCluster] = []

            def connect(recipe: tasks.Recipe, deadline: Deadline) -> RayCluster:
                clusters.append(RayCluster(request, recipe, deadline))
                return clusters[0]

            try:
                return carry_out(request, connect)
            finally:
                for cluster in clusters:
                    cluster.close()


class RayCluster:
    """The cluster that Ray is connected to; see ``Cluster``."""

    def __init__(self, request: Request, recipe: tasks.Recipe, deadline: Deadline) -> None:
        self._raises = request.retries > 0
        # One remote function: Ray asks its head to keep each, and stands still if that is gone.
        self._task = ray.remote(
            num_cpus=1,
            max_retries=max(DEATHS_MAX, request.retries),
            retry_exceptions=[tasks.Failed] if self._raises else False,
        )(run_task)
        self._refs: list[Any] = []
        where, ask = place()
        self._watched = Watched(where, ask, deadline)
        try:
            self._watched.call(_check_versions, request.connect_seconds or CONNECT_SECONDS)
            self.slots = max(1, int(self._watched.call(ray.cluster_resources).get("CPU", 1)))
            self.slices = min(request.job.partitions, max(SLICES_LEAST, 4 * self.slots))
            self._recipe = self._watched.call(ray.put, recipe)
        except BaseException:
            self.close()
            raise

    def map(self, share: tasks.Share) -> Started:
        refs = self._start(map_to_slices, 1 + self.slices, share, self._recipe)
        return Started(share.what, refs[0], refs[1:])

    def reduce(self, maps: Sequence[Started], first: int, stop: int) -> Started:
        pieces = [piece for one in maps for piece in one.output[first:stop]]
        told, output = self._start(reduce_slices, 2, self._recipe, *pieces)
        return Started(f"the slices {first} to {stop - 1} of all partitions", told, output)

    def finish(self, reduces: Sequence[Started]) -> Started:
        outputs = [one.output for one in reduces]
        return Started("finishfn", *self._start(finish_outputs, 2, self._recipe, *outputs))

    def ended(self, waiting: Sequence[Started], seconds: float) -> list[Started]:
        return self._watched.call(_ended, waiting, seconds)

    def told(self, task: Started) -> tasks.Told:
        answer = self._watched.call(_result, task, task.told)
        if isinstance(answer, Failure):
            raise tasks.Failed(answer)
        told: tasks.Told = answer
        return told

    def output(self, task: Started) -> list[bytes]:
        chunks: list[bytes] = self._watched.call(_result, task, task.output)
        return chunks

    def cancel(self) -> None:
        if self._refs and not self._watched.lost:
            try:
                within(END_SECONDS, _cancel, self._refs)
            except Exception as error:
                log.debug("cannot cancel: %s", error)

    def close(self) -> None:
        """Watch no longer."""
        self._watched.close()

    def _start(self, function: Callable[..., Any], returns: int, *args: Any) -> list[Any]:
        task = self._task.options(num_returns=returns, name=function.__name__)
        refs = self._watched.call(task.remote, function, returns, self._raises, *args)
        self._refs.append(refs[0])
        return list(refs)


# ------------------------------------------------------------------ the tasks


def run_task(function: Callable[..., Any], returns: int, raises: bool, *args: Any) -> Any:
    """Run one of these. If it ends badly, raise that only where Ray is to try again: it prints an
    exception once for each object that the task would have made."""
    try:
        return function(*args)
    except tasks.Failed as failed:
        if raises:
            raise
        return [failed.failure, *[None] * (returns - 1)]


def map_to_slices(share: tasks.Share, recipe: tasks.Recipe) -> list[Any]:
    """Map a share; return what to tell of it, and each slice of its output, None if empty."""
    told, pieces = tasks.map_share(share, recipe)
    return [told, *(pieces.pop(number, None) for number in range(share.slices))]


def reduce_slices(recipe: tasks.Recipe, *pieces: tasks.Piece | None) -> tuple[Any, list[bytes]]:
    """Reduce slices, given map by map; return what to tell of it, and the results."""
    return tasks.Told(), tasks.reduce_pieces(recipe, pieces)


def finish_outputs(recipe: tasks.Recipe, *outputs: list[bytes]) -> tuple[Any, list[bytes]]:
    """Run finishfn over the outputs of all reduces; return likewise."""
    return tasks.Told(), tasks.finish_all(recipe, outputs)


# ------------------------------------------------------------------ asking Ray


def _ended(waiting: Sequence[Started], seconds: float) -> list[Started]:
    by_ref = {one.told: one for one in waiting}
    done, _ = ray.wait(list(by_ref), num_returns=1, timeout=seconds)
    if done:  # all that have ended, not only the first
        done, _ = ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0)
    return [by_ref[ref] for ref in done]


def _result(task: Started, ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, tasks.Failed) else _failed(task, error) from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise WorkerLost(
            f"the worker processes that had {task.what} died, time after time "
            f"({type(error).__name__}). Call job.run() to see it in this process, which may end too"
        ) from error
    except Exception as error:
        raise _failed(task, error) from error


def _failed(task: Started, error: Exception) -> GridError:
    return TransactionFailed(
        f"the Ray cluster could not run {task.what}: {type(error).__name__}: {error}"
    )


def _cancel(refs: list[Any]) -> None:
    # Not by force: of a task that ends just then, that can end this process too.
    _, running = ray.wait(refs, num_returns=len(refs), timeout=0)
    for ref in running:
        try:
            ray.cancel(ref)
        except Exception as error:  # it has ended, or the cluster has
            log.debug("cannot cancel: %s", error)


def _check_versions(seconds: float) -> None:
    expression = versions.probe(PACKAGES)
    # Made here, so it travels by value: this package need not be there yet.
    ask = ray.remote(num_cpus=0)(lambda: eval(expression))  # noqa: S307 - our own text
    refs = {
        f"the Ray node at {node['NodeManagerAddress']}": ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    try:
        answers = dict(zip(refs, ray.get(list(refs.values()), timeout=seconds), strict=True))
    except ray.exceptions.GetTimeoutError as error:
        raise CannotJoin(
            f"the Ray cluster has run nothing for {seconds:g} s: see `ray status` there"
        ) from error
    versions.check(versions.here(PACKAGES), answers)
