"""What the page shows, made of a ``Snapshot``: plain values, keyed so that changes are small.

Numbers that nobody would tell apart are rounded, so that a grid at rest sends nothing. What is long
and seldom looked at, tasks, prints and tracebacks, is made for one transaction when it is opened
(``details``). None of it is a key or value of an item, except where the text of a failure has them,
or where the user's code prints them.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

from grid.messages import Printed
from peers.cli.status import show_seconds
from peers.snapshot import FailoverSeen, FailureSeen, PeerSeen, Snapshot, TransactionSeen

State = dict[str, Any]

EVENTS_MAX = 50
LINE_MAX = 300


class View:
    """The state of one grid, with the story of its servers as far as it was seen."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, State]] = deque(maxlen=EVENTS_MAX)
        self._count = 0
        self._before: Snapshot | None = None
        self._since = 0.0

    def of(self, seen: Snapshot, now: float) -> State:
        """Return the state of a snapshot. ``now`` is the time of day."""
        self._note(seen, now)
        sought = seen.sought_seconds
        link: State = {"live": sought is None and bool(seen.server)}
        if sought is not None:
            # As it was first said: seconds that are told twice differ a little.
            self._since = self._since or round(now - sought, 1)
            link["since"] = self._since
        else:
            self._since = 0.0
        return {
            "link": link,
            "grid": {
                "server": seen.server,
                "address": seen.address,
                "term": seen.term,
                "lacking": seen.lacking,
                "warnings": list(seen.warnings),
            },
            "peers": {peer.id: _peer(peer) for peer in seen.peers},
            "transactions": {txn.record: _transaction(txn) for txn in seen.transactions},
            "failovers": {str(failover.term): _failover(failover) for failover in seen.failovers},
            "events": {str(number): event for number, event in self._events},
        }

    def _note(self, seen: Snapshot, now: float) -> None:
        """Write down what has happened between two snapshots."""
        before, self._before = self._before, seen
        if seen.sought_seconds is not None and (before is None or before.sought_seconds is None):
            lost = f"{seen.server} does not answer" if seen.server else "no server answers"
            self._event(now, "lost", f"{lost}; looking for a server")
        if before is None or (seen.server_id, seen.term) != (before.server_id, before.term):
            if seen.server:
                self._event(now, "serves", _serves(before, seen))
        elif before.sought_seconds is not None and seen.sought_seconds is None:
            self._event(now, "serves", f"{seen.server} answers again, term {seen.term}")
        if before is not None:
            self._note_peers(before, seen, now)

    def _note_peers(self, before: Snapshot, seen: Snapshot, now: float) -> None:
        """Who came and who left, visitors apart: they come and go all the time."""
        old = {peer.id: peer.name for peer in before.peers if peer.role != "visitor"}
        new = {peer.id: peer.name for peer in seen.peers if peer.role != "visitor"}
        if not before.server:
            return
        for verb, some, others in (("joined", new, old), ("left", old, new)):
            names = [name for peer, name in some.items() if peer not in others]
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                self._event(now, verb, f"{', '.join(names[:3])}{more} {verb}")

    def _event(self, now: float, kind: str, text: str) -> None:
        self._count += 1
        self._events.append((self._count, {"at": round(now, 1), "kind": kind, "text": text}))


def _serves(before: Snapshot | None, seen: Snapshot) -> str:
    """That another serves than before, if any did, and what it took."""
    if before is None or not before.server:
        return f"{seen.server} serves, term {seen.term}"
    took = next((f.server_seconds for f in seen.failovers if f.term == seen.term), None)
    after = "" if took is None else f", {show_seconds(took)} after {before.server} was lost"
    return f"{seen.server} serves now, term {seen.term}{after}"


def details(txn: TransactionSeen, prints: Iterable[Printed] = ()) -> State:
    """Return what is shown of a transaction that is opened."""
    peers = sorted({(task.peer, task.peer_id) for task in txn.tasks})
    places = {peer_id: place for place, (_, peer_id) in enumerate(peers)}
    tasks = [
        [t.kind, places[t.peer_id], t.slot, round(t.began, 3), round(t.ended, 3)] for t in txn.tasks
    ]
    shown: State = {"peers": [name for name, _ in peers], "tasks": tasks}
    if printed := [[one.peer, one.stream, one.text] for one in prints]:
        shown["prints"] = printed
    if txn.failure is not None:
        shown["failure"] = _failure(txn.failure)
    return shown


def busy_slots(peer: PeerSeen) -> int:
    """How many slots of a peer are busy: as it says itself, else as many as it has tasks for."""
    return min(peer.given, peer.slots) if peer.busy is None else peer.busy


def _peer(peer: PeerSeen) -> State:
    facts = {
        "name": peer.name,
        "host": peer.host,
        "role": peer.role,
        "slots": peer.slots,
        "busy": busy_slots(peer),
        "holds": peer.holds,
        "leaving": peer.leaving,
        "through": peer.through,
        "load": None if peer.load is None else round(peer.load, 1),
        "memory": None if peer.memory is None else round(_rough(peer.memory)),
        "received": peer.received,
        "sent": peer.sent,
    }
    return _known(facts)


def _transaction(txn: TransactionSeen) -> State:
    facts = {
        "name": txn.name,
        "state": txn.state,
        "owners": list(txn.owners),
        "items": [txn.items_done, txn.items_total],
        "partitions": [txn.partitions_done, txn.partitions_total],
        "running": txn.tasks_running,
        "ran": txn.tasks_done,
        "detached": txn.detached,
        "began": round(txn.began, 1),
        "ended": None if txn.ended is None else round(txn.ended, 1),
        "rate": None if txn.rate is None else _rough(txn.rate),
        "left": None if txn.eta_seconds is None else round(txn.eta_seconds),
        "why": None if txn.failure is None else _line(txn.failure),
    }
    return _known(facts)


def _failover(failover: FailoverSeen) -> State:
    facts = {
        "how": failover.how,
        "term": failover.term,
        "server": failover.server_seconds,
        "task": failover.task_seconds,
        "seen": failover.at,
    }
    return _known(facts)


def _line(failure: FailureSeen) -> str:
    """A failure in one line."""
    line = failure.message.strip().partition("\n")[0] or failure.kind
    return line if len(line) <= LINE_MAX else f"{line[:LINE_MAX]}…"


def _failure(failure: FailureSeen) -> State:
    """The message says which function and item it was."""
    return {"message": failure.message, "peer": failure.peer, "traceback": failure.traceback}


def _rough(number: float) -> float:
    """As exact as people read it."""
    return float(f"{number:.3g}")


def _known(facts: State) -> State:
    """Without what is not known: no None is in a state."""
    return {name: value for name, value in facts.items() if value is not None}
