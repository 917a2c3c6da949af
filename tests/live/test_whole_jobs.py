"""A job that is one task: the worker that mapped its items reduces what came of them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid.mapreduce import assemble
from grid.messages import RIDING_BYTES_MAX
from peers import Job, TaskError
from peers.worker_channel import FinishTask, MapTask
from tests.live.harness import Site
from tests.live.test_workers import (
    JOBS,
    PARTITIONS,
    Rig,
    code_of,
    ended_well,
    make,
    pairs_of_items,
)

pytestmark = pytest.mark.live
__all__ = ["make"]  # a fixture


def as_one_task(rig: Rig, job: Job) -> MapTask:
    """The map of all items of a job, given as a whole."""
    record = f"job-{id(job)}"
    items = pairs_of_items(job)
    output = rig.output("map", 0, max(1, len(items)), record)
    return MapTask(f"whole-{record}", output, PARTITIONS, pickle.dumps(items), whole=True)


@pytest.mark.parametrize("name", JOBS)
def test_the_whole_is_reduced_where_it_was_mapped(make: Callable[..., Rig], name: str) -> None:
    rig, job = make(), JOBS[name]
    task, code = as_one_task(rig, job), code_of(job.functions)
    reduced = ended_well(rig, rig.begin(task, code))
    assert (reduced.kind, reduced.start, reduced.stop) == ("reduce", 0, PARTITIONS)
    outputs = [reduced]
    if job.functions.finishfn is not None:
        finish = rig.output("finish", 0, 1, task.output.record)
        paths = (str(rig.path(reduced)),)
        outputs = [ended_well(rig, rig.begin(FinishTask("finish", finish, paths), code))]
    assert assemble(rig.results(outputs)) == job.run()


def test_what_does_not_fit_into_memory_is_left_to_the_reduces(make: Callable[..., Rig]) -> None:
    rig = make(memory_bytes=1)
    job = JOBS["words"]
    sealed = ended_well(rig, rig.begin(as_one_task(rig, job), code_of(job.functions)))
    assert sealed.kind == "map"


def total(_key: Any, values: list[int]) -> int:
    return sum(values)


def fail(_key: Any, values: list[int]) -> int:
    raise LookupError(f"none of {values}")


def several(key: int, value: int) -> list[tuple[str, int]]:
    return [("a", value), ("b", value), ("a", key)]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reducefn": total},
        {"reducefn": total, "finishfn": lambda k, v: -v},
        {"collectfn": total},
    ],
    ids=["lists", "reduce", "finish", "collect"],
)
def test_a_job_of_one_item_is_one_task(site: Site, more: dict[str, Any]) -> None:
    peer = site.here(slots=1)
    job = Job({7: 3}, several, **more)
    txn = peer.submit(job)
    assert txn.result(60) == job.run()
    tasks = 2 if "finishfn" in more else 1
    assert txn.progress.tasks_this_term == tasks
    assert (txn.progress.maps_done, txn.progress.maps_total) == (1, 1)


@pytest.mark.parametrize("size", [0, RIDING_BYTES_MAX], ids=["small", "large"])
def test_only_a_small_result_comes_without_a_file_at_its_owner(site: Site, size: int) -> None:
    site.here(slots=1)
    owner = site.here(slots=0)
    job = Job([bytes(size)], lambda _, value: [("a", value)])
    txn = owner.submit(job)
    assert txn.result(60) == job.run()
    kept = [*Path(os.environ["GRID_SPOOL"]).rglob(f"result-{txn.id}-*")]
    assert len(kept) == (1 if size else 0)


def test_a_reduce_that_raises_is_told_as_one(site: Site) -> None:
    peer = site.here(slots=1)
    with pytest.raises(TaskError, match="none of") as caught:
        peer.submit(Job([1], several, reducefn=fail)).result(60)
    assert caught.value.function == "reducefn"
    assert caught.value.key == "'a'"


def test_skipped_items_of_one_task_are_told(site: Site) -> None:
    peer = site.here(slots=1)

    def picky(key: int, value: int) -> list[tuple[int, int]]:
        raise ValueError(value)

    txn = peer.submit(Job([1], picky), on_error="skip")
    assert txn.result(60) == {}
    assert txn.skipped == [0]
