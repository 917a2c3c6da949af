"""A slowdown is caught by a number that no clock has a part in.

Each count has an upper bound, a little above what it is now. If one is exceeded, something is done
more often than before: find out what, or, if it is worth it, raise the bound and say why in the
commit. Who makes a count smaller lowers its bound in the same commit.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from grid.messages import Address, RecordMeta
from grid.settings import Settings
from peers import Job
from peers.call_runner import run
from peers.calls import Packer, encode
from tests.counts.counting import Tally, counted_by, per
from tests.live.harness import Site
from tests.simulation.auditor import Auditor
from tests.simulation.large import Counted
from tests.simulation.world import World

BOUNDS = {
    # Between processes: the server, the owner and the worker are three (tests/simulation).
    "messages of a job of one task": 10,
    "messages of each task more": 3.1,
    # Between a server and an owner with a worker of its own, one call or job after another.
    "messages of a call": 10.5,
    "writes of a call": 6,
    "hand-overs between threads of a call": 3,
    "messages of a job": 10.5,
    "writes of a job": 6,
    # In all threads of a peer that is alone: owner, server, and a worker that is a thread.
    "Python functions of a call": 1250,
    # In the process of the owner.
    "pickles of a call": 5,
    "pickles of a job": 4,
    # In a worker, however many calls the task has.
    "pickles of a task of calls": 3,
    # Of a hundred shuffled.
    "bytes through the server": 1,
    "times a reduce opens an input": 2,
    # Modules that a bare interpreter does not have, on any Python that is supported.
    "modules of `import peers`": 12,
    "modules of `from peers import Peer`": 175,
    "modules of an engine": 390,
    "modules of a worker": 135,
    "modules of `grid --help`": 195,
    "modules of `grid status`": 195,
}

FORBIDDEN = {
    "modules of `import peers`": ["asyncio", "cloudpickle", "msgspec", "ssl", "grid.messages"],
    # The helper of the workers starts before the engine is loaded, and with it TLS.
    "modules of `from peers import Peer`": ["rich", "sqlite3", "peers.engine", "cryptography"],
    "modules of an engine": ["rich", "argparse", "numpy", "peers.cli", "peers.dashboard"],
    "modules of a worker": ["asyncio", "ssl", "rich", "sqlite3", "cryptography", "peers.engine"],
    "modules of `grid --help`": ["peers.cli.status", "peers.engine", "asyncio", "cryptography"],
    # A command loads itself, and the engine only when it visits a grid.
    "modules of `grid status`": ["peers.cli.submit", "peers.engine", "cryptography", "sqlite3"],
}
"""Heavy modules that have no place there: who needs one imports it where it is used."""


def bounded(name: str, count: float, how: object = "") -> None:
    """Hold a count to its bound."""
    bound = BOUNDS[name]
    print(f"{name}: {count:g}, at most {bound:g}")
    assert count <= bound, (
        f"{name}: {count:g}, where {bound:g} was enough ({how}). Something is done more often than "
        "before: find what, or raise the bound in BOUNDS and say why in the commit"
    )


# ------------------------------------------------------------------ in virtual time


def messages_of(items: int) -> Counter[str]:
    """What crosses between processes for one job, in a grid whose server has no worker."""
    world = World(1)
    auditor = Auditor(world)
    settings = Settings(join_timeout=1e9)
    doors = tuple(Address("h0", port) for port in settings.ports)
    processes: list[Counted] = []
    for name, slots in (("server", 0), ("owner", 0), ("one", 2), ("two", 2)):
        process = Counted(world, auditor, name, "h0", replace(settings, slots=slots))
        processes.append(process)
        process.start(doors)
        world.run(world.now + 3.0)
    for process in processes:
        process.reset()
    shape: dict[str, Any] = {"shape": "mapreduce", "partitions": 8, "finish": False}
    meta = RecordMeta("r", items=items, attempts_max=4, speculate=False, **shape)
    processes[1].submit("t", meta)
    (case,) = auditor.cases.values()
    world.run_until(lambda: bool(case.outcomes), 600.0)
    world.run(world.now + 5.0)
    assert case.outcomes == ["delivered"]
    assert not world.wrong
    said: Counter[str] = sum((process.said for process in processes), Counter())
    for by_the_clock in ("Beat", "probe", "AskClaims", "Claims"):
        del said[by_the_clock]
    return said


def test_messages_of_tasks() -> None:
    one, many = messages_of(1), messages_of(1000)
    bounded("messages of a job of one task", one.total(), dict(one))
    tasks = many["TaskDone"] - one["TaskDone"]
    assert tasks > 100
    bounded("messages of each task more", (many - one).total() / tasks, dict(many))


# ------------------------------------------------------------------ over sockets

TIMES = 50


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> Tally:
    return Tally(monkeypatch)


@pytest.fixture
def functions() -> Iterator[Counter[int]]:
    """How many functions written in Python each thread calls, of those begun from now on."""
    called: Counter[int] = Counter()

    def note(_frame: FrameType, event: str, _what: object) -> None:
        called[threading.get_ident()] += event == "call"

    threading.setprofile(note)
    sys.setprofile(note)
    yield called
    sys.setprofile(None)
    threading.setprofile(None)


def identity(key: int, value: int) -> list[tuple[int, int]]:
    return [(key, value)]


@pytest.mark.live
def test_one_call_after_another(site: Site, tally: Tally) -> None:
    tally.links()
    tally.pickles()
    tally.hand_overs()
    site.here("server")
    with site.here("owner", slots=1).executor() as executor:
        per(TIMES, lambda number: executor.submit(pow, number, 2).result(60), tally)
        bounded("messages of a call", tally.of("message") / TIMES, tally)
        bounded("writes of a call", tally.writes / TIMES, tally)
        bounded("pickles of a call", tally.of("pickle") / TIMES, tally)
        bounded("hand-overs between threads of a call", tally.of("hand-over") / TIMES, tally)


@pytest.mark.live
def test_functions_of_a_call(site: Site, functions: Counter[int]) -> None:
    """Of the grid and of what it uses, in all threads of a peer that is alone."""
    with site.here("alone", slots=1, workers="thread").executor() as executor:
        for number in range(TIMES):
            executor.submit(pow, number, 2).result(60)
        functions.clear()
        for number in range(TIMES):
            executor.submit(pow, number, 2).result(60)
        bounded("Python functions of a call", functions.total() / TIMES)


def test_calls_in_a_worker(tally: Tally) -> None:
    tally.pickles()
    packer = Packer(())
    function, _ = packer.function(pow)
    order = encode("executor", b"", [function], [(0, (number, 2)) for number in range(500)])
    tally.reset()
    list(run(0, order))
    bounded("pickles of a task of calls", tally.of("pickle"), tally)


@pytest.mark.live
def test_one_job_after_another(site: Site, tally: Tally) -> None:
    tally.links()
    tally.pickles()
    site.here("server")
    peer = site.here("owner", slots=1)
    job = Job([1], identity)
    per(TIMES, lambda _: peer.submit(job).result(60), tally)
    bounded("messages of a job", tally.of("message") / TIMES, tally)
    bounded("writes of a job", tally.writes / TIMES, tally)
    bounded("pickles of a job", tally.of("pickle") / TIMES, tally)


ITEM_BYTES = 8 * 50_000


def bulky(key: int, folder: str) -> list[tuple[int, bytes]]:
    """Much data, once two workers have begun: so each has some that the other needs."""
    Path(folder, str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < 2:
        time.sleep(0.01)
    return [(partition, bytes([key % 251]) * (ITEM_BYTES // 8)) for partition in range(8)]


def length(_key: int, values: list[bytes]) -> int:
    return sum(map(len, values))


@pytest.mark.live
def test_bytes_through_the_server(site: Site, tally: Tally) -> None:
    """Two workers that share no spool with anyone, and a server that only serves."""
    server = site.here("server")
    peers = [site.here(name, slots=1, spool=str(site.spool / name)) for name in ("one", "two")]
    tally.links()
    begun = site.folder / "begun"
    begun.mkdir()
    results = peers[0].submit(Job([str(begun)] * 60, bulky, reducefn=length)).result(60)
    shuffled = 60 * ITEM_BYTES
    assert sum(results.values()) == shuffled
    engine = server._engine
    assert engine is not None
    traffic = engine.client._traffic
    moved = [peer._engine.client._traffic.received for peer in peers if peer._engine is not None]
    assert sum(moved) > ITEM_BYTES / 4, "nothing was shuffled between the two"
    through = traffic.received + traffic.sent + tally.of("bytes")
    bounded("bytes through the server", 100 * through / shuffled, tally)


# ------------------------------------------------------------------ in other processes

OPENS = """
import json, os, re, sys
from collections import Counter
from peers import Job, Peer

def pairs(key, value):
    for number in range(50):
        yield (number, value), value

def total(key, values):
    return sum(values)

opened = Counter()
SEGMENT = re.compile("-(map|reduce)-[0-9]+-[0-9]+-")

def hear(event, args):
    name = os.path.basename(str(args[0])) if event == "open" else ""
    found = SEGMENT.search(name)
    if found:
        opened[found[1], name[: found.end()]] += 1

sys.addaudithook(hear)
with Peer(slots=1, workers="thread") as peer:
    transaction = peer.submit(Job(range(256), pairs, reducefn=total, partitions=1))
    assert len(transaction.result(60)) == 50 * 256
made = Counter(kind for kind, _ in opened)
times = sum(count for (kind, _), count in opened.items() if kind == "map")
print(json.dumps([times, made["map"], made["reduce"]]))
"""


@pytest.mark.live
def test_files_opened(site: Site) -> None:
    """Without the one time that each is written."""
    opened, maps, reduces = counted_by(OPENS, folder=site.folder)
    assert maps > 4
    assert reduces == 1
    bounded("times a reduce opens an input", opened / maps - 1, f"{opened} times, {maps} inputs")


STARTS = {
    "modules of `import peers`": "import peers",
    "modules of `from peers import Peer`": "from peers import Peer",
    "modules of an engine": "import peers.engine",
    "modules of a worker": "import peers.worker_main",
    "modules of `grid --help`": (
        "from peers.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    ),
    "modules of `grid status`": (
        "from peers.cli.main import main\ntry: main(['status', '-h'])\nexcept SystemExit: pass"
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_modules_at_the_start(name: str) -> None:
    script = f"import json, sys\nbefore = set(sys.modules)\n{STARTS[name]}\n"
    modules = set(counted_by(script + "print(); print(json.dumps(list({*sys.modules} - before)))"))
    heavy = modules.intersection(FORBIDDEN[name])
    assert not heavy, f"{name}: {json.dumps(sorted(heavy))} belong where they are used"
    bounded(name, len(modules), sorted({module.partition(".")[0] for module in modules}))
