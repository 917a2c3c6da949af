"""What is shown while something is waited for: on a terminal, and nothing elsewhere."""

import io
import sys
import time

import pytest

from peers.cli import waiting
from peers.cli.waiting import _beyond, bars_shown, spinning
from peers.transaction import Progress


class Screen(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Have stderr be a terminal. Not in a fixture: capturing puts its own in between."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    return screen


def wait_for(screen: Screen, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in screen.getvalue():
        assert time.monotonic() < deadline, screen.getvalue()
        time.sleep(0.01)


def test_a_long_wait_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watched(monkeypatch)
    monkeypatch.setattr(waiting, "SPIN_AFTER_SECONDS", 0.0)
    with spinning("looking for [x]"):
        wait_for(screen, "looking for [x] ...")
    assert screen.getvalue().endswith("\x1b[2K"), "the line is gone afterwards"


def test_a_short_wait_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watched(monkeypatch)
    monkeypatch.setattr(waiting, "SPIN_AFTER_SECONDS", 60.0)
    with spinning("looking"):
        pass
    assert "looking" not in screen.getvalue()


def test_without_a_terminal_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "SPIN_AFTER_SECONDS", 0.0)
    with spinning("looking"), bars_shown("here") as show:
        show(Progress(1, 2))
    assert capsys.readouterr() == ("", "")


def test_bars_say_what_goes_on_at_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = watched(monkeypatch)
    assert _beyond(Progress(1, 2, 0, 8)) == ""
    assert _beyond(Progress(2, 2, 8, 8, finishing=True)) == "finishing; "
    assert _beyond(Progress(2, 2, 8, 8)) == "fetching the result; "
    assert _beyond(Progress()) == ""
    with bars_shown("here") as show:
        show(Progress(1, 2))
        wait_for(screen, "1/2")
