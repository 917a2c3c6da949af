"""Finding the ``Job``, or function, that ``module:name`` names, in the folder of the command.

The module is imported as a script's neighbour is, so workers on this host find it too. What goes
wrong inside it is the user's and is shown with the user's part of the traceback.
"""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from grid.errors import BadJob
from grid.job import Job
from grid.suggest import did_you_mean


def load_job(spec: str) -> Job:
    """Return the job named ``module:name``, calling it if it is a function that makes one.

    Raises ``BadJob``, saying what is wrong with the spec, the module or the name.
    """
    found = _find(spec, Job)
    if callable(found) and not isinstance(found, type):
        found = _called(found, spec)
    if not isinstance(found, Job):
        raise BadJob(f"{spec} is {type(found).__name__}, not a Job (or a function that makes one)")
    return found


def load_function(spec: str) -> Callable[..., Any]:
    """Return the function named ``module:name``. Raises ``BadJob`` as ``load_job`` does."""
    found = _find(spec, FunctionType)
    if not callable(found):
        raise BadJob(f"{spec} is {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _find(spec: str, kind: type) -> Any:
    """Return what ``module:name`` names. Others of this ``kind`` are told of if there is none."""
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise BadJob(_how_to_write(spec))
    if "/" in module_name or module_name.endswith(".py"):
        raise BadJob(
            f"{module_name!r} is a file; name the module, as in {Path(module_name).stem}:{name}, "
            f"from the folder it is in"
        )
    module = _module(module_name)
    if not hasattr(module, name) and kind is FunctionType:
        module = _again(module)  # it may have been written while a prompt was open
    return _attribute(module, module_name, name, kind)


def _how_to_write(spec: str) -> str:
    return f"{spec!r} does not name a job; write MODULE:NAME, as in wordcount:job for wordcount.py"


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise BadJob(f"there is no module {error.name} in {here} or on PYTHONPATH") from error
        raise BadJob(_users_fault(f"cannot import {name}", error)) from error
    except Exception as error:
        raise BadJob(_users_fault(f"cannot import {name}", error)) from error


def _again(module: ModuleType) -> ModuleType:
    try:
        return importlib.reload(module)
    except Exception as error:
        raise BadJob(_users_fault(f"cannot import {module.__name__} again", error)) from error


def _attribute(module: ModuleType, module_name: str, name: str, kind: type) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        what = "Job" if kind is Job else "function"
        known = [known for known, value in vars(module).items() if isinstance(value, kind)]
        has = f"; its {what.lower()}s are: {', '.join(known)}" if known else f"; it has no {what}"
        hint = did_you_mean(name, known) or has
        raise BadJob(f"the module {module_name} has no {name!r}{hint}") from None


def _called(make: Any, spec: str) -> Any:
    try:
        return make()
    except Exception as error:
        raise BadJob(_users_fault(f"{spec}() raised", error)) from error


def _users_fault(what: str, error: Exception) -> str:
    """Describe an exception of the user's code, without the frames that are ours."""
    ours = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", ours))
        and not frame.filename.endswith("importlib/__init__.py")
    ]
    lines = traceback.format_list(frames) + traceback.format_exception_only(error)
    return f"{what}:\n{''.join(lines).rstrip()}"
