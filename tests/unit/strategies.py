"""Hypothesis strategies for messages: every value that their types allow."""

from typing import Any

import msgspec
from hypothesis import strategies as st

Chooser = dict[str, st.SearchStrategy[Any]]
"""Strategies for fields of certain names: mostly these, now and then what the type allows."""

_NEVER_HINTED = (msgspec.inspect.VarTupleType, msgspec.inspect.BytesType)
"""A tuple of names has the field's name too, but is no name."""


def values_of(kind: msgspec.inspect.Type, hints: Chooser | None = None) -> st.SearchStrategy[Any]:
    """Values of a type, made from what msgspec knows of it; ``hints`` make some likelier."""
    match kind:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _field(field, hints or {}) for field in fields})
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(values_of(item, hints), max_size=3).map(tuple)
        case msgspec.inspect.TupleType(item_types=items):
            return st.tuples(*(values_of(item, hints) for item in items))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values_of(key, hints), values_of(value, hints), max_size=3)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*(values_of(each, hints) for each in types))
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case _:
            return _scalar(kind)


def _field(field: msgspec.inspect.Field, hints: Chooser) -> st.SearchStrategy[Any]:
    typed = values_of(field.type, hints)
    if field.name not in hints or isinstance(field.type, _NEVER_HINTED):
        return typed
    return st.one_of(*[hints[field.name]] * 5, typed)


def _scalar(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case msgspec.inspect.IntType(ge=least, le=most, lt=below):
            return st.integers(least, most if below is None else below - 1)
        case msgspec.inspect.FloatType(ge=least, le=most):
            return st.floats(least, most, allow_nan=False)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.StrType(max_length=longest):
            return st.text(max_size=min(20, longest or 20))
        case msgspec.inspect.BytesType(max_length=longest):
            return st.binary(max_size=min(20, longest or 20))
        case msgspec.inspect.NoneType():
            return st.none()
        case _:
            raise AssertionError(f"no strategy for {kind}")
