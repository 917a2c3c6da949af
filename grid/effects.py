"""What to do: the orders that the cores give. Done in list order; where order is a promise, the
order's docstring says so. An order that can fail ends as an event of ``grid.events``.
"""

from typing import Literal

from msgspec import Struct

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


class Send(Struct, frozen=True):
    """Put a message on a link. Messages to one link arrive in the order sent. A ``Progress`` is
    ordered before the ``Assign`` it tells of, so that no ledger is behind the work."""

    link: int
    message: Message


class CloseLink(Struct, frozen=True):
    """Close a link after what was sent is out. No ``LinkLost`` follows. ``reason`` says what the
    far end did wrong, if it did."""

    link: int
    reason: str = ""


# ------------------------------------------------------------------- ordered by the client core


class Probe(Struct, frozen=True):
    """Greet every address at once: ``ProbeAnswered`` or ``ProbeFailed`` for each of them. A server
    that looks for rivals says who it is (``claim``)."""

    addresses: tuple[Address, ...]
    claim: Claim | None = None


class Ask(Struct, frozen=True):
    """Ask these peers at once whom they follow: ``AskAnswered`` or ``AskFailed`` for each."""

    peers: tuple[PeerRef, ...]


class KeepReady(Struct, frozen=True):
    """Keep a greeted connection to this peer, and to no other (``None``: to nobody), to be used
    should it serve: ``Summoned`` then, ``ReadinessLost`` when there is no such connection."""

    peer: PeerRef | None


class Resolve(Struct, frozen=True):
    """Look the names of ``hosts`` up again: ``CandidatesResolved``."""


class Reconnect(Struct, frozen=True):
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


class BindPort(Struct, frozen=True):
    """Bind and listen on all own addresses of one port, or none: ``PortBound``/``PortTaken``."""

    port: int


class Point(Struct, frozen=True):
    """Tell the server thread: answer greetings on the bound port with whom this peer follows, so
    that who knows only this host finds the grid. Told again when that changes."""

    claim: Claim


class Unpoint(Struct, frozen=True):
    """Tell the server thread: free the port that was bound to point from."""


class Serve(Struct, frozen=True):
    """Tell the server thread: serve the bound port as this reign (``ReignBegan``)."""

    reign: Reign
    expected: int
    failovers: tuple[Failover, ...] = ()


class ConnectOwnServer(Struct, frozen=True):
    """Link this client to the server of its own process, in memory: ``Connected``."""

    address: Address


class StopServing(Struct, frozen=True):
    """Tell the server thread: redirect the members, free the port (``ReignEnded``)."""

    redirect: Address | None


class RoleChanged(Struct, frozen=True):
    """For people and for ``Peer()``: whom this peer follows now, or that it seeks."""

    role: Literal["seeking", "following", "serving", "closed"]
    reign: Reign
    address: Address | None
    server: PeerRef | None


Concern = Literal["alone", "names", "quorum"]
"""It serves alone though others were named; names mean nothing here; too few for the quorum."""


class Warn(Struct, frozen=True):
    """Something a user should know for as long as it lasts; without text it is over."""

    kind: Concern
    text: str


class GiveUp(Struct, frozen=True):
    """Joining failed for good: ``Peer()`` raises this."""

    error: CannotJoin


class AdoptRecord(Struct, frozen=True):
    """Fetch the record of a named transaction: ``RecordAdopted`` or ``RecordNotAdopted``. Or, if
    it is detached, all that its keepers have of it, and put that on disk: ``SubmitRequested`` or
    ``RecordNotAdopted``."""

    txn: str
    meta: RecordMeta
    owners: tuple[PeerRef, ...]


class FetchResult(Struct, frozen=True):
    """Bring these segments into the own store: ``ResultFetched`` or ``ResultMissing``. With
    ``keep``, the end of a detached transaction, they and it are on disk for good by then."""

    txn: str
    record: str
    holdings: tuple[tuple[Holding, PeerRef], ...]
    keep: Remembered | None = None


class Deliver(Struct, frozen=True):
    """The result is here, in these segments in this order, or all of it as ``result``: resolve the
    user's transaction. Given once for a transaction, or ``Reject`` is, never both. What is held of
    the result may be dropped as soon as this is done."""

    txn: str
    meta: RecordMeta
    holdings: tuple[tuple[Holding, PeerRef], ...]
    skipped: tuple[int, ...]
    result: bytes = b""


class Reject(Struct, frozen=True):
    """The transaction ended without a result."""

    txn: str
    failure: Failure


class RejectName(Struct, frozen=True):
    """The name belongs to another job, and ``conflict`` names the parts that differ; or, without
    ``conflict``, a finished result of that name was asked for and there is none."""

    txn: str
    message: str
    conflict: tuple[str, ...]


class ShowProgress(Struct, frozen=True):
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


class ShowPrinted(Struct, frozen=True):
    """Lines that user code printed somewhere, for this owner."""

    txn: str
    peer: str
    stream: Literal["stdout", "stderr", "log"]
    text: str


class ShowStatus(Struct, frozen=True):
    """The answer to ``StatusRequested``."""

    status: Status


class ShowPrints(Struct, frozen=True):
    """The answer to ``PrintsRequested``."""

    prints: Prints


class MeasureSelf(Struct, frozen=True):
    """See how this peer does (``SelfMeasured``): somebody watches."""


class Prepare(Struct, frozen=True):
    """Get a task's code and inputs at hand: ``InputsReady`` or ``InputsFailed``."""

    assign: Assign


class RunTask(Struct, frozen=True):
    """Run a prepared task on a free slot, its output named ``output``: ``TaskSealed``,
    ``TaskBroke`` or ``TaskRefused``."""

    assign: Assign
    output: Output


class ForgetTask(Struct, frozen=True):
    """Stop a task, wherever it is; whatever it yields is dropped."""

    attempt: str


class DropOutputs(Struct, frozen=True):
    """Remove what is held of a record: all of it, or only these kinds."""

    record: str
    kinds: tuple[Kind, ...]


class DropOutput(Struct, frozen=True):
    """Remove one segment."""

    output: Output


class AdoptEstates(Struct, frozen=True):
    """Adopt the outputs of dead peers of this host: an ``EstateAdopted`` for each found. Then look
    after this host's journal, if there is one: note that what is kept here is alive, remove what is
    over, and go on with what nobody else keeps any more (``grid.keeping.Keeper``)."""


class CallServer(Struct, frozen=True):
    """Dial the followed server's port as ``answer`` with this token, and serve data over it: a
    peer that cannot reach our data port waits there. If it fails that peer will notice."""

    address: Address
    token: str


class GoDownNow(Struct, frozen=True):
    """Someone asked the grid to go down."""


class DrainSelf(Struct, frozen=True):
    """Someone asked that this peer leaves well within so many seconds."""

    seconds: float


class SufferFault(Struct, frozen=True):
    """Someone tries how the grid stands faults, and this peer allows it. A fault of some length
    ends by itself."""

    kind: Fault
    seconds: float


class ShowDrained(Struct, frozen=True):
    """The answer to ``DrainRequested``."""

    drained: Drained


class Closed(Struct, frozen=True):
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


class TellClient(Struct, frozen=True):
    """Tell the own client core that a higher term was seen (``TermSurpassed``)."""

    seen: Reign


class Greet(Struct, frozen=True):
    """From now on answer greetings with this reign and number of followers."""

    reign: Reign
    followers: int


class FreePort(Struct, frozen=True):
    """Close the port and, after what was sent is out, every link."""


ServerEffect = Send | CloseLink | TellClient | Greet | FreePort
