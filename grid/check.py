"""``Job.check()``: try on a few items what would otherwise fail far away, or be wrong quietly.

Functions, keys, values and results must pickle; keys must be equal to their copies, or pairs would
not meet; and ``combinefn`` must be a combiner: the same answer however values are grouped. That
law is tried on a few groupings of the sample's values, so a pass is no proof.
"""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grid.errors import BadJob
from grid.functions import Functions
from grid.mapreduce import Grouper, UserFault, assemble, finish, merged, reduce_partition
from grid.pickling import Frozen, copy_of, pack, pack_functions, show, thaw

if TYPE_CHECKING:
    from grid.job import Job

SAMPLE_ITEMS = 3
SAMPLE_KEYS = 200


def check(job: "Job") -> None:
    """Run a sample of ``job`` through every step; raise what is wrong.

    ``BadJob`` and ``NotPicklable`` say what to change; an exception of a user function comes out
    as it is, with a note of the function and key.
    """
    pack_functions(job.functions, job.functions.named())
    try:
        _check_sample(job)
    except UserFault as fault:
        cause = fault.as_raised()
    else:
        return
    raise cause


def _check_sample(job: "Job") -> None:
    functions = job.functions
    uncombined = Grouper(replace(functions, combinefn=None))
    combined = Grouper(functions)
    for index, key in enumerate(job.keys()[:SAMPLE_ITEMS]):
        _check_key_travels(key, "the datasource's key")
        value = job.value(key)
        for grouper in (uncombined, combined):
            grouper.add_items([(index, key, copy_of(value, "the value of key", key))])
    groups = [pair for _, chunk in uncombined.drain(1) for pair in merged(chunk).items()]
    for key, values in groups[:SAMPLE_KEYS]:
        _check_key_travels(key, "the emitted key")
        if functions.combinefn is not None:
            _check_law(functions, key, values)
    reduced = [
        pair
        for _, chunk in combined.drain(1)
        for pair in reduce_partition(functions, merged(chunk))
    ]
    for key, value in assemble(finish(functions, reduced)).items():
        _check_key_travels(key, "the result's key")
        pack(value, "the result of key", key)


def _check_key_travels(key: Any, what: str) -> None:
    copy = pickle.loads(pack(key, what, key))
    if copy != key or hash(copy) != hash(key):
        raise BadJob(
            f"{what} {show(key)} does not equal its own copy, so pairs from two processes would "
            f"not meet; give {type(key).__name__} an __eq__ and a __hash__, or use a tuple"
        )


def _check_law(functions: Functions, key: Any, frozen: Frozen) -> None:
    """Combine the values of ``key`` at once and in parts: ``BadJob`` if the answers differ."""

    def combined(values: list[Any]) -> Any:
        assert functions.combinefn is not None
        try:
            return functions.combinefn(key, values)
        except Exception as error:
            raise UserFault("combinefn", show(key), error) from error

    def fresh() -> list[Any]:
        values = list(thaw(frozen))
        # A single value still shows whether counts or the like go wrong.
        return values if len(values) > 1 else values + list(thaw(frozen)) + list(thaw(frozen))

    if not thaw(frozen):
        return
    whole, one = combined(fresh()), fresh()[0]
    ways: dict[str, Callable[[], Any]] = {
        "again": lambda: combined([combined(fresh())]),
        "the first on its own": lambda: combined([combined([one]), *fresh()[1:]]),
        "the last after the rest": lambda: combined([combined(fresh()[:-1]), fresh()[-1]]),
        "in two parts": lambda: combined([combined(fresh()[:1]), combined(fresh()[1:])]),
    }
    for how, way in ways.items():
        if not same(answer := way(), whole):
            raise BadJob(
                f"combinefn is no combiner: for key {show(key)} it gives {show(whole)} for all "
                f"values at once, but {show(answer)} combining {how}; it must be associative and "
                f"return what it takes (use reducefn for what is done once)"
            )


def same(first: Any, second: Any) -> bool:
    """Tell whether two answers are equal, floats up to rounding, arrays element by element."""
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9) or first != first
    if type(first) is type(second) and isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if type(first) is type(second) and isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if hasattr(first, "tolist") and hasattr(second, "tolist"):
        return same(first.tolist(), second.tolist())
    try:
        return bool(first == second)
    except Exception:
        return True  # not comparable: nothing can be said
