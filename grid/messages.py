"""Every message that crosses a socket, and the names they speak of.

One frozen tagged ``msgspec.Struct`` each, used directly by the cores: there is no parallel
definition and no converter. User data (keys, values, code, exceptions) only ever appears as
``bytes`` that neither the client nor the server thread opens, or as clipped ``repr`` text.

Every number and text has its range in its type, so that what decodes is in range: sums of counts
fit into a message again, and no name is so long that an answer which quotes it does not fit into
a frame. How values must fit together (aligned ranges, known records) the cores check.

Who sends what: *greeting* both ways before anything else; *client to server*; *server to
client*; *peer to peer* (bulk data, on the data port).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from grid.settings import NAME_MAX, PARTITIONS_MAX, SLOTS_MAX

PROTOCOL = 1
"""Raised whenever a message changes shape, from the first release on; peers of different protocols
refuse each other."""

Kind = Literal["map", "reduce", "finish", "call"]
"""What a task does: map a range of items, reduce a range of partitions, finish, call once."""

Fault = Literal["kill", "freeze", "cut"]
"""What a peer that allows it can be made to suffer: its process ends or stops, or the peer neither
dials nor answers."""


# ------------------------------------------------------------------------------ ranges

COUNT_MAX = 2**53
"""More than anything here counts; and a thousand of them still add up to a message's integer."""

Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
BYTES_MAX = 2**48

Bytes = Annotated[int, Meta(ge=0, le=BYTES_MAX)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Signed = Annotated[int, Meta(ge=-COUNT_MAX, le=COUNT_MAX)]

Name = Annotated[str, Meta(max_length=NAME_MAX)]
"""An id, or what a user named something."""

TEXT_MAX = 2**18

Text = Annotated[str, Meta(max_length=TEXT_MAX)]
"""For people to read: a message, a traceback."""

EXCEPTION_BYTES_MAX = 1 << 20
"""A larger exception carries data, not a reason; its text is enough."""

RIDING_BYTES_MAX = 8 << 10
"""What may ride in messages: the server carries it, so it must be small against a task's rest."""

WallTime = Annotated[float, Meta(ge=0, le=1e11)]
"""Seconds since 1970, by somebody's clock: for what outlives every process, and for people."""

Slots = Annotated[int, Meta(ge=0, le=SLOTS_MAX)]

TERM_MAX = 2**48
"""No grid fails over so often."""

TERM_LEAP_MAX = 2**20
"""How far ahead of all that one knows a term can honestly be. Whoever claims more is not believed,
or a single lie would use the terms up."""

TASK_RANGE_MAX = 1 << 16
"""The most items, or partitions, of one task. More would make messages and retries heavy."""


# ------------------------------------------------------------------------------ names


class Address(Struct, frozen=True, array_like=True, order=True):
    """Where a listener can be dialled."""

    host: Name
    port: Annotated[int, Meta(ge=0, lt=65536)]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Reign(Struct, frozen=True, array_like=True, order=True):
    """A server's reign. ``term`` only grows; ``id`` is drawn when the port is bound."""

    term: Annotated[int, Meta(ge=0, le=TERM_MAX)]
    id: Name

    def __str__(self) -> str:
        return f"{self.term}/{self.id[:6]}"


NO_REIGN = Reign(0, "")
"""Before any server was followed."""


class PeerRef(Struct, frozen=True, array_like=True):
    """A peer and where its data can be fetched.

    ``peer`` is its id (the fingerprint of its certificate), ``name`` what people read, ``host``
    the identity of its machine: equal hosts share a file system.
    """

    peer: Name
    name: Name
    host: Name
    data: Address


class Output(Struct, frozen=True, array_like=True):
    """The name of a segment: unique without any server.

    ``record`` is the record's digest; ``start`` and ``stop`` the range of items (map), of
    partitions (reduce), ``0..1`` (finish) or ``0..1`` (call); ``producer`` the id of the peer
    that made it and ``counter`` that peer's own count.
    """

    record: Name
    kind: Kind
    start: Count
    stop: Count
    producer: Name
    counter: Count


class Holding(Struct, frozen=True, array_like=True):
    """A segment that a peer keeps. ``skipped`` are the indices of items left out by
    ``on_error="skip"``."""

    output: Output
    bytes: Bytes
    skipped: tuple[Count, ...] = ()


class Failure(Struct, frozen=True):
    """How a task, or a whole transaction, ended badly. All text; ``exception`` is the user's own
    exception pickled for its owner, or empty where it does not pickle; ``item`` the index of the
    item a worker was on, or -1."""

    kind: Literal[
        "raised", "died", "unpicklable", "module", "space", "deadline", "cancelled", "bug"
    ]
    message: Text
    function: Text = ""
    key: Text = ""
    peer: Name = ""
    traceback: Text = ""
    exception: Annotated[bytes, Meta(max_length=EXCEPTION_BYTES_MAX)] = b""
    item: Annotated[int, Meta(ge=-1, le=COUNT_MAX)] = -1


class Keeping(Struct, frozen=True, array_like=True):
    """What makes a transaction detached: for how long its end is kept, when it began, and on the
    disks of how many hosts it shall be."""

    seconds: Seconds
    began: WallTime = 0.0
    copies: Count = 0


class Remembered(Struct, frozen=True):
    """An ended transaction, named or detached, as its holders remember it for latecomers. Only of
    detached ones a ``failure`` is remembered, and when it ``ended``."""

    name: Name
    fingerprint: dict[Name, Text]
    meta: "RecordMeta"
    holdings: tuple[Holding, ...]
    seconds_left: Seconds
    skipped: tuple[Count, ...] = ()
    failure: Failure | None = None
    ended: WallTime = 0.0


class Held(Struct, frozen=True):
    """What one peer holds of one record. ``sizes`` sums its map outputs by partition."""

    record: Name
    holdings: tuple[Holding, ...]
    sizes: tuple[Bytes, ...] = ()
    remembered: Remembered | None = None


class RecordMeta(Struct, frozen=True):
    """All that a server knows of a record: counts and rules, no keys, values or code.

    ``shape`` is ``mapreduce`` or ``everywhere`` (one call on every member with slots). ``finish``
    says that there is a finish phase. ``attempts_max`` bounds worker deaths on one task,
    ``retries`` user exceptions. ``keeping`` is set for detached transactions: their owners keep
    them on disk, and only a cancel for everyone ends them early.
    """

    record: Name
    shape: Literal["mapreduce", "everywhere"]
    items: Count
    partitions: Annotated[int, Meta(ge=1, le=PARTITIONS_MAX)]
    finish: bool
    priority: Signed = 0
    retries: Count = 0
    attempts_max: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = 4
    speculate: bool = True
    keeping: Keeping | None = None


class Riding(Struct, frozen=True, array_like=True):
    """What is small enough to ride in messages: a record's head, and its items if it is a single
    small one. Bytes that only workers open; empty where they have to be fetched."""

    head: Annotated[bytes, Meta(max_length=RIDING_BYTES_MAX)] = b""
    items: Annotated[bytes, Meta(max_length=RIDING_BYTES_MAX)] = b""


NOTHING_RIDING = Riding()


# ------------------------------------------------------------------------------ greeting


class Claim(Struct, frozen=True, array_like=True):
    """A server, as it or a follower of it describes it to others: who, where to dial, its reign
    and how many live members it has beside itself."""

    peer: Name
    address: Address
    reign: Reign
    followers: Count = 0


Loss = Literal["closed", "silent"]
"""How a server was lost: its connection closed, or it was silent."""


class Failover(Struct, frozen=True, array_like=True):
    """How a grid got over the loss of a server, as the next one, of ``term``, measured it. The
    times count from the loss, or from when the silent one was last heard: until the new server
    reigned, and until the first task that it gave, of work that was under way, began to run (None:
    there was none)."""

    how: Loss
    term: Annotated[int, Meta(ge=0, le=TERM_MAX)]
    server_seconds: Seconds
    task_seconds: Seconds | None = None


class Successor(Struct, frozen=True, array_like=True):
    """A peer that may take over, and where it would then be found: ``doors``, in order."""

    ref: PeerRef
    doors: tuple[Address, ...]


class Hello(Struct, frozen=True, tag=True):
    """The first frame of whoever dialled. ``intended`` is the address it meant to reach.

    ``role`` says what it wants: to join (``peer``, ``visitor``), to know who serves here
    (``probe``), to fetch (``data``), to know whom a peer follows (``ask``, on its data port), to be
    connected with the peer ``wanted`` (``relay``), to be the other end of such a connection,
    as told by ``CallBack`` (``answer``, with its ``token``), or to stay until the greeted peer
    serves, and join it then (``await``, on its data port). A probe by a server says which
    (``claim``).
    """

    protocol: Count
    grid: Name
    peer: Name
    name: Name
    python: tuple[Count, Count]
    role: Literal["peer", "visitor", "probe", "data", "ask", "relay", "answer", "await"]
    intended: Address
    seen: Reign = NO_REIGN
    claim: "Claim | None" = None
    wanted: Name = ""
    token: Name = ""


class Welcome(Struct, frozen=True, tag=True):
    """The answer. ``followers`` counts live members beside the serving process itself.

    One who does not serve, but follows, says whom: ``follows`` is its server, which it heard from
    ``heard_seconds`` ago, and ``reign`` is that server's.
    """

    peer: Name
    name: Name
    python: tuple[Count, Count]
    reign: Reign = NO_REIGN
    followers: Count = 0
    follows: "Claim | None" = None
    heard_seconds: Seconds = 0.0


class Refusal(Struct, frozen=True, tag=True):
    """The answer to one who may not come in; ``reason`` says what differs and what to do."""

    reason: Text


class Serves(Struct, frozen=True, tag=True):
    """To one who came to ``await`` it: the greeted peer serves now, at this address. Who wants to
    join does so on this connection."""

    welcome: Welcome
    address: Address


class Paired(Struct, frozen=True, tag=True):
    """To both ends of a relay, after the welcome: the other end is there. The TLS of this
    connection ends here, both ways; the bytes that follow are the other end's."""


# ------------------------------------------------------------------------------ both ways


class Beat(Struct, frozen=True, tag=True):
    """I live. Sent both ways every heartbeat; a server says how many members it has, how many it
    lacks to its quorum, and whether somebody watches: then it wants to hear ``Vitals``."""

    members: Count = 0
    lacking: Count = 0
    watched: bool = False


# ------------------------------------------------------------------------------ client to server


class Running(Struct, frozen=True, array_like=True):
    """An attempt in hand: queued, preparing or executing."""

    attempt: Name
    record: Name
    kind: Kind
    start: Count
    stop: Count


class Join(Struct, frozen=True, tag=True):
    """Everything a server must know of a member, sent first on every link.

    ``serves`` is false for visitors and for peers that may not become server. ``seen`` is the
    highest reign this peer has known, ``returning`` whether it was a member of an earlier reign.
    ``adopted`` are the dead peers whose estates it has taken over: nobody need wait for their
    reports.
    """

    me: PeerRef
    slots: Slots
    serves: bool
    seen: Reign
    held: tuple[Held, ...]
    running: tuple[Running, ...]
    adopted: tuple[Name, ...] = ()
    returning: bool = False
    doors: tuple[Address, ...] = ()
    """Where this peer would be found if it served, in order."""
    leaving: bool = False
    """It said ``Leaving`` to the server before."""
    through: Name = ""
    """The name of the peer that this link leads through; empty if it is direct."""
    chaos: bool = False
    """Whether it may be told to suffer a fault."""


class LedgerEntry(Struct, frozen=True, array_like=True):
    """A range was ``given`` to a peer, or is ``held`` by it."""

    kind: Kind
    start: Count
    stop: Count
    peer: Name
    held: bool


class Submit(Struct, frozen=True, tag=True):
    """Own a record. Sent again, with the ledger, on every rejoin until resolved."""

    txn: Name
    meta: RecordMeta
    name: Name = ""
    fingerprint: dict[Name, Text] = {}
    fresh: bool = False
    accepted: bool = False
    ledger: tuple[LedgerEntry, ...] = ()
    riding: Riding = NOTHING_RIDING


class AskResult(Struct, frozen=True, tag=True):
    """Where is the finished result of this name, or of the detached transaction of this id?
    Answered with ``Finished``, ``Failed`` or ``Rejected``; with ``wait``, not before it ends. Who
    asks becomes no owner, and so needs no job and owes no acknowledgement."""

    txn: Name
    name: Name
    wait: bool = False


class Cancel(Struct, frozen=True, tag=True):
    """Withdraw this owner, or with ``all`` end the job for everyone, which any member may."""

    txn: Name
    record: Name
    all: bool = False


class Acknowledge(Struct, frozen=True, tag=True):
    """The owner has its result (or its failure) and needs nothing more."""

    txn: Name
    record: Name


class TaskDone(Struct, frozen=True, tag=True):
    """An attempt is sealed. ``sizes`` are its bytes by partition (map only). If it may be all of a
    result, and is small, its bytes ride along as ``result``: a segment, which only users open."""

    attempt: Name
    holding: Holding
    seconds: Seconds
    sizes: tuple[Bytes, ...] = ()
    result: Annotated[bytes, Meta(max_length=RIDING_BYTES_MAX)] = b""


class TaskFailed(Struct, frozen=True, tag=True):
    """An attempt ended badly: the user's code raised, or its worker died."""

    attempt: Name
    failure: Failure


class TaskReturned(Struct, frozen=True, tag=True):
    """An attempt is handed back without fault of the user: inputs that could not be fetched
    (``missing`` are gone for good at their holder), no room, no module, leaving."""

    attempt: Name
    reason: Literal["inputs", "space", "module", "leaving"]
    detail: Text = ""
    missing: tuple[Output, ...] = ()


class Announce(Struct, frozen=True, tag=True):
    """Holdings that are here now. ``adopted`` is the dead peer whose whole estate this is."""

    held: tuple[Held, ...]
    adopted: Name = ""


class LostOutputs(Struct, frozen=True, tag=True):
    """An owner could not fetch these from the peers it was told of: they no longer have them, or
    cannot be reached. Others may."""

    record: Name
    missing: tuple[tuple[Output, Name], ...]


class Leaving(Struct, frozen=True, tag=True):
    """I want to leave well: give me nothing more, and say ``MayGo`` when nobody needs what I am
    running or what I alone hold."""


class NotTaken(Struct, frozen=True, tag=True):
    """These, which I was to take over, I could not fetch: ask somebody else. Without ``outputs``,
    the whole record, which I was to keep."""

    record: Name
    outputs: tuple[Output, ...]


class Leave(Struct, frozen=True, tag=True):
    """I go now: my attempts are handed back, my outputs are left for adoption."""


class Bookmark(Struct, frozen=True, array_like=True):
    """How far somebody has read a server's chronicle: which one, and up to which number."""

    chronicle: Name = ""
    number: Count = 0


NO_BOOKMARK = Bookmark()


class AskStatus(Struct, frozen=True, tag=True):
    """Tell me about the grid. Who watches it, and so asks often, also hears what has happened
    since."""

    watching: bool = False
    after: Bookmark = NO_BOOKMARK


ASK_STATUS = AskStatus()


class AskPrints(Struct, frozen=True, tag=True):
    """What did user code of this record print and log since?"""

    record: Name
    after: Bookmark = NO_BOOKMARK


class Vitals(Struct, frozen=True, tag=True):
    """How a peer does: slots that are busy, the load of its host, the memory of all its processes,
    and the bytes that it has received from and sent to other peers as data."""

    busy: Slots
    load: Seconds
    memory: Bytes
    received: Bytes
    sent: Bytes


class AskClaims(Struct, frozen=True, tag=True):
    """Which of these records, all that I hold outputs of, does any transaction still need?"""

    records: tuple[Name, ...]


class AskDown(Struct, frozen=True, tag=True):
    """End every peer that was started by ``grid up``."""


class AskDrain(Struct, frozen=True, tag=True):
    """Have this peer leave well, within so many seconds, if ``grid up`` started it; tell me how it
    went (``Drained``)."""

    peer: Name
    seconds: Seconds


class AskFault(Struct, frozen=True, tag=True):
    """Have this member suffer a fault, for so long, if it allows that. Never asked twice."""

    peer: Name
    kind: Fault
    seconds: Seconds


class Printed(Struct, frozen=True, tag=True):
    """Lines that user code printed or logged, from its peer through the server to its owners."""

    record: Name
    peer: Name
    stream: Literal["stdout", "stderr", "log"]
    text: Text


# ------------------------------------------------------------------------------ server to client


class Joined(Struct, frozen=True, tag=True):
    """You are a member. ``successors`` are in the order of taking over."""

    reign: Reign
    server: PeerRef
    successors: tuple[Successor, ...]
    members: Count
    failovers: tuple[Failover, ...] = ()
    neighbours: Count = 0
    """Members of this peer's host that were there before it."""


class FailedOver(Struct, frozen=True, tag=True):
    """What the latest failovers took, of each kind the last."""

    failovers: tuple[Failover, ...]


class Successors(Struct, frozen=True, tag=True):
    """The order of taking over changed."""

    successors: tuple[Successor, ...]
    members: Count


class NewReign(Struct, frozen=True, tag=True):
    """The server met a higher term than its own and reigns anew above it."""

    reign: Reign


class PeerGone(Struct, frozen=True, tag=True):
    """A member of your host is gone, and you are of the few there that shall adopt what it left."""

    peer: Name
    neighbours: Count = 0
    """Members of this peer's host that are there besides it."""


class Accepted(Struct, frozen=True, tag=True):
    """This submission owns its record."""

    txn: Name
    record: Name


class Rejected(Struct, frozen=True, tag=True):
    """This submission was refused; ``conflict`` names the parts of the fingerprint that differ."""

    txn: Name
    message: Text
    conflict: tuple[Name, ...] = ()


class Adopt(Struct, frozen=True, tag=True):
    """A transaction of this name exists: fetch its record from an owner, then submit as owner."""

    txn: Name
    meta: RecordMeta
    owners: tuple[PeerRef, ...]


class Progress(Struct, frozen=True, tag=True):
    """News for the ledger, then the sums. Always sent before the orders it tells of. ``ran``
    counts tasks that this server has given and that are finished."""

    record: Name
    entries: tuple[LedgerEntry, ...]
    freed: tuple[LedgerEntry, ...]
    maps_done: Count
    maps_total: Count
    reduces_done: Count
    reduces_total: Count
    finishing: bool
    ran: Count


class Finished(Struct, frozen=True, tag=True):
    """All output is there: fetch these, in this order, from their holders, unless all of it rides
    along as ``result``. ``skipped`` are the indices of items left out by ``on_error="skip"``."""

    txn: Name
    record: Name
    meta: RecordMeta
    holdings: tuple[tuple[Holding, PeerRef], ...]
    skipped: tuple[Count, ...] = ()
    result: Annotated[bytes, Meta(max_length=RIDING_BYTES_MAX)] = b""


class Failed(Struct, frozen=True, tag=True):
    """The transaction ended without a result."""

    txn: Name
    record: Name
    failure: Failure


class Ended(Struct, frozen=True, tag=True):
    """The server has done all that this owner's acknowledgement or cancel asked for."""

    txn: Name
    record: Name


class Source(Struct, frozen=True, array_like=True):
    """A holder and which of its segments a task reads."""

    holder: PeerRef
    outputs: tuple[Output, ...]


class Assign(Struct, frozen=True, tag=True):
    """Run this. ``owners`` have the record and the items; ``sources`` hold the inputs of a reduce
    or a finish; ``deaths`` counts workers that already died on it. A map of the ``whole`` may be
    reduced where it is, if it is small: its output is that of all reduces then."""

    attempt: Name
    record: Name
    kind: Kind
    start: Count
    stop: Count
    owners: tuple[PeerRef, ...]
    sources: tuple[Source, ...] = ()
    deaths: Count = 0
    riding: Riding = NOTHING_RIDING
    whole: bool = False


class CancelTask(Struct, frozen=True, tag=True):
    """Stop this attempt; its output is not wanted."""

    attempt: Name


class Drop(Struct, frozen=True, tag=True):
    """Nobody needs these outputs of the record any more: all of them, or only these kinds."""

    record: Name
    kinds: tuple[Kind, ...] = ()


class Retain(Struct, frozen=True, tag=True):
    """Keep the results of a finished named transaction for latecomers, or the end of a detached
    one on disk; fetch what is not here."""

    remembered: Remembered
    sources: tuple[tuple[Holding, PeerRef], ...]


class TakeOver(Struct, frozen=True, tag=True):
    """A peer that leaves is the only one to hold these outputs, which are still needed: fetch them
    from where they are, and announce them as yours."""

    record: Name
    sources: tuple[tuple[Holding, PeerRef], ...]


class BecomeKeeper(Struct, frozen=True, tag=True):
    """Of this detached transaction there are too few copies: fetch one from any of these
    ``keepers``, put it on disk, and own it as they do."""

    meta: RecordMeta
    keepers: tuple[PeerRef, ...]


class MayGo(Struct, frozen=True, tag=True):
    """You that are leaving: nobody needs anything more of you."""


class DrainNow(Struct, frozen=True, tag=True):
    """Someone asked that you leave: do so well, within so many seconds, if ``grid up`` started
    you."""

    seconds: Seconds


class Drained(Struct, frozen=True, tag=True):
    """How a peer has left: how many tasks it finished and handed back meanwhile, how many bytes of
    outputs others took over, and whether all was done in time. Without ``known`` it was not here:
    it had left under an earlier server, or never was."""

    peer: Name
    known: bool = False
    well: bool = False
    finished: Count = 0
    handed_back: Count = 0
    passed_on: Bytes = 0


class Redirect(Struct, frozen=True, tag=True):
    """This server abdicates: follow the one at this address."""

    address: Address


class Claims(Struct, frozen=True, tag=True):
    """Of the records asked about, these are still needed."""

    records: tuple[Name, ...]


class CallBack(Struct, frozen=True, tag=True):
    """Somebody who cannot reach this peer's data port waits at the server: dial the server's port,
    greet it as ``answer`` with this token, and serve data over that connection."""

    token: Name


class GoDown(Struct, frozen=True, tag=True):
    """Someone asked the grid to go down: leave well if ``grid up`` started you."""


class Suffer(Struct, frozen=True, tag=True):
    """Someone tries how the grid stands faults: be killed, frozen or cut off, for so long."""

    kind: Fault
    seconds: Seconds


class MemberStatus(Struct, frozen=True):
    """One row of the roster. ``through`` names the peer that its link leads through, if any;
    ``chaos`` says that it may be made to suffer faults; ``vitals`` are known while somebody
    watches; ``data`` is where its data can be fetched."""

    peer: Name
    name: Name
    host: Name
    slots: Slots
    running: Count
    serving: bool
    visitor: bool
    held_bytes: Bytes
    leaving: bool = False
    through: Name = ""
    chaos: bool = False
    vitals: Vitals | None = None
    data: Address | None = None


class TransactionStatus(Struct, frozen=True):
    """One transaction as the server sees it. ``owners`` are names; of a detached one that has
    ended, those of the peers that keep its end. ``phase`` is the kind of its next tasks, empty if
    there are none; ``running`` of them are given, ``ran`` have ended well, both under this server,
    which knows it since ``known_at``."""

    record: Name
    name: Name
    state: Name
    owners: tuple[Name, ...]
    maps_done: Count
    maps_total: Count
    reduces_done: Count
    reduces_total: Count
    detached: bool = False
    began: WallTime = 0.0
    ended: WallTime = 0.0
    phase: Literal["", "map", "reduce", "finish", "call"] = ""
    running: Count = 0
    ran: Count = 0
    known_at: Seconds = 0.0


class TaskRan(Struct, frozen=True, array_like=True, tag=True):
    """A task that ended well: an entry of a server's chronicle, its times by the server's clock."""

    number: Count
    attempt: Name
    record: Name
    kind: Kind
    start: Count
    stop: Count
    peer: Name
    began: Seconds
    ended: Seconds


class TransactionEnded(Struct, frozen=True, array_like=True, tag=True):
    """A transaction that has ended: an entry of a server's chronicle, as ``TaskRan``. ``failure``
    says why there is no result, without the exception."""

    number: Count
    record: Name
    name: Name
    owners: tuple[Name, ...]
    items: Count
    partitions: Count
    ran: Count
    known_at: Seconds
    ended: Seconds
    failure: Failure | None = None


Happening = TaskRan | TransactionEnded


class Status(Struct, frozen=True, tag=True):
    """The grid as its server sees it, by its ``clock``; and for who watches, what has ``happened``
    since the bookmark: as much as fits, up to ``latest``."""

    reign: Reign
    server: PeerRef
    members: tuple[MemberStatus, ...]
    transactions: tuple[TransactionStatus, ...]
    lacking: Count = 0
    """So many members more, and there is a quorum."""
    failovers: tuple[Failover, ...] = ()
    answers: AskStatus = ASK_STATUS
    clock: Seconds = 0.0
    happened: tuple[Happening, ...] = ()
    latest: Bookmark = NO_BOOKMARK


class Prints(Struct, frozen=True, tag=True):
    """What user code of a record printed since the bookmark, in order: as much as fits, up to
    ``latest``. With a ``gap``, more was printed before these and is not kept. ``state`` is that of
    the transaction, empty if it is not known here."""

    answers: AskPrints
    prints: tuple[Printed, ...]
    latest: Bookmark
    gap: bool = False
    state: Name = ""


# ------------------------------------------------------------------------------ peer to peer


class FetchRecord(Struct, frozen=True, tag=True):
    """Give me the record: its head (code, settings) and, with ``keys``, its key list."""

    record: Name
    keys: bool


class FetchItems(Struct, frozen=True, tag=True):
    """Give me these items. ``resolve`` asks for the values themselves where the datasource would
    rather name a file that the asker could not read."""

    record: Name
    indices: tuple[Count, ...] = ()
    start: Count = 0
    stop: Count = 0
    resolve: bool = False


class FetchSegments(Struct, frozen=True, tag=True):
    """Give me partitions ``first..stop`` of these segments."""

    outputs: tuple[Output, ...]
    first: Count
    stop: Count


class Keep(Struct, frozen=True, tag=True):
    """Keep this part of a detached transaction, ``size`` raw bytes that follow: its ``head`` (the
    answer is a blob ``whole`` where everything is kept already), then its ``items`` in chunks from
    ``first`` on, then ``whole``: now it is yours to own; or ``withdrawn``: it will never be whole.
    Answered when it is on disk."""

    meta: RecordMeta
    part: Literal["head", "items", "whole", "withdrawn"]
    first: Count = 0
    count: Count = 0
    size: Bytes = 0
    deadline: WallTime = 0.0


class FetchKept(Struct, frozen=True, tag=True):
    """Give me what you keep of a detached transaction, as you were given it: first (with ``head``)
    the encoded entry and its head, then the chunk of items that begins at ``first``."""

    record: Name
    head: bool = False
    first: Count = 0


class Parcel(Struct, frozen=True, tag=True):
    """What was asked for follows as raw bytes: one blob a size, in the order asked."""

    sizes: tuple[Bytes, ...]


class Absent(Struct, frozen=True, tag=True):
    """It cannot be given. ``missing`` are segments this peer does not have; ``failure`` is set
    when the user's datasource raised."""

    reason: Text
    missing: tuple[Output, ...] = ()
    failure: Failure | None = None


Greeting = Hello | Welcome | Refusal | Serves | Paired

FromClient = (
    Join
    | Beat
    | Submit
    | AskResult
    | Cancel
    | Acknowledge
    | TaskDone
    | TaskFailed
    | TaskReturned
    | Announce
    | LostOutputs
    | Leaving
    | NotTaken
    | Leave
    | AskStatus
    | AskPrints
    | Vitals
    | AskClaims
    | AskDown
    | AskDrain
    | AskFault
    | Printed
)

FromServer = (
    Joined
    | Beat
    | FailedOver
    | Successors
    | NewReign
    | PeerGone
    | Accepted
    | Rejected
    | Adopt
    | Progress
    | Finished
    | Failed
    | Ended
    | Assign
    | CancelTask
    | Drop
    | Retain
    | TakeOver
    | BecomeKeeper
    | MayGo
    | DrainNow
    | Drained
    | Redirect
    | Claims
    | CallBack
    | GoDown
    | Suffer
    | Printed
    | Status
    | Prints
)

FromData = FetchRecord | FetchItems | FetchSegments | Keep | FetchKept | Parcel | Absent

Message = Greeting | FromClient | FromServer | FromData

PATIENT = (Acknowledge, Ended, Drop)
"""Messages that nobody waits for: they leave with the next one on their link ..."""

PATIENCE_SECONDS = 0.005
"""... or after so long."""
