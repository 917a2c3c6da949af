"""Threads that do what is given to them."""

import threading

import pytest

from peers.crew import Crew


def test_work_given_when_no_thread_starts_any_more_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the interpreter ends while a result comes in: who is there does it, or nobody."""
    done: list[int] = []
    crew: Crew[int] = Crew("crew", done.append, 2)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        crew.give(1)
    crew.close()
    assert done == []
    crew = Crew("crew", done.append, 2)
    crew.give(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        crew.give(3)
    crew.close()
    assert done == [2, 3]
