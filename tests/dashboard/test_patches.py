"""Patches make the new state of the old one, and say nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from peers.dashboard.patches import merge_patch
from tests.dashboard.rig import patched

keys = st.sampled_from("abcd")
values = st.recursive(
    st.integers(0, 3) | st.text("xy", max_size=2) | st.lists(st.integers(0, 2), max_size=3),
    lambda inner: st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
states = st.dictionaries(keys, values, max_size=4)


@given(states, states)
def test_a_patch_makes_the_new_state(old: dict[str, object], new: dict[str, object]) -> None:
    assert patched(old, merge_patch(old, new)) == new


@given(states)
def test_nothing_changed_is_nothing_said(state: dict[str, object]) -> None:
    assert merge_patch(state, state) == {}


def test_only_what_changed_is_in_it() -> None:
    old = {"peers": {"a": {"busy": 1, "name": "n"}, "b": {"busy": 0}}, "term": 1}
    new = {"peers": {"a": {"busy": 2, "name": "n"}}, "term": 1}
    assert merge_patch(old, new) == {"peers": {"a": {"busy": 2}, "b": None}}
