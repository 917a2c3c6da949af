"""What happened: the past facts that the cores are told. Small and frozen.

A fact that answers an effect names what it answers (address, link, attempt, transaction), so that
a stale one is recognised and dropped on purpose.
"""

from typing import Literal

from msgspec import Struct

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


class DeadlineReached(Struct, frozen=True):
    """The time that ``next_deadline`` named has come."""


class Received(Struct, frozen=True):
    """A message came in over a link."""

    link: int
    message: Message


class LinkLost(Struct, frozen=True):
    """A link is closed, by whoever."""

    link: int
    reason: str


# ------------------------------------------------------------------- told to the client core


class Started(Struct, frozen=True):
    """The peer begins. ``candidates`` are where a server may be, in order; ``own`` are those of
    this host; ``unknown`` says why some of the names given mean nothing."""

    candidates: tuple[Address, ...]
    own: tuple[Address, ...] = ()
    unknown: tuple[str, ...] = ()


class CandidatesResolved(Struct, frozen=True):
    """Names were looked up again. The fields are those of ``Started``."""

    candidates: tuple[Address, ...]
    own: tuple[Address, ...] = ()
    unknown: tuple[str, ...] = ()


class ProbeAnswered(Struct, frozen=True):
    address: Address
    welcome: Welcome


class ProbeFailed(Struct, frozen=True):
    address: Address
    kind: DialFailure
    reason: str


class AskAnswered(Struct, frozen=True):
    """A peer said whom it follows."""

    peer: str
    welcome: Welcome


class AskFailed(Struct, frozen=True):
    """A peer could not be asked."""

    peer: str
    reason: str


class Summoned(Struct, frozen=True):
    """The peer to which a connection was kept ready (``KeepReady``) serves now, at ``address``."""

    address: Address
    welcome: Welcome


class ReadinessLost(Struct, frozen=True):
    """There is no connection ready to this peer, or no more (``KeepReady``)."""

    peer: str


class RivalHeard(Struct, frozen=True):
    """Another server looked for rivals, found us, and said who it is."""

    claim: Claim


class Connected(Struct, frozen=True):
    """A link to the server at ``address`` stands (``Reconnect`` or ``ConnectOwnServer``).
    ``through`` names the peer it leads through, if any."""

    link: int
    address: Address
    welcome: Welcome
    through: str = ""


class ReconnectFailed(Struct, frozen=True):
    address: Address
    kind: DialFailure
    reason: str


class PortBound(Struct, frozen=True):
    """All of this peer's own addresses of one port are bound and listening."""

    port: int
    address: Address


class PortTaken(Struct, frozen=True):
    port: int
    reason: str


class TermSurpassed(Struct, frozen=True):
    """A member of our own server has seen a reign above ours."""

    seen: Reign


class SubmitRequested(Struct, frozen=True):
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


class CancelRequested(Struct, frozen=True):
    txn: str
    all: bool


class ResultRequested(Struct, frozen=True):
    """The user wants the finished result of a name, and does not have the job; ``wait`` until it
    has ended, and if that is ``certain``, even while nobody knows of it."""

    txn: str
    name: str
    wait: bool = False
    certain: bool = False


class EndRequested(Struct, frozen=True):
    """The user ends a record for everyone, whoever owns it."""

    txn: str
    record: str


class StatusRequested(Struct, frozen=True):
    """The user asks how the grid is; who watches it, also what has happened (``AskStatus``)."""

    watching: bool = False
    after: Bookmark = NO_BOOKMARK


class PrintsRequested(Struct, frozen=True):
    """The user asks what a record printed (``AskPrints``)."""

    record: str
    after: Bookmark


class SelfMeasured(Struct, frozen=True):
    """How this peer does, as ``MeasureSelf`` wanted to know (``Vitals``)."""

    load: float
    memory: int
    received: int
    sent: int


class DownRequested(Struct, frozen=True):
    pass


class DrainRequested(Struct, frozen=True):
    """The user wants another peer to leave well within so many seconds."""

    peer: str
    seconds: float


class FaultRequested(Struct, frozen=True):
    """The user wants the member ``peer`` to suffer this."""

    peer: str
    kind: Fault
    seconds: float


class CloseRequested(Struct, frozen=True):
    """Leave well within so many seconds; asked again, at once."""

    seconds: float


class RecordAdopted(Struct, frozen=True):
    """The record of a named transaction is here; this peer can own it."""

    txn: str
    meta: RecordMeta


class RecordNotAdopted(Struct, frozen=True):
    txn: str
    reason: str


class ResultFetched(Struct, frozen=True):
    """All that was to be fetched is in this peer's own store. ``sizes`` sums it by partition, if
    they are outputs of maps; ``kept`` is the end of the transaction, if that is on disk for good
    now."""

    txn: str
    record: str
    kept: Remembered | None = None
    sizes: tuple[int, ...] = ()


class ResultMissing(Struct, frozen=True):
    """Some results could not be fetched; ``missing`` are gone for good where they were."""

    txn: str
    record: str
    missing: tuple[Output, ...]
    reason: str


class ResultUnkept(Struct, frozen=True):
    """The results are there, but this peer has no room for them."""

    txn: str
    record: str
    reason: str


class InputsReady(Struct, frozen=True):
    attempt: str


class InputsFailed(Struct, frozen=True):
    """``failure`` is set when it is the user's fault: their datasource raised."""

    attempt: str
    reason: str
    missing: tuple[Output, ...] = ()
    failure: Failure | None = None


class TaskSealed(Struct, frozen=True):
    """``result`` are its bytes, if they are few and may be all of a result."""

    attempt: str
    holding: Holding
    sizes: tuple[int, ...]
    seconds: float
    result: bytes = b""


class TaskBroke(Struct, frozen=True):
    """User code raised, or the worker died."""

    attempt: str
    failure: Failure


class TaskRefused(Struct, frozen=True):
    attempt: str
    reason: Literal["space", "module"]
    detail: str


class EstateAdopted(Struct, frozen=True):
    """Outputs of dead peers of this host, or what its journal has kept, are now ours to keep; all
    that ``peer`` held has been told with this, if one is named."""

    peer: str
    held: tuple[Held, ...]


class OutputPrinted(Struct, frozen=True):
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


class ReignBegan(Struct, frozen=True):
    """Serve, as this reign. ``expected`` counts the members of the server before, without it: zero
    for the first server of a grid. ``failovers`` are the latest, this one the last of them, if a
    server was lost."""

    reign: Reign
    me: PeerRef
    expected: int
    failovers: tuple[Failover, ...] = ()


class ReignEnded(Struct, frozen=True):
    """Serve no more. Members are told to go to ``redirect``, if there is such a server."""

    redirect: Address | None


class LinkOpened(Struct, frozen=True):
    """A greeted, authenticated link to a peer. ``local`` is this process's own client."""

    link: int
    hello: Hello
    local: bool


ServerEvent = ReignBegan | ReignEnded | LinkOpened | Received | LinkLost | DeadlineReached
