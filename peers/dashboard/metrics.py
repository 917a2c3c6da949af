"""The same numbers for Prometheus, in its text format.

Labels are roles, states, phases and kinds of loss: few, and the same few for ever. Names of peers,
transactions and items are none, since every new one would be a new series.
"""

from collections import Counter
from collections.abc import Iterable

from peers.dashboard.view import busy_slots
from peers.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ROLES = ("serves", "standby", "visitor")
STATES = ("running", "finished", "retained", "failed", "cancelled", "gone")

Samples = Iterable[tuple[str, float]]


def metrics(seen: Snapshot | None, silent_seconds: float) -> str:
    """Return all metrics; with no snapshot only that no server answers."""
    text = _Text()
    text.gauge("up", "1 if a server of the grid answers.", float(seen is not None))
    text.gauge("last_answer_age_seconds", "How long ago a server last answered.", silent_seconds)
    if seen is not None:
        _grid(text, seen)
        _peers(text, seen)
        _transactions(text, seen)
    return text.whole()


class _Text:
    """Metrics, as lines."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, help_text: str, value: float) -> None:
        """Add a metric without a label."""
        self.gauges(name, help_text, [("", value)])

    def gauges(self, name: str, help_text: str, samples: Samples) -> None:
        """Add a metric; each sample with its label, as ``key="value"``."""
        name = f"peergrid_{name}"
        self._lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        for label, value in samples:
            labels = f"{{{label}}}" if label else ""
            self._lines.append(f"{name}{labels} {value:.15g}")

    def whole(self) -> str:
        return "\n".join((*self._lines, ""))


def _grid(text: _Text, seen: Snapshot) -> None:
    text.gauge("term", "Term of the server: grows with each failover.", seen.term)
    text.gauge("quorum_lacking", "Peers that must join before work is given.", seen.lacking)
    latest = {failover.how: failover for failover in seen.failovers}
    text.gauges(
        "failover_server_seconds",
        "The latest failover of each kind: until the next server.",
        [(f'how="{how}"', failover.server_seconds) for how, failover in latest.items()],
    )
    text.gauges(
        "failover_task_seconds",
        "The latest failover of each kind: until the first task.",
        [
            (f'how="{how}"', failover.task_seconds)
            for how, failover in latest.items()
            if failover.task_seconds is not None
        ],
    )


def _peers(text: _Text, seen: Snapshot) -> None:
    peers = seen.peers
    roles: Counter[str] = Counter(peer.role for peer in peers)
    text.gauges("peers", "Peers by role.", [(f'role="{role}"', roles[role]) for role in ROLES])
    text.gauge("peers_leaving", "Peers that leave.", sum(peer.leaving for peer in peers))
    text.gauge("slots", "Tasks that can run at once.", seen.slots)
    text.gauge("slots_busy", "Slots that run a task.", sum(busy_slots(peer) for peer in peers))
    text.gauge("held_bytes", "Outputs that peers keep.", sum(peer.holds for peer in peers))
    memory = sum(peer.memory or 0 for peer in peers)
    text.gauge("memory_bytes", "Memory of all processes of all peers, as far as heard.", memory)


def _transactions(text: _Text, seen: Snapshot) -> None:
    states = Counter(txn.state for txn in seen.transactions)
    text.gauges(
        "transactions",
        "Transactions by state: those that the server has, and the latest that ended.",
        [(f'state="{state}"', states[state]) for state in STATES],
    )
    running = [txn for txn in seen.transactions if txn.state == "running"]
    text.gauge("tasks_running", "Tasks given.", sum(txn.tasks_running for txn in running))
    for name, what in (("done", "Done"), ("total", "To do in all")):
        items = sum(getattr(txn, f"items_{name}") for txn in running)
        partitions = sum(getattr(txn, f"partitions_{name}") for txn in running)
        text.gauges(
            f"running_{name}",
            f"{what}, of running transactions: items to map, partitions to reduce.",
            [('phase="map"', items), ('phase="reduce"', partitions)],
        )
