"""The parts that act, and the one public door: ``from peers import Peer, Job, Files``.

Names are imported when they are first used (PEP 562), so that worker processes, which need few of
them, start quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grid.errors import (
        BadJob,
        BadKey,
        CannotJoin,
        DeadlineExceeded,
        GridError,
        Misuse,
        ModuleMissing,
        NameConflict,
        NoResult,
        NotKept,
        NotPicklable,
        PeerClosed,
        Refused,
        TaskError,
        TransactionCancelled,
        TransactionFailed,
        WorkerLost,
        WrongKey,
    )
    from grid.job import Job
    from peers.asynchronous import as_completed
    from peers.engines.choice import run
    from peers.files import Files, Lines
    from peers.peer import Peer, PeerStatus
    from peers.transaction import Progress, Transaction

__all__ = [
    "Files",
    "Job",
    "Lines",
    "Peer",
    "PeerStatus",
    "Progress",
    "Transaction",
    "as_completed",
    "run",
    "BadJob",
    "BadKey",
    "CannotJoin",
    "DeadlineExceeded",
    "GridError",
    "Misuse",
    "ModuleMissing",
    "NameConflict",
    "NoResult",
    "NotKept",
    "NotPicklable",
    "PeerClosed",
    "Refused",
    "TaskError",
    "TransactionCancelled",
    "TransactionFailed",
    "WorkerLost",
    "WrongKey",
]

_HOMES = {
    "Job": "grid.job",
    "Files": "peers.files",
    "Lines": "peers.files",
    "Peer": "peers.peer",
    "PeerStatus": "peers.peer",
    "Progress": "peers.transaction",
    "Transaction": "peers.transaction",
    "as_completed": "peers.asynchronous",
    "run": "peers.engines.choice",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'peers' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "grid.errors")), name)


def __dir__() -> list[str]:
    return __all__
