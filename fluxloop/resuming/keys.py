"""Nested data by dotted keys, as messages name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one, by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{path}."))
        else:
            found[path] = value
    return found


def at(data: Any, path: str) -> Any:
    """Return what stands under a dotted key, or None."""
    for key in path.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data
