"""What a peer that allows it is made to suffer (``grid chaos``): the faults, performed on itself.

*kill*: SIGKILL, as by the kernel when memory runs out. *freeze*: SIGSTOP to the whole process but
its workers; a small helper, started before, wakes it when the time is over. *cut*: the process goes
on, but its connections end, it dials nobody, and whoever dials it is not answered, as if its cable
had been pulled; the well-known port stays bound, as a frozen server's does.

Promises: what is frozen or cut comes back by itself, and an end of the frozen process is an end of
its helper. Relayed connections of others that lead through this peer are not cut.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from grid.effects import SufferFault

SECONDS_MAX = 600.0
"""Nobody freezes or cuts off a peer for longer, by mistake or not."""

_WAKER = """
import os, signal, sys, time
peer, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
print("ready", flush=True)
while os.getppid() == peer and time.monotonic() < until:
    time.sleep(0.02)
if os.getppid() == peer:
    os.kill(peer, signal.SIGCONT)
"""
"""Its parent is the frozen peer for as long as that lives, so its number means no other process."""

log = logging.getLogger(__name__)


class Cut:
    """Until when this peer is cut off. Written on one thread, read on any."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    @property
    def active(self) -> bool:
        return self.seconds_left > 0


def suffer(fault: SufferFault, cut_off: Callable[[float], None]) -> None:
    """Perform a fault on this process, by ``cut_off(seconds)`` where that is the fault."""
    seconds = min(fault.seconds, SECONDS_MAX)
    log.warning("suffers a fault: %s seconds=%.3g", fault.kind, seconds)
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "freeze":
        threading.Thread(target=freeze, args=(seconds,), name="grid-chaos", daemon=True).start()
    else:
        cut_off(seconds)


def freeze(seconds: float) -> None:
    """Stop this process for so long. Blocks until it goes on."""
    command = [sys.executable, "-I", "-S", "-c", _WAKER, str(os.getpid()), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as waker:
        assert waker.stdout is not None
        if waker.stdout.readline():  # else nobody would wake us
            os.kill(os.getpid(), signal.SIGSTOP)
