"""Whether each run can have a copy of its input, asked before the first of them."""

from __future__ import annotations

import datetime
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator, Set, ValuesView
from contextlib import suppress
from typing import Any

from attrs import frozen

from fluxloop.interrupt import Abandoned
from fluxloop.tracing.capture import message, type_name
from fluxloop.tracing.copies import FIXED, SHARED, attributes, fresh, is_plain, is_table, parts

_TOO_DEEP = "it is nested too deeply"


def copy_problem(value: Any) -> str | None:
    """Say why a value cannot be copied, and what to do; None when it can."""
    if is_plain(value) or (found := _uncopied("input", value)) is None:
        return None
    told = f"{found.path} is an object of class {type_name(found.value)}, which cannot be copied for each run"
    return f"{told} ({found.why}); {_way_out(found)}"


@frozen
class _Part:
    """What of a value is not copied."""

    path: str
    value: Any
    why: str


def _uncopied(path: str, value: Any, above: frozenset[int] = frozenset()) -> _Part | None:
    """The part of a value that is not copied; None when all is."""
    try:
        return _same_in_both(path, value, fresh(value))
    except (Abandoned, KeyboardInterrupt):
        raise
    except RecursionError:
        return _Part(path, value, _TOO_DEEP)
    except BaseException as error:  # a class may raise anything
        why = f"{type_name(error)}: {message(error)}"
    above |= {id(value)}
    with suppress(Exception):  # the parts of an odd object may be as odd
        for step, part in _public_parts(value):
            if id(part) not in above and not is_plain(part) and (found := _uncopied(path + step, part, above)):
                return found
    return _Part(path, value, why)


def _same_in_both(path: str, value: Any, copied: Any) -> _Part | None:
    """The part of a value that is in its copy too although it can change."""
    left = deque([(path, value, copied)])
    seen = set()
    while left:
        path, value, copied = left.popleft()
        kind = type(value)
        if id(value) in seen or kind in FIXED or is_table(kind):
            continue
        seen.add(id(value))
        if value is copied:
            if _can_change(value):
                return _Part(path, value, "its copy is the object itself")
        elif not issubclass(kind, set | frozenset):  # whose items come in any order
            pairs = zip(_public_parts(value), _public_parts(copied), strict=False)
            left.extend((path + step, part, other) for (step, part), (_, other) in pairs)
    return None


def _public_parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a user knows of; a library's objects may share what they like with each other."""
    return ((step, part) for step, part in parts(value) if not step.startswith("._"))


def _can_change(value: Any) -> bool:
    kind = type(value)
    if issubclass(kind, (*SHARED, logging.Logger, datetime.tzinfo)):
        return False
    if issubclass(kind, dict | list | set | deque | bytearray):
        return True
    if issubclass(kind, tuple):
        return any(_can_change(part) for part in tuple.__iter__(value))
    equal: Any = kind.__eq__
    hashed: Any = kind.__hash__
    is_value = equal is not object.__eq__ and hashed not in (None, object.__hash__)
    return not is_value and any(True for _ in attributes(value))


def _way_out(part: _Part) -> str:
    if part.why is _TOO_DEEP:
        return "give data of fewer levels"
    with suppress(Exception):  # an odd class may answer anything
        kind = type(part.value)
        if hasattr(kind, "read") or hasattr(kind, "fileno"):
            return "give its path or its content"
        if issubclass(kind, Awaitable):
            return "give what awaiting it gives"
        if issubclass(kind, Iterator | AsyncIterator | Set | ValuesView):
            return "give a list of what it holds"
    return "give data and make the object in the agent, or put it into runner.args, which all runs share"
