"""Programs written for mincemeat, unchanged: ``from peers import mincemeat``.

``Server`` and ``Client`` have the attributes, methods and answers that these programs expect; what
carries them is the grid. A ``Server`` is a peer without slots that serves on the port and owns the
transaction, a ``Client`` a peer of one slot that never serves. ``python -m peers.mincemeat`` runs
a client. A program that says ``import mincemeat`` needs one file beside it, ``mincemeat.py``, with
one line: ``from peers.mincemeat import *``.

Promises: results are a plain dict, equal to what the original gave; an exception in a function, a
missing or misspelt attribute is an error, where the original hung.

Does not speak the original's protocol: all processes of a program use this package. What is the
same, what is better and how to move on to ``Peer`` is in ``docs/mincemeat.md``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers.mincemeat.client import Client
    from peers.mincemeat.command import run_client
    from peers.mincemeat.daemons import Client_daemon, Mincemeat_daemon, Server_daemon
    from peers.mincemeat.server import Server
    from peers.mincemeat.task_manager import TaskManager

DEFAULT_PORT = 11235
VERSION = "0.1"
"""Of the interface, as programs know it."""

__all__ = [
    "DEFAULT_PORT",
    "VERSION",
    "Client",
    "Client_daemon",
    "Mincemeat_daemon",
    "Server",
    "Server_daemon",
    "TaskManager",
    "run_client",
]

_HOMES = {
    "Client": "client",
    "Client_daemon": "daemons",
    "Mincemeat_daemon": "daemons",
    "Server": "server",
    "Server_daemon": "daemons",
    "TaskManager": "task_manager",
    "run_client": "command",
}
"""In which module each name lives: imported when it is first used, since workers need none."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
