"""A grid that nothing befalls, except that it is busy: it must notice nothing.

Three peers with default settings. ``server``, the first, owns jobs and holds its interpreter's lock
for two seconds again and again; so does ``owner``; ``plain`` does neither, and does not share a
spool with them, so that data moves over sockets. Every slot spins.
"""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live.harness import Process, Site, until
from tests.witness.hog import Seen

SCRIPT = "from tests.witness.hog import live\nlive({arguments})\n"
SLOTS = 1
UNEXPECTED = re.compile(
    r"^(WARNING|ERROR|CRITICAL|Traceback)|lost the server|frees the port|link ended"
)


@dataclass(frozen=True)
class Account:
    """What a witness grid has to say for itself."""

    seconds: float
    seen: tuple[Seen, ...]
    logs: tuple[str, ...]
    """Lines of all logs that tell of a change of server or of a member lost."""

    @property
    def jobs(self) -> int:
        return sum(seen.jobs for seen in self.seen)

    @property
    def busy_share(self) -> float:
        """How much of the time of all slots went into finished jobs: a lower bound."""
        burned = sum(seen.burned_seconds for seen in self.seen)
        return burned / (self.seconds * SLOTS * len(self.seen))

    def __str__(self) -> str:
        terms = sorted({term for seen in self.seen for term in seen.terms})
        return (
            f"{self.seconds / 60:.1f} minutes: terms {terms}, {self.jobs} jobs, "
            f"slots busy {self.busy_share:.0%}, holds {sum(s.holds for s in self.seen)} "
            f"(longest {max(s.held_seconds_max for s in self.seen):.2f} s), "
            f"longest silence {max(s.silence_seconds_max for s in self.seen):.2f} s, "
            f"finished tasks again {sum(s.tasks_again for s in self.seen)}"
        )


class Witness:
    """The running grid. ``close`` ends it, and complains of what is left behind."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            self.site = Site(folder, monkeypatch, alone=False)
            try:
                self._begin("server", owner=True, hog=True, **settings)
                self._begin("owner", owner=True, hog=True, **settings)
                self._begin("plain", spool=str(folder / "apart"), **settings)
            except BaseException:
                self.site.close()
                raise
        self._began_at = time.monotonic()

    def _begin(self, name: str, **arguments: Any) -> None:
        given = {"name": name, "members": 3, "slots": SLOTS, **arguments}
        listed = ", ".join(f"{key}={value!r}" for key, value in given.items())
        self.site.run(name, SCRIPT.format(arguments=listed)).said("joined")

    @property
    def age(self) -> float:
        return time.monotonic() - self._began_at

    def account(self) -> Account:
        """What happened so far."""
        until("every peer has seen all others", lambda: all(map(self._seen, self.site.processes)))
        logs = [
            f"{process.name}: {line}"
            for process in self.site.processes
            for line in process.err.splitlines()
            if UNEXPECTED.search(line) or "serves peer=" in line
        ]
        seen = tuple(self._seen(process) for process in self.site.processes)
        return Account(self.age, tuple(s for s in seen if s is not None), tuple(logs))

    def _seen(self, process: Process) -> Seen | None:
        assert process.process.poll() is None, f"{process.name} has ended\n{process.err}"
        lines = [line for line in process.out.splitlines(keepends=True) if line.endswith("}\n")]
        seen = Seen(**json.loads(lines[-1].removeprefix("seen "))) if lines else None
        return seen if seen is not None and seen.samples else None

    def close(self) -> None:
        self.site.close()


def complaints(account: Account) -> list[str]:
    """What is wrong with a grid that nothing befell."""
    wrong = [f"{seen.name}: {what}" for seen in account.seen for what in seen.wrong]
    wrong += [line for line in account.logs if not line.endswith("serves peer=server term=1")]
    for seen in account.seen:
        if seen.terms != [1]:
            wrong.append(f"{seen.name} saw terms {seen.terms}")
        if seen.members_min < len(account.seen):
            wrong.append(f"{seen.name} saw only {seen.members_min} members")
        if seen.tasks_again:
            wrong.append(f"{seen.tasks_again} finished tasks of {seen.name} were executed again")
    return wrong
