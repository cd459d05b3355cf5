"""Dotted paths through recorded arguments, as `messages.0.content`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

Steps = tuple[Any, ...]
"""Keys and positions from the top."""

MAX_LISTED = 8
MAX_PATHS = 1_000
"""Paths looked through for the one that was meant."""


@frozen(kw_only=True)
class Place:
    """Where a path leads."""

    steps: Steps
    is_new: bool = False
    """It is a key that the mapping it would be in does not have."""
    beside: tuple[str, ...] = ()
    """For a new key, the paths that are there."""


class NotThereError(Exception):
    """A path leads nowhere; says what is there."""


def find(value: Any, path: str, *, may_add: bool = False) -> Place:
    """Follow a path to its end, or to a mapping that lacks only its last key.

    A key may hold dots itself. A last key that is much like one that is there is taken for a slip.

    Args:
        value: what is looked through.
        path: keys and positions, joined by dots.
        may_add: whether a new key at the very top is one, too.

    Raises:
        NotThereError: with the nearest path that is there.
    """
    parts = path.split(".")
    steps: list[Any] = []
    here = value
    while parts:
        step = _step(here, parts)
        if step is None:
            return _new_key(value, here, path, steps, parts, may_add)
        key, taken = step
        steps.append(key)
        here, parts = here[key], parts[taken:]
    return Place(steps=tuple(steps))


def _step(here: Any, parts: Sequence[str]) -> tuple[Any, int] | None:
    """The key or position to go on with, and how many parts of the path it is."""
    if isinstance(here, dict):
        for taken in range(1, len(parts) + 1):
            if (key := ".".join(parts[:taken])) in here:
                return key, taken
    if isinstance(here, list) and parts[0].lstrip("-").isdecimal():
        position = int(parts[0])
        if -len(here) <= position < len(here):
            return position, 1
    return None


def _new_key(value: Any, here: Any, path: str, steps: list[Any], parts: list[str], may_add: bool) -> Place:
    above = ".".join(map(str, steps))
    siblings = [_joined(above, key) for key in here] if isinstance(here, dict) else []
    close = [_joined(above, _with_rest(here, key, parts[1:])) for key in _near(parts, here)]
    if isinstance(here, dict) and len(parts) == 1 and not close and (steps or may_add):
        return Place(steps=(*steps, parts[0]), is_new=True, beside=tuple(siblings))
    if not close and not steps:
        paths = [one for _, one in zip(range(MAX_PATHS), all_paths(value), strict=False)]
        close = difflib.get_close_matches(path, paths, 1)
    raise NotThereError(f"{path} is not in the recording; {_what_there_is(here, above, siblings, close)}")


def _near(parts: list[str], here: Any) -> list[str]:
    """The key that was meant, if any."""
    keys = list(here) if isinstance(here, dict) else []
    return difflib.get_close_matches(parts[0], keys, 1) or difflib.get_close_matches(".".join(parts), keys, 1)


def _with_rest(here: dict[str, Any], key: str, rest: list[str]) -> str:
    """The key, with what was to follow it if that is there."""
    value = here[key]
    for index in range(len(rest)):
        if (step := _step(value, rest[index:])) is None or step[1] != 1:
            return key
        value = value[step[0]]
    return ".".join([key, *rest])


def _what_there_is(here: Any, above: str, siblings: list[str], close: list[str]) -> str:
    if close:
        return f"it has {close[0]}"
    if siblings:
        return f"it has {', '.join(siblings[:MAX_LISTED])}{', …' if len(siblings) > MAX_LISTED else ''}"
    if isinstance(here, list):
        return f"{above} has {len(here)} {'item' if len(here) == 1 else 'items'}"
    if isinstance(here, dict):
        return f"{above or 'it'} is empty"
    return f"{above} is {_KINDS.get(type(here), 'a callable')}"


_KINDS = {str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def _joined(above: str, key: str) -> str:
    return f"{above}.{key}" if above else key


def all_paths(value: Any, above: str = "") -> Iterator[str]:
    """Yield the path of everything in the value, outer ones first."""
    for key, item in _items(value):
        path = _joined(above, str(key))
        yield path
        yield from all_paths(item, path)


def walk(value: Any, steps: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Yield everything in the value with the steps to it, outer ones first."""
    yield steps, value
    for key, item in _items(value):
        yield from walk(item, (*steps, key))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def at(value: Any, steps: Steps) -> Any:
    """Return what is at the end of the steps."""
    for step in steps:
        value = value[step]
    return value


def put(value: Any, steps: Steps, item: Any) -> None:
    """Set what is at the end of the steps."""
    at(value, steps[:-1])[steps[-1]] = item


def told(steps: Steps) -> str:
    """Return the steps as a path."""
    return ".".join(map(str, steps))
