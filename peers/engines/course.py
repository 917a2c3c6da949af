"""The course of a job on a cluster: maps, reduces, finish, results.

The cluster's scheduler decides what runs where and when, moves the data, spills it, and repeats
what lost workers take along. What is decided here is only how a job is cut, and that reduces are
asked for once all maps have told the sizes of their outputs: so their ranges fit the data, and a
failing map ends the job before anything is shuffled.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from itertools import chain

from grid.mapreduce import UserFault, assemble
from grid.pickling import show
from peers import shipping, worker_failures
from peers.engines.interface import Cluster, Deadline, Outcome, Request, Started
from peers.engines.shares import Shares, partitions_in, ranges
from peers.engines.tasks import Failed, Recipe, Share, Told, decoded
from peers.failures import as_error
from peers.transaction import Progress

log = logging.getLogger(__name__)


def carry_out(request: Request, connect: Callable[[Recipe, Deadline], Cluster]) -> Outcome:
    """Run a job on a cluster. Raises ``GridError``; whatever is raised, nothing goes on there.

    ``connect`` gets the job's code, once that is known to be able to travel.
    """
    code = shipping.freeze(request.job.functions, request.job.ship)
    encoded = code.encode()
    recipe = Recipe(hashlib.sha256(encoded).hexdigest()[:16], encoded)
    deadline = Deadline(request.deadline_seconds)
    cluster = connect(recipe, deadline)
    try:
        return _Course(request, cluster, deadline, code.shipped).run()
    except Failed as failed:
        cluster.cancel()
        error = as_error(failed.failure)
        raise error from error.__cause__
    except UserFault as fault:  # of the datasource, which is read here
        cluster.cancel()
        error = as_error(worker_failures.raised(fault.cause, fault.function, fault.key))
        raise error from fault.cause
    except BaseException:
        cluster.cancel()
        raise


class _Course:
    """One run of one job."""

    def __init__(
        self, request: Request, cluster: Cluster, deadline: Deadline, shipped: Sequence[str]
    ) -> None:
        self._request = request
        self._cluster = cluster
        self._deadline = deadline
        self._shipped = shipped
        self._partitions = request.job.partitions
        self._items = self._mapped = self._reduced = 0

    def run(self) -> Outcome:
        cluster, job = self._cluster, self._request.job
        skip = self._request.on_error == "skip"
        shares = Shares(job, self._shipped, cluster.slots, cluster.slices, skip=skip)
        self._items = len(shares.keys)
        maps, tolds = self._map(shares)
        made = self._reduce(maps, tolds)
        if job.functions.finishfn is not None:
            self._show(finishing=True)
            made = [cluster.finish(made)]
            self._wait(made, lambda _number: None)
        results = assemble(decoded(map(cluster.output, made)))
        self._show()
        skipped = chain.from_iterable(told.skipped for told in tolds)
        return Outcome(results, [shares.keys[index] for index in skipped])

    def _map(self, shares: Shares) -> tuple[list[Started], list[Told]]:
        """Map all shares; those that name files which are not the same there once more."""
        cut: list[Share] = []
        maps: list[Started] = []
        for share in shares:
            cut.append(share)
            maps.append(self._cluster.map(share))
        self._show()

        def count(number: int) -> None:
            self._mapped += cut[number].stop - cut[number].start

        tolds = self._wait(maps, count)
        by_value: list[set[int]] = [set() for _ in cut]
        while strange := [n for n, told in enumerate(tolds) if told.strangers]:
            self._warn(shares, [tolds[number] for number in strange])
            for number in strange:
                self._mapped -= cut[number].stop - cut[number].start
                by_value[number].update(tolds[number].strangers)
                maps[number] = self._cluster.map(shares.again(cut[number], by_value[number]))
            again = self._wait([maps[n] for n in strange], count, strange)
            for number, told in zip(strange, again, strict=True):
                tolds[number] = told
        return maps, tolds

    def _reduce(self, maps: Sequence[Started], tolds: Sequence[Told]) -> list[Started]:
        sizes: dict[int, int] = {}
        for number, size in chain.from_iterable(told.sizes.items() for told in tolds):
            sizes[number] = sizes.get(number, 0) + size
        slices = self._cluster.slices
        cuts = ranges(sizes, slices, self._cluster.slots)
        reduces = [self._cluster.reduce(maps, first, stop) for first, stop in cuts]

        def count(number: int) -> None:
            self._reduced += partitions_in(*cuts[number], slices, self._partitions)

        self._wait(reduces, count)
        self._reduced = self._partitions  # those that nothing fell into are done too
        return reduces

    def _wait(
        self,
        tasks: Sequence[Started],
        ended: Callable[[int], None],
        numbers: Sequence[int] | None = None,
    ) -> list[Told]:
        """Wait for all these tasks; return what they tell, or raise how the first failed.
        ``ended`` is told the number of each, which is its position unless ``numbers`` says."""
        numbers = range(len(tasks)) if numbers is None else numbers
        positions = {task: position for position, task in enumerate(tasks)}
        tolds = [Told()] * len(tasks)
        while positions:
            for task in self._cluster.ended(list(positions), self._deadline.patience()):
                position = positions.pop(task)
                tolds[position] = self._cluster.told(task)
                ended(numbers[position])
            self._show()
        return tolds

    def _show(self, *, finishing: bool = False) -> None:
        self._request.show(
            Progress(
                maps_done=self._mapped,
                maps_total=self._items,
                reduces_done=self._reduced,
                reduces_total=self._partitions,
                finishing=finishing,
            )
        )

    @staticmethod
    def _warn(shares: Shares, tolds: Sequence[Told]) -> None:
        log.warning(
            "files are read here and sent, since the cluster's workers do not have the same: "
            "count=%d first=%s",
            sum(len(told.strangers) for told in tolds),
            show(shares.keys[tolds[0].strangers[0]]),
        )
