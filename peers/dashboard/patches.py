"""From one state to the next as a JSON merge patch (RFC 7396): only what has changed is sent.

A state is made of dicts, and of values that are compared and replaced whole. None is no value in
it: in a patch it says that a key has gone.
"""

from collections.abc import Mapping
from typing import Any


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that makes ``old`` into ``new``; empty if they are the same."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif value != before:
            patch[key] = value
    return patch
