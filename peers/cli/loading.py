"""Finding the ``Job`` that ``module:job`` names, in the folder where the command is run.

The module is imported as a script's neighbour is, so workers on this host find it too. What goes
wrong inside it is the user's and is shown with the user's part of the traceback.
"""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from grid.errors import BadJob
from grid.job import Job
from grid.suggest import did_you_mean


def load_job(spec: str) -> Job:
    """Return the job named ``module:name``, calling it if it is a function that makes one.

    Raises ``BadJob``, saying what is wrong with the spec, the module or the name.
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise BadJob(_how_to_write(spec))
    if "/" in module_name or module_name.endswith(".py"):
        raise BadJob(
            f"{module_name!r} is a file; name the module, as in {Path(module_name).stem}:{name}, "
            f"from the folder it is in"
        )
    found = _attribute(_module(module_name), module_name, name)
    if callable(found) and not isinstance(found, type):
        found = _called(found, spec)
    if not isinstance(found, Job):
        raise BadJob(f"{spec} is {type(found).__name__}, not a Job (or a function that makes one)")
    return found


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


def _attribute(module: ModuleType, module_name: str, name: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        jobs = [known for known, value in vars(module).items() if isinstance(value, Job)]
        has = f"; its jobs are: {', '.join(jobs)}" if jobs else "; it has no Job"
        hint = did_you_mean(name, jobs) or has
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
