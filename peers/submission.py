"""What was asked of ``submit``: a job and how it should be run, checked."""

from dataclasses import dataclass, field
from typing import Any, Literal

from grid.errors import Misuse
from grid.job import Job
from grid.settings import check_names

OPTIONS = [
    "name",
    "fresh",
    "priority",
    "retries",
    "attempts_max",
    "deadline_seconds",
    "on_error",
    "speculate",
]


@dataclass
class Submission:
    """One call of ``submit``. ``records`` are the records it owns meanwhile."""

    job: Job
    name: str = ""
    fresh: bool = False
    priority: int = 0
    retries: int = 0
    attempts_max: int = 4
    deadline_seconds: float | None = None
    on_error: Literal["raise", "skip"] = "raise"
    speculate: bool = True
    records: list[str] = field(default_factory=list)


def check(job: Any, options: dict[str, Any]) -> Submission:
    """Return the submission, or raise ``Misuse`` or ``TypeError`` for what cannot be meant."""
    check_names(options, OPTIONS, "submit")
    if not isinstance(job, Job):
        if callable(job):
            raise TypeError(
                f"submit takes a Job, not the function {job!r}; to call a function on every "
                "member use run_everywhere(function)"
            )
        raise TypeError(f"submit takes a Job, not {type(job).__name__}")
    submission = Submission(job, **options)
    if submission.on_error not in ("raise", "skip"):
        raise Misuse(f"on_error={submission.on_error!r} is neither 'raise' nor 'skip'")
    if submission.attempts_max < 1 or submission.retries < 0:
        raise Misuse("attempts_max must be at least 1 and retries at least 0")
    if submission.deadline_seconds is not None and submission.deadline_seconds <= 0:
        raise Misuse(f"deadline_seconds={submission.deadline_seconds} has passed already")
    if not isinstance(submission.name, str):
        raise Misuse(f"name={submission.name!r} is not text")
    return submission
