"""The election across hosts: whom to ask, through whom to follow, whose turn, signposts, rivals."""

import random
from dataclasses import replace

import pytest

from grid.effects import (
    Ask,
    BindPort,
    ClientEffect,
    CloseLink,
    ConnectOwnServer,
    Point,
    Probe,
    Reconnect,
    Resolve,
    Serve,
    StopServing,
    Unpoint,
    Warn,
)
from grid.election import ASK_SECONDS, DOUBT_SECONDS, Election, Phase
from grid.events import (
    AskAnswered,
    AskFailed,
    CandidatesResolved,
    Connected,
    DialFailure,
    PortBound,
    PortTaken,
    ProbeAnswered,
    ProbeFailed,
    ReconnectFailed,
    RivalHeard,
    Started,
    Summoned,
)
from grid.messages import Address, Beat, Claim, PeerRef, Reign, Successor, Welcome
from grid.settings import Settings
from tests.unit.cores import PORT, welcome

HOSTS = ("me-host", "s-host", "v-host")
SETTINGS = Settings(hosts=HOSTS)
PLACES = tuple(Address(host, port) for port in SETTINGS.ports for host in HOSTS)
OWN = tuple(address for address in PLACES if address.host == "me-host")
SERVER = Address("s-host", PORT)
REIGN = Reign(4, "s")


def doors(host: str) -> tuple[Address, ...]:
    return tuple(Address(host, port) for port in SETTINGS.ports)


def successor(name: str) -> Successor:
    host = f"{name}-host"
    return Successor(PeerRef(name, name, host, Address(host, 5000)), doors(host))


def make(settings: Settings = SETTINGS) -> Election:
    return Election(settings, "me", ("me-host",), True, random.Random(1))


def start(election: Election) -> list[ClientEffect]:
    return election.start(Started(PLACES, OWN), 0.0)


def fail(
    election: Election, now: float, kinds: dict[str, DialFailure] | None = None
) -> list[ClientEffect]:
    """Every place that is still awaited fails: as its host does, by default with nobody there."""
    effects: list[ClientEffect] = []
    for address in sorted(election._search.pending):
        kind = (kinds or {}).get(address.host, "refused")
        if kind != "silent":
            effects = election.probe_failed(ProbeFailed(address, kind, "no"), now)
    return effects


def follow(
    election: Election, *others: str, address: Address = SERVER, now: float = 0.0
) -> list[ClientEffect]:
    """Find and join the server at ``address``; it names these successors."""
    greeting = welcome("s", REIGN, 3)
    election.probe_answered(ProbeAnswered(address, greeting), now)
    election.due(now + 1)
    assert election.phase is Phase.JOINING
    election.connected(Connected(7, address, greeting), now + 1)
    return election.told(REIGN, tuple(successor(name) for name in others), 4)


@pytest.fixture
def election() -> Election:
    made = make()
    assert start(made)[1:] == [Probe(PLACES)]
    return made


def vouch(heard: float = 0.1, reign: Reign = REIGN, address: Address = SERVER) -> Welcome:
    claim = Claim("s", address, reign, 3)
    return Welcome("v", "v", (3, 11), reign, follows=claim, heard_seconds=heard)


# -- asking ----------------------------------------------------------------------------------


def cut_off(election: Election, now: float = 10.0) -> list[ClientEffect]:
    """Its server falls silent, with its host; the others say that nobody serves there."""
    follow(election, "v", "me", "w")
    election.lost_server(now)
    return fail(election, now, {"s-host": "silent"})


def test_who_loses_a_silent_server_asks_before_it_grabs(election: Election) -> None:
    (ask,) = cut_off(election)
    assert isinstance(ask, Ask)
    assert [ref.peer for ref in ask.peers] == ["v", "w"]


def test_a_server_that_another_hears_is_followed_through_it(election: Election) -> None:
    cut_off(election)
    (dial,) = election.ask_answered(AskAnswered("v", vouch()), 10.2)
    assert isinstance(dial, Reconnect)
    assert (dial.address, dial.wanted) == (SERVER, "s")
    assert dial.through == successor("v").ref
    election.connected(Connected(8, SERVER, welcome("s", REIGN, 3)), 10.3)
    assert (election.phase, election.link, election.server) == (Phase.FOLLOWING, 8, SERVER)


def test_a_successor_that_summons_is_joined_at_once(election: Election) -> None:
    follow(election, "v", "me", "w")
    summons = Summoned(Address("v-host", PORT), welcome("v", Reign(REIGN.term + 1, "v"), 0))
    assert election.summoned(summons) == []  # its own server lives
    election.lost_server(10.0)
    stale = Summoned(summons.address, welcome("v", REIGN, 0))
    assert election.summoned(stale) == []
    (dial,) = election.summoned(summons)
    assert isinstance(dial, Reconnect)
    assert dial.address == summons.address
    assert election.phase is Phase.JOINING


def test_over_a_good_vouch_nobody_grabs(election: Election) -> None:
    """However often it cannot be followed."""
    cut_off(election)
    now = 10.2
    for _ in range(50):
        effects = election.ask_answered(AskAnswered("v", vouch()), now)
        assert [type(effect) for effect in effects] == [Reconnect]
        election.reconnect_failed(ReconnectFailed(SERVER, "silent", "no"), now)
        while election.phase is not Phase.ASKING:
            assert election.deadline is not None
            now = election.deadline
            effects = election.due(now) or []
            assert not any(isinstance(effect, BindPort) for effect in effects)
            fail(election, now, {"s-host": "silent"})


@pytest.mark.parametrize(
    "stale",
    [vouch(heard=0.8), vouch(reign=Reign(3, "older")), welcome("v", REIGN)],
    ids=["heard too long ago", "of an older reign", "follows nobody"],
)
def test_a_stale_vouch_is_not_waited_for(election: Election, stale: Welcome) -> None:
    cut_off(election)
    assert election.ask_answered(AskAnswered("v", stale), 10.2) == [], "others may know better"
    election.ask_failed(AskFailed("w", "no answer"), 10.2)
    election.due(10.0 + ASK_SECONDS)
    assert election.phase is Phase.WAITING


def test_when_nobody_vouches_the_first_that_lives_grabs(election: Election) -> None:
    """The first successor was on the host that died."""
    cut_off(election)
    election.ask_failed(AskFailed("v", "no answer"), 10.2)
    election.ask_answered(AskAnswered("w", welcome("w", Reign(0, ""))), 10.2)
    assert election.deadline == 10.0 + ASK_SECONDS, "the silent place has as long as the others"
    assert BindPort(PORT) in election.due(10.0 + ASK_SECONDS), "of those who live it comes first"


@pytest.mark.parametrize("before_us", ["serves", "is gone", "is gone without a word"])
def test_its_turn_come_it_greets_those_who_answered_once_more(
    election: Election, before_us: str
) -> None:
    """While silent places were awaited, one that comes before us may have become server."""
    cut_off(election)
    now, effects = 10.0, list[ClientEffect]()
    for _ in range(2):
        for peer in ("v", "w"):
            election.ask_answered(AskAnswered(peer, welcome(peer, Reign(0, ""))), now)
        now += ASK_SECONDS
        effects = election.due(now)
        if election.phase is Phase.WAITING:
            now = election.deadline or now
            election.due(now)
            fail(election, now, {"s-host": "silent"})
    (look,) = effects
    assert isinstance(look, Probe)
    assert {address.host for address in look.addresses} == {"v-host", "w-host"}
    if before_us == "serves":
        serves = ProbeAnswered(doors("v-host")[0], welcome("v", Reign(5, "v"), 1))
        election.probe_answered(serves, now)
        fail(election, now)
        assert election.phase is Phase.JOINING
    elif before_us == "is gone":
        assert fail(election, now) == [BindPort(PORT)]
    else:
        assert election.due(now + DOUBT_SECONDS) == [BindPort(PORT)]


def test_whoever_does_not_answer_is_not_waited_for(election: Election) -> None:
    cut_off(election)
    election.ask_answered(AskAnswered("v", welcome("v", Reign(0, ""))), 10.2)
    assert election.deadline == 10.0 + ASK_SECONDS
    election.due(10.0 + ASK_SECONDS)
    assert election.phase is Phase.WAITING, "one that lives comes before it"


def test_nobody_is_asked_when_the_servers_own_host_says_that_it_is_gone(
    election: Election,
) -> None:
    follow(election, "me", "v")
    election.lost_server(10.0)
    assert BindPort(PORT) in fail(election, 10.0)


def test_a_server_that_answers_while_others_are_asked_is_joined(election: Election) -> None:
    cut_off(election)
    (dial,) = election.probe_answered(ProbeAnswered(SERVER, welcome("s", REIGN, 3)), 10.2)
    assert isinstance(dial, Reconnect)
    assert dial.through is None


def test_a_server_that_is_vouched_for_elsewhere_is_tried_directly_first(
    election: Election,
) -> None:
    """Another has taken over, on a host in nobody's list."""
    cut_off(election)
    elsewhere = Address("x-host", PORT)
    newer = vouch(reign=Reign(5, "x"), address=elsewhere)
    assert election.ask_answered(AskAnswered("v", newer), 10.2) == [Probe((elsewhere,))]
    (dial,) = election.probe_answered(
        ProbeAnswered(elsewhere, welcome("s", Reign(5, "x"), 3)), 10.3
    )
    assert isinstance(dial, Reconnect)
    assert (dial.address, dial.through) == (elsewhere, None)


# -- whose turn ------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "steps"), [(0, 0), (1, 1), (2, 2)])
def test_hosts_begin_in_the_order_they_are_listed(place: int, steps: int) -> None:
    election = Election(SETTINGS, "me", ("127.0.0.1",), True, random.Random(1))
    own = tuple(address for address in PLACES if address.host == HOSTS[place])
    election.start(Started(PLACES, own), 0.0)
    now = 0.0
    while election.phase is not Phase.BINDING:
        fail(election, now)
        if election.phase is Phase.WAITING:
            assert election.deadline is not None
            now = election.deadline
            election.due(now)
    assert now == pytest.approx(steps * SETTINGS.rank_step_seconds)


def test_one_whose_host_is_in_nobodys_list_comes_after_them_all() -> None:
    election = Election(SETTINGS, "me", ("127.0.0.1",), True, random.Random(1))
    election.start(Started(PLACES), 0.0)
    now = 0.0
    while election.phase is not Phase.BINDING:
        fail(election, now)
        if election.phase is Phase.WAITING:
            assert election.deadline is not None
            now = election.deadline
            election.due(now)
    assert now >= len(HOSTS) * SETTINGS.rank_step_seconds


def test_a_successor_is_sought_at_its_doors(election: Election) -> None:
    follow(election, "x", "me")
    (probe,) = [e for e in election.lost_server(10.0) if isinstance(e, Probe)]
    assert set(doors("x-host")) <= set(probe.addresses)


def test_names_are_looked_up_again_while_nobody_is_found(election: Election) -> None:
    now, lookups = 0.0, 0
    while now < 5.0:
        for effect in fail(election, now, {"me-host": "stranger"}):
            lookups += isinstance(effect, Resolve)
            if isinstance(effect, BindPort):
                election.port_taken(PortTaken(effect.port, "in use"), now)
        while election.phase is Phase.BINDING:
            election.port_taken(PortTaken(PORT + 2, "in use"), now)
        now = election.deadline or now + 0.1
        election.due(now)
    assert 3 <= lookups <= 6
    found = (Address("new-host", PORT),)
    election.resolved(CandidatesResolved(found))
    assert election.seek(now) == [Probe((*found, *doors("me-host")))]


# -- signposts -------------------------------------------------------------------------------


def test_a_follower_points_from_its_hosts_free_port(election: Election) -> None:
    follow(election)
    assert election.deadline is not None
    assert election.due(election.deadline) == [BindPort(PORT)]
    assert election.phase is Phase.FOLLOWING
    mine = Address("me-host", PORT)
    assert election.port_bound(PortBound(PORT, mine), 5.0) == [Point(Claim("s", SERVER, REIGN, 3))]
    later = Reign(9, "s")
    assert election.told(later, (), 4) == [Point(Claim("s", SERVER, later, 3))]
    assert Unpoint() in election.lost_server(9.0)


def test_where_another_points_already_it_looks_again_later(election: Election) -> None:
    follow(election)
    assert election.deadline is not None
    election.due(election.deadline)
    assert election.port_taken(PortTaken(PORT, "in use"), 5.0) == [Probe((OWN[0],))]
    assert election.phase is Phase.FOLLOWING
    assert election.probe_answered(ProbeAnswered(OWN[0], vouch()), 5.1) == []
    assert election.deadline is not None
    assert election.due(election.deadline) == [BindPort(PORT)]


def test_where_something_frozen_has_the_port_it_points_from_the_next(election: Election) -> None:
    follow(election)
    assert election.deadline is not None
    election.due(election.deadline)
    election.port_taken(PortTaken(PORT, "in use"), 5.0)
    effects = election.probe_failed(ProbeFailed(OWN[0], "silent", "no answer"), 5.8)
    assert effects == [BindPort(PORT + 1)]
    (point,) = election.port_bound(PortBound(PORT + 1, OWN[1]), 5.8)
    assert isinstance(point, Point)


def test_a_port_bound_too_late_to_point_from_is_freed(election: Election) -> None:
    follow(election)
    assert election.deadline is not None
    election.due(election.deadline)
    election.lost_server(5.0)
    assert election.port_bound(PortBound(PORT, OWN[0]), 5.0) == [Unpoint()]


def test_a_follower_of_this_hosts_server_does_not_point(election: Election) -> None:
    follow(election, address=OWN[0])
    assert election.deadline is None


def test_a_signpost_shows_the_way(election: Election) -> None:
    """A server that nobody told of is found through one who follows it."""
    elsewhere = Address("x-host", PORT)
    pointer = vouch(address=elsewhere)
    assert election.probe_answered(ProbeAnswered(SERVER, pointer), 0.0) == [Probe((elsewhere,))]
    assert fail(election, 0.0, {"x-host": "silent"}) == []
    election.probe_answered(ProbeAnswered(elsewhere, welcome("s", REIGN, 3)), 0.1)
    assert election.phase is Phase.JOINING


def test_a_server_that_only_its_signpost_reaches_is_followed_through_it(
    election: Election,
) -> None:
    elsewhere = Address("x-host", PORT)
    election.probe_answered(ProbeAnswered(SERVER, vouch(address=elsewhere)), 0.0)
    effects = fail(election, 0.0)
    (dial,) = effects
    assert isinstance(dial, Reconnect)
    assert dial.address == elsewhere
    assert dial.through == PeerRef("v", "v", "", SERVER)


def test_a_signpost_that_still_points_to_the_dead_delays_nobody(election: Election) -> None:
    follow(election, "me")
    election.lost_server(10.0)
    mine = OWN[1]
    election.probe_answered(ProbeAnswered(mine, vouch(heard=2.0)), 10.0)
    fail(election, 10.0)
    assert election.phase is Phase.BINDING


# -- rivals ----------------------------------------------------------------------------------


def serve(election: Election) -> Reign:
    fail(election, 0.0)
    assert election.phase is Phase.BINDING
    effects = election.port_bound(PortBound(PORT, OWN[0]), 0.0)
    assert effects == [Serve(election.reign, 0), ConnectOwnServer(OWN[0])]
    election.connected(Connected(1, OWN[0], welcome("me", election.reign)), 0.0)
    election.told(election.reign, (), 1)
    return election.reign


def test_a_server_says_who_it_is_when_it_looks_for_rivals(election: Election) -> None:
    reign = serve(election)
    assert election.deadline is not None
    (probe,) = [e for e in election.due(election.deadline) if isinstance(e, Probe)]
    assert probe.claim == Claim("me", OWN[0], reign, 0)
    assert OWN[0] not in probe.addresses


def test_a_better_rival_that_found_us_is_dialled_where_it_says(election: Election) -> None:
    serve(election)
    better = Claim("x", Address("x-host", PORT), Reign(2, "x"), 2)
    (dial,) = election.rival_heard(RivalHeard(better))
    assert isinstance(dial, Reconnect)
    effects = election.connected(Connected(2, better.address, welcome("x", better.reign, 2)), 1.0)
    assert effects == [StopServing(better.address), CloseLink(1)]


def test_a_lesser_rival_that_found_us_changes_nothing(election: Election) -> None:
    serve(election)
    election.told(election.reign, (successor("v"),), 2)
    assert election.rival_heard(RivalHeard(Claim("x", SERVER, Reign(99, "x"), 0))) == []


def test_a_better_rival_that_a_signpost_points_to_is_dialled(election: Election) -> None:
    serve(election)
    (dial,) = election.probe_answered(ProbeAnswered(SERVER, vouch()), 1.0)
    assert isinstance(dial, Reconnect)
    assert dial.address == SERVER


def test_former_servers_and_successors_are_watched(election: Election) -> None:
    """After a cut the other half's server is none that this half still has in its roster."""
    serve(election)
    election.told(election.reign, (successor("x"),), 2)
    election.told(election.reign, (), 1)
    assert election.deadline is not None
    (probe,) = [e for e in election.due(election.deadline) if isinstance(e, Probe)]
    assert set(doors("x-host")) <= set(probe.addresses)


# -- what people are told --------------------------------------------------------------------


def test_serving_alone_though_others_were_named_is_said_until_it_is_over(
    election: Election,
) -> None:
    serve(election)
    assert election.deadline is not None
    (warning,) = [e for e in election.due(election.deadline) if isinstance(e, Warn)]
    assert warning.kind == "alone"
    assert f"s-host:{PORT}: refused" in warning.text
    assert f"v-host:{PORT}" in warning.text
    assert "me-host" not in warning.text
    assert not [e for e in election.due(election.deadline) if isinstance(e, Warn)], "said once"
    assert election.told(election.reign, (), 2) == [Warn("alone", "")]


def test_names_that_mean_nothing_are_said(election: Election) -> None:
    unknown = CandidatesResolved(PLACES, OWN, ("nowhere: no such host",))
    assert election.resolved(unknown) == [Warn("names", "nowhere: no such host")]
    assert election.resolved(unknown) == []
    assert election.resolved(CandidatesResolved(PLACES, OWN)) == [Warn("names", "")]


def test_the_want_of_a_quorum_is_said(election: Election) -> None:
    follow(election)
    (warning,) = election.heard(Beat(4, 2))
    assert isinstance(warning, Warn)
    assert "2 more peers" in warning.text
    assert election.heard(Beat(6, 0)) == [Warn("quorum", "")]


def test_a_visitor_asks_too_and_never_binds() -> None:
    election = make(replace(SETTINGS, serves=False))
    start(election)
    (ask,) = cut_off(election)
    assert isinstance(ask, Ask)
    election.ask_failed(AskFailed("v", "no"), 10.2)
    election.ask_failed(AskFailed("w", "no"), 10.2)
    effects = election.due(10.0 + ASK_SECONDS)
    assert not any(isinstance(effect, BindPort) for effect in effects)
    assert election.phase is Phase.WAITING
