"""Faults asked for, drawn, allowed or not; answers of probe jobs judged; what is said of it."""

import argparse
import io
import random
import sys

import pytest
from msgspec import structs

from grid.client_core import ClientCore
from grid.effects import Send, SufferFault
from grid.errors import GridError, Misuse
from grid.events import (
    Connected,
    DeadlineReached,
    FaultRequested,
    LinkLost,
    ProbeAnswered,
    Received,
    Started,
)
from grid.messages import Address, AskFault, Failover, Join, MemberStatus, Reign, Suffer
from grid.settings import Settings
from peers.chaos import Cut
from peers.cli.chaos import (
    FAULTS,
    Outcome,
    Plan,
    _checked,
    _confirm,
    draw,
    failover_times,
    sentence,
    verdict,
)
from peers.cli.main import _parser
from peers.cli.options import grid_flags
from peers.cli.probing import ITEMS, RESTS, Findings, gather, judge, numbers_of, tell_rest
from peers.cli.status import failover_line, remarks
from peers.configuration import configure
from peers.peer import PeerStatus
from tests.unit.cores import PORT, join, peer, welcome
from tests.unit.table import serve

HERE = Address("h", PORT)


def member(
    name: str, *, serving: bool = False, visitor: bool = False, chaos: bool = True
) -> MemberStatus:
    return MemberStatus(name, name, "h", 1, 0, serving, visitor, 0, chaos=chaos)


def status(*members: MemberStatus, **more: object) -> PeerStatus:
    return PeerStatus("me", "s", "h:1", 1, False, members, (), False, **more)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ asking


def joined_client(*, chaos: bool) -> tuple[ClientCore, list[object]]:
    """A client core that follows a server, and what it said as it joined."""
    settings = Settings(chaos=chaos, port_span=1)
    core = ClientCore(settings, peer("me"), random.Random(1), own=("h",), strict=True)
    greeting = welcome("s", Reign(1, "s"))
    core.step(Started((HERE,)), 0.0)
    core.step(ProbeAnswered(HERE, greeting), 0.0)
    effects = core.step(Connected(1, HERE, greeting, "v"), 0.0)
    return core, [effect.message for effect in effects if isinstance(effect, Send)]


@pytest.mark.parametrize("chaos", [True, False])
def test_a_peer_says_whether_it_may_suffer_and_through_whom_it_comes(chaos: bool) -> None:
    _, said = joined_client(chaos=chaos)
    (joining,) = [message for message in said if isinstance(message, Join)]
    assert (joining.chaos, joining.through) == (chaos, "v")


def test_a_fault_is_asked_for_once_and_performed_only_where_it_is_allowed() -> None:
    core, _ = joined_client(chaos=True)
    assert core.step(FaultRequested("x", "cut", 2.0), 0.1) == [Send(1, AskFault("x", "cut", 2.0))]
    core.step(LinkLost(1, "reset"), 0.2)
    core.step(DeadlineReached(), 0.25)
    core.step(ProbeAnswered(HERE, welcome("t", Reign(2, "t"))), 0.3)
    again = core.step(Connected(2, HERE, welcome("t", Reign(2, "t"))), 0.3)
    said = [effect.message for effect in again if isinstance(effect, Send)]
    assert any(isinstance(message, Join) for message in said)
    assert AskFault("x", "cut", 2.0) not in said
    fault = Received(2, Suffer("freeze", 3.0))
    assert SufferFault("freeze", 3.0) in core.step(fault, 0.3)
    modest, _ = joined_client(chaos=False)
    fault = Received(1, Suffer("freeze", 3.0))
    assert not [e for e in modest.step(fault, 0.3) if isinstance(e, SufferFault)]


def test_a_server_passes_a_fault_on_to_members_that_allow_it() -> None:
    table = serve()
    table.join(join("asker"))
    table.join(join("modest"))
    table.join(structs.replace(join("brave"), chaos=True))
    assert table.hear("asker", AskFault("modest", "kill", 0.0)) == {}
    assert table.hear("asker", AskFault("nobody", "kill", 0.0)) == {}
    told = table.hear("asker", AskFault("brave", "cut", 4.0))
    assert told == {"brave": [Suffer("cut", 4.0)]}
    assert [m.chaos for m in table.core._status().members] == [False, False, True]


def test_being_cut_off_ends_by_itself() -> None:
    cut = Cut()
    assert not cut.active
    cut.begin(60.0)
    assert 59 < cut.seconds_left <= 60
    cut.begin(0.0)
    assert not cut.active


# ------------------------------------------------------------------------------ drawing


def test_a_fault_is_drawn_for_one_who_allows_it_and_keeps_enough_alive() -> None:
    rng = random.Random(1)
    grid = status(member("s", serving=True), member("a"), member("b", chaos=False))
    drawn = [draw(grid, list(FAULTS), 2, 6.0, rng) for _ in range(200)]
    plans = [plan for plan in drawn if plan is not None]
    assert {plan.fault for plan in plans} == set(FAULTS)
    assert {plan.victim.name for plan in plans} == {"s", "a"}
    for plan in plans:
        assert plan.victim.serving != plan.fault.endswith("-peer")
        assert (plan.seconds == 0.0) == plan.fault.startswith("kill")
        assert plan.seconds == 0.0 or 3.0 <= plan.seconds <= 9.0


def test_nobody_is_killed_below_those_to_keep() -> None:
    rng = random.Random(1)
    two = status(member("s", serving=True), member("a"), member("v", visitor=True))
    assert draw(two, ["kill", "kill-peer"], 2, 6.0, rng) is None
    assert draw(two, ["kill", "cut"], 2, 6.0, rng) is not None
    assert draw(status(member("s", serving=True)), list(FAULTS), 0, 6.0, rng) is None


def test_the_same_seed_draws_the_same() -> None:
    grid = status(member("s", serving=True), *map(member, "abcd"))
    runs = [
        [draw(grid, list(FAULTS), 2, 6.0, rng) for _ in range(20)]
        for rng in (random.Random(7), random.Random(7))
    ]
    assert runs[0] == runs[1]


# ------------------------------------------------------------------------------ judging


def answer(job: int) -> dict[int, list[int]]:
    pairs = [pair for number in numbers_of(job) for pair in tell_rest(number, number)]
    return {rest: gather(rest, [v for r, v in pairs if r == rest]) for rest in range(RESTS)}


def test_what_is_missing_doubled_or_wrong_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peers.cli.probing.ITEM_SECONDS", 0.0)
    right = answer(2)
    assert judge(2, right) == Findings(1)
    assert judge(2, {rest: values[1:] for rest, values in right.items()}).lost == RESTS
    assert judge(2, right | {0: [*right[0], right[0][0]]}) == Findings(1, doubled=1)
    assert judge(2, right | {0: [*right[0], right[1][0]]}) == Findings(1, wrong=1)
    assert judge(3, right) == Findings(1, lost=ITEMS, wrong=ITEMS), "of another job"
    found = judge(2, {}) + Findings(again=3, reasons=("x",))
    assert (found.lost, found.good, (found - found).good) == (ITEMS, False, True)


def test_a_grid_that_is_not_whole_again_is_not_good() -> None:
    plan = Plan("cut", member("s", serving=True), 3.0)
    assert not Outcome(plan).good
    assert verdict(Outcome(plan)) == "NOT WHOLE AGAIN"
    assert Outcome(plan, whole=4.0).good
    assert not Outcome(plan, whole=4.0, found=Findings(doubled=1)).good
    assert verdict(Outcome(plan, whole=4.0, found=Findings(lost=2, wrong=1))) == "2 LOST, 1 WRONG"


def test_a_fault_is_told_in_one_line() -> None:
    plan = Plan("freeze", member("s", serving=True), 5.25)
    outcome = Outcome(plan, {3: Failover("silent", 3, 4.2)}, 6.5, found=Findings(1, again=2))
    assert sentence(4, outcome) == (
        "4. freeze s for 5.2 s; server lost (silent): next server, term 3, after 4.20 s; "
        "2 finished tasks executed again; all right, whole after 6.50 s"
    )


def test_times_are_ranked_by_how_the_server_was_lost() -> None:
    plan = Plan("kill", member("s", serving=True), 0.0)
    outcomes = [
        Outcome(plan, {term: Failover("closed", term, term / 100, term / 10)})
        for term in range(1, 101)
    ]
    outcomes.append(Outcome(plan, {101: Failover("silent", 101, 4.0)}))
    times = failover_times(outcomes)
    assert times["closed, next server"] == {"p50": 0.51, "p99": 1.0, "max": 1.0}
    assert times["silent, next server"]["max"] == 4.0
    assert "silent, first task" not in times


# ------------------------------------------------------------------------------ the command line


def parsed(*arguments: str) -> argparse.Namespace:
    return _parser().parse_args(["chaos", *arguments])


def test_the_grid_is_named_and_faults_are_known() -> None:
    assert _checked(parsed("night", "--faults", "kill, cut-peer")) == ["kill", "cut-peer"]
    for wrong in (
        ("night", "--grid", "day"),
        ("night", "--faults", "kil"),
        ("night", "--faults", ""),
        ("night", "--every", "-1"),
        ("night", "--for", "nan"),
        ("night", "--times", "-1"),
    ):
        with pytest.raises(Misuse):
            _checked(parsed(*wrong))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_and_only_yes_is_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    victims = [member("s", serving=True), member("a")]
    for said in ("", "\n", "no\n", "night\n"):
        monkeypatch.setattr(sys, "stdin", Terminal(said))
        with pytest.raises(GridError, match="nothing was done"):
            _confirm("night", victims)
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    _confirm("night", victims)
    assert "peers of the grid 'night': a, s?" in capsys.readouterr().err


def test_whoever_is_started_again_is_told_the_same_grid() -> None:
    args = parsed("night", "--hosts", "x,y", "--port", "3000", "--password-file", "p")
    args.grid = args.named
    flags = grid_flags(args)
    again = _parser().parse_args(["up", *flags])
    assert (again.hosts, again.port, again.grid, again.password_file) == ("x,y", 3000, "night", "p")


def test_a_quorum_is_a_flag_and_a_variable() -> None:
    assert configure({}, {"GRID_QUORUM": "3"}).settings.quorum == 3
    assert _parser().parse_args(["up", "--quorum", "2"]).quorum == 2


# ------------------------------------------------------------------------------ the status


def test_failovers_are_said_in_words() -> None:
    assert failover_line(Failover("closed", 4, 0.0123, 0.0351)) == (
        "server lost (closed): next server, term 4, after 12 ms, first task after 35 ms"
    )
    assert failover_line(Failover("silent", 5, 4.126)).endswith("term 5, after 4.13 s")


def test_what_lacks_and_what_warns_is_said() -> None:
    said = remarks(status(lacking=2, warnings=("alone",), failovers=(Failover("closed", 1, 0.1),)))
    assert said[1:] == [
        "no quorum: no work is given until 2 more peers joined",
        "warning: alone",
    ]
