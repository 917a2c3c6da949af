"""``Job``: a datasource and the functions to run over it, checked when built.

A job says what to compute, never how or where. ``run()`` computes it here and now, in this
process, which is for debugging and for checking what a grid answered; ``Peer.submit(job)``
computes it on the grid. ``check()`` tries what only shows on the way: pickling, and whether
``combinefn`` is one.

**Datasource.** Anything that iterates over unique keys and gives a value for each with ``[key]``:
a dict, ``Files``, ``Lines``, an object of one's own (no ``len`` needed). Plain sequences (lists,
tuples, ranges, arrays of numpy) have their indices for keys. Keys are listed once for each run;
values are read one by one, when a task needs them. Text and bytes are refused: a path is not data.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from grid import check, mapreduce
from grid.errors import BadJob
from grid.functions import Functions, check_resultfn
from grid.partition import check_keys
from grid.pickling import show
from grid.settings import PARTITIONS, PARTITIONS_MAX
from grid.suggest import did_you_mean

_OPTIONS = (
    "collectfn",
    "combinefn",
    "finishfn",
    "mapfn",
    "partitions",
    "reducefn",
    "resultfn",
    "ship",
)

Ship = str | ModuleType


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Job:
    """What to compute. Immutable.

    ``datasource``, ``mapfn``, ``collectfn``, ``combinefn``, ``reducefn``, ``finishfn`` and
    ``resultfn`` are as ``grid.functions`` and this module describe; at least one of ``mapfn`` and
    ``reducefn`` is needed. ``ship`` names modules, or gives them, that are sent by value to workers
    which cannot import them. ``partitions`` is into how many parts keys are divided. Raises
    ``BadJob``.
    """

    datasource: Any
    functions: Functions
    resultfn: Callable[..., Any] | None
    ship: tuple[Ship, ...]
    partitions: int

    def __init__(
        self,
        datasource: Any,
        mapfn: Callable[..., Any] | None = None,
        *,
        collectfn: Callable[..., Any] | None = None,
        combinefn: Callable[..., Any] | None = None,
        reducefn: Callable[..., Any] | None = None,
        finishfn: Callable[..., Any] | None = None,
        resultfn: Callable[..., Any] | None = None,
        ship: Iterable[Ship] | Ship = (),
        partitions: int = PARTITIONS,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            raise BadJob(f"a Job has no {name!r}{did_you_mean(name, _OPTIONS)}")
        if mapfn is None and reducefn is None:
            raise BadJob("a Job without mapfn and reducefn has nothing to do; give one of them")
        if resultfn is not None:
            check_resultfn(resultfn)
        _check_datasource(datasource)
        fields = {
            "datasource": datasource,
            "functions": Functions(mapfn, collectfn, combinefn, reducefn, finishfn),
            "resultfn": resultfn,
            "ship": _checked_ship(ship),
            "partitions": _checked_partitions(partitions),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        names = ", ".join(self.functions.named())
        return f"<Job of {type(self.datasource).__name__}: {names}>"

    def over(self, datasource: Any) -> "Job":
        """Return the same job over another datasource. Raises ``BadJob`` if that is none."""
        _check_datasource(datasource)
        job = object.__new__(Job)
        job.__dict__.update(self.__dict__, datasource=datasource)
        return job

    def keys(self) -> list[Any]:
        """List the keys, in datasource order. Raises ``BadJob`` for one that is no key or twice."""
        if _is_sequence(self.datasource):
            return list(range(len(self.datasource)))
        keys = list(self.datasource)
        if len(unique := _unique(keys)) != len(keys):
            seen: set[Any] = set()
            twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise BadJob(
                f"the datasource lists the key {show(twice)} twice, {len(keys)} keys in all of "
                f"which {len(unique)} are different; every item needs a key of its own"
            )
        return keys

    def value(self, key: Any) -> Any:
        """Read the value of ``key`` from the datasource; raise what it raises, with a note."""
        try:
            return self.datasource[key]
        except Exception as error:
            error.add_note(f"raised while the datasource read the value of key {show(key)}")
            raise

    def deliver(self, transaction: Any, results: dict[Any, Any]) -> None:
        """Call ``resultfn``, if there is one, in the form it has."""
        if self.resultfn is None:
            return
        if check_resultfn(self.resultfn):
            self.resultfn(transaction, results)
        else:
            self.resultfn(results)

    def run(self, *, on_error: str = "raise") -> dict[Any, Any]:
        """Compute the results here, sequentially; see ``grid.mapreduce.run``."""
        if on_error not in ("raise", "skip"):
            raise BadJob(f"on_error={on_error!r} is not known; use 'raise' or 'skip'")
        return mapreduce.run(self, on_error)

    def check(self) -> None:
        """Try on a few items what shows only on the way; raise what is wrong.

        See ``grid.check``. ``resultfn`` is not called.
        """
        check.check(self)


def _unique(keys: list[Any]) -> set[Any]:
    try:
        check_keys(keys)
    except BadJob as error:
        raise BadJob(f"the datasource lists a bad key: {error}") from None
    return set(keys)


def _is_sequence(datasource: Any) -> bool:
    """Tell whether items are numbered: sequences, and arrays, which no abstract class covers."""
    return isinstance(datasource, Sequence) or hasattr(datasource, "__array_interface__")


def _check_datasource(datasource: Any) -> None:
    kind = type(datasource).__name__
    if isinstance(datasource, str | bytes | bytearray | memoryview):
        raise BadJob(
            f"the datasource is {kind}: {show(datasource, 40)}; for files write Files('*.txt'), "
            f"for one item [{show(datasource, 20)}]"
        )
    if isinstance(datasource, type):
        raise BadJob(f"the datasource is the class {datasource.__name__}; give an object of it")
    if _is_sequence(datasource):
        if hasattr(datasource, "shape") and not datasource.shape:
            raise BadJob("the datasource is an array without dimensions; give one with items")
        return
    for method, what in (("__iter__", "list its keys"), ("__getitem__", "give a key's value")):
        if not hasattr(datasource, method):
            raise BadJob(
                f"the datasource, {show(datasource, 40)}, cannot {what}: {kind} has no {method}; "
                f"use a dict, a list or an object with both __iter__ and __getitem__"
            )


def _checked_ship(ship: Iterable[Ship] | Ship) -> tuple[Ship, ...]:
    modules = (ship,) if isinstance(ship, str | ModuleType) else tuple(ship)
    for module in modules:
        if not isinstance(module, str | ModuleType):
            raise BadJob(f"ship takes modules or their names, not {show(module)}")
    return modules


def _checked_partitions(partitions: Any) -> int:
    if type(partitions) is not int or not 1 <= partitions <= PARTITIONS_MAX:
        raise BadJob(f"partitions={partitions!r} is not a whole number from 1 to {PARTITIONS_MAX}")
    return partitions
