"""What tests count: messages, writes and wake-ups of links and threads, pickles, files, modules.

Nothing here looks at a clock. ``Tally`` counts calls of functions that a test has replaced by
counting ones (``count``), so it sees this process alone; what happens in others is counted there,
by a script that prints what it has counted (``counted_by``).
"""

import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from grid.messages import Beat
from peers.core_thread import CoreThread
from peers.link import Link
from tests.live.harness import TOP, WAIT_SECONDS

BY_THE_CLOCK = (Beat.__name__, "AskClaims", "Claims")
"""Messages that come now and then, however little is done."""


class Tally:
    """Counts by name. ``of`` what is counted under each name that begins so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._counts: Counter[str] = Counter()

    def count(self, name: str, owner: Any, function: str) -> None:
        """From now on count the calls of a function or method."""
        original = getattr(owner, function)

        def counting(*args: Any, **kwargs: Any) -> Any:
            self._counts[name] += 1
            return original(*args, **kwargs)

        self._patch.setattr(owner, function, counting)

    def pickles(self) -> None:
        """Count each time something is pickled or opened, as ``pickle``."""
        for owner, function in (
            (pickle, "dumps"),
            (pickle, "loads"),
            (cloudpickle, "dumps"),
            (cloudpickle.Pickler, "dump"),
        ):
            self.count(f"pickle {function}", owner, function)

    def hand_overs(self) -> None:
        """Count what threads hand to those of client and server."""
        self.count("hand-over", CoreThread, "call")

    def links(self) -> None:
        """Count the messages that are put on encrypted links, those that come by the clock apart,
        as ``message``, and their bytes as ``bytes``."""
        send, next_chunk = Link.send, Link._next_chunk

        def counting_send(link: Link, message: Any) -> None:
            kind = type(message).__name__
            self._counts["clock" if kind in BY_THE_CLOCK else f"message {kind}"] += 1
            send(link, message)

        def counting_chunk(link: Link) -> bytes:
            chunk = next_chunk(link)
            self._counts["bytes"] += len(chunk)
            self._counts["write"] += bool(chunk)
            return chunk

        self._patch.setattr(Link, "send", counting_send)
        self._patch.setattr(Link, "_next_chunk", counting_chunk)

    def of(self, name: str) -> int:
        return sum(count for kind, count in self._counts.items() if kind.split(" ")[0] == name)

    @property
    def writes(self) -> int:
        """Writes to links, without those that the clock alone may have caused."""
        return self.of("write") - self.of("clock")

    def reset(self) -> None:
        self._counts.clear()

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(self._counts.items()))


def per(times: int, work: Callable[[int], object], tally: Tally, warm: int = 20) -> None:
    """Do something often enough that what happens once no longer counts, and count the rest."""
    for number in range(warm):
        work(number)
    tally.reset()
    for number in range(times):
        work(number)


def counted_by(script: str, *arguments: str, folder: Path | None = None) -> Any:
    """Run a script in a clean interpreter; return what it printed last, which is JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder or TOP,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
