"""What somebody who watches the grid sees of it: ``Peer.watch()`` gives one of these at each look.

All times are seconds since 1970 by the clock of the host where one watches, whatever the clocks of
others say. Counts and texts only: failures are the text that their owner gets, clipped; there are
no payloads.
"""

from typing import Literal

from msgspec import Struct

from grid.messages import Kind, Loss


class PeerSeen(Struct, frozen=True):
    """A member of the grid. ``busy``, ``load``, ``memory``, ``received`` and ``sent`` (bytes of
    data over the network since it began) are None until it was heard, a heartbeat after the watch
    begins."""

    id: str
    name: str
    host: str
    role: Literal["serves", "standby", "visitor"]
    slots: int
    given: int
    """Tasks in its hands, also those that wait for a slot."""
    holds: int
    """Bytes of outputs."""
    leaving: bool
    through: str
    busy: int | None = None
    load: float | None = None
    memory: int | None = None
    received: int | None = None
    sent: int | None = None


class TaskSeen(Struct, frozen=True):
    """A task that has run, on the ``slot`` of that number (from 0) of its peer."""

    attempt: str
    kind: Kind
    start: int
    stop: int
    peer: str
    peer_id: str
    slot: int
    began: float
    ended: float


class FailureSeen(Struct, frozen=True):
    """Why a transaction has no result."""

    kind: str
    message: str
    function: str
    key: str
    peer: str
    traceback: str


class TransactionSeen(Struct, frozen=True):
    """A transaction. While it runs, ``rate`` counts the items, or then the partitions, of its
    ``phase`` done in a second, and ``eta_seconds`` what is left of that phase; None if unknown.

    ``state`` is ``running``, ``awaited`` (it ran under the last server, and its owner has not told
    the next one of it yet), ``finished``, ``retained`` (finished, and kept for who asks),
    ``failed``, ``cancelled``, or ``gone``: no server knows of it any more, or how it ended.
    """

    record: str
    name: str
    owners: tuple[str, ...]
    state: str
    phase: str
    items_done: int
    items_total: int
    partitions_done: int
    partitions_total: int
    tasks_running: int
    tasks_done: int
    detached: bool
    began: float
    ended: float | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    failure: FailureSeen | None = None
    tasks: tuple[TaskSeen, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.state in ("running", "awaited")


class FailoverSeen(Struct, frozen=True):
    """How the grid got over the loss of a server (``grid.messages.Failover``); seen at ``at``, if
    it happened while this watch was on."""

    how: Loss
    term: int
    server_seconds: float
    task_seconds: float | None
    at: float | None


class Snapshot(Struct, frozen=True):
    """The grid at a moment. While a server is sought, ``sought_seconds`` says for how long, and
    the rest is as last known, ``at`` that time; else it is None."""

    at: float
    sought_seconds: float | None
    server: str
    server_id: str
    address: str
    term: int
    peers: tuple[PeerSeen, ...]
    transactions: tuple[TransactionSeen, ...]
    """Those that run first, in the order they came; then those that have ended, latest first."""
    failovers: tuple[FailoverSeen, ...]
    """In order, the latest last."""
    lacking: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        return sum(peer.slots for peer in self.peers)


NOTHING = Snapshot(0.0, None, "", "", "", 0, (), (), ())
