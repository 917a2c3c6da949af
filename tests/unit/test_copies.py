"""Detached transactions on enough disks: who is given one, who replaces a keeper that is gone."""

from collections.abc import Generator, Iterator

import pytest
from msgspec import structs

from grid.effects import FetchResult
from grid.events import ResultFetched, ResultUnkept
from grid.fetches import RETAINED, Fetches
from grid.holdings import Holdings
from grid.keeping import Answer, HandedOver, Part, choose, hand_over
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


def test_two_that_stay_away_are_replaced_one_after_the_other() -> None:
    table = serve()
    for host in "123":
        table.join(join(host, host=host, slots=0))
    three = structs.replace(META, keeping=Keeping(1000.0, 5.0, 3))
    table.hear("1", Submit("kept:1", three))
    ((first, _),) = asked(table.wait(AWAY + 1)).items()
    table.hear(first, Submit(f"kept:{first}", three))
    ((second, _),) = asked(table.wait(1)).items()
    assert {first, second} == {"2", "3"}


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


def handed(failing: str, items: Iterator[int] | None = None) -> tuple[str, bool, list[str]]:
    """Hand something over: who keeps it, whether others may, and all that was said."""
    said: list[str] = []
    flow = hand_over(REFS, iter([5, 3]) if items is None else items)
    part = next(flow)
    try:
        while True:
            said.append(f"{part.keeper.name} {part.part}")
            joins = part.part == "head" and part.keeper.name == "b"
            answer: Answer = "whole" if joins else "done"
            part = flow.send("failed" if said[-1] in failing else answer)
    except StopIteration as over:
        return names(over.value.kept), over.value.uncertain, said


def test_one_peer_of_each_host_is_given_everything_and_the_others_join_it() -> None:
    kept, uncertain, said = handed("c items")
    assert (kept, uncertain) == ("adb", False)
    first = ["a head", "c head", "d head", "a items", "c items", "d items"]
    assert said == [*first, "a items", "d items", "a whole", "d whole", "b head", "b whole"]


def test_nobody_joins_a_host_that_has_nothing() -> None:
    kept, uncertain, said = handed("a whole")
    assert (kept, uncertain) == ("cd", True), "a may have it, and not have been heard"
    assert "b head" not in said
    assert handed("a head, c head, d head") == ("", False, ["a head", "c head", "d head"])


def talk(flow: Generator[Part, Answer, HandedOver], part: Part, told: list[str]) -> None:
    while True:
        told.append(part.part)
        part = flow.send("done")


def test_what_a_datasource_raises_is_raised_when_all_have_heard_of_it() -> None:
    def broken() -> Iterator[int]:
        yield 5
        raise LookupError("not today")

    told: list[str] = []
    flow = hand_over(REFS[2:], broken())
    part = next(flow)
    with pytest.raises(LookupError, match="not today"):
        talk(flow, part, told)
    assert told == ["head", "head", "items", "items", "withdrawn", "withdrawn"]
