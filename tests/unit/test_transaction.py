"""A transaction settles once, whoever comes first: the outcome or the user's cancel."""

from concurrent.futures import wait
from pathlib import Path

import pytest

from grid.errors import GridError, TransactionCancelled
from peers.results import Results
from peers.transaction import Transaction


def make(cancelled: list[bool]) -> Transaction:
    return Transaction("t1", "", cancelled.append)


def test_what_comes_after_a_cancel_is_ignored() -> None:
    asked: list[bool] = []
    transaction = make(asked)
    assert transaction.cancel(all=True)
    assert asked == [True]
    transaction._fail(GridError("withdrawn"))
    transaction._resolve(Results(()), None, ())
    with pytest.raises(TransactionCancelled):
        transaction.result(0)
    with pytest.raises(TransactionCancelled):
        transaction.exception(0)
    assert wait([transaction], 0).done == {transaction}


def test_a_cancel_after_the_outcome_changes_nothing(tmp_path: Path) -> None:
    asked: list[bool] = []
    transaction = make(asked)
    transaction._resolve(Results(()), None, ())
    assert not transaction.cancel()
    assert asked == []
    assert transaction.result(0) == {}


def test_only_the_first_outcome_counts() -> None:
    transaction = make([])
    transaction._fail(GridError("first"))
    transaction._resolve(Results(()), None, ())
    with pytest.raises(GridError, match="first"):
        transaction.result(0)


def test_a_callback_may_cancel_again() -> None:
    transaction = make([])
    transaction.add_done_callback(lambda _: transaction.cancel())
    assert transaction.cancel()
    assert transaction.cancelled()
