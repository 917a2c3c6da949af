"""The journal: detached transactions on disk, for whoever lives next on this host.

::

    <root>/<tag>/journal.db   SQLite: entries, their items in chunks, who keeps which, their ends
    <root>/<tag>/results/     the segments of results, named as in any peer's spool
    <root>/<tag>/keepers/     a file a peer, on which it holds a lock for as long as it lives

One journal for all peers of one user, grid and host. An *entry* is ``arriving``, then ``open``
until its transaction has ended, then ``ended`` until its time is over; a damaged one is set
``aside``, where a person may look at it. Whoever keeps an entry is written beside it; the entries
of peers whose lock is free are taken over by the next that looks (``adopt``).

Times here are of the clock on the wall, and only here: nothing else says how long ago something
was before this boot.

Promises: what a method has written is on disk when it returns (WAL, ``synchronous=FULL``; results
are synced before their entry says that there are any). Every entry, chunk and end is signed with a
key made from the grid's, so nothing foreign is ever handed out to be opened; a result is read
against its digest before it is announced. What cannot be read or written raises ``NotKept``, which
names the file and says what to do; one damaged entry harms no other. Methods may be called from
any thread. Does not open keys, values or code.
"""

import ctypes
import fcntl
import hashlib
import hmac
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct, msgpack, structs

from grid.errors import Misuse, NotKept
from grid.messages import RecordMeta, Remembered
from peers.private_folders import LOCK, flock, make_private, unlock
from peers.segment import record_prefix, segment_name

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the tables; a journal of another format is left alone."""

BUSY_SECONDS = 30.0
"""How long another peer of this host may write: chunks take milliseconds, a slow disk longer."""

ARRIVING_SECONDS = 86400.0
"""An entry that did not become whole in this time never will."""

ITEM_BYTES_MAX = 2**29
"""SQLite's own limit for one value is a billion bytes."""

RESULTS = "results"

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

_COPY_BYTES = 1 << 20


def time_of_day() -> float:
    """Seconds since 1970. What outlives every process, and the boot of its host, has nothing else
    to count by; everything else here counts by a clock that never jumps."""
    return time.time()


class Entry(Struct, frozen=True, array_like=True):
    """A detached transaction as it was submitted. ``deadline`` is a time, or 0."""

    meta: RecordMeta
    deadline: float = 0.0


class Item(Struct, frozen=True, array_like=True):
    """One item of an entry: what people read of its key, and its pickled (key, value)."""

    key: str
    pair: bytes


class _Ending(Struct, frozen=True, array_like=True):
    remembered: Remembered
    digests: tuple[bytes, ...]


_items_decoder = msgpack.Decoder(list[Item])


class Journal:
    """The journal of one host, opened by one peer. Raises ``NotKept`` where that cannot be.

    ``folder`` is the grid's own (``<root>/<tag>``); ``pages_max`` bounds the database.
    """

    def __init__(self, folder: Path, peer: str, key: bytes, *, pages_max: int = 0) -> None:
        self.folder = folder
        self.path = folder / "journal.db"
        self.results = folder / RESULTS
        self._keepers = folder / "keepers"
        self._peer = peer
        self._key = key
        self._guard = threading.RLock()
        self._lock_fd = -1
        with self._told():
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for private in (folder, self.results, self._keepers):
                make_private(private)
            self._lock_fd = _lock_new(self._keepers / f"{peer}.{LOCK}")
            try:
                self._database = self._opened(pages_max)
            except BaseException:
                self._let_go()
                raise

    def close(self) -> None:
        """Let go of everything kept; another peer of this host may take it over."""
        with self._guard:
            self._database.close()
            self._let_go()

    def abandon(self) -> None:
        """In a forked child: never touch the database again, not even when the interpreter ends.
        SQLite would close it by descriptors whose numbers belong to something else by then."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._database))

    def _let_go(self) -> None:
        if self._lock_fd >= 0:
            (self._keepers / f"{self._peer}.{LOCK}").unlink(missing_ok=True)
            unlock(self._lock_fd)
            self._lock_fd = -1

    def _opened(self, pages_max: int) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        opening = os.open(self._keepers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(opening, fcntl.LOCK_EX)  # two that make it at once would refuse each other
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                raise NotKept(f"{self.path} is of another version ({found}) than this program's")
            database.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT")
            database.execute(f"PRAGMA user_version = {FORMAT}")
            if pages_max:
                database.execute(f"PRAGMA max_page_count = {pages_max}")
        except BaseException:
            database.close()
            raise
        finally:
            unlock(opening)
        return database

    # -- taking in -----------------------------------------------------------------------

    def begin(self, entry: Entry, head: bytes) -> bool:
        """Begin an entry, and keep it. Tell whether it is whole already: kept by another peer of
        this host, it needs to be kept by this one only in name."""
        record = entry.meta.record
        encoded = msgpack.encode(entry)
        with self._writing() as database:
            found = self._state(record)
            if found in ("", "aside"):
                self._delete(record)
                database.execute(
                    "INSERT INTO entries (record, state, touched, entry, head, entry_sign)"
                    " VALUES (?, 'arriving', ?, ?, ?, ?)",
                    (record, time_of_day(), encoded, head, self._sign(b"entry", encoded, head)),
                )
            self._keep(record)
        return found in ("open", "ended")

    def _state(self, record: str) -> str:
        query = "SELECT state FROM entries WHERE record = ?"
        row = self._database.execute(query, (record,)).fetchone()
        return str(row[0]) if row is not None else ""

    def add_items(self, record: str, first: int, count: int, data: bytes) -> None:
        """Write one chunk, an encoded list of ``Item``."""
        sign = self._sign(b"items", record.encode(), b"%d" % first, b"%d" % count, data)
        with self._writing() as database:
            if self._state(record) != "arriving":
                raise NotKept(f"{self.path} does not await items of {record}")
            database.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                (record, first, count, data, sign),
            )

    def complete(self, record: str) -> Entry | Remembered:
        """All items have been written: from now on the entry is this peer's to see through. Where
        another peer of this host had it, it may even have ended."""
        with self._writing() as database:
            if self._state(record) == "ended":
                return self._ending(record).remembered
            entry, _ = self._entry(record)
            there = self._count_items(record)
            if there != entry.meta.items:
                raise NotKept(f"only {there} of {entry.meta.items} items of {record} came")
            database.execute(
                "UPDATE entries SET state = 'open' WHERE record = ? AND state = 'arriving'",
                (record,),
            )
        return entry

    def _count_items(self, record: str) -> int:
        query = "SELECT first, count FROM items WHERE record = ? ORDER BY first"
        reached = 0
        for first, count in self._database.execute(query, (record,)):
            if first != reached:
                break
            reached += count
        return reached

    def discard(self, record: str) -> None:
        """Forget an entry that will not become whole."""
        with self._writing() as database:
            database.execute(
                "DELETE FROM keepers WHERE record = ? AND peer = ?", (record, self._peer)
            )
            if self._state(record) == "arriving":
                self._delete(record)

    # -- giving out ----------------------------------------------------------------------

    def head(self, record: str) -> bytes:
        """Return the head of an entry."""
        with self._told(), self._guard:
            return self._entry(record)[1]

    def items(self, record: str, start: int, stop: int) -> list[Item]:
        """Return items ``start..stop`` of an entry."""
        found: list[Item] = []
        query = (
            "SELECT first, count, data, sign FROM items WHERE record = ? AND first < ?"
            " AND first + count > ? ORDER BY first"
        )
        with self._told(), self._guard:
            for first, count, data, sign in self._database.execute(query, (record, stop, start)):
                chunk = self._chunk(record, first, count, data, sign)
                found += chunk[max(0, start - first) : stop - first]
        if len(found) != stop - start:
            raise self._damaged(record, f"items {start} to {stop} are not all there")
        return found

    def _chunk(self, record: str, first: int, count: int, data: bytes, sign: bytes) -> list[Item]:
        self._check(record, sign, b"items", record.encode(), b"%d" % first, b"%d" % count, data)
        items = _items_decoder.decode(data)
        if len(items) != count:
            raise self._damaged(record, f"a chunk has {len(items)} items, not {count}")
        return items

    def _entry(self, record: str) -> tuple[Entry, bytes]:
        query = "SELECT entry, head, entry_sign FROM entries WHERE record = ?"
        row = self._database.execute(query, (record,)).fetchone()
        if row is None:
            raise NotKept(f"{self.path} has no entry {record}")
        encoded, head, sign = row
        self._check(record, sign, b"entry", encoded, head)
        entry = msgpack.decode(encoded, type=Entry)
        if entry.meta.record != record or entry.meta.keeping is None:
            raise self._damaged(record, "it is another one")
        return entry, head

    # -- ends ----------------------------------------------------------------------------

    def finish(self, remembered: Remembered, segments: Sequence[Path]) -> Remembered:
        """Put the end of a transaction on disk, with its result; return it with its time.

        ``segments`` are the files of its holdings, in their order. Items go: they are not needed
        again. An entry that has ended keeps its first end.
        """
        record = remembered.meta.record
        with self._told():
            digests = tuple(
                self._save(source, segment_name(holding.output))
                for holding, source in zip(remembered.holdings, segments, strict=True)
            )
            if digests:
                _sync_folder(self.results)
        remembered = structs.replace(remembered, ended=time_of_day())
        encoded = msgpack.encode(_Ending(remembered, digests))
        with self._writing() as database:
            if self._state(record) != "ended":
                database.execute(
                    "UPDATE entries SET state = 'ended', ending = ?, ending_sign = ?, touched = ?"
                    " WHERE record = ?",
                    (encoded, self._sign(b"ending", encoded), remembered.ended, record),
                )
                database.execute("DELETE FROM items WHERE record = ?", (record,))
            return self._ending(record).remembered

    def _ending(self, record: str) -> _Ending:
        query = "SELECT ending, ending_sign FROM entries WHERE record = ?"
        row = self._database.execute(query, (record,)).fetchone()
        if row is None or row[0] is None:
            raise NotKept(f"{self.path} has no end of {record}")
        self._check(record, row[1], b"ending", row[0])
        ending = msgpack.decode(row[0], type=_Ending)
        if ending.remembered.meta.record != record:
            raise self._damaged(record, "it has the end of another one")
        return ending

    def _save(self, source: Path, name: str) -> bytes:
        """Put a segment among the results, whole and synced or not at all; return its digest."""
        path = self.results / name
        written = self.results / f"{name}.{self._peer}.tmp"
        written.unlink(missing_ok=True)
        try:
            os.link(source, written, follow_symlinks=False)
        except OSError:  # another disk, or a file system without links
            _copy(source, written)
        digest = _digest_synced(written)
        written.replace(path)
        return digest

    # -- whose it is ---------------------------------------------------------------------

    def adopt(self) -> tuple[list[Entry], list[Remembered]]:
        """Take over what no living peer of this host keeps; return what is open, and the ends.

        What is over is removed, what is damaged set aside and told in the log.
        """
        opened: list[Entry] = []
        ended: list[Remembered] = []
        with self._writing():
            self._expire()
            records = self._unkept()
            for record, _ in records:
                self._keep(record)
        for record, state in records:
            try:
                if state == "open":
                    opened.append(self._whole_entry(record))
                else:
                    ended.append(self._whole_ending(record))
            except (NotKept, msgspec.MsgspecError) as error:
                self.set_aside(record, str(error))
        return opened, ended

    def _unkept(self) -> list[tuple[str, str]]:
        """Forget the keepers that are gone; return the entries that have none."""
        database = self._database
        living = [path for path in self._keepers.iterdir() if self._is_mine(path) or _is_held(path)]
        names = [path.name for path in living]
        for (peer,) in database.execute("SELECT DISTINCT peer FROM keepers").fetchall():
            if f"{peer}.{LOCK}" not in names:
                database.execute("DELETE FROM keepers WHERE peer = ?", (peer,))
        return database.execute(
            "SELECT record, state FROM entries WHERE state IN ('open', 'ended')"
            " AND record NOT IN (SELECT record FROM keepers) ORDER BY rowid"
        ).fetchall()

    def _is_mine(self, path: Path) -> bool:
        return path.name == f"{self._peer}.{LOCK}"

    def _expire(self) -> None:
        """Remove what is over. An open entry that nobody has kept alive for as long as its end
        would be kept may have ended elsewhere, and been forgotten: it is not revived."""
        now = time_of_day()
        query = "SELECT record, state, touched, entry FROM entries WHERE state != 'aside'"
        for record, state, touched, encoded in self._database.execute(query).fetchall():
            try:
                keeping = msgpack.decode(encoded, type=Entry).meta.keeping
            except msgspec.MsgspecError:
                continue  # told when it is read
            if state == "arriving":
                over = now - touched > ARRIVING_SECONDS
            else:
                over = keeping is not None and now - touched > keeping.seconds
            if over:
                self._delete(record)
                if state == "open":
                    log.warning("removed detached %s: not kept alive for its time", record)

    def _whole_entry(self, record: str) -> Entry:
        """Return an open entry of which everything can be read."""
        with self._told(), self._guard:
            entry, _ = self._entry(record)
            if self._count_items(record) != entry.meta.items:
                raise self._damaged(record, "some of its items are not there")
            query = "SELECT first, count, data, sign FROM items WHERE record = ?"
            for first, count, data, sign in self._database.execute(query, (record,)):
                self._chunk(record, first, count, data, sign)
        return entry

    def _whole_ending(self, record: str) -> Remembered:
        """Return an end of which all segments can be read, with the time that is left of it."""
        with self._told(), self._guard:
            ending = self._ending(record)
        remembered = ending.remembered
        for holding, digest in zip(remembered.holdings, ending.digests, strict=True):
            path = self.results / segment_name(holding.output)
            try:
                found = _digest_synced(path)
            except OSError as error:
                raise self._damaged(record, f"{path}: {error.strerror}") from error
            if found != digest:
                raise self._damaged(record, f"{path} was changed")
        left = remembered.ended + remembered.seconds_left - time_of_day()
        return structs.replace(remembered, seconds_left=max(0.0, left))

    def set_aside(self, record: str, reason: str) -> None:
        """Keep a damaged entry out of the way, and say so."""
        log.warning(
            "detached %s is damaged and was set aside; other peers that keep it go on with it, if "
            "there are any, else submit it again: %s",
            record,
            reason,
        )
        with self._writing() as database:
            database.execute("UPDATE entries SET state = 'aside' WHERE record = ?", (record,))
            database.execute("DELETE FROM keepers WHERE record = ?", (record,))

    def touch(self) -> None:
        """Note that what this peer keeps is alive."""
        with self._writing() as database:
            database.execute(
                "UPDATE entries SET touched = ? WHERE state = 'open' AND record IN"
                " (SELECT record FROM keepers WHERE peer = ?)",
                (time_of_day(), self._peer),
            )

    def any_open(self) -> bool:
        """Whether some entry waits for its end."""
        with self._told(), self._guard:
            query = "SELECT 1 FROM entries WHERE state = 'open' LIMIT 1"
            return self._database.execute(query).fetchone() is not None

    def _keep(self, record: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO keepers VALUES (?, ?)", (record, self._peer))
        self._database.execute(
            "UPDATE entries SET touched = ? WHERE record = ? AND state = 'open'",
            (time_of_day(), record),
        )

    def _delete(self, record: str) -> None:
        for table in ("entries", "items", "keepers"):
            self._database.execute(f"DELETE FROM {table} WHERE record = ?", (record,))  # noqa: S608
        for path in self.results.glob(f"{record_prefix(record)}*"):
            path.unlink(missing_ok=True)

    # -- signs and errors ----------------------------------------------------------------

    def _sign(self, *parts: bytes) -> bytes:
        sign = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            sign.update(b"%d:" % len(part))
            sign.update(part)
        return sign.digest()

    def _check(self, record: str, sign: bytes, *parts: bytes) -> None:
        if not hmac.compare_digest(sign, self._sign(*parts)):
            raise self._damaged(record, "it was changed, or is of another key")

    def _damaged(self, record: str, what: str) -> NotKept:
        return NotKept(f"entry {record} in {self.path} cannot be used: {what}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the database, on disk when it is over."""
        with self._told(), self._guard:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what is wrong with the file, and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise NotKept(f"{self.path}: {error}. {_advice(error)}") from error
        except Misuse as error:
            raise NotKept(f"{self.folder}: {error}, or GRID_JOURNAL") from error
        except OSError as error:
            raise NotKept(
                f"{error.filename or self.folder}: {error.strerror}. Free some space or give "
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


def in_use(folder: Path) -> bool:
    """Whether there is a journal in ``folder``: one is made when it is first needed."""
    return (folder / "journal.db").exists()


def _lock_new(path: Path) -> int:
    """Make and lock this peer's own file. Another peer may take it for one that was left, and
    remove it, until it is locked."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if flock(fd) and path.exists() and os.path.samestat(path.stat(), os.fstat(fd)):
            return fd
        os.close(fd)


def _is_held(path: Path) -> bool:
    """Whether the peer whose file this is lives; the file of one that does not is removed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    if not flock(fd):
        os.close(fd)
        return True
    path.unlink(missing_ok=True)
    unlock(fd)
    return False


def _copy(source: Path, path: Path) -> None:
    with source.open("rb") as read, path.open("xb") as written:
        while piece := read.read(_COPY_BYTES):
            written.write(piece)


def _digest_synced(path: Path) -> bytes:
    """Sync a file and return the digest of its content."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        os.fsync(fd)
    return digest


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def encode_items(items: list[Item]) -> bytes:
    """Return a chunk, as ``add_items`` takes it."""
    return msgpack.encode(items)
