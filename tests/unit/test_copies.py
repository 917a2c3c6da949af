"""Detached transactions on enough disks: who is given one, who replaces a keeper that is gone."""

from collections.abc import Iterator

import pytest
from msgspec import structs

from grid.effects import FetchResult
from grid.events import ResultFetched, ResultUnkept
from grid.fetches import RETAINED, Fetches
from grid.holdings import Holdings
from grid.keeping import Handing, choose
from grid.messages import (
    Announce,
    BecomeKeeper,
    Failure,
    Held,
    Join,
    Keeping,
    Leaving,
    Message,
    NotTaken,
    PeerRef,
    Remembered,
    Retain,
    Submit,
)
from grid.ownership import Ownership
from grid.settings import Settings
from tests.unit.cores import holding, join, meta, peer
from tests.unit.table import Table, serve

COPIES = 2
META = structs.replace(meta("r", 8), keeping=Keeping(1000.0, 5.0, COPIES))
AWAY = Settings().replace_seconds
RESULT = holding(0, 8, "a", kind="reduce")
END = Remembered("", {}, META, (RESULT,), 900.0, (3,), None, 9.0)
FAILED = Remembered("", {}, META, (), 900.0, (), Failure("raised", "ValueError"), 9.0)


@pytest.fixture
def table() -> Iterator[Table]:
    """A server with two peers on host 1, and one on each of 2 and 3; "a" and "c" keep something."""
    table = serve()
    for name, host in (("a", "1"), ("b", "1"), ("c", "2")):
        table.join(join(name, host=host, slots=0))
    visitor = structs.replace(join("v", host="4", slots=0), serves=False)
    table.join(visitor)
    yield table
    table.check()


def asked(said: dict[str, list[Message]]) -> dict[str, list[Message]]:
    """Who was asked to keep a copy."""
    found: dict[str, list[Message]] = {}
    for name, messages in said.items():
        for message in messages:
            if isinstance(message, BecomeKeeper | Retain):
                found.setdefault(name, []).append(message)
    return found


def own(table: Table, *names: str) -> None:
    for name in names:
        table.hear(name, Submit(f"kept:{name}", META))


def third(**changes: object) -> Join:
    return structs.replace(join("d", host="3", slots=0), **changes)


def test_one_that_stays_away_is_replaced_by_a_peer_of_another_host(table: Table) -> None:
    own(table, "a", "c")
    table.lose("c")
    table.join(third())
    assert asked(table.wait(AWAY - 1)) == {}
    assert asked(table.wait(2)) == {"d": [BecomeKeeper(META, (peer("a", "1"),))]}
    own(table, "d")
    assert asked(table.wait(2 * AWAY)) == {}, "there are enough"


def test_one_that_comes_back_is_not_replaced(table: Table) -> None:
    own(table, "a", "c")
    table.lose("c")
    table.join(third())
    table.wait(AWAY / 2)
    table.join(join("c", host="2", slots=0))
    own(table, "c")
    assert asked(table.wait(2 * AWAY)) == {}


def test_two_keepers_of_one_host_are_one_copy(table: Table) -> None:
    own(table, "a", "b")
    assert list(asked(table.wait(AWAY + 1))) == ["c"]


def test_who_leaves_or_never_stays_is_not_asked(table: Table) -> None:
    own(table, "a")
    table.lose("c")
    table.join(third())
    table.hear("d", Leaving())
    assert asked(table.wait(2 * AWAY)) == {}


def test_who_cannot_is_passed_over_and_asked_again_later(table: Table) -> None:
    own(table, "a")
    table.join(third())
    (first,) = asked(table.wait(AWAY + 1))
    table.hear(first, NotTaken("r", ()))
    (second,) = asked(table.wait(1))
    assert {first, second} == {"c", "d"}
    table.lose(second)
    assert asked(table.wait(AWAY - 1)) == {}, "all were asked"
    assert list(asked(table.wait(AWAY + 2))) == [first]


def test_who_says_nothing_is_passed_over(table: Table) -> None:
    own(table, "a")
    table.join(third())
    said = asked(table.wait(2 * AWAY + 1))
    assert sorted(said) == ["c", "d"]
    assert all(len(messages) == 1 for messages in said.values())


@pytest.mark.parametrize("end", [END, FAILED], ids=["result", "failure"])
def test_ends_are_copied_too_and_with_them_results(table: Table, end: Remembered) -> None:
    held = Held("r", end.holdings, (), end)
    table.join(third(held=(held,)))
    ((name, (retain,)),) = asked(table.wait(AWAY + 1)).items()
    assert isinstance(retain, Retain)
    left = retain.remembered.seconds_left
    assert left == pytest.approx(900.0 - AWAY, abs=2)
    assert retain.remembered == structs.replace(end, seconds_left=left)
    assert retain.sources == tuple((found, peer("d", "3")) for found in end.holdings)
    table.hear(name, Announce((held,)))
    assert asked(table.wait(AWAY + 1)) == {}


def test_nothing_is_copied_that_nobody_has(table: Table) -> None:
    own(table, "a")
    table.lose("a")
    assert asked(table.wait(5)) == {}
    held = Held("r", (RESULT,), (), END)
    table.join(third(held=(held,)))
    table.lose("d")
    assert asked(table.wait(2 * AWAY)) == {}


def test_an_end_is_announced_once_it_is_on_disk() -> None:
    ownership, holdings = Ownership(), Holdings(100.0)
    fetches = Fetches("me", ownership, holdings)
    sources = ((RESULT, peer("d")),)
    fetch = FetchResult(f"{RETAINED}r", "r", sources, END)
    assert fetches.retain(Retain(END, sources), 0.0) == ([fetch], [])
    assert holdings.held(0.0) == ()
    effects, (announced,) = fetches.fetched(ResultFetched(fetch.txn, "r", END), 0.0)
    assert effects == []
    assert announced == Announce((Held("r", (RESULT,), (), END),))
    assert holdings.kept() == [META]


def test_who_has_no_room_for_an_end_says_so() -> None:
    fetches = Fetches("me", Ownership(), Holdings(100.0))
    ((fetch,), _) = fetches.retain(Retain(FAILED, ()), 0.0)
    assert isinstance(fetch, FetchResult)
    said = fetches.unkept(ResultUnkept(fetch.txn, "r", "no room"), 0.0)
    assert said == ([], [NotTaken("r", ())])


# -- submitting ----------------------------------------------------------------------------


REFS = [peer("a", "1"), peer("b", "1"), peer("c", "2"), peer("d", "3")]


def names(refs: list[PeerRef]) -> str:
    return "".join(ref.name for ref in refs)


def test_keepers_are_chosen_on_as_many_hosts_as_there_are() -> None:
    assert names(choose(REFS[0], REFS, 3)) == "acd"
    assert names(choose(None, REFS[:3], 3)) == "acb", "two of one host if there are no more hosts"
    assert names(choose(None, [], 3)) == ""


def test_one_peer_of_each_host_is_given_everything_and_the_others_join_it() -> None:
    handing = Handing(REFS)
    assert names(handing.asked) == "acd"
    handing.left_out(REFS[2])
    for ref in handing.asked:
        handing.has(ref)
    assert names(handing.joiners()) == "b"
    assert not handing.uncertain


def test_nobody_joins_a_host_that_has_nothing() -> None:
    handing = Handing(REFS)
    handing.left_out(REFS[0], last=True)
    handing.has(REFS[2])
    assert handing.joiners() == []
    assert handing.uncertain
