"""Messages, and the two cores that they are told to.

The bytes are what one broken or hostile member (or server) sends, over and over again: whenever
its link is closed it dials anew.
"""

from collections.abc import Iterator

from grid import events as ev
from grid.admission import wrong_with_said, wrong_with_told
from grid.election import Phase
from grid.errors import ProtocolError
from grid.framing import Decoder
from grid.messages import AskStatus, Beat, FromClient, FromServer, Join, Message
from grid.plan import Plan
from grid.roster import Roster
from tests.fuzz.rigs import HINTS, REIGN, Followed, Served, check_sent, ref
from tests.fuzz.target import Target, memory_bounded
from tests.fuzz.wire import Talk, joined

_PIECES = (1, 7, 64, 1 << 20)


def decoded(data: bytes, piece: int = 1 << 20) -> Iterator[Message]:
    """Yield the messages of a stream that comes in pieces, up to the first broken one."""
    decoder = Decoder()
    for start in range(0, len(data), piece):
        decoder.feed(data[start : start + piece])
        while True:
            try:
                message = decoder.next()
            except ProtocolError:
                _refuses_from_now_on(decoder)
                return
            if message is None:
                break
            yield message
    assert decoder.unread_bytes <= len(data)


def _refuses_from_now_on(decoder: Decoder) -> None:
    assert decoder.unread_bytes == 0
    try:
        decoder.next()
    except ProtocolError:
        return
    raise AssertionError("the decoder goes on after a broken frame")


# ------------------------------------------------------------------------------ framing


def run_framing(data: bytes) -> None:
    """Whatever comes in, in pieces of any size: messages, or ``ProtocolError`` from then on; and
    memory in proportion to what came in."""
    piece = _PIECES[len(data) % len(_PIECES)]
    with memory_bounded(len(data), at_least=1 << 16):
        for message in decoded(data, piece):
            check_sent(message)
            wrong_with_said(message, "evil", REIGN)
            wrong_with_told(message, REIGN)


_ANYTHING = Talk(Message, HINTS)
FRAMING = Target(
    run_framing,
    lambda: [joined(message) for message in _ANYTHING.one_of_each()],
    _ANYTHING.mutate,
    bounded=True,
)


# ------------------------------------------------------------------------------ the server


def run_server(data: bytes) -> None:
    """A server cuts the broken member off and nobody else, and the job of the honest ends.

    An ``AskStatus`` lets the honest do the tasks they have; a ``Beat`` lets tenths of a second
    pass, as many as it counts.
    """
    served = Served()
    link = 3
    served.enter(link, "evil")
    for message in decoded(data):
        if link in served.closed:
            link += 1
            served.enter(link, "evil")
        served.say(link, message)
        if isinstance(message, AskStatus):
            served.work(2, "honest")
        elif isinstance(message, Beat):
            _pass_time(served, min(message.members, 50))
        _consistent(served)
    served.step(ev.LinkLost(link, "gone"))
    assert served.live_on(), "the job of the honest does not end"
    _consistent(served)
    assert "evil" not in [member.ref.peer for member in served.core.state.roster]


def _pass_time(served: Served, tenths: int) -> None:
    for _ in range(tenths):
        served.now += 0.1
        served.say(1, Beat())
        served.say(2, Beat())
        served.step(ev.DeadlineReached())


def _consistent(served: Served) -> None:
    """The honest are members, and what the server counts agrees with what it keeps."""
    assert {1, 2}.isdisjoint(served.closed), served.closed
    state = served.core.state
    assert {"server", "honest"} <= {member.ref.peer for member in state.roster}
    for member in state.roster:
        held = [holding for outputs in member.held.values() for holding in outputs.values()]
        assert member.held_bytes == sum(holding.bytes for holding in held)
    for txn in state.registry:
        for plan in txn.plans.values():
            _plan_consistent(plan, state.roster)


def _plan_consistent(plan: Plan, roster: Roster) -> None:
    """The tiles tile the whole; who runs or holds one is a member and known to do so."""
    tiles = plan.outputs()
    stops = [tile.stop for tile in tiles]
    assert [0, *stops] == [*(tile.start for tile in tiles), plan.n], "tiles do not tile"
    assert plan.done_count == sum(tile.stop - tile.start for tile in tiles if tile.done)
    under_way = {attempt: peer for tile in tiles for attempt, peer in tile.attempts.items()}
    assert under_way.keys() == plan.attempts().keys()
    for attempt, peer in under_way.items():
        member = roster.named(peer)
        assert member is not None, f"{attempt} is run by {peer}, who is gone"
        assert attempt in member.assigned, f"{attempt} is not known to be run by {peer}"
    for holding, peer in ((t.holding, peer) for t in tiles if t.holding for peer in t.holders):
        member = roster.named(peer)
        assert member is not None, f"{holding} is held by {peer}, who is gone"
        assert holding.output in member.held[holding.output.record], f"{holding} of {peer}"


_MEMBER = Talk(FromClient, HINTS)
_JOIN = Join(ref("evil"), 2, True, REIGN, (), ())
SERVER = Target(
    run_server,
    lambda: [joined(_JOIN, AskStatus(), each) for each in _MEMBER.one_of_each()],
    _MEMBER.mutate,
)


# ------------------------------------------------------------------------------ the client


def run_client(data: bytes) -> None:
    """A client ends its own job at most once, and joins again when the server is gone."""
    followed = Followed()
    for message in decoded(data):
        followed.say(message)
        followed.now += min(message.members, 50) / 10 if isinstance(message, Beat) else 0.01
    assert followed.ends <= 1
    followed.step(ev.LinkLost(followed.links, "gone"))
    for _ in range(40):
        followed.now = max(followed.now, followed.core.next_deadline() or 0.0)
        followed.step(ev.DeadlineReached())
        if followed.core.election.phase is Phase.FOLLOWING:
            break
    assert followed.core.election.phase is Phase.FOLLOWING
    assert not followed.core.holdings.drop("never", ())


_SERVER = Talk(FromServer, HINTS)
CLIENT = Target(
    run_client,
    lambda: [joined(each) for each in _SERVER.one_of_each()],
    _SERVER.mutate,
)
