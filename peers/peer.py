"""``Peer``: what a user holds of a grid.

Every peer is the same: it joins whoever holds the well-known port or serves itself, runs tasks,
and submits jobs. There is nothing else to start.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from grid.errors import Misuse, PeerClosed
from grid.job import Job
from grid.messages import (
    NO_BOOKMARK,
    Bookmark,
    Drained,
    Failover,
    Fault,
    MemberStatus,
    Prints,
    TransactionStatus,
)
from grid.settings import check_name
from peers import forking, interruptible, submission
from peers.configuration import configure
from peers.helper_process import start_early
from peers.transaction import Transaction

if TYPE_CHECKING:
    from peers.engine import Engine
    from peers.executor import GridExecutor
    from peers.watching import Watch

STATUS_SECONDS = 10.0
"""Longer than a failover takes: the question waits for the next server."""


@dataclass(frozen=True)
class PeerStatus:
    """The grid as its server sees it. ``serving`` says whether that is this peer."""

    name: str
    server: str
    address: str
    term: int
    serving: bool
    members: tuple[MemberStatus, ...]
    transactions: tuple[TransactionStatus, ...]
    alone: bool
    """Serving with no other member although ``hosts`` names others."""
    failovers: tuple[Failover, ...] = ()
    """What the latest failovers took, of each kind the last, as the grid itself measured."""
    lacking: int = 0
    """So many peers more, and there is a quorum; until then no work is given."""
    warnings: tuple[str, ...] = ()
    """What this peer thinks a user should know, for as long as it lasts."""


class Peer:
    """A member of a masterless grid.

    ``Peer()`` alone is a grid of this host: all peers of this user find each other on port 11235.
    ``Peer(hosts="node1,node2")`` is one of several hosts; give every node the same arguments.
    Returns when joined or serving; raises ``CannotJoin`` (``WrongKey``, ``Refused``) within
    ``join_timeout`` seconds, ``BadKey`` or ``Misuse``.

    Keyword arguments (each also as a ``GRID_*`` variable where it says so): ``hosts`` (a list or
    ``"a,b"``: names, IPv4, IPv6, each also as ``host:port`` for exactly that port), ``listen`` (own
    addresses, default: all; loopback for a grid of this host), ``advertise`` (``host`` or
    ``host:port`` where others find this peer, behind address translation), ``port``,
    ``port_span``, ``grid`` (its name), ``slots`` (tasks at once, default: the cores; 0 only
    submits), ``memory_limit`` (bytes, or as in ``"4G"``: with its workers; default: half of the
    host's), ``name``, ``workers`` (``"process"`` or ``"thread"``), ``spool``, ``key_file``,
    ``trace`` (a file for what this peer decided and why, without data: CONTRIBUTING.md),
    ``join_timeout``, ``heartbeat_seconds``, ``silence_seconds``, ``quorum`` (with fewer peers that
    could serve no work is given; variables too); ``chaos=True`` lets ``grid chaos`` kill, freeze
    or cut off this peer, with whatever else its process does; ``password``
    (``GRID_PASSWORD``); ``serves=False`` for a visitor; and the other fields of
    ``grid.settings.Settings``. ``start=False`` waits with everything until the first use.

    Use it as a context manager, or ``close()`` it. In a forked child it starts anew at first use.
    """

    def __init__(self, hosts: Any = None, *, start: bool = True, **settings: Any) -> None:
        self._configuration = configure({"hosts": hosts, **settings})
        self._engine: Engine | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._leaving: Engine | None = None
        self._went_down = threading.Event()
        self._drain_seconds: float | None = None
        forking.watch(self)
        if start:
            self._started()
        else:
            import_module("peers.engine")  # what a server loads before it forks, children share

    def __repr__(self) -> str:
        return f"<Peer {self.name} port={self._configuration.settings.port}>"

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- jobs --------------------------------------------------------------------------

    def submit(self, job: Job, **options: Any) -> Transaction:
        """Submit a job; return its ``Transaction`` at once.

        Options: ``name`` (the same name and job from several peers is one transaction with several
        owners), ``fresh`` (do not take a finished result of that name), ``priority`` (higher goes
        first), ``retries`` (of an item whose function raises), ``attempts_max`` (worker deaths on
        one task), ``deadline_seconds``, ``on_error`` (``"raise"`` or ``"skip"``), ``speculate``
        (run stragglers twice), ``detached`` (it outlives this peer: returns when ``copies`` peers
        have all of it on disk; any peer may then ``fetch`` its ``id``). Raises ``Misuse``,
        ``BadJob``, ``NotPicklable``, ``TypeError`` or ``NotKept`` before anything has happened, and
        whatever listing the datasource's keys raises; if detached, also what reading it raises.
        """
        return self._started().submit(submission.check(job, options))

    def fetch(self, name: str, *, wait: bool = False) -> Transaction:
        """Ask for the finished result of the transaction of that name, without having its job; or
        for that of the detached transaction with this id. ``wait`` until it has ended.

        Return a ``Transaction`` at once; its ``result()`` raises ``NoResult`` if the name has no
        finished result that is still kept (``retain_seconds`` after its owners had it). Which
        items were ``skipped`` only owners know. Raises ``Misuse`` for what is no name.
        """
        check_name(name, "name")
        if not name:
            raise Misuse("name='' is no name: only the results of named transactions are kept")
        return self._started().fetch(name, wait=wait)

    def end(self, record: str) -> None:
        """End a transaction for everyone, whoever owns it; ``status().transactions`` has records.

        Its owners get ``TransactionCancelled``. Returns at once: the server is told, the next one
        too if it dies, and ``status()`` shows when it is done. What is not running stays as it is.
        """
        check_name(record, "record")
        self._started().end(record)

    def run_everywhere(
        self, function: Callable[[], Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Call ``function()`` once on every current member with slots.

        Return its values by the members' names. Raises ``TimeoutError`` after ``timeout`` seconds,
        ``TaskError`` if it raised somewhere.
        """
        transaction = self._started().run_everywhere(function)
        try:
            return transaction.result(timeout)
        except FutureTimeout:
            if not transaction.cancel():
                raise  # it is over: this is what was raised somewhere
            raise TimeoutError(
                f"not every member ran it within {timeout:g} s; some may have no free slot: "
                "see status(), or give it longer"
            ) from None

    def executor(self, max_workers: int | None = None, **options: Any) -> "GridExecutor":
        """Return a ``concurrent.futures.Executor`` whose calls run on the grid.

        ``max_workers``: so many calls at once, not as many as the grid has slots. Options:
        ``initializer`` and ``initargs`` (called once in each worker before its first call here; if
        that raises, the executor is broken), ``ship`` (as for a ``Job``), ``priority`` (as for
        ``submit``). Raises ``ValueError``, ``TypeError``, ``BadJob`` or ``NotPicklable``.
        """
        from peers.executor import GridExecutor

        return GridExecutor(self._started(), max_workers, **options)

    # -- the grid ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What people read: the host and process, unless it was given."""
        return self._configuration.name

    @property
    def id(self) -> str:
        """The fingerprint of this peer's certificate."""
        return self._started().me.peer

    @property
    def serving(self) -> bool:
        """Whether this peer is the server now."""
        role = self._started().role
        return role is not None and role.role == "serving"

    @property
    def server(self) -> str:
        """The name of the peer that serves, as last heard; empty while a server is sought."""
        role = self._started().role
        return role.server.name if role is not None and role.server is not None else ""

    @property
    def term(self) -> int:
        """The term of the server that is followed, or was last."""
        role = self._started().role
        return role.reign.term if role is not None else 0

    def status(self, timeout: float = STATUS_SECONDS) -> PeerStatus:
        """Ask the server how the grid is. Raises ``TimeoutError`` when none answers in time."""
        engine = self._started()
        try:
            status = engine.ask_status().result(timeout)
        except FutureTimeout:
            raise TimeoutError(f"no server answered {self.name} within {timeout:g} s") from None
        role = engine.role
        serving = status.server.peer == engine.me.peer
        others = [member for member in status.members if not member.serving]
        return PeerStatus(
            name=self.name,
            server=status.server.name,
            address=str(role.address) if role is not None and role.address else "",
            term=status.reign.term,
            serving=serving,
            members=status.members,
            transactions=status.transactions,
            alone=serving and not others and not self._configuration.loopback_only,
            failovers=status.failovers,
            lacking=status.lacking,
            warnings=tuple(engine.warnings.values()),
        )

    def watch(self) -> "Watch":
        """Return what looks at the grid again and again: ``look()`` gives a ``Snapshot``, also
        while a server is sought. Costs the grid something only while somebody looks."""
        from peers.watching import Watch

        return Watch(self._started)

    def prints(self, record: str, after: Bookmark = NO_BOOKMARK) -> Future[Prints]:
        """Ask what user code of a transaction printed and logged since the bookmark, as far as its
        server keeps it. The future waits for the next server if need be."""
        check_name(record, "record")
        return self._started().ask_prints(record, after)

    def shut_grid_down(self) -> None:
        """Ask every peer that waits in ``wait_until_down`` (as ``grid up`` does) to leave."""
        self._started().ask_down()

    def ask_fault(self, peer: str, kind: Fault, seconds: float = 0.0) -> None:
        """Have the member of this id suffer a fault: ``"kill"`` its process, ``"freeze"`` it or
        ``"cut"`` it off for so many seconds. Only a peer with ``chaos=True`` does; ``MemberStatus``
        says which are. Returns at once, and is not repeated if the server dies meanwhile."""
        self._started().ask_fault(peer, kind, seconds)

    def ask_drain(self, peer: str, seconds: float) -> Future[Drained]:
        """Ask the peer of this id to leave well within so many seconds, if it waits in
        ``wait_until_down``. The future tells how it has left."""
        return self._started().ask_drain(peer, seconds)

    def wait_until_down(self, timeout: float | None = None) -> bool:
        """Wait until the grid is asked to go down, or this peer to leave; tell whether it was."""
        return interruptible.wait(self._went_down, timeout)

    @property
    def drain_seconds(self) -> float | None:
        """How long this peer was given to leave well, if it was asked to (``grid drain``)."""
        return self._drain_seconds

    def _on_down(self, seconds: float | None) -> None:
        self._drain_seconds = seconds
        self._went_down.set()

    # -- life --------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed, and so cannot be used any more."""
        return self._closed

    def close(self) -> None:
        """Leave well: withdraw what is open here, hand tasks back, and have others take over what
        they need, for at most ``linger_seconds``. The peer cannot be used afterwards. Called again
        meanwhile, from another thread, it leaves at once."""
        self._leave(None)

    def drain(self, seconds: float | None = None) -> bool:
        """Close, but take so many seconds (``drain_seconds``, 60) to end the tasks that run here
        for others, and to pass on their outputs.

        Return whether nothing that the grid needs went with this peer.
        """
        return self._leave(
            self._configuration.settings.drain_seconds if seconds is None else seconds
        )

    def _leave(self, seconds: float | None) -> bool:
        self._closed = True
        with self._starting:
            if self._engine is not None:
                self._leaving, self._engine = self._engine, None
            engine = self._leaving
        well = engine.close(seconds) if engine is not None else True
        self._leaving = None
        return well

    def _started(self) -> "Engine":
        """Return the running engine, started now if this is the first use."""
        with self._starting:
            if self._closed:
                raise PeerClosed(f"{self!r} is closed; make a new Peer")
            if self._engine is None:
                self._engine = self._start()
            return self._engine

    def _start(self) -> "Engine":
        """Start an engine, and before it the helper of its workers: they load at the same time."""
        configuration = self._configuration
        needed = configuration.settings.slots and configuration.workers == "process"
        helper = start_early() if needed else None
        try:
            from peers.engine import Engine

            engine = Engine(configuration, self._on_down, helper)
            engine.start()
        except BaseException:
            if helper is not None:
                helper.end()
            raise
        return engine

    def after_fork(self) -> tuple[object, list[int]]:
        """See ``peers.forking``."""
        self._configuration = self._configuration.in_child()
        self._starting = threading.Lock()
        self._went_down = threading.Event()
        engine, self._engine, self._leaving = self._engine or self._leaving, None, None
        if engine is None:
            return None, []
        engine.detached.abandon()
        places = (engine.store.folder, engine.detached.folder.absolute())
        strays = forking.open_beneath(*map(str, places), "/memfd:grid-worker")
        return engine, [*engine.filenos(), *strays]
