"""How a peer does: what it measures of itself when somebody watches."""

import os
import subprocess
import sys
import threading

import pytest

from peers import vitals
from peers.vitals import Traffic, measure, memory_bytes

CHILD = "import sys; kept = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"


@pytest.mark.skipif(sys.platform != "linux", reason="told by /proc")
def test_memory_is_that_of_all_processes() -> None:
    alone = memory_bytes(os.getpid())
    assert alone > 1 << 20
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert memory_bytes(os.getpid()) > alone + (48 << 20)
        assert memory_bytes(child.pid) > 60 << 20
        child.communicate()
    assert memory_bytes(child.pid) == 0, "it has ended"


def test_what_is_measured_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic()

    def count() -> None:
        for _ in range(1000):
            traffic.count(received=1, sent=2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured = measure(traffic)
    assert (measured.received, measured.sent) == (4000, 8000)
    assert measured.load >= 0

    def unknown() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert vitals.load() == 0.0
