"""Framing: whatever is sent comes out the same, whatever else comes in is one clear error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import framing
from grid.errors import Bug, ProtocolError
from grid.framing import Decoder, decode, encode
from grid.messages import Beat, Claims, Drop, Message, Printed, Refusal
from tests.unit.strategies import values_of

_MESSAGES = values_of(msgspec.inspect.type_info(Message))


def _take_all(decoder: Decoder) -> list[Message]:
    return list(iter(decoder.next, None))


@given(st.lists(_MESSAGES, max_size=6), st.data())
def test_every_message_survives_any_cutting(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(map(encode, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = Decoder()
    got: list[Message] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoder.feed(stream[start:stop])
        got += _take_all(decoder)
    assert got == messages
    assert decoder.unread_bytes == 0


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_or_waits_for_more(garbage: bytes) -> None:
    decoder = Decoder(frame_bytes_max=1024)
    decoder.feed(garbage)
    try:
        _take_all(decoder)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decoder.next()
        assert decoder.unread_bytes == 0


@given(_MESSAGES, st.data())
def test_a_damaged_body_never_raises_anything_else(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message)[framing.HEADER_BYTES :])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(body)
    except ProtocolError:
        pass  # anything else fails the test


def test_frames_before_the_broken_one_are_delivered() -> None:
    decoder = Decoder()
    decoder.feed(encode(Beat(1)) + encode(Beat(2)) + b"\0\0\0\3abc" + encode(Beat(3)))
    assert decoder.next() == Beat(1)
    assert decoder.next() == Beat(2)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="no known message"):
            decoder.next()


@pytest.mark.parametrize(
    "header",
    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"GET ", (1025).to_bytes(4, "big")],
    ids=["huge", "empty", "http", "one too many"],
)
def test_a_length_that_is_not_allowed_is_refused_at_once(header: bytes) -> None:
    decoder = Decoder(frame_bytes_max=1024)
    decoder.feed(header)
    with pytest.raises(ProtocolError, match="announced a frame of"):
        decoder.next()


def test_half_a_frame_waits() -> None:
    frame = encode(Refusal("no"))
    decoder = Decoder()
    decoder.feed(frame[:-1])
    assert decoder.next() is None
    assert decoder.unread_bytes == len(frame) - 1
    decoder.feed(frame[-1:])
    assert decoder.next() == Refusal("no")


def test_the_limit_can_be_raised_after_the_greeting() -> None:
    decoder = Decoder(frame_bytes_max=16)
    decoder.frame_bytes_max = 1024
    decoder.feed(encode(Refusal("x" * 500)))
    assert decoder.next() == Refusal("x" * 500)


@pytest.mark.parametrize(
    "body",
    [
        msgspec.msgpack.encode({"type": "Nonsense"}),
        msgspec.msgpack.encode({"type": "Drop", "record": 7}),
        msgspec.msgpack.encode({"type": "Drop"}),
        msgspec.msgpack.encode([1, 2]),
        msgspec.msgpack.encode(Drop("r")) + b"\0",
        b"\x82\xa4type\xa6Claims\xa7records\xdd\xff\xff\xff\xff",
        b"\x83\xa4type\xa6Claims\xa7records\x90\xa1x" + b"\x91" * 100_000,
        b"\x82\xa4type\xa6Claims\xa7records\x91\xa1\xff",
    ],
    ids=[
        "unknown type",
        "wrong type of field",
        "missing field",
        "no object",
        "bytes left over",
        "an array of four billion",
        "nested without end",
        "not utf-8",
    ],
)
def test_malformed_bodies(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="no known message"):
        decode(body)


def test_an_error_quotes_no_data() -> None:
    secret = b"\x82\xa4type\xa7secret1\xa6record\xa7secret2"
    with pytest.raises(ProtocolError) as caught:
        decode(secret)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_too_large_a_message_is_our_own_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_BYTES_MAX", 1000)
    with pytest.raises(Bug, match="a Printed of 10"):
        encode(Printed("r", "p", "stdout", "x" * 1000))


def test_many_small_frames_do_not_pile_up() -> None:
    decoder = Decoder()
    frame = encode(Claims(("r" * 100,)))
    for _ in range(50):
        decoder.feed(frame * 100 + frame[:7])
        decoder.feed(frame[7:])
        assert len(_take_all(decoder)) == 101
        assert decoder.unread_bytes == 0
        assert len(decoder._buffer) == 0
