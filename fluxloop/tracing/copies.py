"""Copies of values, so that what one attempt does to its input no other attempt sees.

Plain data is copied container by container. Whatever holds other objects is copied whole by
`pickle`, which reaches everything in it (a deep copy of a data frame shares the lists in its
cells) and is how worker processes get their inputs; where that fails, by `copy.deepcopy`, which
classes may answer themselves.
"""

from __future__ import annotations

import copy
import datetime
import enum
import fractions
import functools
import pathlib
import re
import uuid
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from decimal import Decimal
from types import EllipsisType, FunctionType, ModuleType, NotImplementedType, SimpleNamespace
from typing import Any

from fluxloop.interrupt import Abandoned

FIXED = frozenset(
    (
        *(str, int, float, bool, type(None), complex, bytes, range, object, EllipsisType, NotImplementedType),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        *(Decimal, fractions.Fraction, uuid.UUID, re.Pattern),
        *(pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())),
    )
)
"""Types whose objects nothing can change."""
SHARED = (type, ModuleType, FunctionType, enum.Enum, ContextVar, functools._lru_cache_wrapper)
"""What is itself wherever it is met: a copy would be another thing."""
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_TABLES = ("numpy", "pandas", "polars", "pyarrow")
"""Packages whose objects hold data and nothing else."""


def fresh(value: Any) -> Any:
    """Return a copy that shares nothing with the value that can change.

    Functions, classes, modules and members of enumerations are passed as they are.

    Raises:
        Exception: what keeps an object in it from being copied.
    """
    try:
        return _plain_copy(value)
    except (_ObjectMet, RecursionError):  # or it contains itself
        return _whole_copy(value)


def is_plain(value: Any) -> bool:
    """Tell whether there is nothing in a value but plain data, which can always be copied."""
    try:
        _plain_copy(value)
    except (_ObjectMet, RecursionError):
        return False
    return True


def fresh_data(value: Any) -> Any:
    """Return a constant of the user's for one attempt: data copied, and all else, such as a client, as it is.

    Data are containers, arrays, frames, dataclasses, attrs and pydantic objects, with nothing but data in them.
    """
    kind = type(value)
    if kind in FIXED:
        return value
    if kind is dict:
        return {key: fresh_data(item) for key, item in value.items()}
    if kind is list:
        return [fresh_data(item) for item in value]
    return fresh(value) if _is_data(value, set()) else value


class _ObjectMet(Exception):  # noqa: N818 - no error
    """There is more in a value than plain data."""


def _plain_copy(value: Any) -> Any:
    kind = type(value)
    if kind in FIXED:
        return value
    if kind is dict:
        return {key if type(key) is str else _plain_copy(key): _plain_copy(item) for key, item in value.items()}
    if kind is list:
        return [_plain_copy(item) for item in value]
    if kind is tuple:
        return tuple([_plain_copy(item) for item in value])
    if issubclass(kind, SHARED):
        return value
    raise _ObjectMet


def _whole_copy(value: Any) -> Any:
    from fluxloop.tracing.pickled import pickled_copy  # only inputs that hold objects pay for it

    try:
        return pickled_copy(value)
    except (Abandoned, KeyboardInterrupt):
        raise
    except BaseException:  # a class may raise anything
        return copy.deepcopy(value)


def _is_data(value: Any, above: set[int]) -> bool:
    """Tell whether there is nothing in a value but data."""
    kind = type(value)
    if kind in FIXED or issubclass(kind, (*SHARED, bytearray)) or is_table(kind):
        return True
    if not issubclass(kind, _CONTAINERS) and not _is_record(kind):
        return False
    if id(value) in above:
        return True
    above.add(id(value))
    return all(_is_data(part, above) for _, part in parts(value))


def is_table(kind: type) -> bool:
    """Tell whether objects of a type are arrays or frames, or parts of them."""
    return str(kind.__module__).partition(".")[0] in _TABLES


def _is_record(kind: type) -> bool:
    declared = ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__", "__pydantic_fields__")
    return issubclass(kind, SimpleNamespace) or any(hasattr(kind, name) for name in declared)


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds, each with its step of a path."""
    kind = type(value)
    if issubclass(kind, dict):
        yield from ((f"[{key!r}]", item) for key, item in dict.items(value))
    elif issubclass(kind, list | tuple | deque | set | frozenset):
        yield from ((f"[{index}]", item) for index, item in enumerate(kind.__iter__(value)))
    yield from ((f".{name}", item) for name, item in attributes(value))


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        yield from ((str(name), item) for name, item in attributes.items())
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)
