"""Elections, one fact at a time: who is joined, who grabs, who gives way (P5)."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from grid.effects import (
    Ask,
    BindPort,
    ClientEffect,
    CloseLink,
    ConnectOwnServer,
    GiveUp,
    Probe,
    Reconnect,
    RoleChanged,
    Serve,
    StopServing,
)
from grid.election import CROWD, WIDE_SPAN, Election, Phase
from grid.errors import Refused, WrongKey
from grid.events import (
    Connected,
    DialFailure,
    PortBound,
    PortTaken,
    ProbeAnswered,
    ProbeFailed,
    ReconnectFailed,
    Started,
)
from grid.messages import NO_REIGN, Address, Reign
from grid.search import claim
from grid.settings import Settings
from tests.unit.cores import PORT, successors, welcome

SETTINGS = Settings()
HERE = tuple(Address("h", port) for port in SETTINGS.ports)
FIRST = HERE[0]


def make(settings: Settings = SETTINGS, *, strict: bool = True) -> Election:
    return Election(settings, "me", ("h",), strict, random.Random(1))


@pytest.fixture
def election() -> Iterator[Election]:
    """A started election; what is true of every election holds of it in the end."""
    election = make()
    assert election.start(Started(HERE), 0.0)[1:] == [Probe(HERE)]
    yield election
    assert election.reign.term <= election.seen.term
    assert election.serving == (election.phase is Phase.SERVING)
    if election.phase in (Phase.FOLLOWING, Phase.CLOSED, Phase.JOINING, Phase.BINDING):
        assert election.deadline is None


def nobody(
    election: Election, now: float = 0.0, kind: DialFailure = "refused"
) -> list[ClientEffect]:
    """Every probe fails; return what the last one led to."""
    effects: list[ClientEffect] = []
    for address in HERE:
        effects = election.probe_failed(ProbeFailed(address, kind, "no"), now)
    return effects


def serve(election: Election, now: float = 0.0) -> Reign:
    """Let it find nobody, grab the first port and reign."""
    assert nobody(election, now) == [BindPort(PORT)]
    effects = election.port_bound(PortBound(PORT, FIRST), now)
    reign = election.reign
    assert effects == [Serve(reign, 0), ConnectOwnServer(FIRST)]
    assert election.connected(Connected(1, FIRST, welcome("me", reign)), now) == []
    election.told(reign, (), 1)
    return reign


def follow(election: Election, reign: Reign, now: float = 0.0) -> None:
    assert election.probe_answered(ProbeAnswered(FIRST, welcome("s", reign)), now) == []
    effects = election.due(now + 0.06)
    assert [type(effect) for effect in effects] == [Reconnect]
    assert election.connected(Connected(7, FIRST, welcome("s", reign)), now + 0.06) == []


def test_one_that_finds_nobody_grabs_at_once_where_it_is_alone(election: Election) -> None:
    reign = serve(election)
    assert reign.term == 1
    assert election.phase is Phase.SERVING


def test_a_server_that_answers_is_joined_after_the_others_had_a_moment(election: Election) -> None:
    follow(election, Reign(4, "s"))
    assert (election.phase, election.link, election.seen) == (Phase.FOLLOWING, 7, Reign(4, "s"))


def test_the_best_of_two_servers_is_joined(election: Election) -> None:
    alone = welcome("a", Reign(9, "a"), followers=0)
    followed = welcome("b", Reign(2, "b"), followers=3)
    election.probe_answered(ProbeAnswered(HERE[0], alone), 0.0)
    election.probe_answered(ProbeAnswered(HERE[1], followed), 0.0)
    effects = election.probe_failed(ProbeFailed(HERE[2], "refused", "no"), 0.0)
    assert [e.address for e in effects if isinstance(e, Reconnect)] == [HERE[1]]


def test_one_that_has_bound_but_not_begun_is_waited_for(election: Election) -> None:
    election.probe_answered(ProbeAnswered(HERE[0], welcome("a", NO_REIGN)), 0.0)
    election.probe_failed(ProbeFailed(HERE[1], "refused", "no"), 0.0)
    assert election.probe_failed(ProbeFailed(HERE[2], "refused", "no"), 0.0) == []
    assert election.phase is Phase.WAITING


def test_a_term_is_never_reigned_in_that_was_seen(election: Election) -> None:
    follow(election, Reign(4, "s"))
    election.told(Reign(4, "s"), successors("me"), 3)
    election.lost_server(10.0)
    assert nobody(election, 10.0) == [BindPort(PORT)]
    effects = election.port_bound(PortBound(PORT, FIRST), 10.0)
    assert election.reign.term == 5
    assert isinstance(effects[0], Serve)
    assert (effects[0].reign, effects[0].expected) == (election.reign, 2)


def test_a_reign_too_short_for_all_to_come_does_not_lower_how_many_are_missed(
    election: Election,
) -> None:
    follow(election, Reign(4, "s"))
    election.told(Reign(4, "s"), successors("x", "me"), 9)
    election.lost_server(10.0)
    follow(election, Reign(5, "t"), 10.0)
    election.told(Reign(5, "t"), successors("me"), 2)
    election.lost_server(10.5)
    nobody(election, 10.5)
    serve, *_ = election.port_bound(PortBound(PORT, FIRST), 10.5)
    assert isinstance(serve, Serve)
    assert serve.expected == 7


def lose_one_of(election: Election, members: int, *order: str) -> list[ClientEffect]:
    """Its server, with so many members, is gone; return what it begins with."""
    follow(election, Reign(4, "s"))
    election.told(Reign(4, "s"), successors(*order), members)
    return election.lost_server(10.0)


@pytest.mark.parametrize(("members", "asked"), [(CROWD, [Ask]), (CROWD + 2, [])])
def test_on_its_own_host_a_crowd_asks_nobody_whether_the_server_lives(
    election: Election, members: int, asked: list[type]
) -> None:
    lose_one_of(election, members, "a", "me")
    effects = nobody(election, 10.0, "silent")
    assert [type(effect) for effect in effects] == asked


def test_successors_wait_for_their_turn(election: Election) -> None:
    follow(election, Reign(4, "s"))
    election.told(Reign(4, "s"), successors("a", "b", "me"), 4)
    election.lost_server(10.0)
    now, rounds = 10.0, 0
    while not any(isinstance(effect, BindPort) for effect in nobody(election, now)):
        assert election.deadline is not None
        now = election.deadline
        assert election.due(now) == [Probe(HERE)]
        rounds += 1
    assert now == pytest.approx(10.0 + 2 * SETTINGS.rank_step_seconds)
    assert rounds > 1, "it looks now and then while it waits"


def test_one_who_is_no_successor_comes_after_them_all(election: Election) -> None:
    follow(election, Reign(4, "s"))
    election.told(Reign(4, "s"), successors("a", "b"), 4)
    election.lost_server(10.0)
    now = 10.0
    while not any(isinstance(effect, BindPort) for effect in nobody(election, now)):
        assert election.deadline is not None
        now = election.deadline
        election.due(now)
    step = SETTINGS.rank_step_seconds
    assert 10.0 + 2 * step <= now <= 10.0 + 3 * step


def test_a_port_grabbed_a_moment_ago_is_sought_again_not_passed_over(election: Election) -> None:
    nobody(election)
    assert election.port_taken(PortTaken(PORT, "in use"), 0.0) == []
    assert election.phase is Phase.WAITING
    assert election.deadline is not None
    assert election.due(election.deadline) == [Probe(HERE)]


@pytest.mark.parametrize("kind", ["silent", "stranger"])
def test_a_port_held_by_something_that_does_not_serve_is_passed_over(
    election: Election, kind: DialFailure
) -> None:
    election.probe_failed(ProbeFailed(HERE[0], kind, "no"), 0.0)
    election.probe_failed(ProbeFailed(HERE[1], "refused", "no"), 0.0)
    election.probe_failed(ProbeFailed(HERE[2], "refused", "no"), 0.0)
    assert election.port_taken(PortTaken(PORT, "in use"), 0.0) == [BindPort(PORT + 1)]


def test_another_key_on_the_port_is_an_error_for_whoever_was_told_this_key() -> None:
    election = make()
    election.start(Started(HERE), 0.0)
    (effect,) = nobody(election, kind="wrong_key")
    assert isinstance(effect, GiveUp)
    assert isinstance(effect.error, WrongKey)
    assert f"[h]:{PORT}" in str(effect.error) or f"h:{PORT}" in str(effect.error)


def test_another_key_on_the_port_makes_a_default_key_look_further() -> None:
    election = make(strict=False)
    election.start(Started(HERE), 0.0)
    (effect,) = nobody(election, kind="wrong_key")
    assert isinstance(effect, Probe)
    assert {address.port for address in effect.addresses} == set(range(PORT, PORT + WIDE_SPAN))


def test_a_refusal_is_told_with_its_reason(election: Election) -> None:
    election.probe_failed(ProbeFailed(HERE[0], "refusal", "protocol 2, not 1"), 0.0)
    election.probe_failed(ProbeFailed(HERE[1], "refused", "no"), 0.0)
    (effect,) = election.probe_failed(ProbeFailed(HERE[2], "refused", "no"), 0.0)
    assert isinstance(effect, GiveUp)
    assert isinstance(effect.error, Refused)
    assert "protocol 2, not 1" in str(effect.error)


def test_one_that_may_not_serve_never_binds() -> None:
    election = make(replace(SETTINGS, serves=False))
    election.start(Started(HERE), 0.0)
    now = 0.0
    for _ in range(20):
        assert not any(isinstance(effect, BindPort) for effect in nobody(election, now))
        assert election.deadline is not None
        now = election.deadline
        election.due(now)


def test_a_better_rival_is_dialled_and_only_then_followed(election: Election) -> None:
    serve(election)
    better = welcome("b", Reign(1, "zz"), followers=2)
    (dial,) = election.probe_answered(ProbeAnswered(HERE[1], better), 5.0)
    assert isinstance(dial, Reconnect)
    assert election.phase is Phase.SERVING
    effects = election.connected(Connected(2, HERE[1], better), 5.1)
    assert effects == [StopServing(HERE[1]), CloseLink(1)]
    assert (election.phase, election.link, election.reign) == (Phase.FOLLOWING, 2, Reign(1, "zz"))


def test_a_better_rival_that_cannot_be_joined_changes_nothing(election: Election) -> None:
    reign = serve(election)
    better = welcome("b", Reign(9, "zz"), followers=2)
    election.probe_answered(ProbeAnswered(HERE[1], better), 5.0)
    assert election.reconnect_failed(ReconnectFailed(HERE[1], "silent", "no"), 6.0) == []
    assert (election.phase, election.reign) == (Phase.SERVING, reign)
    assert election.probe_answered(ProbeAnswered(HERE[1], better), 7.0) != []


def test_a_lonely_server_of_a_higher_term_takes_no_grid_away(election: Election) -> None:
    reign = serve(election)
    election.told(reign, successors("x"), 2)
    lonely = welcome("b", Reign(99, "b"), followers=0)
    assert election.probe_answered(ProbeAnswered(HERE[2], lonely), 5.0) == []
    assert election.phase is Phase.SERVING


def test_rivals_compare_alike_from_both_sides() -> None:
    claims = [claim(f, Reign(t, i)) for f in (0, 2) for t in (1, 2) for i in ("a", "b")]
    assert len(set(claims)) == len(claims), "of two rivals exactly one gives way"
    assert max(claims) == claim(2, Reign(2, "b"))
    assert claim(1, Reign(1, "a")) > claim(0, Reign(9, "z"))
    assert claim(1, Reign(3, "a")) == claim(50, Reign(3, "a")), "how many followers is no matter"


def test_a_member_that_has_seen_more_makes_the_server_reign_above_it(election: Election) -> None:
    serve(election)
    effects = election.term_surpassed(Reign(7, "q"), 3.0)
    assert election.reign.term == 8
    assert effects[0] == Serve(election.reign, 0)
    assert isinstance(effects[-1], RoleChanged)
    assert election.term_surpassed(Reign(7, "q"), 4.0) == []


def test_a_stale_link_is_closed(election: Election) -> None:
    follow(election, Reign(4, "s"))
    assert election.connected(Connected(8, FIRST, welcome("s", Reign(4, "s"))), 1.0) == [
        CloseLink(8)
    ]
    assert election.link == 7


def test_closing_ends_the_reign_and_the_link(election: Election) -> None:
    serve(election)
    effects = election.close()
    assert effects[:2] == [StopServing(None), CloseLink(1)]
    assert election.phase is Phase.CLOSED


def test_nobody_is_waited_for_longer_than_the_join_timeout(election: Election) -> None:
    assert election.overdue(SETTINGS.join_timeout - 0.1) is None
    error = election.overdue(SETTINGS.join_timeout)
    assert error is not None
    assert "10 s" in str(error)


def test_a_server_that_takes_us_in_and_says_nothing_is_not_pestered(election: Election) -> None:
    """Again and again it greets, and ends the link before it has said whose reign it is."""
    now, rounds = 0.0, 0
    while election.overdue(now) is None:
        rounds += 1
        election.probe_answered(ProbeAnswered(FIRST, welcome("s", Reign(4, "s"))), now)
        now += 0.06
        election.due(now)
        election.connected(Connected(rounds, FIRST, welcome("s", Reign(4, "s"))), now)
        election.lost_server(now)
        assert election.deadline is not None
        now = election.deadline
        election.due(now)
    assert rounds < 25, "the pauses grow"
    assert now < SETTINGS.join_timeout + 1, "and Peer() is told that it never joined"
