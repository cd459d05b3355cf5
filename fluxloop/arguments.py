"""What a caller gives where a list or a mapping belongs: a text is neither, though Python goes through its letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fluxloop.exceptions import ConfigError, Problem

MAX_SHOWN = 80


def as_list(name: str, value: Any, example: str) -> list[Any]:
    """Return the items of the list that a caller gave.

    Args:
        name: of the argument.
        value: what was given.
        example: how a list for it is written.

    Raises:
        ConfigError: it is no list; says how one is written.
    """
    if isinstance(value, str | bytes | bytearray | Mapping | type) or not isinstance(value, Iterable):
        is_shown = isinstance(value, str) and len(value) < MAX_SHOWN and "=" not in value  # a setting may be secret
        one = f"[{value!r}]" if is_shown else example
        got = "a text" if isinstance(value, str) and not is_shown else described(value)
        raise ConfigError([Problem(name, f"expected a list, as {one}, got {got}")])
    return list(value)


def as_mapping(name: str, value: Any, example: str) -> dict[Any, Any]:
    """Return the mapping that a caller gave, as `as_list` does.

    Raises:
        ConfigError: it is no mapping; says how one is written.
    """
    if not isinstance(value, Mapping):
        raise ConfigError([Problem(name, f"expected a mapping, as {example}, got {described(value)}")])
    return dict(value)


def described(value: Any) -> str:
    """Return what a message calls a value that is of the wrong kind."""
    if value is None:
        return "nothing"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float) and len(text := repr(value)) <= MAX_SHOWN:
        return text
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    return f"an object of class {type(value).__qualname__}"


_NAMES: tuple[tuple[Any, str], ...] = (
    (str, "a long text"),
    (bytes | bytearray, "bytes"),
    (Mapping, "a mapping"),
    (list | tuple, "a list"),
    (set | frozenset, "a set"),
)
