"""How a recording writes what JSON lacks: a callable.

A callable is the mapping `{"$callable": "module:name"}`. An ordinary mapping with such a key gets
one more `$` in front of it, so that nothing a user sends can be taken for a callable. Recordings of
version 1 wrote texts such as `<callable:foo>`, which are callables only there.
"""

from __future__ import annotations

import re
from typing import Any

VERSION = "2"
"""What this fluxloop writes."""
OLD_VERSION = "1"
"""What the earlier fluxloop wrote."""

_KEY = "$callable"
_OLD = re.compile(r"<(?:builtin|callable):([^<>]*)>")


def marker(name: str) -> dict[str, str]:
    """Return what stands for a callable.

    Example:
        >>> called(marker("app:send"), VERSION)
        'app:send'
        >>> called(escaped({"$callable": "app:send"}), VERSION) is None
        True
    """
    return {_KEY: name}


def escaped(plain: dict[str, Any]) -> dict[str, Any]:
    """Return an ordinary mapping so that it cannot be taken for a callable."""
    if not any(_is_key(key) for key in plain):
        return plain
    return {f"${key}" if _is_key(key) else key: item for key, item in plain.items()}


def unescaped(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping that `escaped` was given."""
    if not any(_is_key(key) for key in plain):
        return plain
    return {key[1:] if _is_key(key) else key: item for key, item in plain.items()}


def called(plain: Any, version: str) -> str | None:
    """Return the name of the callable that stands here in a recording of that version, or None."""
    if version == OLD_VERSION:
        found = _OLD.fullmatch(plain) if isinstance(plain, str) else None
        return found[1] if found else None
    if isinstance(plain, dict) and len(plain) == 1 and isinstance(name := plain.get(_KEY), str):
        return name
    return None


def _is_key(key: str) -> bool:
    return key[:1] == "$" and key.endswith(_KEY) and key.strip("$") == _KEY[1:]
