"""This grid: one ``Peer`` with workers, that submits, serves, and takes the results."""

import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmark.engines.base import NUMPY, Engine, Unsupported
from scripts.benchmark.work import MapReduce, Pair, Table, TextFiles

TOP = Path(__file__).parents[3]


CHUNKS_PER_SLOT = 8

STAY = """
import sys
from peers import Peer
with Peer(slots=int(sys.argv[1])):
    print("joined", flush=True)
    sys.stdin.read()
"""
"""A peer that stays until its standard input is closed."""


def _dependencies() -> tuple[str, ...]:
    """What the checkout itself needs; its own code comes from the checkout."""
    with (TOP / "pyproject.toml").open("rb") as file:
        found: list[str] = tomllib.load(file)["project"]["dependencies"]
    return tuple(found)


class Measured(Engine):
    requirements = (*_dependencies(), NUMPY)
    idiom = (
        "One `Peer(slots=2)`: `submit(Job)` and `items()`; `executor()` for plain functions, with "
        "large chunks for its `map`."
    )

    def __init__(self, slots: int, folder: Path) -> None:
        super().__init__(slots, folder)
        self._executor: Any = None
        self._apart: list[subprocess.Popen[bytes]] = []
        os.environ.setdefault("GRID_PORT", str(_free_port()))
        os.environ.setdefault("GRID_SPOOL", str(self.folder / "spool"))
        os.environ.setdefault("XDG_CONFIG_HOME", str(self.folder / "config"))

    def start(self) -> None:
        self._join(self.slots)

    def start_apart(self) -> list[int]:
        # The first serves and has no workers, the second has them; this process only submits.
        for slots in (0, self.slots):
            process = subprocess.Popen(
                [sys.executable, "-c", STAY, str(slots)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._apart.append(process)
            assert process.stdout is not None
            process.stdout.readline()
        self._join(0)
        return [self._apart[0].pid]

    def _join(self, slots: int) -> None:
        from peers import Peer  # what importing costs is part of the run

        self._peer = Peer(slots=slots)

    def close(self) -> None:
        self._peer.close()
        for process in self._apart:
            process.communicate()

    def mapreduce(self, work: MapReduce) -> Iterable[Pair]:
        from peers import Files, Job

        source = work.source
        datasource: Any
        match source:
            case Table():
                datasource = source.items
            case TextFiles():
                datasource = Files(f"{source.folder}/*.txt")
        return self._peer.submit(Job(datasource, work.mapfn, reducefn=work.reducefn)).items()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Sequence[Any]:
        size = max(1, len(items) // (self.slots * CHUNKS_PER_SLOT))
        return list(self._plain().map(function, items, chunksize=size))

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        submit = self._plain().submit
        waiting = [submit(function, item) for item in items]
        return [future.result() for future in waiting]

    def tasks(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        work = MapReduce(Table(dict(enumerate(items))), _Calling(function))
        values = dict(self.mapreduce(work))
        return [values[number][0] for number in range(len(items))]

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        if hasattr(self._peer, "executor"):
            return super().call(function, argument)
        results = self.mapreduce(MapReduce(Table({0: argument}), _Calling(function)))
        return next(iter(results))[1][0]

    def _plain(self) -> Any:
        """The executor, made once."""
        if self._executor is None:
            make = getattr(self._peer, "executor", None)
            if make is None:
                raise Unsupported("not available: this checkout has no Peer.executor()")
            self._executor = make()
        return self._executor


class _Calling:
    """A mapfn that calls a plain function on the value."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, key: Any, value: Any) -> list[Pair]:
        return [(key, self.function(value))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
