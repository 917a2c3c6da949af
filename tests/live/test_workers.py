"""Workers: real processes that run real tasks, and everything that can happen to them."""

import asyncio
import ctypes
import gc
import itertools
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from grid.functions import Functions
from grid.job import Job
from grid.mapreduce import assemble
from grid.messages import Kind, Output
from peers import worker_link
from peers.chunks import decode_pairs
from peers.files import Files
from peers.process_control import out_of_memory_kills
from peers.segment import read_header, read_partitions, segment_name
from peers.shipping import freeze
from peers.worker_channel import (
    CODES_KEPT,
    CallTask,
    Died,
    FinishTask,
    Limits,
    MapTask,
    NeedItems,
    PoolEvent,
    Printed,
    Raised,
    Recent,
    ReduceTask,
    Refused,
    Succeeded,
    Task,
)
from peers.worker_failures import describe_exit
from peers.worker_output import BURST_CHARACTERS, Budget, Forwarder, clean
from peers.worker_pool import Mode, WorkerPool
from peers.worker_tasks import as_call

TOP = Path(__file__).parents[2]
PARTITIONS = 8
WAIT_SECONDS = 30.0

both_modes = pytest.mark.parametrize("mode", ["process", "thread"])


class Rig:
    """A pool on a loop of its own, and the events it told."""

    def __init__(self, folder: Path, slots: int = 1, mode: Mode = "process", **limits: int) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.events: list[PoolEvent] = []
        self._news = asyncio.Event()
        self._attempts = 0
        self.pool = WorkerPool(
            slots, folder, self._on_event, mode=mode, name="alice", limits=Limits(**limits)
        )
        self.pool.start(self.loop)

    def _on_event(self, event: PoolEvent) -> None:
        self.events.append(event)
        self._news.set()

    def close(self) -> None:
        self.pool.close()
        self.loop.close()

    # -------------------------------------------------------------- tasks

    def output(self, kind: Kind, start: int, stop: int, record: str = "") -> Output:
        """Name an output, of a record of its own unless ``record`` says otherwise."""
        self._attempts += 1
        number = self._attempts
        return Output(record or f"record-{number}", kind, start, stop, "alice", number)

    def path(self, output: Output) -> Path:
        return self.folder / segment_name(output)

    def map_task(
        self, items: list[Any], start: int = 0, skip: bool = False, record: str = ""
    ) -> MapTask:
        output = self.output("map", start, start + len(items), record)
        attempt = f"attempt-{output.counter}"
        return MapTask(attempt, output, PARTITIONS, pickle.dumps(items), skip)

    def begin(self, task: Task, functions: Functions | bytes) -> str:
        code = functions if isinstance(functions, bytes) else code_of(functions)
        self.loop.call_soon(self.pool.run, task, code)
        return task.attempt

    def run(self, task: Task, functions: Functions | bytes) -> PoolEvent:
        """Run a task to its end; return the event that ended it."""
        return self.ended(self.begin(task, functions))

    def map(self, mapfn: Callable[..., Any], *items: Any, **more: Any) -> PoolEvent:
        pairs = list(enumerate(items))
        return self.run(self.map_task(pairs, **more), Functions(mapfn=mapfn))

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what ``function`` returns in a worker."""
        task = CallTask(f"call-{self._attempts}", self.output("call", 0, 1))
        event = self.run(task, as_call(function))
        assert isinstance(event, Succeeded), event
        return self.results([event.holding.output])[0][1]

    def results(self, outputs: list[Output]) -> list[tuple[Any, Any]]:
        found = []
        for output in outputs:
            for _, chunks in read_partitions(self.path(output), 0, PARTITIONS):
                for chunk in chunks:
                    found += list(zip(*decode_pairs(chunk), strict=True))
        return found

    # -------------------------------------------------------------- waiting

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():
                    self._news.clear()
                    try:
                        await asyncio.wait_for(self._news.wait(), 0.01)
                    except TimeoutError:
                        pass  # conditions may also look at processes and files

        self.loop.run_until_complete(wait())

    def ended(self, attempt: str) -> PoolEvent:
        self.until(lambda: bool(self.ends(attempt)))
        (end,) = self.ends(attempt)
        return end

    def ends(self, attempt: str) -> list[PoolEvent]:
        ends = (Succeeded, Raised, Refused, Died)
        return [e for e in self.events if isinstance(e, ends) and e.attempt == attempt]

    def printed(self, stream: str = "stdout") -> str:
        said = [e for e in self.events if isinstance(e, Printed) and e.stream == stream]
        return "".join(event.text for event in said)


def code_of(functions: Functions) -> bytes:
    """Ship this test by value, so that workers need not import pytest."""
    return freeze(functions, ship=[__name__]).encode()


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def poll_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Make rigs; afterwards nothing of them is left: no process, thread, descriptor or file."""
    gc.collect()
    fds, threads = open_fds(), threading.active_count()
    folder = tmp_path / "segments"
    folder.mkdir()
    rigs: list[Rig] = []

    def make_rig(**settings: Any) -> Rig:
        rigs.append(Rig(folder, **settings))
        return rigs[-1]

    yield make_rig
    for rig in rigs:
        rig.close()
    rigs.clear()
    gc.collect()
    poll_until(lambda: open_fds() == fds and threading.active_count() == threads)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not children, "a child process is left"
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


# ------------------------------------------------------------------ whole jobs


def words(key: Any, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word, 1


def total(key: Any, values: list[int]) -> int:
    return sum(values)


def halves(pairs: Iterator[tuple[str, list[int]]]) -> Iterator[tuple[str, float]]:
    for key, values in pairs:
        yield key, sum(values) / 2


def grow(key: Any, value: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    value.append("mine")
    yield "k", value
    yield "other", value


TEXTS = [f"the cat {n % 7} saw the dog {n % 3} and ran {n}" for n in range(40)]

JOBS = {
    "words": Job(TEXTS, words, reducefn=total),
    "combined": Job(TEXTS, words, combinefn=total, reducefn=total, finishfn=lambda k, v: -v),
    "iterators": Job(TEXTS, words, reducefn=halves, finishfn=dict),
    "lists": Job({"a": [1, 2], "b": 3}, reducefn=total),
    "collected": Job(TEXTS, words, collectfn=total, reducefn=lambda k, vs: vs),
    "mutable": Job([[1], [2], [3]], grow),
    "nothing": Job(TEXTS, lambda k, v: None, reducefn=total),
}


def pairs_of_items(job: Job) -> list[tuple[Any, Any]]:
    return [(key, job.value(key)) for key in job.keys()]  # noqa: SIM118 - no dict


def through_the_pool(rig: Rig, job: Job, cut: int = 9) -> dict[Any, Any]:
    """Run a job as the grid does: map ranges, reduce ranges of partitions, finish."""
    functions = job.functions
    code = code_of(functions)
    items = pairs_of_items(job)
    record = f"job-{id(job)}"
    starts = range(0, len(items), cut)
    maps = [rig.map_task(items[at : at + cut], at, record=record) for at in starts]
    attempts = [rig.begin(task, code) for task in maps]
    inputs = tuple(str(rig.path(ended_well(rig, attempt))) for attempt in attempts)
    reduced = []
    for first in range(0, PARTITIONS, 4):
        output = rig.output("reduce", first, first + 4, record)
        task = ReduceTask(f"reduce-{output.counter}", output, PARTITIONS, inputs)
        reduced.append(ended_well(rig, rig.begin(task, code)))
    if functions.finishfn is None:
        return assemble(rig.results(reduced))
    output = rig.output("finish", 0, 1, record)
    paths = tuple(str(rig.path(output)) for output in reduced)
    task_ = FinishTask(f"finish-{output.counter}", output, paths)
    return assemble(rig.results([ended_well(rig, rig.begin(task_, code))]))


def ended_well(rig: Rig, attempt: str) -> Output:
    event = rig.ended(attempt)
    assert isinstance(event, Succeeded), event
    assert event.seconds >= 0
    assert event.holding == read_header(rig.path(event.holding.output)).holding
    return event.holding.output


@both_modes
@pytest.mark.parametrize("name", JOBS)
def test_a_job_through_the_pool_equals_the_oracle(
    make: Callable[..., Rig], mode: Mode, name: str
) -> None:
    rig = make(slots=2, mode=mode)
    job = JOBS[name]
    assert through_the_pool(rig, job) == job.run()
    assert JOBS["mutable"].value(0) == [1]  # nobody changed the user's own data


def test_spilling_changes_nothing(make: Callable[..., Rig]) -> None:
    """Next to no memory: everything goes to disk, and groups are divided as often as can be."""
    rig, ample = make(memory_bytes=1), make()
    for job in JOBS.values():
        found = through_the_pool(rig, job, cut=20)
        assert found == job.run()
        assert list(found) == list(through_the_pool(ample, job, cut=20))
    assert {path.suffix for path in rig.folder.iterdir()} == {".seg"}


PAIRS = 300_000
KEYS = 20_000


def emit_many(key: int, value: int) -> Iterator[tuple[Any, bytes]]:
    """Some 60 MB of values from one item; every second one belongs to one key."""
    for number in range(PAIRS):
        yield "one" if number % 2 else number % KEYS, number.to_bytes(4, "big") * 40


def walk_twice(key: Any, values: Any) -> tuple[Any, ...]:
    ordered = all(first < second for first, second in itertools.pairwise(values))
    return len(values), sum(map(len, values)), ordered, values[0], values[-1]


def peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_more_than_fits_into_memory(make: Callable[..., Rig]) -> None:
    """A worker with room for 12 MB maps and reduces 60, of which half are one key's."""
    rig = make(memory_bytes=12 << 20)
    before = rig.call(peak_kilobytes)
    code = code_of(Functions(emit_many, reducefn=walk_twice))
    mapped = ended_well(rig, rig.begin(rig.map_task([(0, 0)], record="r"), code))
    output = rig.output("reduce", 0, PARTITIONS, "r")
    task = ReduceTask("reduce", output, PARTITIONS, (str(rig.path(mapped)),))
    results = dict(rig.results([ended_well(rig, rig.begin(task, code))]))
    assert rig.call(peak_kilobytes) - before < 30 << 10
    for key, numbers in (("one", range(1, PAIRS, 2)), (0, range(0, PAIRS, KEYS))):
        first, last = (number.to_bytes(4, "big") * 40 for number in (numbers[0], numbers[-1]))
        assert results[key] == (len(numbers), len(numbers) * 160, True, first, last)
    assert sum(result[0] for result in results.values()) == PAIRS
    assert len(results) == KEYS // 2 + 1


def test_stored_values_are_much_like_a_list(make: Callable[..., Rig]) -> None:
    def mapfn(key: int, value: int) -> Iterator[tuple[str, Any]]:
        yield from (("k", [key, n]) for n in range(value))

    def reducefn(key: str, values: Any) -> tuple[Any, ...]:
        values[0].append("changed")  # an object of its own, every time
        try:
            values.sort()
        except AttributeError as error:
            return type(values).__name__, str(error), values[0], values[-2:], values == [*values]
        return ()

    rig = make(memory_bytes=1)
    job = Job([4, 5], mapfn, reducefn=reducefn)
    kind, told, first, last, same = through_the_pool(rig, job, cut=1)["k"]
    assert kind == "StoredOnDisk"
    assert "the 9 values of key 'k' do not fit into memory" in told
    assert "sorted(values)" in told
    assert (first, last, same) == ([0, 0], [[1, 3], [1, 4]], True)
    as_list = Job([1, 2], mapfn)  # without reducefn the values are the result
    assert through_the_pool(rig, as_list, cut=1) == {"k": [[0, 0], [1, 0], [1, 1]]}


def test_no_room_to_merge_on_disk_hands_the_task_back(make: Callable[..., Rig]) -> None:
    rig = make(memory_bytes=1)
    functions = Functions(words, reducefn=total)
    mapped = ended_well(rig, rig.begin(rig.map_task([(0, "a b " * 100)]), code_of(functions)))
    output = rig.output("reduce", 0, PARTITIONS)
    task = ReduceTask("r", output, PARTITIONS, (str(rig.path(mapped)),))
    pid = rig.call(os.getpid)
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    event = rig.run(task, functions)
    assert isinstance(event, Refused)
    assert event.reason == "space"
    assert f"no room to write values that are merged in {rig.folder}" in event.detail
    assert "GRID_SPOOL" in event.detail
    assert rig.path(output) not in rig.folder.iterdir()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    again = ended_well(rig, rig.begin(structs.replace(task, attempt="again"), code_of(functions)))
    assert dict(rig.results([again])) == {"a": 100, "b": 100}


def test_a_call_returns_its_value(rig: Rig) -> None:
    assert rig.call(lambda: {"answer": 42}) == {"answer": 42}


def test_skipped_items_are_told_and_leave_no_pair(rig: Rig) -> None:
    def picky(key: int, value: int) -> Iterator[tuple[str, int]]:
        yield "seen", value
        if value % 2:
            raise ValueError(value)

    event = rig.map(picky, 0, 1, 2, 3, start=100, skip=True)
    assert isinstance(event, Succeeded)
    assert event.holding.skipped == (101, 103)
    assert sum(event.sizes) == event.holding.bytes > 0


def test_code_is_loaded_once_and_kept(rig: Rig) -> None:
    calls: list[int] = []

    def counting(key: int, value: int) -> Iterator[tuple[int, int]]:
        calls.append(1)
        yield len(calls), os.getpid()

    code = code_of(Functions(mapfn=counting))
    first, second = (rig.map_task([(n, n)], record="one") for n in range(2))
    rig.run(first, code)
    rig.run(second, b"")  # would not load: the worker has it already
    output = rig.output("reduce", 0, PARTITIONS, "one")
    inputs = tuple(str(rig.path(task.output)) for task in (first, second))
    reduce_ = ReduceTask("reduce", output, PARTITIONS, inputs)
    rig.run(reduce_, b"")
    counted = dict(rig.results([reduce_.output]))
    assert sorted(counted) == [1, 2]
    assert counted[1] == counted[2]


def test_both_ends_forget_the_same_records(rig: Rig) -> None:
    here, there = Recent[bool](), Recent[bool]()
    for number in range(CODES_KEPT + 3):
        here.put(str(number), True)
        there.put(str(number), True)
        assert (here.get("0"), there.get("0")) in ((True, True), (None, None))
    mapfn = words
    for number in [*range(CODES_KEPT + 2), 0, 1]:
        event = rig.map(mapfn, "a b", record=f"record-{number}")
        assert isinstance(event, Succeeded), event


# ------------------------------------------------------------------ deaths


def crash(key: int, value: Callable[[], Any]) -> list[tuple[int, int]]:
    value()
    return [(key, 1)]


DEATHS: dict[str, tuple[Callable[[], Any], str]] = {
    "exit": (lambda: os._exit(3), "ended itself with exit code 3"),
    "quiet": (lambda: os._exit(0), "ended itself with exit code 0"),
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
    "segfault": (lambda: ctypes.string_at(0), "crashed in native code with SIGSEGV"),
    "abort": (os.abort, "crashed in native code with SIGABRT"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_death_is_told_as_what_it_was(rig: Rig, name: str) -> None:
    how, told = DEATHS[name]
    items = [(n, code_like(how if n == 2 else None)) for n in range(4)]
    task = rig.map_task([], 16)
    import cloudpickle

    task = MapTask(task.attempt, task.output, PARTITIONS, cloudpickle.dumps(items))
    event = rig.run(task, Functions(mapfn=crash))
    assert isinstance(event, Died)
    assert event.item == 18
    assert event.failure.kind == "died"
    assert event.failure.peer == "alice"
    assert f"{told} while it mapped item 18 (of map 16..16)" in event.failure.message
    assert ("in crash" in event.failure.traceback) == (name in ("segfault", "abort"))
    assert isinstance(rig.map(words, "alive again"), Succeeded)
    assert len(list(rig.folder.iterdir())) == 1


def code_like(how: Callable[[], Any] | None) -> Callable[[], Any]:
    return how or (lambda: None)


def test_last_words_are_told_before_the_death(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "RECEIVE_BYTES", 64)  # so that the exit is heard earlier

    def talkative(key: int, value: int) -> None:
        for number in range(500):
            print("line", number)
        os._exit(1)

    event = rig.map(talkative, 1)
    assert isinstance(event, Died)
    assert rig.printed().endswith("line 499\n")
    assert rig.events[-1] is event


def test_out_of_memory_is_told() -> None:
    assert describe_exit(-9, out_of_memory=True).endswith("because the machine ran out of memory")
    assert describe_exit(-9, out_of_memory=False) == "was killed by SIGKILL"
    assert out_of_memory_kills() >= 0


def test_a_worker_that_writes_garbage_is_replaced(rig: Rig) -> None:
    def vandal(key: int, value: int) -> None:
        for fd in range(3, 30):
            try:
                os.write(fd, b"\xff" * 64)
            except OSError:
                pass
        time.sleep(60)

    event = rig.map(vandal, 1)
    assert isinstance(event, Died)
    assert "garbage" in event.failure.message
    assert isinstance(rig.map(words, "alive again"), Succeeded)


def test_a_worker_that_closes_its_channel_is_replaced(rig: Rig) -> None:
    def closer(key: int, value: int) -> None:
        os.closerange(3, 256)
        time.sleep(60)

    assert isinstance(rig.map(closer, 1), Died)
    assert isinstance(rig.map(words, "alive again"), Succeeded)


def test_what_a_worker_started_dies_with_it(rig: Rig, tmp_path: Path) -> None:
    note = str(tmp_path / "pid")

    def parent(key: int, value: int) -> None:
        child = subprocess.Popen(["sleep", "600"])
        Path(note).write_text(str(child.pid))
        os._exit(1)

    assert isinstance(rig.map(parent, 1), Died)
    child = int(Path(note).read_text())
    poll_until(lambda: not is_alive(child))


def test_the_helper_dies_and_is_replaced(rig: Rig) -> None:
    pids = rig.call(lambda: (os.getpid(), os.getppid()))

    def forever(key: int, value: int) -> None:
        while True:
            pass

    attempt = rig.begin(rig.map_task([(0, 0)]), Functions(mapfn=forever))
    rig.until(lambda: rig.pool.free == 0)
    os.kill(pids[1], signal.SIGKILL)
    event = rig.ended(attempt)
    assert isinstance(event, Died)
    assert "its helper process was killed by SIGKILL" in event.failure.message
    poll_until(lambda: not any(map(is_alive, pids)))
    assert rig.call(os.getppid) != pids[1]


def test_an_interpreter_that_does_not_start_is_a_death(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    event = rig.map(words, "x")
    assert isinstance(event, Died)
    assert "was not started" in event.failure.message
    monkeypatch.undo()
    assert isinstance(rig.map(words, "x"), Succeeded)


PARENT = """
import asyncio, os, pickle, subprocess, sys, time
from pathlib import Path
from grid.functions import Functions
from grid.messages import Output
from peers.shipping import freeze
from peers.worker_channel import MapTask
from peers.worker_pool import WorkerPool

def busy(key, note):
    import os, pathlib, subprocess
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(note).write_text(f"{os.getpid()} {os.getppid()} {child.pid}")
    sum(range(10**12))

async def main():
    folder = Path(sys.argv[1])
    pool = WorkerPool(1, folder, print)
    note = str(folder / "pids")
    task = MapTask("a", Output("r", "map", 0, 1, "p", 1), 4, pickle.dumps([(0, note)]))
    pool.run(task, freeze(Functions(mapfn=busy)).encode())
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("victim", ["SIGKILL", "SIGTERM", "SIGINT", "helper too"])
def test_no_process_outlives_its_parent(tmp_path: Path, victim: str) -> None:
    """However the peer dies, though user code hears no signal handler of Python."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    peer = subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, stderr=subprocess.DEVNULL
    )
    note = tmp_path / "pids"
    try:
        poll_until(lambda: note.exists() and len(note.read_text().split()) == 3)
        worker, helper, child = map(int, note.read_text().split())
        if victim == "helper too":
            os.kill(helper, signal.SIGSTOP)  # it can do nothing for its workers
            os.kill(peer.pid, signal.SIGKILL)
            os.kill(helper, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)  # nobody is left to find it
        else:
            os.kill(peer.pid, getattr(signal, victim))
        peer.wait(WAIT_SECONDS)
        poll_until(lambda: not any(map(is_alive, (worker, helper, child))))
    finally:
        peer.kill()
        peer.wait()


# ------------------------------------------------------------------ failures


class Custom(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("cannot travel")
        self.lock = threading.Lock()


def deep(key: Any, value: Any) -> Iterator[tuple[Any, int]]:
    yield key, inner(value)


def inner(value: type[BaseException]) -> int:
    raise value(7) if value is Custom else value()


@both_modes
def test_a_user_exception_is_told_in_full(make: Callable[..., Rig], mode: Mode) -> None:
    rig = make(mode=mode)
    items = [("good", "ok"), ("the key", 3)]

    def fails(key: str, value: Any) -> Iterator[tuple[str, int]]:
        yield key, len(value)

    event = rig.run(rig.map_task(items), Functions(mapfn=fails))
    assert isinstance(event, Raised)
    failure = event.failure
    assert failure.kind == "raised"
    assert failure.message.startswith("TypeError: object of type 'int' has no len() in mapfn")
    assert failure.function == "mapfn"
    assert failure.key == "'the key'"
    assert failure.peer == "alice"
    assert "in fails" in failure.traceback
    assert "mapreduce.py" not in failure.traceback
    assert isinstance(pickle.loads(failure.exception), TypeError)


def fail_with(rig: Rig, kind: type[BaseException]) -> Raised:
    def fails(key: int, value: int) -> None:
        inner(kind)

    event = rig.map(fails, 1)
    assert isinstance(event, Raised), event
    return event


def test_exceptions_of_every_kind_are_failures_not_deaths(rig: Rig) -> None:
    pid = rig.call(os.getpid)
    for kind in (Custom, Unpicklable, SystemExit, KeyboardInterrupt, MemoryError):
        failure = fail_with(rig, kind).failure
        assert failure.kind == "raised"
        assert kind.__name__ in failure.message
        assert "in inner" in failure.traceback
        assert bool(failure.exception) == (kind is not Unpicklable)

    def endless(key: int, value: int) -> Any:
        return endless(key, value)

    event = rig.map(endless, 1)
    assert isinstance(event, Raised)
    assert "RecursionError" in event.failure.message
    assert rig.call(os.getpid) == pid


def test_unpicklable_values_and_results_are_named(rig: Rig) -> None:
    def lock(key: int, value: int) -> Iterator[tuple[str, Any]]:
        yield "fine", 1
        yield "culprit", threading.Lock()

    event = rig.map(lock, 1)
    assert isinstance(event, Raised)
    assert event.failure.kind == "unpicklable"
    assert "'culprit'" in event.failure.message
    assert "lock" in event.failure.message
    mapped = rig.map_task([(0, "a b")])
    functions = Functions(mapfn=words, reducefn=lambda k, vs: threading.Lock())
    rig.run(mapped, functions)
    output = rig.output("reduce", 0, PARTITIONS)
    reduced = rig.run(
        ReduceTask("r", output, PARTITIONS, (str(rig.path(mapped.output)),)), functions
    )
    assert isinstance(reduced, Raised)
    assert reduced.failure.kind == "unpicklable"
    assert "of key 'a'" in reduced.failure.message or "of key 'b'" in reduced.failure.message


def refuse_to_open(*_: Any) -> Any:
    raise LookupError("not to be opened")


class Sealed:
    """Pickles, and does not unpickle; or hashes and does not unpickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse_to_open, ()


@pytest.mark.parametrize("in_key", [False, True])
def test_what_pickles_and_does_not_unpickle_is_the_users_fault(rig: Rig, in_key: bool) -> None:
    def mapfn(key: int, value: int) -> list[tuple[Any, Any]]:
        return [("fine", 1), (Sealed(), 1) if in_key else ("culprit", Sealed())]

    functions = Functions(mapfn, reducefn=lambda k, vs: len(vs))
    mapped = ended_well(rig, rig.begin(rig.map_task([(0, 0)]), code_of(functions)))
    output = rig.output("reduce", 0, PARTITIONS)
    event = rig.run(ReduceTask("r", output, PARTITIONS, (str(rig.path(mapped)),)), functions)
    assert isinstance(event, Raised)
    assert event.failure.kind == "raised"
    assert "LookupError: not to be opened in unpickling of" in event.failure.message
    assert ("'culprit'" in event.failure.message) is not in_key


def test_lost_inputs_are_named_by_position(rig: Rig) -> None:
    good, damaged = rig.map_task([(0, "a")]), rig.map_task([(0, "a")])
    for task in (good, damaged):
        rig.run(task, Functions(mapfn=words))
    content = bytearray(rig.path(damaged.output).read_bytes())
    content[20] ^= 1
    rig.path(damaged.output).write_bytes(content)
    inputs = (str(rig.folder / "gone"), str(rig.path(good.output)), str(rig.path(damaged.output)))
    readers: list[Task] = [
        ReduceTask("r", rig.output("reduce", 0, 4), PARTITIONS, inputs),
        FinishTask("f", rig.output("finish", 0, 1), inputs),
    ]
    for reader in readers:
        event = rig.run(reader, Functions(mapfn=words, finishfn=dict))
        assert isinstance(event, Refused)
        assert event.reason == "inputs"
        assert event.missing == (0, 2)


def test_no_room_hands_the_task_back(rig: Rig) -> None:
    def fill_up(key: int, value: int) -> list[tuple[int, bytes]]:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return [(1, os.urandom(100_000))]

    event = rig.map(fill_up, 1)
    assert isinstance(event, Refused)
    assert event.reason == "space"
    assert "GRID_SPOOL" in event.detail
    assert list(rig.folder.iterdir()) == []


# ------------------------------------------------------------------ stopping


def spin(key: int, value: int) -> None:
    print("spinning", flush=True)
    while True:
        pass


def note_and_spin(key: int, note: str) -> None:
    Path(note).mkdir()  # opens nothing that an interrupted thread could leave open
    while True:
        pass


@both_modes
def test_kill_stops_an_endless_task_and_frees_the_slot(
    make: Callable[..., Rig], tmp_path: Path, mode: Mode
) -> None:
    rig = make(mode=mode, memory_bytes=1)

    note = tmp_path / "spinning"

    def write_then_spin(key: int, value: str) -> Iterator[tuple[int, str]]:
        if value:
            note_and_spin(key, value)
        yield key, value

    task = rig.map_task([(0, ""), (1, str(note))])  # spills once, then spins
    attempt = rig.begin(task, Functions(mapfn=write_then_spin))
    rig.until(note.exists)
    assert [path.suffix for path in rig.folder.iterdir()] == [".tmp"]
    rig.loop.call_soon(rig.pool.kill, attempt)
    assert isinstance(rig.map(words, "alive again"), Succeeded)
    rig.until(lambda: len(list(rig.folder.iterdir())) == 1)
    assert rig.ends(attempt) == []


def test_kill_of_a_waiting_task_starts_nothing(rig: Rig) -> None:
    running = rig.begin(rig.map_task([(0, 0)]), Functions(mapfn=spin))
    waiting = rig.begin(rig.map_task([(0, "a")]), Functions(mapfn=words))
    rig.until(lambda: "spinning" in rig.printed())
    rig.loop.call_soon(rig.pool.kill, waiting)
    rig.loop.call_soon(rig.pool.kill, running)
    rig.until(lambda: rig.pool.free == 1)
    assert isinstance(rig.map(words, "x"), Succeeded)
    assert rig.ends(waiting) == []


def test_more_tasks_than_slots_wait_their_turn(make: Callable[..., Rig]) -> None:
    rig = make(slots=2)
    attempts = [rig.begin(rig.map_task([(0, "a")]), Functions(mapfn=words)) for _ in range(7)]
    for attempt in attempts:
        ended_well(rig, attempt)
    assert rig.pool.free == 2


@both_modes
def test_closing_while_busy_is_quick(make: Callable[..., Rig], tmp_path: Path, mode: Mode) -> None:
    rig = make(mode=mode, slots=2)
    notes = [tmp_path / "first", tmp_path / "second"]
    for note in notes:
        rig.begin(rig.map_task([(0, str(note))]), Functions(mapfn=note_and_spin))
    rig.until(lambda: all(note.exists() for note in notes))
    began = time.monotonic()
    rig.pool.close()
    rig.pool.close()
    assert time.monotonic() - began < 20
    assert rig.pool.filenos() == []


def test_close_now_needs_no_loop(make: Callable[..., Rig]) -> None:
    rig = make()
    pids = rig.call(lambda: (os.getpid(), os.getppid()))
    rig.begin(rig.map_task([(0, 0)]), Functions(mapfn=spin))
    rig.until(lambda: "spinning" in rig.printed())
    thread = threading.Thread(target=rig.pool.close_now)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not any(map(is_alive, pids))


def test_a_forked_child_can_close_everything(rig: Rig) -> None:
    """The child's copies keep nothing open: worker and helper die with the peer's own."""
    rig.map(words, "a")
    fds = rig.pool.filenos()
    assert len(fds) == len(set(fds)) == 3  # control, channel, page
    assert all(not os.get_inheritable(fd) for fd in fds)


# ------------------------------------------------------------------ surroundings


def test_workers_are_modest_and_know_no_secret(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_PASSWORD", "hunter2")
    monkeypatch.setenv("UNRELATED", "yes")

    def look() -> dict[str, Any]:
        return {
            "environment": dict(os.environ),
            "command": Path(f"/proc/{os.getppid()}/cmdline").read_text(),
            "argv": list(sys.argv),
            "nice": os.nice(0),
            "stdin": sys.stdin.read(),
            "sigint": signal.getsignal(signal.SIGINT),
            "sigterm": signal.getsignal(signal.SIGTERM),
            "sigchld": signal.getsignal(signal.SIGCHLD),
            "cwd": str(Path.cwd()),
            "threads": threading.active_count(),
            "group": os.getpgid(0) == os.getpid(),
            "loaded": sorted({"ssl", "rich", "asyncio"} & set(sys.modules)),
        }

    before = os.nice(0)
    seen = rig.call(look)
    assert not [name for name in seen["environment"] if name.startswith("GRID_")]
    assert seen["environment"]["UNRELATED"] == "yes"
    assert "hunter2" not in seen["command"]
    assert seen["argv"] == [""]
    assert seen["nice"] == min(19, before + 5)
    assert seen["stdin"] == ""
    assert seen["sigint"] is signal.SIG_IGN
    assert seen["sigterm"] is seen["sigchld"] is signal.SIG_DFL
    assert seen["cwd"] == str(Path.cwd())
    assert seen["threads"] == 1  # so that user code may fork
    assert seen["group"]
    assert seen["loaded"] == []


def test_workers_have_the_surroundings_of_the_first_task(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper is there before; what changed since then it is told."""
    monkeypatch.setenv("GOES", "soon")
    rig.loop.call_soon(rig.pool.prepare)
    rig.until(lambda: bool(rig.pool.filenos()))
    monkeypatch.delenv("GOES")
    monkeypatch.setenv("COMES", "later")
    monkeypatch.setenv("GRID_PASSWORD", "hunter2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("found/later")
    environment, folder, paths = rig.call(
        lambda: (dict(os.environ), str(Path.cwd()), list(sys.path))
    )
    assert environment["COMES"] == "later"
    assert not {"GOES", "GRID_PASSWORD"} & set(environment)
    assert folder == str(tmp_path)
    assert "found/later" in paths


def test_user_code_may_fork_and_use_multiprocessing(rig: Rig) -> None:
    def forks(key: int, value: int) -> Iterator[tuple[str, Any]]:
        import multiprocessing

        pid = os.fork()
        if pid == 0:
            print("from a child")  # goes to the peer's own standard error, if anywhere
            yield "child", 1  # and the child runs on into the grid's code
            return
        assert os.waitpid(pid, 0)[1] == 0
        with multiprocessing.get_context("fork").Pool(1) as pool:
            yield "square", pool.map(abs, [-3])[0]

    event = rig.map(forks, 1)
    assert isinstance(event, Succeeded), event
    ((_, chunks),) = read_partitions(rig.path(event.holding.output), 0, PARTITIONS)
    assert b"square" in chunks[0]
    assert b"child" not in chunks[0]
    assert rig.printed() == ""


# ------------------------------------------------------------------ prints


def test_prints_and_logs_are_forwarded(rig: Rig) -> None:
    def chatty(key: int, value: int) -> None:
        print("\x1b[31mred\x1b[0m", "line")
        sys.stdout.buffer.write(b"bytes\n")
        print("to stderr", file=sys.stderr)
        logging.getLogger("mine").info("logged %d", 5)
        print("no newline", end="")

    event = rig.map(chatty, 1)
    assert isinstance(event, Succeeded)
    assert rig.printed() == "red line\nbytes\nno newline"
    assert rig.printed("stderr") == "to stderr\n"
    assert rig.printed("log") == "INFO mine: logged 5\n"
    said = {(e.attempt, e.record) for e in rig.events if isinstance(e, Printed)}
    assert said == {(event.attempt, event.holding.output.record)}
    assert rig.events[-1] is event  # told after all that it printed


def test_a_flood_of_prints_is_bounded_and_confessed(rig: Rig) -> None:
    def flood(key: int, value: int) -> None:
        for number in range(50_000):
            print("line", number, "x" * 50)

    assert isinstance(rig.map(flood, 1), Succeeded)
    assert len(rig.printed()) < 2 * BURST_CHARACTERS
    assert "characters of output were dropped" in rig.printed("stderr")


def test_the_budget_fills_with_time() -> None:
    now = [0.0]
    sent: list[str] = []
    forwarder = Forwarder(lambda stream, text: sent.append(text), Budget(lambda: now[0]))
    for _ in range(100):
        forwarder.write("stdout", "y" * 10_000)
    held = len(sent)
    assert held < 30
    now[0] = 1.0
    forwarder.write("stdout", "again")
    assert "dropped" in sent[held]
    assert sent[-1] == "again"
    forwarder.end_of_task()
    assert sent[-1] == "again"


def test_control_sequences_are_stripped() -> None:
    dirty = "a\x1b]0;title\x07b\x1b[2Jc\x9b1md\x00e\tf\r\ng\rh\x1bci"
    assert clean(dirty) == "abc1mde\tf\ng\nhi"


# ------------------------------------------------------------------ files


def test_changed_files_are_asked_for_at_once(rig: Rig, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    files = Files(str(tmp_path / "*.txt"))
    items = [(key, files.reference(key)) for key in files]
    (tmp_path / "a.txt").write_text("changed since")
    (tmp_path / "c.txt").unlink()
    task = rig.map_task(items, start=8)
    attempt = rig.begin(task, Functions(mapfn=lambda k, v: [(v, 1)]))
    rig.until(lambda: any(isinstance(event, NeedItems) for event in rig.events))
    assert rig.events == [NeedItems(attempt, (8, 10))]
    rig.loop.call_soon(rig.pool.give_items, attempt, pickle.dumps(["old a", "old c"]))
    mapped = ended_well(rig, attempt)
    whole = b"".join(
        chunk for _, chunks in read_partitions(rig.path(mapped), 0, 8) for chunk in chunks
    )
    assert b"old a" in whole
    assert b"text of b" in whole
    assert b"old c" in whole


def test_a_file_that_does_not_decode_is_the_users_fault(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    files = Files(str(tmp_path / "*.txt"))
    items = [(key, files.reference(key)) for key in files]
    event = rig.run(rig.map_task(items), Functions(mapfn=words))
    assert isinstance(event, Raised)
    assert event.failure.function == "datasource"
    assert "bad.txt" in event.failure.key
    skipping = rig.run(rig.map_task(items, start=4, skip=True), Functions(mapfn=words))
    assert isinstance(skipping, Succeeded)
    assert skipping.holding.skipped == (4,)


# ------------------------------------------------------------------ modules


def module_code(folder: Path) -> bytes:
    """Freeze a job that uses the module, in a process where that is fresh."""
    script = textwrap.dedent("""
        import sys
        from grid.functions import Functions
        from peers.shipping import freeze
        import beside_the_script
        from functools import partial
        def use(key, value):
            return [("value", beside_the_script.VALUE)]
        sys.stdout.buffer.write(freeze(Functions(mapfn=use)).encode())
    """)
    path = folder / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, path], env=environment, check=True, stdout=subprocess.PIPE
    ).stdout


def test_a_changed_module_replaces_the_worker(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process which imported the old one cannot serve the new record; a fresh one can."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    seen = []
    for value in (1, 2):  # of one length and one second, so that bytecode does not tell them apart
        (folder / "beside_the_script.py").write_text(f"VALUE = {value}\n")
        os.utime(folder / "beside_the_script.py", (1e9, 1e9))
        task = rig.map_task([(0, 0)], record=f"record-{value}")
        event = rig.run(task, module_code(folder))
        assert isinstance(event, Succeeded), event
        chunks = read_partitions(rig.path(task.output), 0, PARTITIONS)[0][1]
        seen.append(pickle.loads(chunks[0])[2])
    assert seen == [[1], [2]]


def test_a_missing_module_is_refused_by_name(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "beside_the_script.py").write_text("VALUE = 1\n")
    code = module_code(folder)
    (folder / "beside_the_script.py").unlink()
    event = rig.run(rig.map_task([(0, 0)]), code)
    assert isinstance(event, Refused)
    assert event.reason == "module"
    assert "beside_the_script" in event.detail
