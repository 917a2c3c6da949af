"""Small things that the tests of the cores are built from."""

from grid.messages import (
    NO_REIGN,
    Address,
    Hello,
    Holding,
    Join,
    Kind,
    Output,
    PeerRef,
    RecordMeta,
    Reign,
    Successor,
    Welcome,
)

PORT = 11235


def peer(name: str, host: str = "h") -> PeerRef:
    return PeerRef(name, name, host, Address(host, 1))


def successors(*names: str) -> tuple[Successor, ...]:
    """On one host: all with the same doors."""
    return tuple(Successor(peer(name), (Address("h", PORT),)) for name in names)


def meta(
    record: str = "r", items: int = 4, *, partitions: int = 8, finish: bool = False
) -> RecordMeta:
    return RecordMeta(record, "mapreduce", items, partitions, finish)


def everywhere(record: str = "r") -> RecordMeta:
    return RecordMeta(record, "everywhere", 0, 1, False)


def holding(
    start: int,
    stop: int,
    producer: str = "a",
    *,
    kind: Kind = "map",
    record: str = "r",
    counter: int = 1,
) -> Holding:
    return Holding(Output(record, kind, start, stop, producer, counter), 10)


def hello(name: str) -> Hello:
    return Hello(1, "grid", name, name, (3, 11), "peer", Address("h", PORT))


def welcome(name: str, reign: Reign, followers: int = 0) -> Welcome:
    return Welcome(name, name, (3, 11), reign, followers)


def join(name: str, *, host: str = "h", slots: int = 1, seen: Reign = NO_REIGN) -> Join:
    return Join(peer(name, host), slots, True, seen, (), (), doors=(Address("h", PORT),))
