"""What happened: the past facts that the cores are told. Small and frozen.

A fact that answers an effect names what it answers (address, link, attempt, transaction), so that
a stale one is recognised and dropped on purpose.
"""

from dataclasses import dataclass
from typing import Literal

from grid.messages import (
    NO_BOOKMARK,
    NOTHING_RIDING,
    Address,
    Bookmark,
    Claim,
    Failover,
    Failure,
    Fault,
    Held,
    Hello,
    Holding,
    Message,
    Output,
    PeerRef,
    RecordMeta,
    Reign,
    Remembered,
    Riding,
    Welcome,
)

DialFailure = Literal["refused", "silent", "stranger", "wrong_key", "refusal", "unreachable"]
"""Nobody listens; no answer in time; not our protocol; another key; told to go; no route."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time that ``next_deadline`` named has come."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message came in over a link."""

    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class LinkLost:
    """A link is closed, by whoever."""

    link: int
    reason: str


# ------------------------------------------------------------------- told to the client core


@dataclass(frozen=True, slots=True)
class Started:
    """The peer begins. ``candidates`` are where a server may be, in order; ``own`` are those of
    this host; ``unknown`` says why some of the names given mean nothing."""

    candidates: tuple[Address, ...]
    own: tuple[Address, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidatesResolved:
    """Names were looked up again. The fields are those of ``Started``."""

    candidates: tuple[Address, ...]
    own: tuple[Address, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    address: Address
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    address: Address
    kind: DialFailure
    reason: str


@dataclass(frozen=True, slots=True)
class AskAnswered:
    """A peer said whom it follows."""

    peer: str
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class AskFailed:
    """A peer could not be asked."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Summoned:
    """The peer to which a connection was kept ready (``KeepReady``) serves now, at ``address``."""

    address: Address
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class ReadinessLost:
    """There is no connection ready to this peer, or no more (``KeepReady``)."""

    peer: str


@dataclass(frozen=True, slots=True)
class RivalHeard:
    """Another server looked for rivals, found us, and said who it is."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Connected:
    """A link to the server at ``address`` stands (``Reconnect`` or ``ConnectOwnServer``).
    ``through`` names the peer it leads through, if any."""

    link: int
    address: Address
    welcome: Welcome
    through: str = ""


@dataclass(frozen=True, slots=True)
class ReconnectFailed:
    address: Address
    kind: DialFailure
    reason: str


@dataclass(frozen=True, slots=True)
class PortBound:
    """All of this peer's own addresses of one port are bound and listening."""

    port: int
    address: Address


@dataclass(frozen=True, slots=True)
class PortTaken:
    port: int
    reason: str


@dataclass(frozen=True, slots=True)
class TermSurpassed:
    """A member of our own server has seen a reign above ours."""

    seen: Reign


@dataclass(frozen=True, slots=True)
class SubmitRequested:
    """The user submitted; keys are listed and the code is frozen."""

    txn: str
    meta: RecordMeta
    name: str
    fingerprint: dict[str, str]
    fresh: bool
    deadline_seconds: float | None
    riding: Riding = NOTHING_RIDING
    after_seconds: float = 0.0
    """Not before: others, who may know more of a transaction revived, are given time to come."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    txn: str
    all: bool


@dataclass(frozen=True, slots=True)
class ResultRequested:
    """The user wants the finished result of a name, and does not have the job; ``wait`` until it
    has ended, and if that is ``certain``, even while nobody knows of it."""

    txn: str
    name: str
    wait: bool = False
    certain: bool = False


@dataclass(frozen=True, slots=True)
class EndRequested:
    """The user ends a record for everyone, whoever owns it."""

    txn: str
    record: str


@dataclass(frozen=True, slots=True)
class StatusRequested:
    """The user asks how the grid is; who watches it, also what has happened (``AskStatus``)."""

    watching: bool = False
    after: Bookmark = NO_BOOKMARK


@dataclass(frozen=True, slots=True)
class PrintsRequested:
    """The user asks what a record printed (``AskPrints``)."""

    record: str
    after: Bookmark


@dataclass(frozen=True, slots=True)
class SelfMeasured:
    """How this peer does, as ``MeasureSelf`` wanted to know (``Vitals``)."""

    load: float
    memory: int
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class DownRequested:
    pass


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The user wants another peer to leave well within so many seconds."""

    peer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class FaultRequested:
    """The user wants the member ``peer`` to suffer this."""

    peer: str
    kind: Fault
    seconds: float


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """Leave well within so many seconds; asked again, at once."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RecordAdopted:
    """The record of a named transaction is here; this peer can own it."""

    txn: str
    meta: RecordMeta


@dataclass(frozen=True, slots=True)
class RecordNotAdopted:
    txn: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResultFetched:
    """All that was to be fetched is in this peer's own store. ``sizes`` sums it by partition, if
    they are outputs of maps; ``kept`` is the end of the transaction, if that is on disk for good
    now."""

    txn: str
    record: str
    kept: Remembered | None = None
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultMissing:
    """Some results could not be fetched; ``missing`` are gone for good where they were."""

    txn: str
    record: str
    missing: tuple[Output, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class ResultUnkept:
    """The results are there, but this peer has no room for them."""

    txn: str
    record: str
    reason: str


@dataclass(frozen=True, slots=True)
class InputsReady:
    attempt: str


@dataclass(frozen=True, slots=True)
class InputsFailed:
    """``failure`` is set when it is the user's fault: their datasource raised."""

    attempt: str
    reason: str
    missing: tuple[Output, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class TaskSealed:
    """``result`` are its bytes, if they are few and may be all of a result."""

    attempt: str
    holding: Holding
    sizes: tuple[int, ...]
    seconds: float
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class TaskBroke:
    """User code raised, or the worker died."""

    attempt: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class TaskRefused:
    attempt: str
    reason: Literal["space", "module"]
    detail: str


@dataclass(frozen=True, slots=True)
class EstateAdopted:
    """Outputs of dead peers of this host, or what its journal has kept, are now ours to keep; all
    that ``peer`` held has been told with this, if one is named."""

    peer: str
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class OutputPrinted:
    record: str
    stream: Literal["stdout", "stderr", "log"]
    text: str


ClientEvent = (
    Started
    | CandidatesResolved
    | DeadlineReached
    | Received
    | LinkLost
    | ProbeAnswered
    | ProbeFailed
    | AskAnswered
    | AskFailed
    | RivalHeard
    | Summoned
    | ReadinessLost
    | Connected
    | ReconnectFailed
    | PortBound
    | PortTaken
    | TermSurpassed
    | SubmitRequested
    | CancelRequested
    | ResultRequested
    | EndRequested
    | StatusRequested
    | PrintsRequested
    | SelfMeasured
    | DownRequested
    | DrainRequested
    | FaultRequested
    | CloseRequested
    | RecordAdopted
    | RecordNotAdopted
    | ResultFetched
    | ResultMissing
    | ResultUnkept
    | InputsReady
    | InputsFailed
    | TaskSealed
    | TaskBroke
    | TaskRefused
    | EstateAdopted
    | OutputPrinted
)


# ------------------------------------------------------------------- told to the server core


@dataclass(frozen=True, slots=True)
class ReignBegan:
    """Serve, as this reign. ``expected`` counts the members of the server before, without it: zero
    for the first server of a grid. ``failovers`` are the latest, this one the last of them, if a
    server was lost."""

    reign: Reign
    me: PeerRef
    expected: int
    failovers: tuple[Failover, ...] = ()


@dataclass(frozen=True, slots=True)
class ReignEnded:
    """Serve no more. Members are told to go to ``redirect``, if there is such a server."""

    redirect: Address | None


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A greeted, authenticated link to a peer. ``local`` is this process's own client."""

    link: int
    hello: Hello
    local: bool


ServerEvent = ReignBegan | ReignEnded | LinkOpened | Received | LinkLost | DeadlineReached
