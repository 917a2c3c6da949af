"""``TaskManager``: how a server goes from one transaction to the next, in the original's words.

A server has one. Programs read its constants, set its ``defaults``, and ask for its ``state``; the
tasks themselves are the grid's affair.
"""

from collections import deque
from typing import Any, ClassVar

from grid.errors import Misuse
from grid.suggest import did_you_mean


class TaskManager:
    """The datasources that wait in ``deque``, and how each is to be run.

    ``allocation`` is ``CONTINUOUS`` (all clients work until all is done) or ``ONESHOT`` (each
    client gets at most one item, and the rest is left out). After a transaction whose ``cycle`` is
    ``SINGLEUSE`` the server closes; after a ``PERMANENT`` one it takes the next, and waits for it
    if that is its default too.
    """

    IDLE, START, MAPPING, REDUCING, FINISHING, FINISHED = range(6)
    CONTINUOUS, ONESHOT = range(2)
    SINGLEUSE, PERMANENT = range(2)

    statename: ClassVar[dict[int, str]] = {
        IDLE: "Idle",
        START: "Starting",
        MAPPING: "Mapping",
        REDUCING: "Reducing",
        FINISHING: "Finishing",
        FINISHED: "Finished",
    }

    def __init__(self) -> None:
        self.state = self.IDLE
        self.deque: deque[dict[str, Any]] = deque()
        self.defaults: dict[str, Any] = {
            "datasource": None,
            "txn": None,
            "allocation": self.CONTINUOUS,
            "cycle": self.SINGLEUSE,
            "retransmit": 5,
        }

    def complete(self, transaction: dict[str, Any]) -> dict[str, Any]:
        """Return the transaction with defaults for what it does not say. Raises ``Misuse``."""
        for name in transaction:
            if name not in self.defaults:
                hint = did_you_mean(name, list(self.defaults))
                raise Misuse(f"a transaction has no setting {name!r}{hint}")
        said = {name: value for name, value in transaction.items() if value is not None}
        whole = {**self.defaults, **said}
        for name, choice in (
            ("allocation", "TaskManager.CONTINUOUS or TaskManager.ONESHOT"),
            ("cycle", "TaskManager.SINGLEUSE or TaskManager.PERMANENT"),
        ):
            if whole[name] not in (0, 1):
                raise Misuse(f"{name}={whole[name]!r} is neither of {choice}")
        return whole
