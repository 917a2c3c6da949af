"""Values of any type that msgspec knows, drawn with a ``random.Random``; and values much like one.

The mutators make messages with it. ``tests/unit/strategies.py`` does the like for hypothesis, which
wants strategies in order to shrink what fails; here speed counts, and libFuzzer shrinks.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

Hints = Mapping[str, Sequence[Any]]
"""Likely values for fields of certain names; now and then a field gets what its type allows."""

S = TypeVar("S", bound=msgspec.Struct)

_HINTED = 5 / 6
_DEEPER = 2 / 3  # how often a change is made inside a field instead of to all of it
_TEXTS = ("", "x", "\N{SNOWMAN}", "../up", "nul\0", "y" * 256)
_INTEGERS = (0, 1, 2, 3, 4, 7, 255, 2**16, 2**31, 2**32, 2**53, 2**63 - 1)
_FLOATS = (0.0, 0.5, 1.0, 60.0, 1e9)


def draw(kind: inspect.Type, rng: random.Random, hints: Hints) -> Any:
    """Return some value of this type."""
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: _draw_field(field, rng, hints) for field in fields})
        case inspect.VarTupleType(item_type=item):
            return tuple(draw(item, rng, hints) for _ in range(_few(rng)))
        case inspect.ListType(item_type=item):
            return [draw(item, rng, hints) for _ in range(_few(rng))]
        case inspect.TupleType(item_types=items):
            return tuple(draw(item, rng, hints) for item in items)
        case inspect.DictType(key_type=key, value_type=value):
            return {draw(key, rng, hints): draw(value, rng, hints) for _ in range(_few(rng))}
        case inspect.UnionType(types=types):
            return draw(rng.choice(types), rng, hints)
        case inspect.LiteralType(values=values):
            return rng.choice(values)
        case _:
            return _scalar(kind, rng)


def vary(struct: S, rng: random.Random, hints: Hints) -> S:
    """Return the same with one field drawn anew, of itself or of a struct somewhere inside."""
    described = inspect.type_info(type(struct))
    assert isinstance(described, inspect.StructType)
    if not described.fields:
        return struct
    field = rng.choice(described.fields)
    value = getattr(struct, field.encode_name)
    if rng.random() < _DEEPER:
        inside = _vary_inside(value, rng, hints)
        if inside is not None:
            return msgspec.structs.replace(struct, **{field.name: inside})
    return msgspec.structs.replace(struct, **{field.name: _draw_field(field, rng, hints)})


def _vary_inside(value: Any, rng: random.Random, hints: Hints) -> Any:
    """Vary a struct, or one element of a sequence; None if there is nothing to go into."""
    if isinstance(value, msgspec.Struct):
        return vary(value, rng, hints)
    if not isinstance(value, tuple | list) or not value:
        return None
    index = rng.randrange(len(value))
    inside = _vary_inside(value[index], rng, hints)
    if inside is None:
        return None
    return type(value)([*value[:index], inside, *value[index + 1 :]])


def _draw_field(field: inspect.Field, rng: random.Random, hints: Hints) -> Any:
    plural = isinstance(field.type, inspect.VarTupleType | inspect.BytesType)
    if field.name in hints and not plural and rng.random() < _HINTED:
        return rng.choice(hints[field.name])
    return draw(field.type, rng, hints)


def _few(rng: random.Random) -> int:
    return rng.choice((0, 1, 1, 2, 3))


def _scalar(kind: inspect.Type, rng: random.Random) -> Any:
    match kind:
        case inspect.IntType():
            return _integer(kind, rng)
        case inspect.FloatType(ge=least, le=most):
            low, high = least or 0.0, 1e12 if most is None else most
            return min(max(rng.choice(_FLOATS), low), high)
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.StrType(max_length=longest):
            return rng.choice(_TEXTS)[:longest]
        case inspect.BytesType(max_length=longest):
            return rng.randbytes(rng.choice((0, 1, 20)))[:longest]
        case inspect.NoneType():
            return None
        case _:
            raise AssertionError(f"cannot draw a {kind}")


def _integer(kind: inspect.IntType, rng: random.Random) -> int:
    """Mostly small, now and then just at one of the type's ends."""
    least = -(2**63) if kind.ge is None else kind.ge
    most = 2**63 - 1 if kind.le is None else kind.le
    most = most if kind.lt is None else kind.lt - 1
    if rng.random() < 0.1:
        return rng.choice((least, most))
    return min(max(rng.choice(_INTEGERS), least), most)
