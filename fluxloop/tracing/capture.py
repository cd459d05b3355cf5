"""Values as they were when seen, in plain data that every sink can encode.

Any object becomes `None`, `bool`, `int`, `float`, `str`, `list` or `dict` with text keys.
Nothing raises, whatever the object does, and nothing of the object is kept alive.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import enum
import fractions
import pathlib
import uuid
from collections import deque
from collections.abc import Callable, KeysView, Mapping, Set, ValuesView
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from fluxloop.interrupt import Abandoned

MAX_DEPTH = 100
"""Containers nested deeper than this are replaced by a note."""
MAX_REPR = 10_000
"""Characters kept of an object that nothing but its `repr` describes."""
MAX_REPEATS = 1_000_000
"""Items of containers seen before that are written out again: a dense graph of objects has more paths than time."""
MAX_RANGE = 10_000
"""A range of more numbers is described, for it holds none of them."""

_INT_LIMIT = 2**64
_PLAIN_REPR: Any = object.__repr__


def capture(value: Any) -> Any:
    """Return `value` as plain data, copied, so that later changes do not show.

    Text, bytes and containers are kept whole; a `repr`, the depth and cycles are bounded.
    What JSON lacks becomes what is nearest by type: a set a list, bytes text or base64, a
    dataclass, attrs, pydantic or message object a mapping, an exception its type and message,
    NaN and infinities None.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind is int:
        return value if -_INT_LIMIT < value < _INT_LIMIT else _large_int(value)
    if value is None or kind is bool:
        return value
    try:
        return _walk(value, {_REPEATS: 0}, 0)
    except RecursionError:  # an agent deep in its stack
        return "<seen at the end of the stack>"
    except Abandoned:
        raise
    except BaseException:  # even its type is hostile
        return _represent(value)


def as_text(value: Any) -> str:
    """Return what names something as text: a text itself, any other object as plain data shown."""
    plain = capture(value)
    if isinstance(plain, str):
        return plain
    if plain is None or isinstance(plain, bool):
        return {None: "null", True: "true", False: "false"}[plain]
    return str(plain) if isinstance(plain, int | float) else _represent(value)


def fresh(value: Any) -> Any:
    """Return the value with its containers copied; objects of other kinds are passed as they are."""
    try:
        return _fresh(value)
    except RecursionError:  # it contains itself, or is very deep
        return _deep_copy(value)


def _fresh(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _fresh(item) for key, item in value.items()}
    if kind is list:
        return [_fresh(item) for item in value]
    if kind is tuple:
        return tuple([_fresh(item) for item in value])
    return _deep_copy(value) if isinstance(value, dict | list | set | deque | bytearray) else value


def _deep_copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # something in it cannot be copied
        return value


def type_name(value: object) -> str:
    """Return the name of the object's type, with its module unless that says nothing."""
    kind = type(value)
    try:
        module, name = kind.__module__, kind.__qualname__
        return _text(name if module in ("builtins", "__main__") else f"{module}.{name}")
    except BaseException:  # a metaclass can be as hostile as any object
        return "object"


def message(error: BaseException) -> str:
    """Return what the exception says, even of one that cannot say it."""
    try:
        return _text(str(error))
    except Abandoned:
        raise
    except BaseException:
        return f"<{type_name(error)} without a readable message>"


_Seen = dict[int, int]
"""The containers met so far by identity: 1 for those the walk is inside of, 0 for those it has left."""
_REPEATS = 0  # no object's identity: the key under which repeats are counted


def _walk(value: Any, seen: _Seen, depth: int) -> Any:
    kind = type(value)
    convert = _BY_TYPE.get(kind)
    if convert is not None:
        return convert(value)
    if depth >= MAX_DEPTH:
        return f"<deeper than {MAX_DEPTH} levels>"
    identity = id(value)
    known = seen.get(identity)
    if known is not None:
        if known:
            return "<cycle>"
        seen[_REPEATS] += 1 + (len(value) if kind is list or kind is dict or kind is tuple else 0)
        if seen[_REPEATS] > MAX_REPEATS:
            return "<repeated too often>"
    seen[identity] = 1
    plain: Any
    try:
        if kind is dict:
            plain = _mapping(value, seen, depth + 1)
        elif kind is list or kind is tuple:
            plain = [_walk(item, seen, depth + 1) for item in value]
        else:
            plain = _object(value, seen, depth + 1)
    except Abandoned:  # the second Ctrl-C; the first is a flag
        raise
    except BaseException:  # a hostile object may raise anything
        plain = _represent(value)
    if kind is dict or kind is list or (plain and isinstance(plain, dict | list)):
        seen[identity] = 0
    else:
        del seen[identity]
    return plain


def _mapping(value: Mapping[Any, Any], seen: _Seen, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    others = []
    # The list is made in one step, so that another thread may change the mapping meanwhile.
    for key, item in list(value.items()):
        if type(key) is str:
            result[key if key.isascii() else _text(key)] = _walk(item, seen, depth)
        else:
            others.append((key, item))
    if others:
        numbers: dict[str, int] = {}
        for key, item in others:
            result[_free_key(key, result, numbers)] = _walk(item, seen, depth)
    return result


def _free_key(key: Any, result: dict[str, Any], numbers: dict[str, int]) -> str:
    """The key as text, told apart from those that read the same: `1`, then `1 (int)`, then `1 (int) #2`."""
    text = as_text(key)
    if text in result:
        base = text = f"{text} ({type(key).__name__})"
        while text in result:
            numbers[base] = numbers.get(base, 1) + 1
            text = f"{base} #{numbers[base]}"
    return text


def _object(value: Any, seen: _Seen, depth: int) -> Any:
    def walk(item: Any) -> Any:
        return _walk(item, seen, depth)

    if isinstance(value, enum.Enum):
        return walk(value.value)
    for base, convert in _BY_BASE:
        if isinstance(value, base):
            return convert(value)
    kind = type(value)
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return {name: walk(item) for name, item in zip(kind._fields, value, strict=False)}
    if isinstance(value, Mapping):
        return _mapping(value, seen, depth)
    if isinstance(value, Set):
        return _set(value, walk)
    if isinstance(value, range) and len(value) > MAX_RANGE:
        return _represent(value)
    if isinstance(value, list | tuple | deque | range | KeysView | ValuesView):
        return [walk(item) for item in value]
    if isinstance(value, BaseException):
        return {"type": type_name(value), "message": message(value)}
    if isinstance(value, type):
        return _represent(value)
    names = _field_names(value)
    if names is not None:
        return {_text(name): walk(getattr(value, name)) for name in names if hasattr(value, name)}
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return walk(value.tolist())
    return _represent(value)


def _field_names(value: Any) -> list[str] | None:
    """The fields of an object that is a record of some kind, else None."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(kind)]
    for declared in ("__attrs_attrs__", "__struct_fields__"):
        fields = getattr(kind, declared, None)
        if fields is not None:
            return [field if isinstance(field, str) else field.name for field in fields]
    if hasattr(kind, "__pydantic_fields__") or hasattr(kind, "model_fields"):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return [*vars(value), *extra]
    if isinstance(value, SimpleNamespace) or (
        kind.__repr__ is _PLAIN_REPR and isinstance(getattr(value, "__dict__", None), dict) and vars(value)
    ):
        return [name for name in list(vars(value)) if not name.startswith("_")]
    return None


def _set(value: Any, walk: Callable[[Any], Any]) -> list[Any]:
    items = list(value)
    try:
        items.sort()
    except Exception:  # of mixed or unordered types: as they come
        items = list(value)
    return [walk(item) for item in items]


def _represent(value: Any) -> str:
    try:
        text = _text(repr(value))
    except Abandoned:
        raise
    except BaseException:
        return f"<{type_name(value)} that cannot be shown>"
    return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "…"


def _text(value: str) -> str:
    """The text, with lone surrogates (which UTF-8 lacks) written as escapes."""
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _bytes(value: bytes | bytearray | memoryview) -> str:
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


def _int(value: int) -> int | str:
    return value if -_INT_LIMIT < value < _INT_LIMIT else _large_int(value)


def _large_int(value: int) -> str:
    # Readers of the files hold 64 bits; beyond Python's own limit of digits only hex is left.
    try:
        return int.__repr__(value)
    except ValueError:
        return hex(value)


def _float(value: float) -> float | None:
    return value if value - value == 0.0 else None


def _same(value: Any) -> Any:
    return value


_BY_TYPE: dict[type, Callable[[Any], Any]] = {
    str: lambda value: value if value.isascii() else _text(value),
    int: _int,
    float: _float,
    bool: _same,
    type(None): _same,
    bytes: _bytes,
}

_BY_BASE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, _text),
    (bool, bool),
    (int, lambda value: _int(int.__index__(value))),
    (float, lambda value: _float(float.__float__(value))),
    ((bytes, bytearray, memoryview), _bytes),
    ((datetime.datetime, datetime.date, datetime.time), lambda value: _text(value.isoformat())),
    (datetime.timedelta, lambda value: _float(datetime.timedelta.total_seconds(value))),
    ((Decimal, uuid.UUID, pathlib.PurePath, fractions.Fraction), lambda value: _text(str(value))),
)
