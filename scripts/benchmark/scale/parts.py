"""The measurements of growth. Each takes its sizes and gives a ``Part``."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

from peers import Job, Peer
from scripts.benchmark.memory import PeakMemory
from scripts.benchmark.scale.larger import Shuffle
from scripts.benchmark.scale.site import Apart, Site, until
from scripts.benchmark.workloads import group

STEPS = 300_000
"""What a compute-bound item computes: some tens of milliseconds."""

PER_PROCESS = 25
"""So many light peers share a process: hundreds then fit on one machine."""

CROWD_SILENCE_SECONDS = 60
"""A thousand peers that start on two cores are silent for longer than those of a thousand hosts."""

IDLE_SECONDS = 5.0
STATUS_SECONDS = 10.0

Row = dict[str, float]


@dataclass
class Part:
    """``rows`` are numbers by column; the first column is what grows."""

    name: str
    about: str
    rows: list[Row] = field(default_factory=list)


# ------------------------------------------------------------------------------ slots


def compute(number: int, steps: int) -> Iterable[tuple[int, int]]:
    state = number
    for _ in range(steps):
        state = (state * 69069 + 1) & 0xFFFFFFFF
    return ((number, state),)


def compute_item(number: int) -> int:
    return next(iter(compute(number, STEPS)))[1]


def slots(sizes: tuple[int, ...], items: int) -> Part:
    """Compute-bound work on more slots, by the grid and by a pool: the machine's own limit."""
    part = Part(
        "slots",
        "Seconds for items that only compute, warm, and how many times faster that is than with "
        "one slot; beside it `multiprocessing.Pool`, which shows what the machine gives.",
    )
    first: Row = {}
    for count in sizes:
        # The pool first: it forks, and there must be no threads then.
        pool_seconds = _pool_seconds(count, items)
        row = {"slots": count, "grid s": _grid_seconds(count, items), "pool s": pool_seconds}
        first = first or row
        row["grid times"] = first["grid s"] / row["grid s"]
        row["pool times"] = first["pool s"] / row["pool s"]
        part.rows.append(row)
    return part


def _grid_seconds(count: int, items: int) -> float:
    with Site() as site:
        site.joined(0)
        site.joined(count)
        peer = site.here()
        peer.submit(Job([1_000] * count, compute)).result()
        began = time.perf_counter()
        peer.submit(Job([STEPS] * items, compute)).result()
        return time.perf_counter() - began


def _pool_seconds(count: int, items: int) -> float:
    with get_context("fork").Pool(count) as pool:
        pool.map(abs, range(count))
        began = time.perf_counter()
        pool.map(compute_item, range(items), chunksize=1)
        return time.perf_counter() - began


# ------------------------------------------------------------------------------ tasks


def same(value: int) -> int:
    return value


def same_pair(key: int, value: int) -> Iterable[tuple[int, int]]:
    return ((key, value),)


def tasks(sizes: tuple[int, ...], singles_max: int) -> Part:
    """Items that do nothing, more and more of them in a job; and as many single calls."""
    part = Part(
        "tasks",
        "Items of one job that do nothing, and single calls given at once: microseconds each, of "
        "the clock and of the server's processor time; bytes by which the server's process grew.",
    )
    for count in sizes:
        row: Row = {"tasks": count}
        with Site() as site:
            server, peer = _server_and_owner(site)
            row |= _costs("items", count, server, partial(_job, peer, count))
        if count <= singles_max:
            with Site() as site:
                server, peer = _server_and_owner(site)
                row |= _costs("calls", count, server, partial(_calls, peer, count))
        part.rows.append(row)
    return part


def _server_and_owner(site: Site) -> tuple[Apart, Peer]:
    server = site.joined(0)
    site.joined(2)
    peer = site.here()
    _job(peer, 100)
    _calls(peer, 100)
    return server, peer


def _costs(what: str, count: int, server: Apart, work: Callable[[], None]) -> Row:
    before, held = server.counts(), server.memory_kilobytes()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    after, holds = server.counts(), server.memory_kilobytes()
    return {
        f"{what} us": seconds / count * 1e6,
        f"{what} server us": (after["seconds"] - before["seconds"]) / count * 1e6,
        f"{what} server bytes": max(0, holds - held) * 1024 / count,
    }


def _job(peer: Peer, count: int) -> None:
    found = sum(1 for _ in peer.submit(Job(range(count), same_pair)).items())
    if found != count:
        raise RuntimeError(f"{count} items gave {found} results")


def _calls(peer: Peer, count: int) -> None:
    with peer.executor() as executor:
        wait([executor.submit(same, number) for number in range(count)])


# ------------------------------------------------------------------------------ peers


def peers(sizes: tuple[int, ...]) -> Part:
    """Light peers: joining at once, staying, and losing their server."""
    part = Part(
        "peers",
        "Peers without workers, 25 to a process, each of which counts as a host, and all on these "
        f"cores (so that `silence_seconds` is {CROWD_SILENCE_SECONDS}): seconds until all who "
        "start at once have joined; what an idle peer costs the server's process, in memory and in "
        "processor time a second; seconds until all are back after a `kill -9` of the server.",
    )
    for count in sizes:
        with Site(GRID_SILENCE_SECONDS=str(CROWD_SILENCE_SECONDS)) as site:
            part.rows.append(_crowd(site, count))
    return part


def _crowd(site: Site, count: int) -> Row:
    server = site.joined(0)
    for _ in range(2):
        site.joined(0)
    watch = site.here(serves=False)
    before, held = len(watch.status(STATUS_SECONDS).members), server.memory_kilobytes()
    for first in range(0, count, PER_PROCESS):
        site.start(0, min(PER_PROCESS, count - first))
    joined = until(lambda: _members(watch) >= before + count)
    spent = server.counts()["seconds"]
    time.sleep(IDLE_SECONDS)
    busy = server.counts()["seconds"] - spent
    holds = server.memory_kilobytes()
    term = watch.status(STATUS_SECONDS).term
    server.kill()
    back = until(lambda: _members(watch, term) >= before + count - 1)
    return {
        "peers": count,
        "joined s": joined,
        "server KB a peer": max(0, holds - held) / count,
        "server us a peer and second": busy / IDLE_SECONDS / count * 1e6,
        "back s": back,
    }


def _members(watch: Peer, after_term: int = 0) -> int:
    """How many there are; none while nobody serves, or still the old server does."""
    try:
        status = watch.status(STATUS_SECONDS)
    except TimeoutError:
        return 0
    return len(status.members) if status.term > after_term else 0


# ------------------------------------------------------------------------------ data


def shuffle(sizes: tuple[int, ...]) -> Part:
    """Grouping more and more pairs on two peers: what goes through the server?"""
    part = Part(
        "shuffle",
        "Pairs grouped by two peers with a worker each, and a server that has none: the most that "
        "lay in the spools, all that the server sent and received, and their ratio. Peers of one "
        "host read each other's files; those of several move them over their own data ports.",
    )
    for thousands in sizes:
        with Site() as site:
            server = site.joined(0)
            site.joined(1)
            site.joined(1)
            peer = site.here()
            _job(peer, 100)
            part.rows.append(_shuffled(site, server, peer, thousands))
    return part


def _shuffled(site: Site, server: Apart, peer: Peer, thousands: int) -> Row:
    before = server.counts()
    with _Most(site.spool_bytes) as spool:
        job = Job(group.parts(thousands * 1_000), group.pairs, reducefn=group.total)
        for _ in peer.submit(job).items():
            pass
    after = server.counts()
    through = sum(after[key] - before[key] for key in ("sent", "received"))
    row: Row = {
        "thousand pairs": thousands,
        "spool MB": spool.most / 1e6,
        "server MB": through / 1e6,
    }
    if spool.most:
        row["server bytes a spool byte"] = through / spool.most
    return row


# ------------------------------------------------------------------------------ memory


def memory(shuffles: Iterable[Shuffle]) -> Part:
    """Shuffles that are larger than the memory their grid may use."""
    part = Part(
        "memory",
        "Records of a hundred bytes, ten to a key, grouped by one peer with two slots and a "
        "`memory_limit`; or half of them of one key, or all in two partitions. The most that all "
        "processes of the grid held at one time, and that in parts of the limit; the most that lay "
        "on disk. Every result is checked.",
    )
    for shuffle in shuffles:
        with Site() as site, PeakMemory() as held, _Most(site.disk_bytes) as disk:
            told = site.told("scripts.benchmark.scale.larger", *map(int, shuffle))
        if told["wrong"]:
            raise RuntimeError(f"a wrong answer of {shuffle}: {told['wrong']}")
        row: Row = {
            "MB": shuffle.megabytes,
            "limit MB": shuffle.limit,
            "partitions": shuffle.partitions,
            "of one key %": 50 if shuffle.one_key else 0,
            "peak MB": held.megabytes * 1.048576,
            "of limit": held.megabytes * 1.048576 / shuffle.limit,
            "disk MB": disk.most / 1e6,
            "s": told["seconds"],
        }
        part.rows.append(row)
    return part


class _Most:
    """The largest value that was seen while the context lasted."""

    def __init__(self, look: Callable[[], int]) -> None:
        self.most = 0
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Most":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, self._look())
