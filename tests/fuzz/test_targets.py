"""Every target over its seeds and some changes of them: the same inputs each time, no atheris."""

import random

import msgspec
import pytest

from grid.messages import Parcel
from peers.segment import Header, encode_header
from peers.worker_channel import NotForked
from tests.fuzz.data import FED, PARTITIONS, parcel, sealed_header, segment_of
from tests.fuzz.target import scrambled
from tests.fuzz.targets import TARGETS
from tests.fuzz.wire import joined

CHANGES = 3
"""Of each seed. Few, since ``scripts/fuzz`` is for more."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_is_much_like_them(name: str) -> None:
    target = TARGETS[name]
    rng = random.Random(1)
    seeds = target.seeds()
    assert seeds == target.seeds(), "seeds must be the same every time"
    for seed in seeds:
        target.run(seed)
        for _ in range(CHANGES):
            seed = target.mutate(seed, rng, lambda data: scrambled(data, rng))
            target.run(seed)


def header(partitions: object, skipped: object = (), record: bytes = b"record") -> bytes:
    """Return a segment without chunks, whose header may be anything."""
    output = ["record", *msgspec.structs.astuple(FED)[1:]]
    fields = [output, partitions, 0, PARTITIONS, skipped, [], [], []]
    encoded = msgspec.msgpack.encode(fields)
    return sealed_header(encoded.replace(b"\xa6record", bytes([0xA0 + len(record)]) + record))


def one_chunk(partition: int, partitions: int) -> bytes:
    return encode_header(Header(FED, partitions, 0, partitions, (), [partition], [0], [0]))


NOT_UTF8 = b"\xff\xff\xff"
FOUND: dict[str, tuple[str, bytes]] = {
    "a header that is not UTF-8": ("segment", header(4, record=NOT_UTF8)),
    "four billion billion partitions": ("segment", header(2**62)),
    "skipped items that no message can tell of": ("segment", header(4, [-1])),
    "two partition counts in one record": ("segment", one_chunk(8, 9)),
    "a parcel of nothing": ("asking", b"\0" + parcel()),
    "a parcel of no result": ("asking", b"\2" + parcel()),
    "a parcel of too much": ("asking", b"\1" + parcel(segment_of(FED), b"")),
    "a parcel of no segment": ("asking", b"\1" + parcel(b"no segment")),
    "a parcel of gigabytes, cut off": ("asking", b"\2" + joined(Parcel((2**32,))) + b"x"),
    "no head": ("asking", b"\0" + parcel(b"no head")),
    "no head, riding": ("asking", b"\3no head"),
    "a worker's message that is not UTF-8": (
        "channel",
        joined(NotForked(1, "xxx")).replace(b"xxx", NOT_UTF8),
    ),
}
"""Inputs that once broke a promise. Those of the cores are in ``tests/unit/test_fuzz.py``."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_repaired(name: str) -> None:
    target, data = FOUND[name]
    TARGETS[target].run(data)
