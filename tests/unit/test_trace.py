"""What cores were told is written down without payloads, and leads to the same decisions again."""

import random
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import patch

import pytest
from msgspec import Struct

from grid import effects as fx
from grid import events as ev
from grid import messages as m
from grid.client_core import ClientCore
from grid.errors import Misuse
from grid.server_core import ServerCore
from grid.settings import Settings
from peers import trace
from peers.trace import Full, Step, Trace, blank, digests, event_of, read
from tests.simulation.planted import planted
from tests.simulation.replay import replay
from tests.simulation.scenario import Scenario

ME = m.PeerRef("p1", "one", "h", m.Address("h", 1))
OUTPUT = m.Output("r", "map", 0, 1, "p1", 1)
SECRET = "SECRET"
BYTES = SECRET.encode()
FAILURE = m.Failure("raised", SECRET, SECRET, SECRET, "peer", SECRET, BYTES, 3)
RIDING = m.Riding(BYTES, BYTES)
META = m.RecordMeta("r", "mapreduce", 3, 4, finish=False)
ASSIGN = m.Assign("a", "r", "map", 0, 1, (ME,), riding=RIDING)
SAID = [
    ev.Received(1, m.Submit("t", META, riding=RIDING)),
    ev.Received(1, m.TaskFailed("a", FAILURE)),
    ev.Received(1, m.Printed("r", "one", "stdout", SECRET)),
    ev.SubmitRequested("t", META, "", {}, False, None, RIDING),
    ev.TaskBroke("a", FAILURE),
    ev.InputsFailed("a", "no", (), FAILURE),
    ev.OutputPrinted("r", "stdout", SECRET),
    fx.Send(1, ASSIGN),
    fx.Prepare(ASSIGN),
    fx.RunTask(ASSIGN, OUTPUT),
    fx.Reject("t", FAILURE),
    fx.ShowPrinted("t", "one", "stdout", SECRET),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def begin(path: Path) -> tuple[Trace, ClientCore]:
    written = Trace(path)
    written.client_began(Settings(), ME, 7, own=("h",), strict=True, doors=())
    core = ClientCore(Settings(), ME, random.Random(7), own=("h",), strict=True)
    return written, core


# -- payloads


@pytest.mark.parametrize("said", SAID, ids=lambda said: type(said).__name__)
def test_no_payload_is_written(said: Any) -> None:
    assert SECRET in repr(said)
    assert SECRET not in repr(blank(said))
    assert type(blank(said)) is type(said)


def test_what_has_no_payload_stays_as_it_is() -> None:
    event = ev.Received(3, m.Beat(4))
    assert blank(event) is event


def test_nothing_looks_like_something_else() -> None:
    """What is empty stays empty and what is not does not get so: that may decide."""
    assert blank(m.NOTHING_RIDING) == m.NOTHING_RIDING
    assert blank(RIDING).head
    assert not blank(m.Failure("died", "")).exception


def test_every_field_of_bytes_is_hidden() -> None:
    """Also in messages that are not listed above: the fields are found by their types."""
    structs: list[type[Struct]] = [*get_args(m.Message), m.Riding, m.Failure]
    for kind in structs:
        for name, hint in kind.__annotations__.items():
            if "bytes" in str(hint) and "Bytes" not in str(hint):
                assert name in trace._carriers(kind), f"{kind.__name__}.{name}"


# -- files


def test_an_event_reads_as_it_was_written(path: Path) -> None:
    written, core = begin(path)
    event = ev.Started((m.Address("h", 5),), (), ("no such name",))
    written.step("client", core, event, 1.25)
    written.close()
    (_, began), (number, step) = read(path)
    assert isinstance(began, trace.Began)
    assert (began.settings, began.me, began.seed) == (Settings(), ME, 7)
    assert isinstance(step, Step)
    assert (number, step.now, event_of(step)) == (2, 1.25, event)


def test_only_its_owner_may_read_it(path: Path) -> None:
    begin(path)[0].close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_was_cut_short_is_left_out(path: Path) -> None:
    written, core = begin(path)
    written.step("client", core, ev.Started(()), 1.0)
    written.close()
    path.write_bytes(path.read_bytes()[:-5])
    assert len(list(read(path))) == 1


def test_what_is_no_trace_is_told(path: Path) -> None:
    path.write_text("hello\n")
    with pytest.raises(Misuse, match="line 1"):
        list(read(path))


def test_a_trace_ends_when_its_file_is_large_enough(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "FILE_BYTES_MAX", 2000)
    written, core = begin(path)
    for second in range(100):
        written.step("client", core, ev.DeadlineReached(), float(second))
    written.close()
    lines = [line for _, line in read(path)]
    assert isinstance(lines[-1], Full)
    assert path.stat().st_size < 2200
    assert not replay(path).different
    assert replay(path).full


def test_a_disk_that_is_full_ends_the_trace_and_nothing_else(path: Path) -> None:
    written, core = begin(path)
    with patch("os.write", side_effect=OSError(28, "No space left on device")):
        assert written.step("client", core, ev.Started(()), 10.0)
    assert written.step("client", core, ev.DeadlineReached(), 20.0) is not None
    assert written.filenos() == []
    written.close()


def test_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="nowhere"):
        Trace(tmp_path / "nowhere" / "trace")


def test_what_a_core_raised_is_written_and_raised(path: Path) -> None:
    written, _ = begin(path)
    with pytest.raises(ZeroDivisionError):
        written.step("client", SimpleNamespace(step=lambda *_: 1 / 0), ev.DeadlineReached(), 1.0)
    assert [line.failed for _, line in read(path) if isinstance(line, Step)] == [
        "ZeroDivisionError"
    ]
    assert "now:  no error" in replay(path).different
    written.close()


# -- decisions


@pytest.fixture
def traced(path: Path) -> Iterator[list[Trace]]:
    """Simulated processes whose cores write one trace."""
    traces: list[Trace] = []

    def step_of(core: Any, name: trace.CoreName) -> Any:
        written, original = traces[-1], core.step
        return lambda event, now: written.step(name, SimpleNamespace(step=original), event, now)

    def client(settings: Settings, me: m.PeerRef, rng: random.Random, **given: Any) -> ClientCore:
        seed = rng.getrandbits(63)
        traces.append(Trace(path))
        traces[-1].client_began(settings, me, seed, **given)
        core = ClientCore(settings, me, random.Random(seed), **given)
        core.step = step_of(core, "client")  # type: ignore[method-assign]
        return core

    def server(settings: Settings) -> ServerCore:
        traces.append(Trace(path))
        traces[-1].server_began(settings)
        core = ServerCore(settings)
        core.step = step_of(core, "server")  # type: ignore[method-assign]
        return core

    with (
        patch("tests.simulation.process.ClientCore", client),
        patch("tests.simulation.process.ServerCore", server),
    ):
        yield traces
    for each in traces:
        each.close()


def test_simulated_grids_decide_the_same_again(path: Path, traced: list[Trace]) -> None:
    for seed in range(6):
        assert not Scenario(seed).run()
    for each in traced:
        each.close()
    done = replay(path)
    assert not done.different
    assert done.cores == len(traced)
    assert done.steps > 1000


def test_a_changed_decision_is_found_and_shown(path: Path, traced: list[Trace]) -> None:
    scenario = Scenario(5)
    scenario.run()
    for each in traced:
        each.close()
    with planted("a term is reigned in again"):
        different = replay(path).different
    assert "effect 1 then: Serve " in different
    assert "now:  Serve " in different


def test_the_order_of_effects_counts() -> None:
    one, other = fx.Send(1, m.Beat(1)), fx.Send(1, m.Beat(2))
    assert digests([one, other]) != digests([other, one])
    assert digests([one]) == digests([fx.Send(1, m.Beat(1))])
