"""A terminal of its own for a command: what it shows is read, keys are typed."""

import os
import pty
import re
import select
import sys

from tests.live.harness import Process, Site, until

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """The ``grid`` command with these arguments on a terminal. Close it."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        device = os.ttyname(theirs)
        command = f"{sys.executable} -W error -m peers {' '.join(arguments)}"
        script = f"exec setsid -c {command} <{device} >{device} 2>&1"
        self.process = Process(site, "terminal", ["/bin/sh", "-c", script], cwd=site.folder)
        site.processes.append(self.process)
        self._theirs = theirs
        self._shown = b""

    def shows(self, text: str) -> None:
        """Wait until it shows this, whatever its colours; forget what was shown before."""

        def find() -> bool:
            while select.select([self.ours], [], [], 0)[0]:
                self._shown += os.read(self.ours, 65536)
            return text.encode() in _CONTROL.sub(b"", self._shown)

        until(f"the terminal shows {text!r}", find)
        self._shown = _CONTROL.sub(b"", self._shown).partition(text.encode())[2]

    def types(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self._theirs)
