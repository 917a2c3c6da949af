"""What is wrong with a message that decoded well: values that cannot belong together.

Ranges of single values are in their types (``grid.messages``). Here is what the cores ask before
they believe a message: does a holding belong to the record it is announced under, is this member
speaking for itself, could this term have been reached. An empty answer means that the message may
be acted on; whether its record is known, and whether its range fits that record, is for the parts
that keep records and ranges.

A member that breaks these rules is cut off, alone: it has the key, so it is broken or hostile, and
in neither case one to argue with. Not here: doubts about what user code computed.
"""

from collections.abc import Iterable

from grid.messages import (
    TASK_RANGE_MAX,
    TERM_LEAP_MAX,
    Announce,
    Assign,
    BecomeKeeper,
    Finished,
    Held,
    Holding,
    Join,
    Joined,
    Message,
    NewReign,
    Reign,
    Retain,
    Submit,
    TakeOver,
    TaskDone,
)

ADOPTED_MAX = 1024
"""The most dead peers whose estates one member can tell of: ten times what clients remember."""


def implausible(reign: Reign, known: Reign) -> str:
    """Say why no honest grid can have come to ``reign``, or nothing."""
    if reign.term > known.term + TERM_LEAP_MAX:
        return f"it claims term {reign.term}, which no grid reaches from {known.term}"
    return ""


def wrong_with_said(message: Message, peer: str, reign: Reign) -> str:
    """Say why the server of ``reign`` must not believe this message of ``peer``, or nothing."""
    match message:
        case Join():
            return _wrong_join(message, peer, reign)
        case Announce():
            return _wrong_held(message.held)
        case TaskDone() if message.holding.output.producer != peer:
            return "it sealed an output in another peer's name"
        case Submit() if message.meta.shape == "everywhere" and message.meta.keeping is not None:
            return f"it wants {message.meta.record[:8]} kept on disk, which calls every member"
        case _:
            return ""


def wrong_with_told(message: Message, seen: Reign) -> str:
    """Say why a client that has seen ``seen`` must not believe this of its server, or nothing."""
    match message:
        case Joined() | NewReign():
            return implausible(message.reign, seen)
        case Assign() if not 0 < message.stop - message.start <= TASK_RANGE_MAX:
            return f"it gave the range {message.start}..{message.stop}, which is no task"
        case Finished():
            return _wrong_record(message.record, (held for held, _ in message.holdings))
        case TakeOver():
            return _wrong_record(message.record, (held for held, _ in message.sources))
        case Retain():
            record = message.remembered.meta.record
            return _wrong_record(record, (held for held, _ in message.sources))
        case BecomeKeeper() if message.meta.keeping is None:
            return f"it wants {message.meta.record[:8]} kept on disk, which is not detached"
        case _:
            return ""


def _wrong_join(join: Join, peer: str, reign: Reign) -> str:
    if join.me.peer != peer:
        return "it joined in another peer's name"
    if len(join.adopted) > ADOPTED_MAX:
        return f"it says that it adopted {len(join.adopted)} peers"
    return implausible(join.seen, reign) or _wrong_held(join.held)


def _wrong_held(announced: Iterable[Held]) -> str:
    for held in announced:
        wrong = _wrong_record(held.record, held.holdings)
        remembered = held.remembered
        if not wrong and remembered is not None:
            wrong = _wrong_record(held.record, remembered.holdings)
            found = remembered.name or remembered.meta.keeping
            if remembered.meta.record != held.record or not found:
                wrong = f"it remembers another record under {held.record[:8]}"
            elif remembered.meta.shape != "mapreduce":
                wrong = f"it remembers {held.record[:8]}, which has no result to be remembered"
        if wrong:
            return wrong
    return ""


def _wrong_record(record: str, holdings: Iterable[Holding]) -> str:
    for holding in holdings:
        if holding.output.record != record:
            return f"it mixes outputs of {holding.output.record[:8]} into {record[:8]}"
    return ""
