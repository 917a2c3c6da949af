"""``grid logs``: which transaction is meant, and reading along through several servers."""

from concurrent.futures import Future
from typing import Any, cast

import pytest
from msgspec import structs

from grid.errors import GridError, Misuse
from grid.messages import NO_BOOKMARK, AskPrints, Bookmark, Printed, Prints
from peers.cli import logs
from peers.cli.logs import Reader, find
from peers.peer import Peer
from peers.snapshot import NOTHING, TransactionSeen


def seen(record: str, name: str = "", state: str = "running") -> TransactionSeen:
    return TransactionSeen(record, name, (), state, "", 0, 0, 0, 0, 0, 0, False, 0.0)


def test_the_one_that_runs_is_meant_or_the_latest_or_a_record() -> None:
    known = (seen("ab1", "job"), seen("ab2", "job", "failed"), seen("cd3", "", "finished"))
    snapshot = structs.replace(NOTHING, transactions=known)
    assert find("job", snapshot).record == "ab1"
    assert find("cd", snapshot).record == "cd3"
    with pytest.raises(Misuse, match="may be any of ab1, ab2"):
        find("ab", snapshot)
    with pytest.raises(GridError, match="did you mean 'job'"):
        find("jbo", snapshot)


class Oracle:
    """Answers questions about prints with what it is given, in order."""

    def __init__(self, *answers: Prints) -> None:
        self._answers = list(answers)
        self.asked: list[Bookmark] = []

    def prints(self, record: str, after: Bookmark) -> "Future[Prints]":
        self.asked.append(after)
        future: Future[Prints] = Future()
        future.set_result(self._answers.pop(0))
        return future


def answer(*texts: str, number: int, chronicle: str = "x", **more: Any) -> Prints:
    prints = tuple(Printed("r", "p", "stdout", text) for text in texts)
    return structs.replace(Prints(AskPrints("r"), prints, Bookmark(chronicle, number)), **more)


def test_who_follows_reads_on_where_it_was_until_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.0)
    oracle = Oracle(
        answer("one\ntwo\n", number=2, state="running", gap=True),
        answer(number=2, state="running"),
        answer(number=0, chronicle="y"),  # a new server, that does not know it yet
        answer("three\n", number=5, chronicle="y", state="finished"),
        answer(number=5, chronicle="y", state="finished"),
    )
    reader = Reader(cast(Peer, oracle), "r", as_json=False)
    assert reader.follow() == "finished"
    assert oracle.asked == [
        NO_BOOKMARK,
        *(Bookmark("x", 2), Bookmark("x", 2)),
        *(Bookmark("y", 0), Bookmark("y", 5)),
    ]
    shown = capsys.readouterr()
    assert shown.out == "[p] one\n[p] two\n[p] three\n"
    assert shown.err.count("is not kept") == 1
    assert shown.err.count("another server serves now") == 1


def test_what_nobody_takes_up_again_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(logs, "RETURN_SECONDS", 0.0)
    gone = [answer(number=0) for _ in range(100)]
    assert Reader(cast(Peer, Oracle(*gone)), "r", as_json=True).follow() == ""
