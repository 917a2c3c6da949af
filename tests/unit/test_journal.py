"""The journal of detached transactions: what is on disk, whose it is, and what is wrong with it."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from grid.errors import NotKept
from grid.keeping import Entry
from grid.messages import Failure, Holding, Keeping, Output, RecordMeta, Remembered
from peers.journal import Item, Journal, encode_items
from peers.segment import segment_name

KEY = b"k" * 32
WEEK = 7 * 86400.0

Open = Callable[..., Journal]


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Open]:
    """Opens journals of one folder, and closes them."""
    opened: list[Journal] = []

    def begin(peer: str = "a", key: bytes = KEY, pages_max: int = 0) -> Journal:
        journal = Journal(tmp_path / "root" / "tag", peer, key, pages_max=pages_max)
        opened.append(journal)
        return journal

    yield begin
    for journal in opened:
        journal.close()


def entry(record: str = "r", items: int = 5, seconds: float = WEEK) -> Entry:
    meta = RecordMeta(record, "mapreduce", items, 8, False, keeping=Keeping(seconds, 1000.0))
    return Entry(meta, 0.0)


def items(first: int, stop: int) -> list[Item]:
    return [Item(f"key {n}", b"pair %d" % n) for n in range(first, stop)]


def fill(journal: Journal, record: str = "r", seconds: float = WEEK) -> Entry:
    """Write an entry of five items in two chunks."""
    made = entry(record, 5, seconds)
    assert not journal.begin(made, b"head")
    journal.add_items(record, 0, 3, encode_items(items(0, 3)))
    journal.add_items(record, 3, 2, encode_items(items(3, 5)))
    assert journal.complete(record) == made
    return made


def ending(record: str = "r", *holdings: Holding, seconds: float = WEEK) -> Remembered:
    return Remembered("", {}, entry(record, 5, seconds).meta, holdings, seconds)


def result(folder: Path, record: str = "r") -> tuple[Holding, Path]:
    """A file that stands for the segment of a result."""
    output = Output(record, "reduce", 0, 8, "a", 1)
    path = folder / segment_name(output)
    path.write_bytes(b"the result")
    return Holding(output, 10), path


def damage(journal: Journal, statement: str) -> None:
    with sqlite3.connect(journal.path) as database:
        database.execute(statement)
    database.close()


def pass_seconds(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the clock on the wall jump."""
    then = time.time() + seconds
    monkeypatch.setattr("peers.wall_clock.time.time", lambda: then)


def test_what_was_written_is_there_for_the_next_process(opening: Open) -> None:
    first = opening("a")
    made = fill(first)
    assert first.items("r", 1, 4) == items(1, 4), "across chunks"
    assert first.items("r", 4, 5) == items(4, 5)
    first.close()
    second = opening("b")
    assert second.any_open()
    assert second.look() == ([made], [])
    assert second.head("r") == b"head"
    assert second.items("r", 0, 5) == items(0, 5)


def test_an_entry_that_did_not_become_whole_is_nobodys(opening: Open) -> None:
    journal = opening("a")
    journal.begin(entry(), b"head")
    journal.add_items("r", 0, 3, encode_items(items(0, 3)))
    with pytest.raises(NotKept, match="only 3 of 5"):
        journal.complete("r")
    journal.close()
    second = opening("b")
    assert second.look() == ([], [])
    assert not second.any_open()
    second.begin(entry(), b"head")
    second.discard("r")
    with pytest.raises(NotKept, match="no entry"):
        second.head("r")


def test_what_is_whole_takes_no_more_items(opening: Open) -> None:
    journal = opening("a")
    fill(journal)
    with pytest.raises(NotKept, match="does not await items"):
        journal.add_items("r", 0, 3, encode_items(items(3, 6)))
    with pytest.raises(NotKept, match="does not await items"):
        journal.add_items("unknown", 0, 3, encode_items(items(0, 3)))
    assert journal.items("r", 0, 5) == items(0, 5)


def test_only_the_entries_of_the_dead_are_taken_over(opening: Open) -> None:
    living, other = opening("a"), opening("b")
    made = fill(living)
    assert other.look() == ([], [])
    living.close()
    third = opening("c")
    taken = [journal.look()[0] for journal in (other, third)]
    assert taken == [[made], []], "by one of them"


def test_locks_that_the_dead_have_left_are_removed(opening: Open) -> None:
    journal = opening("a")
    left = journal.folder / "keepers" / "dead.lock"
    left.touch()
    living = opening("b")
    journal.look()
    assert not left.exists()
    fill(living)
    assert journal.look() == ([], [])


def test_a_second_keeper_of_the_host_needs_only_join(opening: Open) -> None:
    first, second = opening("a"), opening("b")
    made = fill(first)
    assert second.begin(made, b"head"), "it is whole already"
    assert second.complete("r") == made
    first.close()
    third = opening("c")
    assert third.look() == ([], []), "the second keeps it still"
    kept = second.finish(ending(), [])
    assert third.begin(made, b"head")
    assert third.complete("r") == kept, "one that comes late keeps the end"


def test_who_was_never_told_to_see_it_through_keeps_nobody_from_that(opening: Open) -> None:
    """The submitter went before it could tell the second keeper of a host; then the first goes."""
    first, second = opening("a"), opening("b")
    made = fill(first)
    assert second.begin(made, b"head")
    first.close()
    assert opening("c").look() == ([made], [])


def test_the_end_is_kept_with_its_result_and_without_its_items(
    opening: Open, tmp_path: Path
) -> None:
    journal = opening("a")
    fill(journal)
    holding, path = result(tmp_path)
    kept = journal.finish(ending("r", holding), [path])
    assert kept.ended > 0
    path.unlink()
    again = journal.finish(structs.replace(ending(), failure=Failure("died", "late")), [])
    assert again == kept, "the first end counts"
    journal.close()
    opened, ended = opening("b").look()
    assert opened == []
    (found,) = ended
    assert found.holdings == (holding,)
    assert 0 < found.seconds_left <= WEEK
    assert (journal.folder / "results" / path.name).read_bytes() == b"the result"
    with pytest.raises(NotKept, match="items 0 to 1"):
        opening("c").items("r", 0, 1)


def test_what_is_over_is_gone(
    opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An end after its time; and an open entry that nobody kept alive for that time."""
    journal = opening("a")
    fill(journal, "ended", seconds=60.0)
    fill(journal, "open", seconds=60.0)
    fill(journal, "long", seconds=6000.0)
    holding, path = result(tmp_path, "ended")
    journal.finish(ending("ended", holding, seconds=60.0), [path])
    journal.close()
    pass_seconds(monkeypatch, 100.0)
    opened, ended = opening("b").look()
    assert [found.meta.record for found in opened] == ["long"]
    assert ended == []
    assert list((journal.folder / "results").iterdir()) == []
    assert "removed detached open" in caplog.text


def test_a_job_that_lives_is_not_over(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opening("a")
    made = fill(journal, seconds=60.0)
    pass_seconds(monkeypatch, 50.0)
    assert journal.look() == ([], []), "it is kept already"
    pass_seconds(monkeypatch, 50.0)
    journal.close()
    assert opening("b").look() == ([made], [])


def test_nobody_removes_what_a_living_peer_keeps(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper may be late to look after it, however short the time of its end is."""
    journal = opening("a")
    fill(journal, seconds=60.0)
    pass_seconds(monkeypatch, 100.0)
    assert opening("b").look() == ([], [])
    assert journal.items("r", 0, 5) == items(0, 5)


def test_a_copy_is_given_as_it_was_taken(opening: Open) -> None:
    journal = opening("a")
    made = fill(journal)
    assert journal.entry("r") == (made, b"head")
    assert journal.chunk("r", 3) == encode_items(items(3, 5))
    with pytest.raises(NotKept, match="no chunk begins with item 1"):
        journal.chunk("r", 1)


def test_an_end_is_kept_where_there_was_no_entry(
    opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of another host, whose clock may be wrong: what is left of its time counts."""
    journal = opening("a")
    holding, path = result(tmp_path)
    copied = structs.replace(ending("r", holding, seconds=60.0), seconds_left=20.0, ended=5.0)
    assert journal.finish(copied, [path]) == copied
    journal.close()
    second = opening("b")
    opened, (found,) = second.look()
    assert opened == []
    assert (found.holdings, found.ended) == ((holding,), 5.0)
    assert 0 < found.seconds_left <= 20
    second.close()
    pass_seconds(monkeypatch, 30.0)
    assert opening("c").look() == ([], [])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET head = x'00' WHERE record = 'bad'",
        "UPDATE entries SET entry = x'00' WHERE record = 'bad'",
        "UPDATE items SET data = x'00' WHERE record = 'bad' AND first = 3",
        "DELETE FROM items WHERE record = 'bad' AND first = 3",
        "UPDATE entries SET entry = (SELECT entry FROM entries WHERE record = 'good'),"
        " entry_sign = (SELECT entry_sign FROM entries WHERE record = 'good'),"
        " head = (SELECT head FROM entries WHERE record = 'good') WHERE record = 'bad'",
    ],
)
def test_a_damaged_entry_is_set_aside_and_told_and_others_go_on(
    opening: Open, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opening("a")
    good = fill(journal, "good")
    fill(journal, "bad")
    journal.close()
    damage(journal, statement)
    assert opening("b").look() == ([good], [])
    assert "bad is damaged and was set aside" in caplog.text
    assert str(journal.path) in caplog.text


def test_a_changed_result_is_never_announced(
    opening: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opening("a")
    fill(journal)
    holding, path = result(tmp_path)
    journal.finish(ending("r", holding), [path])
    journal.close()
    kept = journal.folder / "results" / path.name
    path.unlink()
    kept.write_bytes(b"something else")
    assert opening("b").look() == ([], [])
    assert f"{kept} was changed" in caplog.text


def test_an_end_takes_the_place_of_a_damaged_entry(
    opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opening("a")
    fill(journal, seconds=60.0)
    journal.close()
    damage(journal, "UPDATE entries SET entry = x'00'")
    second = opening("b")
    assert second.look() == ([], [])
    holding, path = result(tmp_path)
    second.finish(ending("r", holding, seconds=60.0), [path])
    second.close()
    third = opening("c")
    assert [end.holdings for end in third.look()[1]] == [(holding,)]
    third.close()
    pass_seconds(monkeypatch, 100.0)
    assert opening("d").look() == ([], []), "its time is over"
    assert list((journal.folder / "results").iterdir()) == []


def test_an_end_takes_the_place_of_what_the_dead_left_damaged_and_not_whole(
    opening: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads what still arrives, so nobody has set it aside."""
    journal = opening("a")
    journal.begin(entry("r", 5, 60.0), b"head")
    journal.add_items("r", 0, 3, encode_items(items(0, 3)))
    journal.close()
    damage(journal, "UPDATE entries SET entry = x'00'")
    second = opening("b")
    assert second.look() == ([], [])
    holding, path = result(tmp_path)
    second.finish(ending("r", holding, seconds=60.0), [path])
    assert second.entry("r") == (Entry(ending("r", seconds=60.0).meta), b"")
    second.close()
    pass_seconds(monkeypatch, 100.0)
    assert opening("c").look() == ([], []), "its time is over"
    assert list((journal.folder / "results").iterdir()) == []


def test_what_another_key_has_signed_is_not_handed_out(opening: Open) -> None:
    stranger = opening("a", key=b"x" * 32)
    fill(stranger)
    journal = opening("b")
    with pytest.raises(NotKept, match="changed, or is of another key"):
        journal.items("r", 0, 1)
    with pytest.raises(NotKept, match="changed, or is of another key"):
        journal.head("r")


def test_a_full_disk_is_one_clear_error_and_loses_nothing(opening: Open) -> None:
    journal = opening("a", pages_max=40)
    made = fill(journal, "first")
    journal.begin(entry("second", 100), b"head")
    with pytest.raises(NotKept, match=r"journal\.db: .*full.*GRID_JOURNAL"):
        journal.add_items("second", 0, 100, encode_items([Item("k", os.urandom(10_000))] * 100))
    journal.discard("second")
    assert journal.items("first", 0, 5) == items(0, 5)
    journal.close()
    assert opening("b").look() == ([made], [])


def test_a_file_that_is_no_journal_is_one_clear_error(opening: Open, tmp_path: Path) -> None:
    journal = opening("a")
    journal.close()
    journal.path.write_bytes(b"not a database" * 1000)
    with pytest.raises(NotKept, match=r"journal\.db: .*not a database.*move it away"):
        opening("b")
    assert list((journal.folder / "keepers").iterdir()) == [], "nor is a lock left"


def test_a_journal_of_another_version_is_left_alone(opening: Open) -> None:
    journal = opening("a")
    fill(journal)
    journal.close()
    damage(journal, "PRAGMA user_version = 99")
    with pytest.raises(NotKept, match="another version"):
        opening("b")


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tag").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotKept, match="GRID_JOURNAL"):
        Journal(tmp_path / "tag", "a", KEY)


def test_many_write_at_once(opening: Open) -> None:
    """Peers of one host, each with threads: nothing is lost, nothing is locked out."""
    several = [opening(name) for name in "abc"]
    failed: list[BaseException] = []

    def write(journal: Journal, number: int) -> None:
        try:
            for turn in range(5):
                fill(journal, f"{number}-{turn}")
                journal.look()
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=write, args=(journal, number))
        for number, journal in enumerate(several * 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for journal in several:
        journal.close()
    assert len(opening("z").look()[0]) == 30


def test_who_opens_a_new_journal_at_the_same_moment_shares_it(tmp_path: Path) -> None:
    failed: list[BaseException] = []
    together = threading.Barrier(8)

    def begin(peer: str) -> None:
        together.wait()
        try:
            Journal(tmp_path / "tag", peer, KEY).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=begin, args=(f"p{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
