"""What to do: the orders that the cores give. Done in list order; where order is a promise, the
order's docstring says so. An order that can fail ends as an event of ``grid.events``.
"""

from dataclasses import dataclass
from typing import Literal

from grid.errors import CannotJoin
from grid.messages import (
    Address,
    Assign,
    Claim,
    Drained,
    Failover,
    Failure,
    Fault,
    Holding,
    Kind,
    Message,
    Output,
    PeerRef,
    Prints,
    RecordMeta,
    Reign,
    Remembered,
    Status,
)


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message on a link. Messages to one link arrive in the order sent. A ``Progress`` is
    ordered before the ``Assign`` it tells of, so that no ledger is behind the work."""

    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class CloseLink:
    """Close a link after what was sent is out. No ``LinkLost`` follows. ``reason`` says what the
    far end did wrong, if it did."""

    link: int
    reason: str = ""


# ------------------------------------------------------------------- ordered by the client core


@dataclass(frozen=True, slots=True)
class Probe:
    """Greet every address at once: ``ProbeAnswered`` or ``ProbeFailed`` for each of them. A server
    that looks for rivals says who it is (``claim``)."""

    addresses: tuple[Address, ...]
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask these peers at once whom they follow: ``AskAnswered`` or ``AskFailed`` for each."""

    peers: tuple[PeerRef, ...]


@dataclass(frozen=True, slots=True)
class KeepReady:
    """Keep a greeted connection to this peer, and to no other (``None``: to nobody), to be used
    should it serve: ``Summoned`` then, ``ReadinessLost`` when there is no such connection."""

    peer: PeerRef | None


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look the names of ``hosts`` up again: ``CandidatesResolved``."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Dial until greeted, at most so often and so long; a refused connection is not tried again.

    ``through`` is a peer that reaches this server, the peer ``wanted``, where we do not: then its
    data port is dialled, and what is said to the server passes there, encrypted end to end. Ends
    as ``Connected`` or ``ReconnectFailed``.
    """

    address: Address
    attempts: int
    seconds: float
    through: PeerRef | None = None
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class BindPort:
    """Bind and listen on all own addresses of one port, or none: ``PortBound``/``PortTaken``."""

    port: int


@dataclass(frozen=True, slots=True)
class Point:
    """Tell the server thread: answer greetings on the bound port with whom this peer follows, so
    that who knows only this host finds the grid. Told again when that changes."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Unpoint:
    """Tell the server thread: free the port that was bound to point from."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Tell the server thread: serve the bound port as this reign (``ReignBegan``)."""

    reign: Reign
    expected: int
    failovers: tuple[Failover, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectOwnServer:
    """Link this client to the server of its own process, in memory: ``Connected``."""

    address: Address


@dataclass(frozen=True, slots=True)
class StopServing:
    """Tell the server thread: redirect the members, free the port (``ReignEnded``)."""

    redirect: Address | None


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """For people and for ``Peer()``: whom this peer follows now, or that it seeks."""

    role: Literal["seeking", "following", "serving", "closed"]
    reign: Reign
    address: Address | None
    server: PeerRef | None


Concern = Literal["alone", "names", "quorum"]
"""It serves alone though others were named; names mean nothing here; too few for the quorum."""


@dataclass(frozen=True, slots=True)
class Warn:
    """Something a user should know for as long as it lasts; without text it is over."""

    kind: Concern
    text: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Joining failed for good: ``Peer()`` raises this."""

    error: CannotJoin


@dataclass(frozen=True, slots=True)
class AdoptRecord:
    """Fetch the record of a named transaction: ``RecordAdopted`` or ``RecordNotAdopted``. Or, if
    it is detached, all that its keepers have of it, and put that on disk: ``SubmitRequested`` or
    ``RecordNotAdopted``."""

    txn: str
    meta: RecordMeta
    owners: tuple[PeerRef, ...]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Bring these segments into the own store: ``ResultFetched`` or ``ResultMissing``. With
    ``keep``, the end of a detached transaction, they and it are on disk for good by then."""

    txn: str
    record: str
    holdings: tuple[tuple[Holding, PeerRef], ...]
    keep: Remembered | None = None


@dataclass(frozen=True, slots=True)
class Deliver:
    """The result is here, in these segments in this order, or all of it as ``result``: resolve the
    user's transaction. Given once for a transaction, or ``Reject`` is, never both. What is held of
    the result may be dropped as soon as this is done."""

    txn: str
    meta: RecordMeta
    holdings: tuple[tuple[Holding, PeerRef], ...]
    skipped: tuple[int, ...]
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class Reject:
    """The transaction ended without a result."""

    txn: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class RejectName:
    """The name belongs to another job, and ``conflict`` names the parts that differ; or, without
    ``conflict``, a finished result of that name was asked for and there is none."""

    txn: str
    message: str
    conflict: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowProgress:
    """How far a transaction is, for its user. Counts of items and of partitions; ``again`` counts
    finished tasks that were executed again, ``ran`` finished tasks that this term's server gave."""

    txn: str
    term: int
    maps_done: int
    maps_total: int
    reduces_done: int
    reduces_total: int
    finishing: bool
    again: int
    ran: int
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowPrinted:
    """Lines that user code printed somewhere, for this owner."""

    txn: str
    peer: str
    stream: Literal["stdout", "stderr", "log"]
    text: str


@dataclass(frozen=True, slots=True)
class ShowStatus:
    """The answer to ``StatusRequested``."""

    status: Status


@dataclass(frozen=True, slots=True)
class ShowPrints:
    """The answer to ``PrintsRequested``."""

    prints: Prints


@dataclass(frozen=True, slots=True)
class MeasureSelf:
    """See how this peer does (``SelfMeasured``): somebody watches."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get a task's code and inputs at hand: ``InputsReady`` or ``InputsFailed``."""

    assign: Assign


@dataclass(frozen=True, slots=True)
class RunTask:
    """Run a prepared task on a free slot, its output named ``output``: ``TaskSealed``,
    ``TaskBroke`` or ``TaskRefused``."""

    assign: Assign
    output: Output


@dataclass(frozen=True, slots=True)
class ForgetTask:
    """Stop a task, wherever it is; whatever it yields is dropped."""

    attempt: str


@dataclass(frozen=True, slots=True)
class DropOutputs:
    """Remove what is held of a record: all of it, or only these kinds."""

    record: str
    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class DropOutput:
    """Remove one segment."""

    output: Output


@dataclass(frozen=True, slots=True)
class AdoptEstates:
    """Adopt the outputs of dead peers of this host: an ``EstateAdopted`` for each found. Then look
    after this host's journal, if there is one: note that what is kept here is alive, remove what is
    over, and go on with what nobody else keeps any more (``grid.keeping.Keeper``)."""


@dataclass(frozen=True, slots=True)
class CallServer:
    """Dial the followed server's port as ``answer`` with this token, and serve data over it: a
    peer that cannot reach our data port waits there. If it fails that peer will notice."""

    address: Address
    token: str


@dataclass(frozen=True, slots=True)
class GoDownNow:
    """Someone asked the grid to go down."""


@dataclass(frozen=True, slots=True)
class DrainSelf:
    """Someone asked that this peer leaves well within so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SufferFault:
    """Someone tries how the grid stands faults, and this peer allows it. A fault of some length
    ends by itself."""

    kind: Fault
    seconds: float


@dataclass(frozen=True, slots=True)
class ShowDrained:
    """The answer to ``DrainRequested``."""

    drained: Drained


@dataclass(frozen=True, slots=True)
class Closed:
    """All that leaving well asks for has been ordered; the thread may end. ``well``: nothing that
    somebody needs goes with this peer."""

    well: bool


ClientEffect = (
    Send
    | CloseLink
    | Probe
    | Resolve
    | Reconnect
    | Ask
    | BindPort
    | Point
    | Unpoint
    | KeepReady
    | Serve
    | ConnectOwnServer
    | StopServing
    | RoleChanged
    | Warn
    | GiveUp
    | AdoptRecord
    | FetchResult
    | Deliver
    | Reject
    | RejectName
    | ShowProgress
    | ShowPrinted
    | ShowStatus
    | ShowPrints
    | MeasureSelf
    | Prepare
    | RunTask
    | ForgetTask
    | DropOutputs
    | DropOutput
    | AdoptEstates
    | CallServer
    | GoDownNow
    | DrainSelf
    | ShowDrained
    | SufferFault
    | Closed
)


# ------------------------------------------------------------------- ordered by the server core


@dataclass(frozen=True, slots=True)
class TellClient:
    """Tell the own client core that a higher term was seen (``TermSurpassed``)."""

    seen: Reign


@dataclass(frozen=True, slots=True)
class Greet:
    """From now on answer greetings with this reign and number of followers."""

    reign: Reign
    followers: int


@dataclass(frozen=True, slots=True)
class FreePort:
    """Close the port and, after what was sent is out, every link."""


ServerEffect = Send | CloseLink | TellClient | Greet | FreePort
