"""A recorded terminal session as an SVG: three peers, a job, ``kill -9`` of the one that serves.

Every line shown was printed by the command above it, run here and now on a grid of its own; nothing
is typed in afterwards. Fails, and writes nothing, if the session did not go as the README says:
another peer serves, and the result is right.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

TOP = Path(__file__).parents[1]
WIDTH = 92
WAIT_SECONDS = 60.0
PEERS = ("one", "two", "three")
PRIMES = 9592

PRIMES_PY = """\
import time

from peers import Job


def primes(_share, numbers):
    time.sleep(0.1)  # as if it were more
    yield "primes", sum(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in numbers)


def total(_key, counts):
    return sum(counts)


job = Job([range(n, n + 1000) for n in range(0, 100_000, 1000)], primes, reducefn=total)
"""


class Session:
    """One folder, in which commands run; what they print is shown in the order in which it came."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self._console = console
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._shown: dict[str, int] = {}

    def type(self, command: str) -> None:
        self._console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))

    def run(self, command: str) -> None:
        """Show a command, and what it prints."""
        self.type(command)
        done = subprocess.run(
            self._words(command), cwd=self.folder, capture_output=True, text=True, check=True
        )
        self._console.print(Text(done.stdout.rstrip()))

    def begin(self, name: str, command: str) -> None:
        """Show a command that goes on in the background."""
        self.type(f"{command} &")
        with (self.folder / f"{name}.out").open("wb") as out:
            self._running[name] = subprocess.Popen(
                self._words(command), cwd=self.folder, stdout=out, stderr=out
            )
        self._shown[name] = 0

    def show(self, name: str) -> list[str]:
        """Show what else it has printed; return those lines."""
        text = (self.folder / f"{name}.out").read_text()[self._shown[name] :]
        whole = text[: text.rfind("\n") + 1]
        self._shown[name] += len(whole)
        for line in whole.splitlines():
            self._console.print(Text(line))
        return whole.splitlines()

    def kill(self, name: str) -> None:
        process = self._running[name]
        self.type(f"kill -9 {process.pid}    # {name}")
        process.kill()
        process.wait()

    def ended(self, name: str) -> bool:
        return self._running[name].poll() is not None

    def close(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            process.wait(WAIT_SECONDS)

    @staticmethod
    def _words(command: str) -> list[str]:
        return [sys.executable, "-m", "peers", *command.removeprefix("grid ").split()]


def wait(what: str, ask: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not ask():
        if time.monotonic() > deadline:
            raise SystemExit(f"scripts/picture: not within {WAIT_SECONDS:g} s: {what}")
        time.sleep(0.01)


def play(session: Session) -> None:
    """The story of the picture."""
    for name in PEERS:
        session.begin(name, f"grid up --name {name} --slots 2")
        wait(f"{name} is up", partial(session.show, name))
    session.begin("job", "grid submit primes:job --name primes")
    wait("half of the job is done", lambda: _tasks_done(session) >= 40)
    session.kill("one")
    wait("another serves", lambda: session.show("two") or session.show("three"))
    wait("the job ends", lambda: session.ended("job"))
    told = session.show("job")
    if not told or told[-1].split()[-1] != str(PRIMES):
        raise SystemExit(f"scripts/picture: there are {PRIMES} primes, not {told}")
    session.run("grid status")


def _tasks_done(session: Session) -> int:
    """How many items of the job are mapped."""
    command = [sys.executable, "-m", "peers", "jobs"]
    told = subprocess.run(
        command, cwd=session.folder, capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"(\d+)/100", told)
    return int(found[1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/picture", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=TOP / "docs" / "picture.svg")
    path: Path = parser.parse_args().file
    console = Console(
        record=True, width=WIDTH, force_terminal=True, color_system="truecolor", highlight=False
    )
    with tempfile.TemporaryDirectory(prefix="peergrid-picture-") as name:
        folder = Path(name)
        (folder / "primes.py").write_text(PRIMES_PY)
        for variable in [variable for variable in os.environ if variable.startswith("GRID_")]:
            if variable != "GRID_PORT":
                del os.environ[variable]
        os.environ |= {
            "PYTHONPATH": str(TOP),
            "HOME": name,
            "XDG_CONFIG_HOME": name,
            "GRID_SPOOL": f"{name}/spool",
            "COLUMNS": str(WIDTH),
        }
        session = Session(folder, console)
        try:
            play(session)
        finally:
            session.close()
    path.write_text(without_fonts(console.export_svg(title="peergrid", unique_id="peergrid")))
    return 0


def without_fonts(svg: str) -> str:
    """Without the fonts that rich would have fetched from the web: any monospace one will do."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
