"""``docs/tutorial.md``, done by a reader who types what it says, in its order, into one shell.

Files are saved under the name in their first line. After a command the lines that are shown below
it must have been printed before the next is typed, in any order, since some come from the
background; ``...`` is anything, and spaces are as many as there are.
"""

import os
import re
import stat
import sys

import pytest

from tests.live.harness import TOP, Process, Site, until

pytestmark = pytest.mark.live

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = {"grid": "-m peers", "python": "-W error"}


class Shell:
    """A shell in a folder of its own, in which ``grid`` and ``python`` are ours."""

    def __init__(self, site: Site) -> None:
        bin_folder, self.folder = site.folder / "bin", site.folder / "rhymes"
        for folder in (bin_folder, self.folder):
            folder.mkdir()
        for name, options in PROGRAMS.items():
            program = bin_folder / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
            program.chmod(stat.S_IRWXU)
        path = f"{bin_folder}:{os.environ['PATH']}"
        self._process = Process(
            site, "shell", ["bash"], cwd=self.folder, env=os.environ | {"PATH": path}
        )
        site.processes.append(self._process)
        self._process.tell("exec 2>&1")
        self._typed = 0

    def do(self, command: str, shown: list[str]) -> None:
        """Type a command; wait until it has ended and all that is shown was printed."""
        begin = len(self._process.out)
        self._typed += 1
        self._process.tell(command)
        self._process.tell(f"echo '--- {self._typed}'")
        self._process.said(f"--- {self._typed}")
        for line in shown:
            words = [".*".join(map(re.escape, word.split("..."))) for word in line.split()]
            pattern = re.compile(r"\s*" + r"\s+".join(words) + r"\s*")

            def printed(pattern: re.Pattern[str] = pattern) -> bool:
                new = self._process.out[begin:]
                return any(pattern.fullmatch(text) for text in new.splitlines())

            try:
                until(f"{line!r} is printed after {command!r}", printed)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self._process.out[begin:]}") from None

    def end(self) -> None:
        self._process.leave()
        self._process.ended()


@pytest.mark.timeout(300)  # on a busy machine its thirty commands take a minute
def test_the_tutorial_can_be_followed(site: Site) -> None:
    shell = Shell(site)
    for kind, text in BLOCK.findall((TOP / "docs" / "tutorial.md").read_text()):
        if kind == "python":
            name = text.splitlines()[0].removeprefix("# ")
            (shell.folder / name).write_text(text)
        else:
            for step in text.split("$ ")[1:]:
                command, *shown = step.splitlines()
                shell.do(command, shown)
    shell.end()
