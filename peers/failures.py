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
    message = f"{_located(failure)}{_advice(failure)}"
    details = (message, failure.function, failure.key, failure.peer, failure.traceback)
    kinds: dict[str, type[TransactionFailed]] = {
        "raised": TaskError,
        "died": WorkerLost,
        "module": ModuleMissing,
        "deadline": DeadlineExceeded,
        "cancelled": TransactionCancelled,
        "space": TransactionFailed,
    }
    if failure.kind == "unpicklable":
        return NotPicklable(failure.message)
    if failure.kind == "bug":
        return Bug(failure.message)
    error = kinds[failure.kind](*details)
    error.__cause__ = _cause(failure)
    return error


def _located(failure: Failure) -> str:
    """Say what happened, and on which peer."""
    if failure.kind == "module" and failure.peer:
        return f"peer {failure.peer}: {failure.message}"
    told = failure.kind not in ("raised", "died") or not failure.peer
    return failure.message if told else f"{failure.message}, on peer {failure.peer}"


def _advice(failure: Failure) -> str:
    """Say what to do about it."""
    match failure.kind:
        case "raised" if failure.function in ("mapfn", "collectfn"):
            return (
                ". Call job.run() to debug it in this process; "
                "submit(job, on_error='skip') leaves such items out"
            )
        case "raised" if failure.function in (
            "the datasource",
            "combinefn",
            "reducefn",
            "finishfn",
        ):
            return ". Call job.run() to debug it in this process"
        case "died" if failure.key:
            return (
                ". This reproduces it here, and may end this process too: "
                f"key = {failure.key}; list(job.functions.mapfn(key, job.value(key)))"
            )
        case "died":
            return ". Call job.run() to see it in this process, which may end too"
        case "space":
            return ". Free some, or set GRID_SPOOL to another disk; then submit again"
        case "deadline":
            return ". Give it longer, or more peers"
        case _:
            return ""


def _cause(failure: Failure) -> BaseException | None:
    if not failure.exception:
        return None
    try:
        cause = pickle.loads(failure.exception)
    except BaseException:  # user code may raise anything while it is opened
        return None  # its class does not load here; message and traceback say what it was
    return cause if isinstance(cause, BaseException) else None
