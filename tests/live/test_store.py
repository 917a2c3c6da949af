"""Folders of segments among the peers of one host: locks, adoption, sweeping, leaving."""

import errno
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from grid.errors import Misuse
from grid.messages import Kind, Output
from peers import store as store_module
from peers.private_folders import try_lock
from peers.segment import SegmentCorrupt, SegmentMissing, SegmentSlice, read_partitions
from peers.segment_writer import SegmentWriter
from peers.store import SpoolBusy, Store, default_root

T = TypeVar("T")
RECORD = "a" * 40
PARTITIONS = 8
TOP = Path(__file__).parents[2]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


_numbers = itertools.count(1)


def new_output(store: Store, record: str, kind: Kind) -> Output:
    """Name an output of this store's peer."""
    return Output(record, kind, 0, 4, store.folder.name, next(_numbers))


def fill(store: Store, record: str = RECORD, partition: int = 1, data: bytes = b"abc") -> Output:
    output = new_output(store, record, "map")
    with SegmentWriter(store.folder, output, PARTITIONS) as writer:
        writer.add(partition, data)
        writer.seal((2,))
    return output


def fetched(store: Store, output: Output, source: Path, first: int, stop: int) -> Path:
    """Have a store take what another holder gave."""
    incoming = store.incoming(output)
    incoming.write_bytes(b"".join(SegmentSlice(source, first, stop).pieces(10)))
    return store.take(output, incoming)


def wait_for(query: Callable[[], T], seconds: float = 60.0) -> T:
    """Ask until the answer is not empty; return it."""
    deadline = time.monotonic() + seconds
    while not (answer := query()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
    return answer


@contextmanager
def peer_process(spool: Path, peer: str, then: str = "sys.stdin.read()") -> Iterator[int]:
    """Another process with an open store that holds one segment; yields its pid."""
    script = (
        "import sys\n"
        "from grid.messages import Output\n"
        "from peers.store import Store\n"
        "from peers.segment_writer import SegmentWriter\n"
        f"store = Store({str(spool)!r}, 'tag', {peer!r})\n"
        f"output = Output({RECORD!r}, 'map', 0, 4, {peer!r}, 1)\n"
        f"writer = SegmentWriter(store.folder, output, {PARTITIONS})\n"
        "writer.add(1, b'abc'); writer.seal((2,))\n"
        f"print('ready', flush=True)\n{then}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


# ------------------------------------------------------------------ segments


def test_outputs_are_numbered_found_and_dropped(spool: Path) -> None:
    store = Store(spool, "tag", "me")
    first, second, other = fill(store), fill(store), fill(store, record="b" * 40)
    assert len({first, second, other}) == 3
    path = store.path_of(first)
    assert path is not None
    assert path.parent == store.folder
    assert [held.record for held in store.holdings()] == [RECORD, "b" * 40]
    assert store.holdings()[0].sizes == (0, 6, 0, 0, 0, 0, 0, 0)
    assert store.holdings()[0].holdings[0].skipped == (2,)
    assert store.drop_output(first) == 1
    assert store.path_of(first) is None
    assert store.path_of(second) is not None
    assert store.drop(RECORD) == 1
    assert [held.record for held in store.holdings()] == ["b" * 40]
    store.leave()
    assert not spool.exists() or not list(spool.iterdir())


def test_drop_takes_only_the_kinds_named(spool: Path) -> None:
    store = Store(spool, "tag", "me")
    mapped = fill(store)
    reduced = new_output(store, RECORD, "reduce")
    with SegmentWriter(store.folder, reduced, PARTITIONS) as writer:
        writer.seal()
    store.drop(RECORD, ["map"])
    assert store.path_of(mapped) is None
    assert store.path_of(reduced) is not None
    store.leave()


def test_slices_are_saved_but_are_no_holdings(spool: Path) -> None:
    here, there = Store(spool, "tag", "here"), Store(spool, "other-tag", "there")
    output = fill(there, partition=3)
    source = there.path_of(output)
    assert source is not None
    part = fetched(here, output, source, 2, 4)
    assert read_partitions(part, 0, PARTITIONS) == [(3, [b"abc"])]
    assert here.path_of(output) is None
    assert here.holdings() == []
    here.discard([part])
    assert not part.exists()
    part = fetched(here, output, source, 2, 4)
    here.drop(RECORD)
    assert not part.exists()
    whole = fetched(here, output, source, 0, PARTITIONS)
    assert here.path_of(output) == whole
    with pytest.raises(SegmentCorrupt, match="was asked for"):
        fetched(here, fill(there), source, 0, PARTITIONS)
    here.leave()
    there.leave()


def test_link_keeps_a_copy_that_outlives_the_original(spool: Path) -> None:
    owner, holder = Store(spool, "tag", "owner"), Store(spool, "tag", "holder")
    output = fill(holder)
    source = owner.path_in("holder", output)
    assert source is not None
    copy = owner.link(output, source)
    assert owner.link(output, source) == copy  # a second time is fine
    holder.drop_output(output)
    assert read_partitions(copy, 0, PARTITIONS) == [(1, [b"abc"])]
    assert owner.holdings()[0].holdings[0].output == output
    with pytest.raises(SegmentMissing):
        owner.link(fill(holder), source)
    with pytest.raises(SegmentCorrupt):
        owner.link(fill(holder), copy)
    owner.leave()
    holder.leave()


def test_path_in_never_leaves_the_spool(spool: Path) -> None:
    store = Store(spool, "tag", "me")
    output = fill(store)
    assert store.path_in("../tag/me", output) == store.path_of(output)  # found by looking, only
    assert store.path_in("..", fill(store, record="../x")) is not None
    assert store.path_in("nobody", Output("x", "map", 0, 1, "nobody", 1)) is None
    store.leave()


# ------------------------------------------------------------------ adoption


def test_a_dead_peers_estate_is_adopted_once(spool: Path) -> None:
    first, second = Store(spool, "tag", "first"), Store(spool, "tag", "second")
    with peer_process(spool, "victim") as pid:
        assert first.adopt() == []  # it lives
        os.kill(pid, signal.SIGKILL)
        ((peer, held),) = wait_for(first.adopt)
    assert first.adopt() == second.adopt() == []
    assert peer == "victim"
    assert held == first.holdings()
    output = first.holdings()[0].holdings[0].output
    assert output.producer == "victim"
    path = first.path_of(output)
    assert path is not None
    assert path.parent == spool / "tag" / "victim"
    assert second.path_in("victim", output) == path
    first.leave()  # left for the other, not removed
    assert [peer for peer, _ in second.adopt()] == ["victim"]
    second.leave()
    assert not (spool / "tag").exists()


def test_damaged_and_unfinished_files_are_not_adopted(spool: Path) -> None:
    survivor, dead = Store(spool, "tag", "survivor"), Store(spool, "tag", "dead")
    good, bad, renamed = fill(dead), fill(dead), fill(dead)
    damaged, moved = dead.path_of(bad), dead.path_of(renamed)
    assert damaged is not None
    assert moved is not None
    damaged.write_bytes(damaged.read_bytes()[:-1])
    moved.rename(moved.with_name("0123-map-0-1-456-9.seg"))
    (dead.folder / "half.tmp").write_bytes(b"half")
    _abandon_locks(dead)
    ((peer, held),) = survivor.adopt()
    assert peer == "dead"
    assert [holding.output for holding in held[0].holdings] == [good]
    assert len(list(dead.folder.iterdir())) == 2  # the good one and the lock
    survivor.leave()


def test_an_empty_estate_is_reported_and_removed(spool: Path) -> None:
    survivor, dead = Store(spool, "tag", "survivor"), Store(spool, "tag", "dead")
    _abandon_locks(dead)
    assert survivor.adopt() == [("dead", [])]
    assert not dead.folder.exists()
    survivor.leave()


def test_an_estate_that_cannot_be_read_now_is_left_to_a_later_look(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survivor, dead = Store(spool, "tag", "survivor"), Store(spool, "tag", "dead")
    fill(dead)
    _abandon_locks(dead)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_held", _raise(OSError(errno.EIO, "input/output error")))
        assert survivor.adopt() == []
    ((peer, held),) = survivor.adopt()
    assert (peer, len(held)) == ("dead", 1)
    survivor.leave()


def test_a_file_system_without_locks_costs_no_descriptors(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survivor, dead = Store(spool, "tag", "survivor"), Store(spool, "tag", "dead")
    _abandon_locks(dead)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", _raise(OSError(errno.ENOLCK, "no locks available")))
        assert try_lock(dead.folder) is None
        with pytest.raises(OSError, match="no locks"):
            survivor.adopt()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    survivor.leave()


def _raise(error: Exception) -> Callable[..., None]:
    def raising(*_: object) -> None:
        raise error

    return raising


def test_a_frozen_peer_is_not_adopted(spool: Path) -> None:
    store = Store(spool, "tag", "me")
    with peer_process(spool, "frozen") as pid:
        os.kill(pid, signal.SIGSTOP)
        assert store.adopt() == []
        assert store.sweep() == 0
        os.kill(pid, signal.SIGCONT)
    store.leave()
    assert (spool / "tag").exists() is False


def test_another_process_has_the_same_id(spool: Path) -> None:
    store = Store(spool, "tag", "me")
    with pytest.raises(Misuse, match="already uses"):
        Store(spool, "tag", "me")
    store.leave()


def test_a_forked_child_that_closes_the_locks_does_not_keep_them(spool: Path) -> None:
    survivor = Store(spool, "tag", "survivor")
    script = (
        "import os; pid = os.fork()\n"
        "if pid == 0:\n"
        "    [os.close(fd) for fd in store.filenos()]\n"
        "    sys.stdin.read(); os._exit(0)\n"
        "print(pid, flush=True); os._exit(0)\n"
    )
    with peer_process(spool, "parent", then=script):
        assert [peer for peer, _ in wait_for(survivor.adopt)] == ["parent"]
    survivor.leave()


# ------------------------------------------------------------------ sweeping and leaving


def test_sweep_removes_what_nobody_can_claim(spool: Path) -> None:
    dead = Store(spool, "tag", "dead")
    fill(dead)
    _abandon_locks(dead)
    store = Store(spool, "tag", "me")
    assert store.sweep() == 1
    assert not dead.folder.exists()
    store.leave()


def test_sweep_spares_the_dead_while_others_live(spool: Path) -> None:
    dead, living = Store(spool, "tag", "dead"), Store(spool, "tag", "living")
    fill(dead)
    _abandon_locks(dead)
    store = Store(spool, "tag", "me")
    assert store.sweep() == 0
    assert dead.folder.exists()
    living.leave()
    store.leave()  # the last one: takes the dead one's folder with it
    assert not spool.joinpath("tag").exists()


def test_leaving_keeps_segments_for_the_living(spool: Path) -> None:
    leaver, other = Store(spool, "tag", "leaver"), Store(spool, "tag", "other")
    output = fill(leaver)
    leaver.leave()
    leaver.leave()
    assert leaver.folder.exists()
    ((peer, _),) = other.adopt()
    assert peer == "leaver"
    assert other.path_of(output) is not None
    other.leave()
    assert not spool.joinpath("tag").exists()


def test_many_leavers_at_once_leave_nothing(spool: Path) -> None:
    """Opening and leaving race in every order; the last one clears, whoever that is."""
    failures: list[BaseException] = []

    def come_and_go(number: int) -> None:
        try:
            for round_ in range(10):
                store = Store(spool, "tag", f"peer-{number}-{round_}")
                fill(store)
                store.adopt()
                store.leave()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert list(spool.iterdir()) == []


def test_the_default_root_is_this_users_and_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRID_SPOOL", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert default_root() == tmp_path / f"peergrid-{os.geteuid()}"
    store = Store(None, "tag", "me")
    assert default_root().stat().st_mode & 0o777 == 0o700
    store.leave()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("GRID_SPOOL", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"


# ------------------------------------------------------------------ who may not


def test_strange_names_and_links_are_refused(tmp_path: Path, spool: Path) -> None:
    for tag, peer in (("..", "me"), ("tag", "a/b"), ("tag", ""), (".lock", "me")):
        with pytest.raises(Misuse, match="cannot name a folder"):
            Store(spool, tag, peer)
    spool.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (spool / "tag").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misuse, match="not a folder of this user"):
        Store(spool, "tag", "me")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_unusable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="GRID_SPOOL"):
        Store(tmp_path / "file", "tag", "me")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_folders_of_others_are_refused(spool: Path) -> None:
    spool.mkdir()
    os.chown(spool, 12345, -1)
    with pytest.raises(Misuse, match="belongs to user 12345"):
        Store(spool, "tag", "me")
    os.chown(spool, 0, -1)
    (spool / "tag").mkdir()
    os.chown(spool / "tag", 12345, -1)
    with pytest.raises(Misuse, match="not a folder of this user"):
        Store(spool, "tag", "me")


def test_a_stopped_holder_of_the_lock_is_named(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_TAG_LOCK_SECONDS", 0.05)
    store = Store(spool, "tag", "me")
    with store._tag_locked():
        with pytest.raises(SpoolBusy, match="is it stopped"):
            Store(spool, "tag", "other")
        store.leave()  # does not hang either
    Store(spool, "tag", "last").leave()
    assert not spool.joinpath("tag").exists()


def _abandon_locks(store: Store) -> None:
    """What the kernel does when a process dies."""
    for fd in store.filenos():
        os.close(fd)
