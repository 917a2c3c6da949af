"""The sequential oracle as an engine: here, now, in order, in this process."""

from collections.abc import Iterator
from typing import Any

from grid.job import Job
from grid.mapreduce import UserFault, compute
from grid.pickling import copy_of, show
from peers.engines.interface import Outcome, Request
from peers.failures import as_error
from peers.transaction import Progress
from peers.worker_failures import raised


class Local:
    """Runs jobs as ``Job.run()`` does, and fails as the other engines do: with ``TaskError``."""

    def run(self, request: Request) -> Outcome:
        job = request.job
        keys = job.keys()
        skip = request.on_error == "skip"
        try:
            results, skipped = compute(
                job.functions, _items(request, keys), job.partitions, skip=skip
            )
        except UserFault as fault:
            error = as_error(raised(fault.cause, fault.function, fault.key))
            raise error from fault.cause  # the very exception, for a debugger
        request.show(_progress(job, len(keys), len(keys), job.partitions))
        return Outcome(results, [keys[index] for index in skipped])


def _items(request: Request, keys: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    for index, key in enumerate(keys):
        request.show(_progress(request.job, index, len(keys), 0))
        try:
            value = request.job.value(key)
        except Exception as error:
            raise UserFault("the datasource", show(key), error) from error
        yield index, key, copy_of(value, "the value of key", key)


def _progress(job: Job, mapped: int, items: int, reduced: int) -> Progress:
    return Progress(
        maps_done=mapped, maps_total=items, reduces_done=reduced, reduces_total=job.partitions
    )
