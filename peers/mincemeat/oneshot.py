"""``ONESHOT``: each client maps at most one item, its own, and items for nobody are left out.

The clients that are here when it begins say how they can be known from within, by the process that
their workers come from. Then each is called once, with a list of who is to map what, and finds its
own. A client that dies loses its item, as it did in the original. The reduce is an ordinary one.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from grid.errors import BadJob, PeerClosed
from grid.job import Job
from peers.addresses import host_id
from peers.mincemeat.functions import travelling

if TYPE_CHECKING:
    from peers.peer import Peer

LOOK_SECONDS = 0.05

Place = tuple[str, int]
"""The host of a worker, and the process that it was forked from, which is its peer's alone."""


def here() -> Place:
    """Where the calling worker is."""
    return host_id(), os.getppid()


class OneItem:
    """What every client is called with: who maps which item, and how. Gives its value lists."""

    def __init__(self, items: dict[Place, tuple[Any, Any]], job: Job) -> None:
        self._items = items
        self._mapfn = travelling(job.functions.mapfn)
        self._collectfn = travelling(job.functions.collectfn)
        self.__wrapped__ = job.functions.mapfn  # so that the modules it imports are looked for

    def __call__(self) -> dict[Any, list[Any]]:
        mine = self._items.get(here())
        if mine is None:
            return {}
        return Job(dict([mine]), self._mapfn, collectfn=self._collectfn).run()


def map_once(peer: "Peer", job: Job, closing: Callable[[], bool]) -> dict[Any, list[Any]]:
    """Have every client that is here map one item of the job; return value lists by key.

    Waits for a first client, until ``closing()``. Raises what ``Peer.run_everywhere`` raises.
    """
    if job.functions.mapfn is None:
        raise BadJob("ONESHOT gives each client an item to map, and there is no mapfn")
    _wait_for_a_client(peer, closing)
    places = sorted(peer.run_everywhere(here).values())
    datasource = job.datasource
    items = {
        place: (key, datasource[key]) for place, key in zip(places, _keys(datasource), strict=False)
    }
    lists: dict[Any, list[Any]] = {}
    for mapped in peer.run_everywhere(OneItem(items, job)).values():
        for key, values in mapped.items():
            lists.setdefault(key, []).extend(values)
    return lists


def _keys(datasource: Any) -> Iterator[Any]:
    """The keys one by one: in this allocation they need not end."""
    if hasattr(datasource, "keys") or not hasattr(datasource, "__len__"):
        return iter(datasource)
    return itertools.islice(iter(Job(datasource, mapfn=_nothing).keys()), None)


def _nothing(_key: Any, _value: Any) -> None:
    """Stands where a job needs a function."""


def _wait_for_a_client(peer: "Peer", closing: Callable[[], bool]) -> None:
    while not any(member.slots for member in peer.status().members):
        if closing():
            raise PeerClosed("the server was closed before a client came")
        time.sleep(LOOK_SECONDS)
