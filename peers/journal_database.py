"""The database of a journal: opened, written to, its parts signed, its errors told.

SQLite with a write-ahead log, synced whenever something was written (``synchronous=FULL``). One
process uses one connection, guarded by a lock, so its methods may be called from any thread; the
peers of a host share the file. Whatever is wrong with it raises ``NotKept``, which names the file
and says what to do. Does not know what is in the tables.
"""

import ctypes
import fcntl
import hashlib
import hmac
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grid.errors import Misuse, NotKept
from peers.private_folders import unlock

FORMAT = 1
"""Of the tables; a journal of another format is left alone."""

BUSY_SECONDS = 30.0
"""How long another peer of this host may write: chunks take milliseconds, a slow disk longer."""

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    record TEXT PRIMARY KEY, state TEXT NOT NULL, touched REAL NOT NULL,
    entry BLOB NOT NULL, head BLOB NOT NULL, entry_sign BLOB NOT NULL,
    ending BLOB, ending_sign BLOB);
CREATE TABLE IF NOT EXISTS items (
    record TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
    data BLOB NOT NULL, sign BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS items_by_first ON items (record, first);
CREATE TABLE IF NOT EXISTS keepers (
    record TEXT NOT NULL, peer TEXT NOT NULL, PRIMARY KEY (record, peer)) WITHOUT ROWID;
"""


class Database:
    """One connection to the file ``path``. ``door`` is a folder whose lock is held while the tables
    are made; ``pages_max`` bounds the file. Raises ``NotKept``."""

    def __init__(self, path: Path, key: bytes, door: Path, pages_max: int = 0) -> None:
        self.path = path
        self._key = key
        self._guard = threading.RLock()
        with told(path):
            self._connection = self._opened(door, pages_max)

    def _opened(self, door: Path, pages_max: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        opening = os.open(door, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(opening, fcntl.LOCK_EX)  # two that make it at once would refuse each other
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                raise NotKept(f"{self.path} is of another version ({found}) than this program's")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            if pages_max:
                connection.execute(f"PRAGMA max_page_count = {pages_max}")
        except BaseException:
            connection.close()
            raise
        finally:
            unlock(opening)
        return connection

    def close(self) -> None:
        with self._guard:
            self._connection.close()

    def abandon(self) -> None:
        """In a forked child: never touch the database again, not even when the interpreter ends.
        SQLite would close it by descriptors whose numbers belong to something else by then."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with told(self.path), self._guard:
            yield self._connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the database, on disk when it is over."""
        with told(self.path), self._guard:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    # -- signs ---------------------------------------------------------------------------

    def sign(self, *parts: bytes) -> bytes:
        """A signature that only who has the grid's key can make."""
        sign = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            sign.update(b"%d:" % len(part))
            sign.update(part)
        return sign.digest()

    def check(self, record: str, sign: bytes, *parts: bytes) -> None:
        """Raise ``NotKept`` unless this is the signature of these parts."""
        if not hmac.compare_digest(sign, self.sign(*parts)):
            raise self.damaged(record, "it was changed, or is of another key")

    def damaged(self, record: str, what: str) -> NotKept:
        return NotKept(f"entry {record} in {self.path} cannot be used: {what}")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Say what is wrong with a journal's database or with files beside it, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise NotKept(f"{path}: {error}. {_advice(error)}") from error
    except Misuse as error:
        raise NotKept(f"{path.parent}: {error}, or GRID_JOURNAL") from error
    except OSError as error:
        raise NotKept(
            f"{error.filename or path.parent}: {error.strerror}. Free some space or give "
            "access there, or set GRID_JOURNAL to another folder"
        ) from error


def _advice(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        text = str(error)
        if "full" in text:
            return "Free some space there, or set GRID_JOURNAL to a folder on another disk"
        if "locked" in text:
            return "Another process holds it: is one of this grid's peers stopped?"
        return "Check that you may write there, or set GRID_JOURNAL to another folder"
    return "It is damaged: move it away to begin a new one; what it kept is kept by other peers"
