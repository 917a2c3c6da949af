"""``Server``: what a mincemeat program sets up, runs, and has its results from.

A run opens a peer without slots that must serve on the port; each datasource becomes a ``Job``, and
its transaction runs on whatever clients come. In the end clients are told to leave, and the port is
free again when ``run_server`` returns, so that the next ``Server`` may have it at once. If a grid
of ``Peer`` with the same password holds the port, the job goes to that grid; any other holder is an
``OSError``, by which programs elect a server among themselves.

``finishfn`` and ``resultfn`` run here, in the thread that runs the server, as does the datasource.
"""

import difflib
import errno
import logging
import os
import socket
import threading
import time
from collections import deque
from typing import Any

from grid.errors import CannotJoin, GridError, Misuse
from grid.functions import check_resultfn
from grid.job import Job
from peers.addresses import listen_hosts
from peers.mincemeat import DEFAULT_PORT, oneshot
from peers.mincemeat.functions import finished, travelling
from peers.mincemeat.joining import (
    SERVER_NAME,
    as_password,
    check_port,
    check_port_is_free,
    in_use,
    is_local,
    refuse_asyncore,
    warn_if_weak,
)
from peers.mincemeat.source import Source, readable
from peers.mincemeat.task_manager import TaskManager
from peers.peer import Peer

FUNCTIONS = ("mapfn", "collectfn", "reducefn", "finishfn")
SETTINGS = ("datasource", *FUNCTIONS, "resultfn", "cycle", "allocation")
"""What ``conn`` takes beside where to serve."""

CLOSE_MATCH = 0.7
"""How much alike two names are if one may be the other misspelt."""

LOOK_SECONDS = 0.25
"""How often an idle server looks whether it has been given something, or other defaults."""

LEAVE_SECONDS = 2.0
"""The most that a server waits for its clients to leave."""

VISIT_SECONDS = 3.0
"""How long the holder of the port may take to show that it is a grid of ours."""

log = logging.getLogger("peers.mincemeat")

_OWN = ("taskmanager", "output", "password", "addr")


class _Assigned(dict[str, Any]):
    """The transaction of a datasource that was set as an attribute. Equal to itself alone:
    datasources need not be comparable."""

    def __eq__(self, other: object) -> bool:
        return self is other


class Server:
    """Runs the transactions of ``datasource`` with the functions that are set.

    ``mapfn(k, v)`` yields pairs; ``collectfn`` and ``reducefn`` take ``(k, vs)`` or an iterator of
    these, ``finishfn`` the results likewise, ``resultfn`` ``(txn, results)`` or ``(results)``. One
    of ``mapfn`` and ``reducefn`` may be missing. Subclasses may define any of these, and
    ``handle_error``, which is called while an error is being handled; here it raises that again.

    ``map`` and ``shuttout`` are taken, and mean nothing any more.
    """

    mapfn: Any = None
    collectfn: Any = None
    reducefn: Any = None
    finishfn: Any = None
    cycle: Any = None
    allocation: Any = None

    def __init__(self, map: Any = None, schedule: Any = None, shuttout: Any = None) -> None:  # noqa: A002, ARG002
        refuse_asyncore(schedule)
        self.taskmanager = TaskManager()
        self.output: deque[tuple[Any, Any]] = deque()
        self.password: Any = None
        self.addr: tuple[str, int] | None = None
        self._assigned: _Assigned | None = None
        self._current: Any = None
        self._results: dict[Any, Any] | None = None
        self._number = 0
        self._peer: Peer | None = None
        self._wake = threading.Condition()
        self._ending = threading.RLock()
        self._closing = False
        self._processing = False

    def __getstate__(self) -> dict[str, Any]:
        """What goes to workers with a bound method: what the program itself has set."""
        hidden = (*_OWN, *SETTINGS)
        return {k: v for k, v in vars(self).items() if k[0] != "_" and k not in hidden}

    # -- what programs call --------------------------------------------------------------

    def run_server(
        self,
        password: Any = "",
        port: int = DEFAULT_PORT,
        interface: str = "",
        asynchronous: bool = False,
    ) -> dict[Any, Any] | None:
        """Run until all is done, and return the results.

        Raises ``OSError`` if the port is taken, ``Misuse`` or ``BadJob`` for what is missing or
        misspelt, ``TaskError`` if a function raised, unless ``handle_error`` does otherwise. With
        ``asynchronous`` only begin to serve; another thread is to call ``process()``.
        """
        before = len(self.output)
        self._results = None
        self.conn(password, port, interface, asynchronous)
        if asynchronous:
            return None
        if len(self.output) > before:
            results: dict[Any, Any] = self.output[before][1]
            del self.output[before]
            return results
        return self._results

    def conn(
        self,
        password: Any = "",
        port: int = DEFAULT_PORT,
        interface: str = "",
        asynchronous: bool = False,
        **settings: Any,
    ) -> None:
        """Set what is given and not None, serve on the port, and run until all is done."""
        self._set(settings)
        self.password = as_password(password)
        self._open(interface or "", check_port(port))
        try:
            self._check(asynchronous)
        except Exception:
            self._close()
            raise
        if not asynchronous:
            self.process()

    def process(self) -> None:
        """Run transactions until there is none to wait for, or the server is closed."""
        self._processing = True
        try:
            while (transaction := self._next()) is not None:
                self._run(transaction)
        except Exception:
            self._close()
            self.handle_error()
        finally:
            self._processing = False
            self._close()

    def set_datasource(self, datasource: Any = None, **settings: Any) -> None:
        """Have one more datasource run after those that wait, with ``allocation``, ``cycle`` or
        ``txn`` of its own. From any thread."""
        transaction = {"datasource": datasource, **settings}
        self.taskmanager.complete(transaction)
        with self._wake:
            self.taskmanager.deque.append(transaction)
            self._wake.notify_all()

    @property
    def datasource(self) -> Any:
        """What is to be run, or was last. Set again before it has begun, the last one counts."""
        with self._wake:
            return self._current if self._assigned is None else self._assigned["datasource"]

    @datasource.setter
    def datasource(self, datasource: Any) -> None:
        with self._wake:
            waiting = self.taskmanager.deque
            if self._assigned is not None:
                waiting.remove(self._assigned)
            self._assigned = None
            if datasource is not None:
                self._assigned = _Assigned(datasource=datasource)
                waiting.append(self._assigned)
                self._wake.notify_all()

    def resultfn(self, txn: Any, results: dict[Any, Any]) -> None:
        """Take the results of a transaction: here, keep them for ``results()``."""
        self.output.append((txn, results))

    def results(self) -> dict[Any, Any] | None:
        """Return the next results that nobody has taken yet, or None. Raises the error that a
        transaction of a permanent server ended with."""
        if not self.output:
            return None
        results = self.output.popleft()[1]
        if isinstance(results, Exception):
            raise results
        return results  # type: ignore[no-any-return]

    def finished(self) -> bool:
        """Whether the last transaction is done and the server does not wait for another."""
        return self.taskmanager.state == TaskManager.FINISHED

    def authenticated(self, timeout: float | None = 0.0) -> bool:  # noqa: ARG002
        """A server is; clients prove themselves to it."""
        return True

    def name(self) -> str:
        """What people read."""
        host, port = self.addr or (None, None)
        return f"Server@{host}:{port}"

    def handle_close(self) -> None:
        """End now, whatever runs. From any thread."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._close()

    close = handle_close

    def handle_error(self) -> None:
        """Called while the error that ended the server is handled; raises it again."""
        raise

    # -- one transaction after the other ---------------------------------------------------

    def _next(self) -> dict[str, Any] | None:
        """Wait for the next transaction; None when there is to be no other."""
        manager = self.taskmanager
        with self._wake:
            while not self._closing:
                if manager.state == TaskManager.FINISHED:
                    return None
                if manager.deque:
                    said = manager.deque.popleft()
                    if said is self._assigned:
                        self._assigned = None
                    self._current = said["datasource"]
                    return manager.complete(said)
                ran = self._number > 0
                if ran and manager.defaults["cycle"] == TaskManager.SINGLEUSE:
                    manager.state = TaskManager.FINISHED
                    return None
                self._wake.wait(LOOK_SECONDS)
        return None

    def _run(self, transaction: dict[str, Any]) -> None:
        """Run one; a permanent server survives what is wrong with it."""
        manager = self.taskmanager
        self._number += 1
        txn = transaction["txn"] or str(self._number)
        permanent = transaction["cycle"] == TaskManager.PERMANENT
        try:
            results = self._computed(transaction)
            manager.state = TaskManager.FINISHING
            self._deliver(txn, results)
        except Exception as error:
            if self._closing:
                return
            manager.state = TaskManager.IDLE
            if not permanent:
                raise
            log.warning("%s goes on after a transaction that failed: %s", self.name(), error)
            self.output.append((txn, error))
        else:
            manager.state = TaskManager.IDLE if permanent else TaskManager.FINISHED

    def _computed(self, transaction: dict[str, Any]) -> dict[Any, Any]:
        """The results of one transaction, all functions but ``resultfn`` applied."""
        peer = self._peer
        if peer is None:
            raise Misuse("the server is closed; run it again with run_server()")
        self.taskmanager.state = TaskManager.MAPPING
        mapfn, collectfn, reducefn = self.mapfn, self.collectfn, self.reducefn
        job = Job(
            readable(transaction["datasource"]), mapfn, collectfn=collectfn, reducefn=reducefn
        )
        if transaction["allocation"] == TaskManager.ONESHOT:
            lists = oneshot.map_once(peer, job, lambda: self._closing)
            self.taskmanager.state = TaskManager.REDUCING
            results = lists
            if reducefn is not None:
                results = self._submitted(peer, Job(lists, reducefn=reducefn))
        else:
            results = self._submitted(peer, job)
        return results if self.finishfn is None else finished(self.finishfn, results)

    def _submitted(self, peer: Peer, job: Job) -> dict[Any, Any]:
        """The results of a job, its datasource read by this thread meanwhile."""
        source = Source(job)
        functions = job.functions
        submitted = peer.submit(
            Job(
                source,
                travelling(functions.mapfn),
                collectfn=travelling(functions.collectfn),
                reducefn=travelling(functions.reducefn),
            )
        )
        try:
            source.serve(submitted)
        finally:
            submitted.cancel()  # if that was Ctrl-C
        return submitted.result()

    def _deliver(self, txn: Any, results: dict[Any, Any]) -> None:
        self._results = results
        if check_resultfn(self.resultfn):
            self.resultfn(txn, results)
        else:
            self.resultfn(results)  # type: ignore[call-arg]

    # -- checking what was set ---------------------------------------------------------------

    def _set(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            if name in SETTINGS or hasattr(self, name):
                if value is not None:
                    setattr(self, name, value)
            elif meant := difflib.get_close_matches(name, SETTINGS, 1, CLOSE_MATCH):
                raise Misuse(f"a Server has no {name!r}; did you mean {meant[0]!r}?")
            else:
                log.debug("%s does not use %s", self.name(), name)

    def _check(self, asynchronous: bool) -> None:
        """Raise ``Misuse`` for what is missing or misspelt, which the original waited for."""
        self._check_spelling()
        if self.mapfn is None and self.reducefn is None:
            raise Misuse("this Server has neither mapfn nor reducefn: set at least one of them")
        for name in ("cycle", "allocation"):
            if getattr(self, name) is not None:
                self.taskmanager.defaults[name] = getattr(self, name)
        defaults = self.taskmanager.complete({})
        self.taskmanager.state = TaskManager.IDLE
        self._number = 0
        if not self.taskmanager.deque and self.datasource is not None:
            self.taskmanager.deque.append({"datasource": self.datasource})  # once more
        waits = asynchronous or defaults["cycle"] == TaskManager.PERMANENT
        if not waits and not self.taskmanager.deque:
            raise Misuse("this Server has no datasource: set its attribute datasource, to a dict")
        for transaction in self.taskmanager.deque:
            transaction["datasource"] = readable(transaction["datasource"])
            functions = {"collectfn": self.collectfn, "reducefn": self.reducefn}
            Job(transaction["datasource"], self.mapfn, **functions)

    def _check_spelling(self) -> None:
        known = ("datasource", *FUNCTIONS)
        for name, value in vars(self).items():
            if name.startswith("_") or name in (*_OWN, *SETTINGS):
                continue
            for meant in difflib.get_close_matches(name, known, 1, CLOSE_MATCH):
                if getattr(self, meant) is None and (callable(value) or meant == "datasource"):
                    raise Misuse(
                        f"this Server has a {name!r} and no {meant!r}; did you mean {meant!r}?"
                    )

    # -- the peer ----------------------------------------------------------------------------

    def _open(self, interface: str, port: int) -> None:
        self._closing = False
        self.addr = (interface, port)
        warn_if_weak(self.password, local=bool(interface) and is_local(interface))
        common = {
            "password": self.password,
            "weak_password": True,
            "port": port,
            "port_span": 1,
            "slots": 0,
            "name": f"{SERVER_NAME}{socket.gethostname()}-{os.getpid()}.{id(self):x}",
        }
        try:
            listening = self._listening(interface, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            self._peer = self._guest(interface, common)
            if self._peer is None:
                raise in_use(port) from error
            return
        try:
            peer = Peer((), listen=listening, **common)
        except CannotJoin as error:  # somebody took the port this moment
            raise in_use(port) from error
        if not peer.serving:
            peer.close()
            raise in_use(port)
        self._peer = peer

    def _listening(self, interface: str, port: int) -> tuple[str, ...]:
        """The addresses to serve at. Raises ``OSError`` if the port is not to be had there."""
        try:
            hosts = listen_hosts((interface,) if interface else ())
        except Misuse as error:
            raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
        check_port_is_free(hosts, port)
        return hosts

    def _guest(self, interface: str, common: dict[str, Any]) -> Peer | None:
        """A peer in the grid of ``Peer`` that holds the port; None if something else does."""
        hosts = () if is_local(interface) else (interface,)
        try:
            peer = Peer(hosts, serves=False, join_timeout=VISIT_SECONDS, **common)
        except GridError as error:
            log.debug("the holder of the port is no grid of ours: %s", error)
            return None
        if peer.server.startswith(SERVER_NAME):
            peer.close()
            return None
        return peer

    def _close(self) -> None:
        """Send the clients away and free the port. May be repeated; the first closes."""
        with self._ending:
            peer, self._peer = self._peer, None
            if peer is None:
                return
            try:
                if peer.serving:
                    _dismiss(peer)
            finally:
                peer.close()


def _dismiss(peer: Peer) -> None:
    """Have the clients leave, and wait until they have, for a moment."""
    asked: set[str] = set()
    deadline = time.monotonic() + LEAVE_SECONDS
    while time.monotonic() < deadline:
        try:
            members = peer.status(LEAVE_SECONDS).members
        except (TimeoutError, GridError):
            return
        clients = {member.peer for member in members if member.visitor and member.slots}
        if not clients:
            return
        for client in clients - asked:
            peer.ask_drain(client, LEAVE_SECONDS)
        asked |= clients
        time.sleep(0.02)
