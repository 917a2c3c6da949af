"""What the workers of another engine do with a job: map a share, reduce slices, finish.

The meaning is ``grid.mapreduce``, as for the grid's own workers. These functions are what Dask and
Ray are given to run, so their arguments and outputs are plain: bytes, lists and dicts, of which
an engine can tell the size and which it can spill. A task may run any number of times.

Here as on the grid, a file is read where the task runs if it is the same file there. Where it is
not, the share says which (``Told.strangers``) and is mapped again with the values that the caller
read. A bad end is raised as ``Failed``, which carries it as text for ``peers.failures``.
"""

import os
import pickle
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from msgspec import structs

from grid.errors import Misuse, NotPicklable
from grid.functions import Functions
from grid.mapreduce import Grouper, Pair, UserFault, finish, merged, reduce_partition
from grid.messages import Failure
from grid.pickling import PROTOCOL, Frozen, plain, show, thaw
from peers import worker_failures
from peers.chunks import decode_pairs, encode_columns, encode_pairs, open_groups
from peers.files import Changed, Reference
from peers.shipping import Code, ModuleUnavailable, StaleModule, load, use_paths

PAIRS_MAX = 500_000
"""Pairs a map holds as objects before it turns them into bytes."""

RESULTS_MAX = 50_000
"""Results in one chunk."""

LOADED_MAX = 4
"""Jobs whose functions a thread keeps."""

Piece = bytes
"""One slice of a map's output: pickled pairs of a partition and its chunks. Bytes, since engines
take collections apart when they move them."""


class Failed(Exception):
    """A task ended badly, as ``failure`` says."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return self.failure.message


class Recipe(NamedTuple):
    """A job's code, encoded, and its name, by which functions that were loaded are known."""

    name: str
    code: bytes


@dataclass(frozen=True)
class Share:
    """A range of items to map, from index ``start``: pickled keys and frozen values. Keys are
    divided into ``partitions``, and these into ``slices``. ``what`` is it for people."""

    what: str
    start: int
    stop: int
    items: bytes
    partitions: int
    slices: int
    skip: bool


@dataclass(frozen=True)
class Told:
    """What a task says of itself. ``sizes`` are the bytes of each slice; ``skipped`` and
    ``strangers`` indices of items: left out, and those whose file is not the same here. If there
    are strangers nothing was mapped."""

    sizes: dict[int, int] = field(default_factory=dict)
    skipped: tuple[int, ...] = ()
    strangers: tuple[int, ...] = ()


class _Strangers(Exception):
    """Files that these items name are not the same here."""

    def __init__(self, *indices: int) -> None:
        super().__init__(*indices)
        self.indices = indices


# ------------------------------------------------------------------ the tasks


def map_share(share: Share, recipe: Recipe) -> tuple[Told, dict[int, Piece]]:
    """Map the items of a share; return what to tell of it, and its output by slice."""
    with _bad_ends("mapfn") as at:
        grouper = Grouper(_functions(recipe), skip=share.skip)
        chunks: dict[int, list[bytes]] = {}
        try:
            grouper.add_items(_watched(share, grouper, chunks, at))
        except _Strangers as strangers:
            return Told(strangers=strangers.indices), {}
        at.clear()
        _drain(grouper, share.partitions, chunks)
        pieces = _pieces(chunks, share)
        sizes = {number: len(piece) for number, piece in pieces.items()}
        return Told(sizes, tuple(grouper.skipped)), pieces


def reduce_pieces(recipe: Recipe, pieces: Iterable[Piece | None]) -> list[bytes]:
    """Reduce the partitions in ``pieces``, which come from maps in datasource order."""
    with _bad_ends("reducefn"):
        functions = _functions(recipe)
        gathered: dict[int, list[bytes]] = {}
        for piece in pieces:
            for partition, chunks in pickle.loads(piece) if piece else ():
                gathered.setdefault(partition, []).extend(chunks)
        made: list[bytes] = []
        for partition in sorted(gathered):
            groups = merged(*map(open_groups, gathered.pop(partition)))
            made += _encoded(reduce_partition(functions, groups))
        return made


def finish_all(recipe: Recipe, outputs: Iterable[list[bytes]]) -> list[bytes]:
    """Run finishfn over the outputs of all reduces, in their order."""
    with _bad_ends("finishfn"):
        functions = _functions(recipe)
        return list(_encoded(finish(functions, decoded(outputs))))


def decoded(outputs: Iterable[Sequence[bytes]]) -> Iterator[Pair]:
    """Yield the results in these outputs, in their order."""
    for chunks in outputs:
        for chunk in chunks:
            keys, values = decode_pairs(chunk)
            yield from zip(keys, values, strict=True)


# ------------------------------------------------------------------ items


def _values(share: Share, skipped: list[int]) -> Iterator[tuple[int, Any, Any]]:
    """Yield (index, key, value), reading files here. Raises ``_Strangers`` before the first item
    for all that can be seen then."""
    items = _opened(share)
    references = [frozen[0] if type(frozen) is list else None for _, frozen in items]
    strangers = [
        share.start + position
        for position, value in enumerate(references)
        if isinstance(value, Reference) and not value.matches()
    ]
    if strangers:
        raise _Strangers(*strangers)
    for position, (key, frozen) in enumerate(items):
        index = share.start + position
        items[position] = (None, [])  # a value is let go as soon as it is mapped
        try:
            value = _value(index, key, frozen)
        except UserFault:
            if not share.skip:
                raise
            skipped.append(index)
            continue
        yield index, key, value


def _opened(share: Share) -> list[tuple[Any, Frozen]]:
    try:
        items: list[tuple[Any, Frozen]] = pickle.loads(share.items)
    except Exception as error:
        raise _unopened(error, "") from error
    return items


def _value(index: int, key: Any, frozen: Frozen) -> Any:
    if type(frozen) is not list:
        try:
            return thaw(frozen)[0]
        except Exception as error:
            raise _unopened(error, show(key)) from error
    value = frozen[0]
    if not isinstance(value, Reference):
        return value
    try:
        return value.read()
    except (Changed, OSError):
        raise _Strangers(index) from None  # the caller has it, or can say what is wrong
    except Exception as error:
        raise UserFault("the datasource", show(key), error, index) from error


def _unopened(error: Exception, key: str) -> Exception:
    if isinstance(error, ImportError | AttributeError):
        return ModuleUnavailable(getattr(error, "name", None) or "", str(error))
    return UserFault("unpickling of the items", key, error)


def _watched(
    share: Share, grouper: Grouper, chunks: dict[int, list[bytes]], at: list[Any]
) -> Iterator[tuple[int, Any, Any]]:
    """Yield the items of a share, noting the key ``at`` hand; drain what is much in between."""
    for index, key, value in _values(share, grouper.skipped):
        at[:] = [key]
        yield index, key, value
        if grouper.size >= PAIRS_MAX:
            _drain(grouper, share.partitions, chunks)


def _drain(grouper: Grouper, partitions: int, chunks: dict[int, list[bytes]]) -> None:
    for partition, chunk in grouper.drain(partitions):
        chunks.setdefault(partition, []).append(encode_columns(chunk))


def _pieces(chunks: dict[int, list[bytes]], share: Share) -> dict[int, Piece]:
    slices: dict[int, list[tuple[int, list[bytes]]]] = {}
    for partition in sorted(chunks):
        number = partition * share.slices // share.partitions
        slices.setdefault(number, []).append((partition, chunks.pop(partition)))
    return {number: pickle.dumps(parts, PROTOCOL) for number, parts in slices.items()}


def _encoded(pairs: Iterable[Pair]) -> Iterator[bytes]:
    keys: list[Any] = []
    values: list[Any] = []
    for key, value in pairs:
        keys.append(key)
        values.append(value)
        if len(keys) >= RESULTS_MAX:
            yield encode_pairs(keys, values)
            keys, values = [], []
    if keys:
        yield encode_pairs(keys, values)


# ------------------------------------------------------------------ functions


_loading = threading.Lock()  # sys.path and sys.modules belong to all threads of a worker
_mine = threading.local()


def _functions(recipe: Recipe) -> Functions:
    """Load a job's functions, once for each thread: they need not expect other threads."""
    kept: dict[str, tuple[Code, Functions]] = _mine.__dict__.setdefault("kept", {})
    with _loading:
        if recipe.name in kept:
            code, functions = kept[recipe.name]
            use_paths(code)
            return functions
        code = Code.decode(recipe.code)
        try:
            functions = load(code)
        except StaleModule as error:
            raise ModuleUnavailable(
                error.name, f"{error.why}; restart the cluster's workers to load it anew"
            ) from error
    while len(kept) >= LOADED_MAX:
        kept.pop(next(iter(kept)))
    kept[recipe.name] = code, functions
    return functions


# ------------------------------------------------------------------ bad ends


@contextmanager
def _bad_ends(function: str) -> Iterator[list[Any]]:
    """Raise whatever goes wrong as ``Failed``. Yields a list for the key of the item at hand."""
    at: list[Any] = []
    try:
        yield at
    except BaseException as error:
        if isinstance(error, GeneratorExit):
            raise
        failure = _failure(error, function, show(at[0]) if at else "")
        peer = f"{socket.gethostname()}-{os.getpid()}"
        raise Failed(structs.replace(failure, peer=peer)) from None


def _failure(error: BaseException, function: str, key: str) -> Failure:
    match error:
        case UserFault():
            return worker_failures.raised(error.cause, error.function, error.key)
        case NotPicklable():
            return worker_failures.unpicklable(error)
        case ModuleUnavailable():
            return Failure("module", plain(str(error), worker_failures.MESSAGE_MAX))
        case Misuse() | MemoryError() | RecursionError():
            return worker_failures.raised(error, function, key)
        case Exception():
            return worker_failures.bug(error)
        case _:  # SystemExit and its like, which user code raised
            return worker_failures.raised(error, function, key)
