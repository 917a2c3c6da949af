"""How bad ends become text: exceptions of user code, and deaths of worker processes.

A failure crosses the grid as text, with the user's exception pickled beside it where it pickles.
Frames of the grid's own code are left out of tracebacks: what remains is what the user wrote and
what that called. Everything is cut to a size that is for reading.
"""

import pickle
import signal
import traceback
from pathlib import Path

import cloudpickle

import grid
from grid.errors import NotPicklable
from grid.messages import EXCEPTION_BYTES_MAX, Failure
from grid.pickling import plain

MESSAGE_MAX = 2_000
KEY_MAX = 200
TRACEBACK_MAX = 20_000

_OURS = (
    str(Path(next(iter(grid.__path__))).resolve()),
    str(Path(__file__).resolve().parent),
)


def raised(error: BaseException, function: str, key: str = "") -> Failure:
    """Return the failure of ``function`` (a user function's role) that raised ``error``.

    ``key`` is the ``repr`` of the key it was given, empty where there is none.
    """
    where = f" in {function}" if function else ""
    at = f" at key {key}" if key else ""
    return Failure(
        kind="raised",
        message=plain(f"{_summary(error)}{where}{at}", MESSAGE_MAX),
        function=function,
        key=plain(key, KEY_MAX),
        traceback=_remote_traceback(error),
        exception=_pickled(error),
    )


def unpicklable(error: NotPicklable, function: str = "", key: str = "") -> Failure:
    """Return the failure of a task whose input or output cannot travel."""
    message = plain(str(error), MESSAGE_MAX)
    return Failure("unpicklable", message, function, plain(key, KEY_MAX))


def bug(error: BaseException) -> Failure:
    """Return the failure of our own code, with all its frames."""
    text = "".join(traceback.format_exception(error))
    message = f"a mistake of the grid itself, please report it: {_summary(error)}"
    return Failure(
        kind="bug",
        message=plain(message, MESSAGE_MAX),
        traceback=plain(text[-TRACEBACK_MAX:], TRACEBACK_MAX),
        exception=b"",
    )


def died(how: str, pid: int | None, doing: str, report: str, peer: str) -> Failure:
    """Return the failure of an attempt whose worker died.

    ``how`` is as of ``describe_exit``, ``doing`` what it did then, ``report`` the crash handler's.
    """
    process = f"the worker process {pid}" if pid else "the worker process"
    return Failure(
        kind="died",
        message=f"{process} {how} while {doing}",
        peer=peer,
        traceback=plain(report, TRACEBACK_MAX),
    )


def describe_exit(code: int, out_of_memory: bool) -> str:
    """Say how a process ended: ``code`` is its exit code, or minus the signal's number."""
    if code >= 0:
        return f"ended itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if out_of_memory:
        return f"was killed by {name} because the machine ran out of memory"
    if -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT):
        return f"crashed in native code with {name}"
    return f"was killed by {name}"


def _summary(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "<its text cannot be made>"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _remote_traceback(error: BaseException) -> str:
    try:
        formatted = traceback.TracebackException.from_exception(error)
        _leave_out_ours(formatted, set())
        text = "".join(formatted.format())
    except Exception as failure:
        return f"(the traceback cannot be shown: {type(failure).__name__})"
    if len(text) > TRACEBACK_MAX:
        half = TRACEBACK_MAX // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return plain(text, TRACEBACK_MAX * 2)


def _leave_out_ours(formatted: traceback.TracebackException, seen: set[int]) -> None:
    """Remove our frames here and in the causes."""
    if id(formatted) in seen:
        return
    seen.add(id(formatted))
    formatted.stack = traceback.StackSummary.from_list(
        [line for line in formatted.stack if not line.filename.startswith(_OURS)]
    )
    for other in (formatted.__cause__, formatted.__context__, *(formatted.exceptions or ())):
        if other is not None:
            _leave_out_ours(other, seen)


def _pickled(error: BaseException) -> bytes:
    """Pickle the exception if its owner will be able to open it, else return nothing."""
    try:
        pickled: bytes = cloudpickle.dumps(error, protocol=5)
        if len(pickled) > EXCEPTION_BYTES_MAX or not isinstance(
            pickle.loads(pickled), BaseException
        ):
            return b""
    except BaseException:
        return b""  # user code may raise anything while it is pickled or opened
    return pickled
