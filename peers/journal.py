"""The journal: detached transactions on disk, for whoever lives next on this host.

::

    <root>/<tag>/journal.db   SQLite: entries, their items in chunks, who keeps which, their ends
    <root>/<tag>/results/     the segments of results, named as in any peer's spool
    <root>/<tag>/keepers/     a file a peer, on which it holds a lock for as long as it lives

One journal for all peers of one user, grid and host. What becomes of an entry, and when, is decided
in ``grid/keeping.py``; here it is done. Whoever keeps an entry is written beside it; the entries of
peers whose lock is free are taken over by the next that looks (``look``). One that is damaged is
set aside, where a person may look at it.

Times here are of the clock on the wall, and only here: nothing else says how long ago something
was before this boot.

Promises: what a method has written is on disk when it returns (``journal_database``; results
are synced before their entry says that there are any). Every entry, chunk and end is signed with a
key made from the grid's, so nothing foreign is ever handed out to be opened; a result is read
against its digest before it is announced. What cannot be read or written raises ``NotKept``, which
names the file and says what to do; one damaged entry harms no other. Methods may be called from
any thread. Does not open keys, values or code.
"""

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, msgpack

from grid import keeping
from grid.errors import NotKept
from grid.keeping import Entry, EntryState, Row
from grid.messages import Remembered
from peers.journal_database import Database, told
from peers.journal_locks import KeeperLocks
from peers.journal_results import ResultFiles
from peers.private_folders import make_private
from peers.wall_clock import time_of_day

log = logging.getLogger(__name__)

ITEM_BYTES_MAX = 2**29
"""SQLite's own limit for one value is a billion bytes."""

RESULTS = "results"


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
        self._peer = peer
        self._results = ResultFiles(folder / RESULTS, peer)
        keepers = folder / "keepers"
        with told(self.path):
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for private in (folder, self._results.folder, keepers):
                make_private(private)
            self._locks = KeeperLocks(keepers, peer)
            try:
                self._database = Database(self.path, key, keepers, pages_max)
            except BaseException:
                self._locks.let_go()
                raise

    def close(self) -> None:
        """Let go of everything kept; another peer of this host may take it over."""
        self._database.close()
        self._locks.let_go()

    def abandon(self) -> None:
        """In a forked child: what is open here is the parent's."""
        self._database.abandon()

    # -- taking in -----------------------------------------------------------------------

    def begin(self, entry: Entry, head: bytes) -> bool:
        """Begin an entry, and keep it. Tell whether it is whole already: kept by another peer of
        this host. Then this one keeps it too only when it is told to see it through (``complete``),
        or both could be gone and nobody take it over."""
        record = entry.meta.record
        with self._database.writing() as database:
            arrived = keeping.arrival(_state(database, record))
            if arrived == "anew":
                self._delete(database, record)
                self._insert(database, entry, "arriving", head)
            if arrived != "whole":
                self._keep(database, record)
        return arrived == "whole"

    def _insert(
        self, database: sqlite3.Connection, entry: Entry, state: EntryState, head: bytes
    ) -> None:
        encoded = msgpack.encode(entry)
        sign = self._database.sign(b"entry", encoded, head)
        database.execute(
            "INSERT INTO entries (record, state, touched, entry, head, entry_sign)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (entry.meta.record, state, time_of_day(), encoded, head, sign),
        )

    def add_items(self, record: str, first: int, count: int, data: bytes) -> None:
        """Write one chunk, an encoded list of ``Item``."""
        sign = self._database.sign(b"items", record.encode(), b"%d" % first, b"%d" % count, data)
        with self._database.writing() as database:
            if not keeping.takes_items(_state(database, record)):
                raise NotKept(f"{self.path} does not await items of {record}")
            database.execute(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                (record, first, count, data, sign),
            )

    def complete(self, record: str) -> Entry | Remembered:
        """All items have been written: from now on the entry is this peer's to see through. Where
        another peer of this host had it, it may even have ended."""
        with self._database.writing() as database:
            state = _state(database, record)
            if state == "ended":
                self._keep(database, record)
                return self._ending(database, record).remembered
            entry, _ = self._entry(database, record)
            there = _count_items(database, record)
            if lacks := keeping.wanting(state, entry.meta.items, there):
                raise NotKept(f"{self.path} cannot keep {record}: {lacks}")
            database.execute("UPDATE entries SET state = 'open' WHERE record = ?", (record,))
            self._keep(database, record)
        return entry

    def discard(self, record: str) -> None:
        """Forget an entry that will not become whole."""
        with self._database.writing() as database:
            database.execute(
                "DELETE FROM keepers WHERE record = ? AND peer = ?", (record, self._peer)
            )
            if keeping.discards(_state(database, record)):
                self._delete(database, record)

    # -- giving out ----------------------------------------------------------------------

    def entry(self, record: str) -> tuple[Entry, bytes]:
        """Return an entry and its head."""
        with self._database.reading() as database:
            return self._entry(database, record)

    def head(self, record: str) -> bytes:
        """Return the head of an entry."""
        return self.entry(record)[1]

    def chunk(self, record: str, first: int) -> bytes:
        """Return the chunk that begins with item ``first``, as it was given to ``add_items``."""
        query = "SELECT count, data, sign FROM items WHERE record = ? AND first = ?"
        with self._database.reading() as database:
            row = database.execute(query, (record, first)).fetchone()
            if row is None:
                raise self._database.damaged(record, f"no chunk begins with item {first}")
            count, data, sign = row
            self._read_chunk(record, first, count, data, sign)
        return bytes(data)

    def items(self, record: str, start: int, stop: int) -> list[Item]:
        """Return items ``start..stop`` of an entry."""
        found: list[Item] = []
        query = (
            "SELECT first, count, data, sign FROM items WHERE record = ? AND first < ?"
            " AND first + count > ? ORDER BY first"
        )
        with self._database.reading() as database:
            for first, count, data, sign in database.execute(query, (record, stop, start)):
                chunk = self._read_chunk(record, first, count, data, sign)
                found += chunk[max(0, start - first) : stop - first]
        if len(found) != stop - start:
            raise self._database.damaged(record, f"items {start} to {stop} are not all there")
        return found

    def _read_chunk(
        self, record: str, first: int, count: int, data: bytes, sign: bytes
    ) -> list[Item]:
        signed = (b"items", record.encode(), b"%d" % first, b"%d" % count, data)
        self._database.check(record, sign, *signed)
        items = _items_decoder.decode(data)
        if len(items) != count:
            raise self._database.damaged(record, f"a chunk has {len(items)} items, not {count}")
        return items

    def _entry(self, database: sqlite3.Connection, record: str) -> tuple[Entry, bytes]:
        query = "SELECT entry, head, entry_sign FROM entries WHERE record = ?"
        row = database.execute(query, (record,)).fetchone()
        if row is None:
            raise NotKept(f"{self.path} has no entry {record}")
        encoded, head, sign = row
        self._database.check(record, sign, b"entry", encoded, head)
        entry = msgpack.decode(encoded, type=Entry)
        if entry.meta.record != record or entry.meta.keeping is None:
            raise self._database.damaged(record, "it is another one")
        return entry, head

    # -- ends ----------------------------------------------------------------------------

    def finish(self, remembered: Remembered, segments: Sequence[Path]) -> Remembered:
        """Put the end of a transaction on disk, with its result; return it with its time.

        ``segments`` are the files of its holdings, in their order. Items go: they are not needed
        again. An entry that has ended keeps its first end; where there is none, or a damaged one,
        or one that never became whole, as with an end that is kept in the place of a peer that is
        gone, there is one now.
        """
        record = remembered.meta.record
        with told(self.path):
            digests = self._results.save(remembered.holdings, segments)
        remembered, since = keeping.ended_at(remembered, time_of_day())
        encoded = msgpack.encode(_Ending(remembered, digests))
        sign = self._database.sign(b"ending", encoded)
        with self._database.writing() as database:
            state = _state(database, record)
            if keeping.takes_end(state):
                if keeping.ends_anew(state):
                    _forget(database, record)
                    self._insert(database, Entry(remembered.meta), "ended", b"")
                self._keep(database, record)
                database.execute(
                    "UPDATE entries SET state = 'ended', ending = ?, ending_sign = ?, touched = ?"
                    " WHERE record = ?",
                    (encoded, sign, since, record),
                )
                database.execute("DELETE FROM items WHERE record = ?", (record,))
            return self._ending(database, record).remembered

    def _ending(self, database: sqlite3.Connection, record: str) -> _Ending:
        query = "SELECT ending, ending_sign FROM entries WHERE record = ?"
        row = database.execute(query, (record,)).fetchone()
        if row is None or row[0] is None:
            raise NotKept(f"{self.path} has no end of {record}")
        self._database.check(record, row[1], b"ending", row[0])
        ending = msgpack.decode(row[0], type=_Ending)
        if ending.remembered.meta.record != record:
            raise self._database.damaged(record, "it has the end of another one")
        return ending

    # -- whose it is ---------------------------------------------------------------------

    def look(self) -> tuple[list[Entry], list[Remembered]]:
        """Note that what this peer keeps is alive, and take over what no living peer of this host
        keeps; return what is open of that, and the ends.

        What is over is removed, what is damaged set aside and told in the log.
        """
        with self._database.writing() as database:
            self._touch(database)
            rows = self._rows(database)
            found = keeping.survey(rows, time_of_day())
            for record in found.over:
                self._delete(database, record)
            for record in found.unkept:
                self._keep(database, record)
        for record in found.unended:
            log.warning("removed detached %s: not kept alive for its time", record)
        states = {row.record: row.state for row in rows}
        return self._read_whole([(record, states[record]) for record in found.unkept])

    def _rows(self, database: sqlite3.Connection) -> list[Row]:
        """Forget the keepers that are gone; return what there is."""
        living = self._locks.living()
        for (peer,) in database.execute("SELECT DISTINCT peer FROM keepers").fetchall():
            if peer not in living:
                database.execute("DELETE FROM keepers WHERE peer = ?", (peer,))
        query = (
            "SELECT record, state, touched, entry, record IN (SELECT record FROM keepers)"
            " FROM entries ORDER BY rowid"
        )
        return [
            Row(record, state, touched, _seconds_kept(encoded), bool(kept))
            for record, state, touched, encoded, kept in database.execute(query)
        ]

    def _read_whole(
        self, rows: Sequence[tuple[str, EntryState]]
    ) -> tuple[list[Entry], list[Remembered]]:
        opened: list[Entry] = []
        ended: list[Remembered] = []
        for record, state in rows:
            try:
                if state == "open":
                    opened.append(self._whole_entry(record))
                else:
                    ended.append(self._whole_ending(record))
            except (NotKept, msgspec.MsgspecError) as error:
                self.set_aside(record, str(error))
        return opened, ended

    def _whole_entry(self, record: str) -> Entry:
        """Return an open entry of which everything can be read."""
        with self._database.reading() as database:
            entry, _ = self._entry(database, record)
            if _count_items(database, record) != entry.meta.items:
                raise self._database.damaged(record, "some of its items are not there")
            query = "SELECT first, count, data, sign FROM items WHERE record = ?"
            for first, count, data, sign in database.execute(query, (record,)):
                self._read_chunk(record, first, count, data, sign)
        return entry

    def _whole_ending(self, record: str) -> Remembered:
        """Return an end of which all segments can be read, with the time that is left of it."""
        with self._database.reading() as database:
            ending = self._ending(database, record)
            query = "SELECT touched FROM entries WHERE record = ?"
            (touched,) = database.execute(query, (record,)).fetchone()
        if wrong := self._results.changed(ending.remembered.holdings, ending.digests):
            raise self._database.damaged(record, wrong)
        return keeping.still_kept(ending.remembered, touched, time_of_day())

    def set_aside(self, record: str, reason: str) -> None:
        """Keep a damaged entry out of the way, and say so."""
        log.warning(
            "detached %s is damaged and was set aside; other peers that keep it go on with it, if "
            "there are any, else submit it again: %s",
            record,
            reason,
        )
        with self._database.writing() as database:
            database.execute("UPDATE entries SET state = 'aside' WHERE record = ?", (record,))
            database.execute("DELETE FROM keepers WHERE record = ?", (record,))

    def any_open(self) -> bool:
        """Whether some entry waits for its end."""
        with self._database.reading() as database:
            query = "SELECT 1 FROM entries WHERE state = 'open' LIMIT 1"
            return database.execute(query).fetchone() is not None

    def _touch(self, database: sqlite3.Connection) -> None:
        """Note that what this peer keeps is alive."""
        database.execute(
            "UPDATE entries SET touched = ? WHERE state = 'open' AND record IN"
            " (SELECT record FROM keepers WHERE peer = ?)",
            (time_of_day(), self._peer),
        )

    def _keep(self, database: sqlite3.Connection, record: str) -> None:
        database.execute("INSERT OR IGNORE INTO keepers VALUES (?, ?)", (record, self._peer))
        database.execute(
            "UPDATE entries SET touched = ? WHERE record = ? AND state = 'open'",
            (time_of_day(), record),
        )

    def _delete(self, database: sqlite3.Connection, record: str) -> None:
        _forget(database, record)
        self._results.remove(record)


def _forget(database: sqlite3.Connection, record: str) -> None:
    for table in ("entries", "items", "keepers"):
        database.execute(f"DELETE FROM {table} WHERE record = ?", (record,))  # noqa: S608


def _state(database: sqlite3.Connection, record: str) -> EntryState:
    query = "SELECT state FROM entries WHERE record = ?"
    row = database.execute(query, (record,)).fetchone()
    state: EntryState = row[0] if row is not None else ""
    return state


def _count_items(database: sqlite3.Connection, record: str) -> int:
    query = "SELECT first, count FROM items WHERE record = ? ORDER BY first"
    reached = 0
    for first, count in database.execute(query, (record,)):
        if first != reached:
            break
        reached += count
    return reached


def _seconds_kept(encoded: bytes) -> float | None:
    """How long the end of an entry is kept; None where that cannot be read, which is told when the
    entry is."""
    try:
        found = msgpack.decode(encoded, type=Entry).meta.keeping
    except msgspec.MsgspecError:
        return None
    return found.seconds if found is not None else None


def in_use(folder: Path) -> bool:
    """Whether there is a journal in ``folder``: one is made when it is first needed."""
    return (folder / "journal.db").exists()


def encode_items(items: list[Item]) -> bytes:
    """Return a chunk, as ``add_items`` takes it."""
    return msgpack.encode(items)


def count_items(chunk: bytes) -> int:
    """How many items are in a chunk. Raises ``NotKept`` where it is none."""
    try:
        return len(_items_decoder.decode(chunk))
    except msgspec.MsgspecError as error:
        raise NotKept(f"a chunk of items makes no sense: {error}") from error
