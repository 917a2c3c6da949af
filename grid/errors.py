"""Every error of the grid, in one tree.

::

    GridError
    ├── Misuse                  the caller's mistake: raised at the call, nothing was changed
    │   ├── BadJob              a Job that cannot be run as written (also a TypeError)
    │   ├── NotPicklable        a function, key, value or result that cannot travel
    │   ├── NameConflict        another job already runs under this transaction name
    │   ├── BadKey              the grid's key or password is missing, weak or unreadable
    │   └── PeerClosed          the peer was closed before or during the call
    ├── CannotJoin              no grid could be joined and none could be served
    │   ├── WrongKey            the holder of the port has another key
    │   └── Refused             the holder of the port refuses us: other grid, protocol or Python
    ├── NotKept                 a detached submission, or its end, cannot be put on disk
    ├── NoResult                no finished result of that name is kept
    ├── TransactionFailed       the job ended without a result; carries a ``Failure``
    │   ├── TaskError           the user's function raised: remote traceback, function, key, peer
    │   ├── WorkerLost          workers died on the same item too often
    │   ├── ModuleMissing       no peer can import a module the job needs
    │   ├── DeadlineExceeded    the transaction's own deadline passed
    │   └── TransactionCancelled  withdrawn (also a concurrent.futures.CancelledError)
    ├── ProtocolError           the remote broke the protocol: becomes an event, that link is closed
    └── Bug                     our own mistake: carries the recent story, stops that peer only

Every one survives pickling: the constructor takes exactly what ``args`` holds.
A message says what happened, where, and what to do next.
"""

from concurrent.futures import CancelledError


class GridError(Exception):
    """Anything the grid raises on its own behalf."""


class Misuse(GridError):
    """The caller's mistake; nothing was changed by the call."""


class BadJob(Misuse, TypeError):
    """A job that cannot be run as written."""


class NotPicklable(Misuse):
    """Something that has to travel between processes does not pickle."""


class NameConflict(Misuse):
    """A transaction of this name runs a different job."""


class BadKey(Misuse):
    """The grid's key or password is missing, too weak here, or cannot be read."""


class PeerClosed(Misuse):
    """The peer was closed before or during the call."""


class CannotJoin(GridError):
    """No grid could be joined and none could be served."""


class WrongKey(CannotJoin):
    """The holder of the well-known port has another key."""


class Refused(CannotJoin):
    """The holder of the well-known port refuses this process, and says why."""


class NotKept(GridError):
    """What has to outlive every process cannot be put on disk, or read from there. Names the file
    and says what to do."""


class NoResult(GridError):
    """No finished result of that name is kept: it never was, or not yet, or not any more."""


class TransactionFailed(GridError):
    """The transaction ended without a result.

    ``function``, ``key`` and ``peer`` are the names of the user function, the ``repr`` of the
    item's key and the peer it ran on, each empty where it does not apply; ``traceback`` is the
    remote traceback as text.
    """

    def __init__(
        self, message: str, function: str = "", key: str = "", peer: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message, function, key, peer, traceback)
        self.function = function
        self.key = key
        self.peer = peer
        self.traceback = traceback

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\n\n{self.traceback.rstrip()}" if self.traceback else message


class TaskError(TransactionFailed):
    """A user function raised. The original exception, if it pickles, is the ``__cause__``."""


class WorkerLost(TransactionFailed):
    """Worker processes died on the same item too often."""


class ModuleMissing(TransactionFailed):
    """No peer of the grid can import a module that the job needs."""


class DeadlineExceeded(TransactionFailed, TimeoutError):
    """The transaction's ``deadline_seconds`` passed before it finished."""


class TransactionCancelled(TransactionFailed, CancelledError):
    """The transaction was withdrawn by its owner, or by another with ``all=True``."""


class ProtocolError(GridError):
    """The remote sent something the protocol does not allow."""


class Bug(GridError):
    """An invariant of the grid itself does not hold. Please report it with the text shown."""
