"""Streams of frames as inputs: taken apart into messages, changed by their types, put together.

What follows the last whole message (a broken frame, raw blobs) is kept as bytes. One change in
eight is made to the bytes as they are, so that decoders get their share of what is malformed.
Frames between peers (``grid/framing.py``) and those between a peer and its workers
(``peers/worker_channel.py``) look alike: four bytes of length, and a message in msgpack.
"""

import random
from typing import Any

import msgspec
from msgspec import inspect

from tests.fuzz.drawing import Hints, draw, vary
from tests.fuzz.target import Bytewise

_MESSAGES_MAX = 40
"""A longer input says nothing that a shorter one could not, and takes longer."""

_LENGTH_BYTES = 4


def joined(*messages: msgspec.Struct) -> bytes:
    """Return these messages as a stream of frames."""
    bodies = map(msgspec.msgpack.encode, messages)
    return b"".join(len(body).to_bytes(_LENGTH_BYTES, "big") + body for body in bodies)


class Talk:
    """Makes and changes streams of the messages of ``union``; ``hints`` are names that occur."""

    def __init__(self, union: Any, hints: Hints) -> None:
        described = inspect.type_info(union)
        assert isinstance(described, inspect.UnionType)
        self._kinds = described.types
        self._hints = hints
        self._decoder: msgspec.msgpack.Decoder[msgspec.Struct] = msgspec.msgpack.Decoder(union)

    def one_of_each(self) -> list[msgspec.Struct]:
        """Return a message of every type, always the same ones."""
        rng = random.Random(0)
        return [draw(kind, rng, self._hints) for kind in self._kinds]

    def mutate(self, data: bytes, rng: random.Random, bytewise: Bytewise) -> bytes:
        """Return a change of a stream."""
        if rng.random() < 1 / 8:
            return bytewise(data)
        messages, rest = self._cut(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            self._change(messages, rng)
        if rest and rng.random() < 1 / 4:
            rest = bytewise(rest)
        return joined(*messages[:_MESSAGES_MAX]) + rest

    def _cut(self, data: bytes) -> tuple[list[msgspec.Struct], bytes]:
        """Return the messages at the beginning of a stream, and the bytes after them."""
        messages: list[msgspec.Struct] = []
        start = 0
        while start < len(data):
            begin = start + _LENGTH_BYTES
            end = begin + int.from_bytes(data[start:begin], "big")
            try:
                messages.append(self._decoder.decode(data[begin:end]))
            except ValueError:
                break
            start = end
        return messages, data[start:]

    def _change(self, messages: list[msgspec.Struct], rng: random.Random) -> None:
        at = rng.randrange(len(messages)) if messages else 0
        if not messages or rng.random() < 0.3:
            drawn = draw(rng.choice(self._kinds), rng, self._hints)
            messages.insert(rng.randint(0, len(messages)), drawn)
        elif rng.random() < 0.6:
            messages[at] = vary(messages[at], rng, self._hints)
        elif rng.random() < 0.4:
            messages.insert(rng.randint(0, len(messages)), messages[at])
        elif rng.random() < 0.6:
            messages.append(messages.pop(at))
        else:
            del messages[at]
