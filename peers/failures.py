"""A failure that came over the wire, as the exception its owner raises."""

import pickle

from grid.errors import (
    Bug,
    DeadlineExceeded,
    GridError,
    ModuleMissing,
    NotPicklable,
    TaskError,
    TransactionCancelled,
    TransactionFailed,
    WorkerLost,
)
from grid.messages import Failure


def as_error(failure: Failure) -> GridError:
    """Return the exception for a failure. The user's own, if it pickled, is its ``__cause__``;
    it is unpickled here, at its owner, as results are."""
    details = (failure.message, failure.function, failure.key, failure.peer, failure.traceback)
    kinds: dict[str, type[TransactionFailed]] = {
        "raised": TaskError,
        "died": WorkerLost,
        "module": ModuleMissing,
        "deadline": DeadlineExceeded,
        "cancelled": TransactionCancelled,
    }
    if failure.kind == "unpicklable":
        return NotPicklable(failure.message)
    if failure.kind == "bug":
        return Bug(failure.message)
    error = kinds[failure.kind](*details)
    error.__cause__ = _cause(failure)
    return error


def _cause(failure: Failure) -> BaseException | None:
    if not failure.exception:
        return None
    try:
        cause = pickle.loads(failure.exception)
    except Exception:
        return None  # its class does not load here; message and traceback say what it was
    return cause if isinstance(cause, BaseException) else None
