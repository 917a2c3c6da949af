"""What was asked of ``submit``: a job and how it should be run, checked."""

from dataclasses import dataclass, field
from typing import Any, Literal

from grid.errors import Misuse
from grid.job import Job
from grid.messages import Keeping, RecordMeta
from grid.settings import check_name, check_names

OPTIONS = [
    "name",
    "fresh",
    "priority",
    "retries",
    "attempts_max",
    "deadline_seconds",
    "on_error",
    "speculate",
    "detached",
]

NUMBERS = {"priority": (-1000, 1000), "retries": (0, 1_000_000), "attempts_max": (1, 1_000_000)}
"""The least and the most of each option that counts."""


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
    detached: bool = False
    records: list[str] = field(default_factory=list)

    def meta(
        self,
        record: str,
        shape: Literal["mapreduce", "everywhere"],
        items: int,
        partitions: int,
        keeping: Keeping | None = None,
    ) -> RecordMeta:
        """What the server is to know of it."""
        return RecordMeta(
            record=record,
            shape=shape,
            items=items,
            partitions=partitions,
            finish=self.job.functions.finishfn is not None,
            priority=self.priority,
            retries=self.retries,
            attempts_max=self.attempts_max,
            speculate=self.speculate,
            keeping=keeping,
        )


def check(job: Any, options: dict[str, Any]) -> Submission:
    """Return the submission, or raise ``Misuse`` or ``TypeError`` for what cannot be meant."""
    check_names(options, OPTIONS, "submit")
    if not isinstance(job, Job):
        if callable(job):
            raise TypeError(
                f"submit takes a Job, not the function {job!r}; peer.executor().submit(function) "
                "calls it once, peer.run_everywhere(function) on every member"
            )
        raise TypeError(f"submit takes a Job, not {type(job).__name__}")
    submission = Submission(job, **options)
    check_name(submission.name, "name")
    if submission.on_error not in ("raise", "skip"):
        raise Misuse(f"on_error={submission.on_error!r} is neither 'raise' nor 'skip'")
    for option, (least, most) in NUMBERS.items():
        number = getattr(submission, option)
        if type(number) is not int or not least <= number <= most:
            raise Misuse(f"{option}={number!r} is not a whole number from {least} to {most}")
    for option in ("fresh", "speculate", "detached"):
        if not isinstance(getattr(submission, option), bool):
            raise Misuse(f"{option}={getattr(submission, option)!r} is neither True nor False")
    if submission.detached and (submission.name or submission.fresh):
        raise Misuse("a detached transaction has its id for a name: leave out name and fresh")
    _check_deadline(submission.deadline_seconds)
    return submission


def _check_deadline(seconds: Any) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
        raise Misuse(f"deadline_seconds={seconds!r} is not a number of seconds")
    if seconds <= 0:
        raise Misuse(f"deadline_seconds={seconds} has passed already; give the seconds from now")
