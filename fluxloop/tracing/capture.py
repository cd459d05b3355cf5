"""Values as they were when seen, in plain data that every sink can encode.

Any object becomes `None`, `bool`, `int`, `float`, `str`, `list` or `dict` with text keys.
Nothing raises, whatever the object does, and nothing of the object is kept alive.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import fractions
import pathlib
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Set, ValuesView
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

from fluxloop.clock import perf_counter_ns
from fluxloop.interrupt import Abandoned
from fluxloop.tracing.context import OpenRun, current
from fluxloop.tracing.groups import first_leaf
from fluxloop.tracing.known_types import conversion
from fluxloop.tracing.redaction import MASK, NAMES, NOTHING, Redaction, note, secret_texts
from fluxloop.tracing.secret_forms import looks_secret
from fluxloop.tracing.secret_names import Secrecy, secrecy

MAX_DEPTH = 100
"""Containers nested deeper than this are replaced by a note."""
MAX_REPR = 10_000
"""Characters kept of an object that nothing but its `repr` describes."""
MAX_REPEATS = 1_000_000
"""Items of containers seen before that are written out again: a dense graph of objects has more paths than time."""
MAX_RANGE = 10_000
"""A range of more numbers is described, for it holds none of them."""

MAX_MADE = 200_000
"""Items taken in a walk of what may make them when asked, and so have no end; what holds its items is walked whole."""
MAX_OBJECTS = 1_000_000
"""Objects a walk looks into."""
MAX_SECONDS = 30
"""For how long it does both; plain containers and texts take the time they need."""
_OVER = "<cut because its run was over>"
_CHECK_EVERY = 10_000
"""Items between two looks at whether the run still waits for the walk."""

_INT_LIMIT = 2**64
_PLAIN_REPR: Any = object.__repr__


class Unfinished(Protocol):
    """Knows what is no value yet, as an awaitable, and what it came to."""

    def resolved(self, value: Any) -> Any:
        """Return what a value came to, or the value itself."""


class Halt(BaseException):
    """Ends a walk, through all that is in it; never raised by an object that is walked."""


class TooLarge(Exception):  # noqa: N818 - no error
    """There is more in a value than was to be walked at once."""

    def __init__(self, whole: Callable[[], Any]) -> None:
        self.whole = whole
        """Captures all of it."""


class _Enough(Halt):
    """So many items were to be walked here, and there are more."""


class _Over(Halt):
    """The run is over: nobody waits for what is captured in it."""


def capture(
    value: Any,
    redaction: Redaction = NOTHING,
    secrets: list[str] | None = None,
    unfinished: Unfinished | None = None,
    *,
    at_once: int | None = None,
    budget: Budget | None = None,
) -> Any:
    """Return `value` as plain data, copied, so that later changes do not show.

    Text, bytes and containers are kept whole; a `repr`, the depth, cycles, and how much is asked of
    objects that make what they give are bounded.
    What JSON lacks becomes what is nearest by type: a set a list, bytes text or base64, a
    dataclass, attrs, pydantic or message object a mapping, an exception its type and message,
    NaN and infinities None.

    Args:
        value: any object.
        redaction: what is masked on the way; by default nothing.
        secrets: gets the texts that are masked for the name they stand under.
        unfinished: asked about every object that is no plain data; what it gives is taken in its place.
        at_once: how many items are walked here, by default all.
        budget: shared with the walk that this one is a part of.

    Raises:
        TooLarge: there are more of them.
    """
    kind = type(value)
    if kind is str:
        text: str = value if value.isascii() else _text(value)
        return text if len(text) < redaction.shortest else redaction.text(text)
    if value is None or kind is bool:
        return value
    walk = Walk(redaction, secrets, unfinished, at_once=at_once, budget=budget)
    try:
        return walk(value, 0)
    except RecursionError:  # an agent deep in its stack
        return "<seen at the end of the stack>"
    except _Enough:
        raise TooLarge(partial(capture, value, redaction, secrets, unfinished)) from None
    except _Over:
        return _OVER
    except Abandoned:
        raise
    except BaseException:  # even its type is hostile
        return walk.represented(value)


def masked_whole(plain: Any) -> Any:
    """Return plain data with every text and number masked; what is empty, true or false tells nothing."""
    if isinstance(plain, dict):
        return {key: masked_whole(item) for key, item in plain.items()}
    if isinstance(plain, list):
        return [masked_whole(item) for item in plain]
    if plain is None or plain == "" or isinstance(plain, bool) or plain == MASK:
        return plain
    note((NAMES,))
    return MASK


def masked_by_name(plain: Any, said: Secrecy) -> Any:
    """Return plain data with what the name it stands under says to be secret masked."""
    if said is Secrecy.ALL:
        return masked_whole(plain)
    if isinstance(plain, list):
        return [masked_by_name(item, said) if isinstance(item, str) else item for item in plain]
    return masked_whole(plain) if said and isinstance(plain, str) and looks_secret(plain) else plain


def as_text(value: Any, redaction: Redaction = NOTHING, budget: Budget | None = None) -> str:
    """Return what names something as text: a text itself, any other object as plain data shown."""
    plain = capture(value, redaction, budget=budget)
    if isinstance(plain, str):
        return plain
    if plain is None or isinstance(plain, bool):
        return {None: "null", True: "true", False: "false"}[plain]
    return str(plain) if isinstance(plain, int | float) else Walk(redaction, None).represented(value)


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


def describe(error: BaseException) -> tuple[str, str]:
    """Return type and message of an exception; of a group those of its first leaf, and how many more there are."""
    leaf = first_leaf(error)
    text = message(leaf.error)
    if leaf.others:
        text = f"{text} (and {leaf.others} more)" if text else f"(and {leaf.others} more)"
    return type_name(leaf.error), text


class Budget:
    """What one walk may ask of objects that make what they give."""

    __slots__ = ("_made", "_objects", "_run", "_until", "cut")

    def __init__(self) -> None:
        self._made = self._objects = 0
        self._until = perf_counter_ns() + MAX_SECONDS * 1_000_000_000
        self._run = _run()
        self.cut: str | None = None
        """What is said in the place of what is not looked at, once all is spent."""

    def is_spent(self, *, objects: int = 0, made: int = 0) -> bool:
        """Take objects that are looked into, or items that one makes; True when it is too many, or too late."""
        if self.cut is None:
            self._objects += objects
            self._made += made
            if self._run is not None and self._run.closed:
                raise _Over
            if self._made > MAX_MADE:
                self.cut = f"<cut after {MAX_MADE:,} items>"
            elif self._objects > MAX_OBJECTS:
                self.cut = f"<cut after {MAX_OBJECTS:,} objects>"
            elif perf_counter_ns() > self._until:
                self.cut = f"<cut after {MAX_SECONDS} s>"
        return self.cut is not None

    def items(self, given: Iterable[Any], instead: Callable[[str], Any]) -> Iterator[Any]:
        """Yield what an object gives for as long as there is something left, then what says that it is cut."""
        for item in given:
            if self.is_spent(made=1):
                yield instead(self.cut or "")
                return
            yield item


def _run() -> OpenRun | None:
    """The run that the calling code is in."""
    scope = current.get()
    return None if scope is None else scope[0]


class Walk:
    """One walk through a value and all that is in it."""

    __slots__ = (
        "_at_once",
        "_budget",
        "_left",
        "_numbers",
        "_redaction",
        "_repeats",
        "_secrets",
        "_seen",
        "_shortest",
        "_unfinished",
    )

    def __init__(
        self,
        redaction: Redaction,
        secrets: list[str] | None,
        unfinished: Unfinished | None = None,
        *,
        at_once: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._redaction = redaction
        self._shortest = redaction.shortest
        self._numbers = redaction.numbers
        self._secrets = secrets
        """Where the texts go that are masked for their name, if anybody asks."""
        self._seen: dict[int, int] = {}
        """The containers met so far by identity: 1 for those the walk is inside of, 0 for those it has left."""
        self._repeats = 0
        self._unfinished = unfinished
        self._at_once = at_once
        self._left = _CHECK_EVERY if at_once is None else at_once
        """Items until the next look at whether the walk goes on."""
        self._budget = budget

    def __call__(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            text: str = value if value.isascii() else _text(value)
            return text if len(text) < self._shortest else self._redaction.text(text)
        convert = _BY_TYPE.get(kind)
        if convert is not None:
            return convert(value)
        if kind is int:
            return self._int(value)
        if kind is bytes:
            return self._bytes(value)
        if depth >= MAX_DEPTH:
            return f"<deeper than {MAX_DEPTH} levels>"
        is_container = kind is dict or kind is list or kind is tuple
        self._left -= 1 + len(value) if is_container else 1
        if self._left < 0:
            self._look_up()
        seen = self._seen
        identity = id(value)
        known = seen.get(identity)
        if known is not None:
            if known:
                return "<cycle>"
            self._repeats += 1 + (len(value) if is_container else 0)
            if self._repeats > MAX_REPEATS:
                return "<repeated too often>"
        seen[identity] = 1
        plain: Any
        try:
            if kind is dict:
                plain = self._mapping(value, depth + 1)
            elif kind is list or kind is tuple:
                plain = [self(item, depth + 1) for item in value]
                if self._budget is not None and self._budget.cut is not None:
                    plain = _said_once(plain, self._budget.cut)
            else:
                plain = self._object(value, depth + 1)
        except (Abandoned, Halt):  # the second Ctrl-C; the first is a flag
            raise
        except BaseException:  # a hostile object may raise anything
            plain = self.represented(value)
        if kind is dict or kind is list or (plain and isinstance(plain, dict | list)):
            seen[identity] = 0
        else:
            del seen[identity]
        return plain

    def _look_up(self) -> None:
        """See whether the walk is to go on here."""
        if self._at_once is not None:
            raise _Enough
        if (run := _run()) is not None and run.closed:
            raise _Over
        self._left = _CHECK_EVERY

    def _own_budget(self) -> Budget:
        if self._budget is None:
            self._budget = Budget()
        return self._budget

    def _items(self, value: Any) -> Iterable[Any]:
        """What a container that is no plain one gives."""
        if type(value).__iter__ in _HOLDING:
            return value  # type: ignore[no-any-return]
        return self._own_budget().items(value, str)

    def _pairs(self, value: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
        if type(value).items in _HOLDING:
            # The list is made in one step, so that another thread may change the mapping meanwhile.
            return list(value.items())
        return self._own_budget().items(value.items(), lambda cut: ("…", cut))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        others = []
        by_name = self._redaction.by_name
        for key, item in self._pairs(value):
            if type(key) is str:
                name = key if key.isascii() else _text(key)
                if len(name) >= self._shortest and self._redaction.text(name) != name:
                    others.append((key, item))  # two may read the same once they are masked
                else:
                    plain = self(item, depth)
                    said = by_name and secrecy(name)
                    result[name] = self._hidden(name, plain, item, said) if said else plain
            else:
                others.append((key, item))
        if others:
            numbers: dict[str, int] = {}
            budget = self._own_budget()
            for key, item in others:
                name = _free_key(as_text(key, self._redaction, budget), key, result, numbers)
                result[name] = self._named(as_text(key, budget=budget), item, depth)
        return result

    def _named(self, name: str, value: Any, depth: int) -> Any:
        plain = self(value, depth)
        said = self._redaction.by_name and secrecy(name)
        return self._hidden(name, plain, value, said) if said else plain

    def _hidden(self, name: str, plain: Any, value: Any, said: Secrecy) -> Any:
        """What is shown of a value under a name that says secret."""
        if self._secrets is not None:
            # As it was, for `plain` may be masked in parts already.
            self._secrets.extend(secret_texts({name: capture(value, budget=self._own_budget())}))
        return masked_by_name(plain, said)

    def _object(self, value: Any, depth: int) -> Any:
        if self._unfinished is not None:
            resolved = self._unfinished.resolved(value)
            if resolved is not value:
                return self(resolved, depth)
        known = conversion(type(value))
        if known is not None:
            plainer = known(value)
            if type(plainer) is not dict:
                return self(plainer, depth)
            aliases = _aliases(type(value))
            return self._record(plainer.items(), depth, aliases) if aliases else self._mapping(plainer, depth)
        if isinstance(value, enum.Enum):
            return self(value.value, depth)
        if isinstance(value, int) and not isinstance(value, bool):
            return self._int(int.__index__(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(value)
        for base, convert in _BY_BASE:
            if isinstance(value, base):
                converted = convert(value)
                return self._redaction.text(converted) if type(converted) is str else converted
        kind = type(value)
        if (budget := self._own_budget()).is_spent(objects=1):
            return budget.cut
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return self._record(zip(kind._fields, value, strict=False), depth)
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Set):
            return [self(item, depth) for item in _ordered(self._items(value))]
        if isinstance(value, range) and len(value) > MAX_RANGE:
            return self.represented(value)
        if isinstance(value, list | tuple | deque | range | KeysView | ValuesView):
            return [self(item, depth) for item in self._items(value)]
        if isinstance(value, BaseException):
            kind_name, said = describe(value)
            return {"type": self._redaction.text(kind_name), "message": self._redaction.text(said)}
        if isinstance(value, type):
            return self.represented(value)
        names = _field_names(value)
        if names is not None:
            fields = ((name, getattr(value, name)) for name in names if hasattr(value, name))
            return self._record(fields, depth, _aliases(kind))
        return self.represented(value)

    def _record(
        self, fields: Iterable[tuple[str, Any]], depth: int, aliases: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The fields of a record by their names, which are texts like any other.

        Args:
            fields: each name with its value.
            depth: where they stand.
            aliases: what else they are called, which tells what is secret, too.
        """
        result: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for field, value in fields:
            plain = self._named(_text(field), value, depth)
            alias = aliases.get(field) if aliases else None
            if isinstance(alias, str) and self._redaction.by_name and (said := secrecy(alias)):
                plain = self._hidden(alias, plain, value, said)
            result[_free_key(self._redaction.text(_text(field)), field, result, numbers)] = plain
        return result

    def _int(self, value: int) -> int | str:
        if value in self._numbers:
            self._redaction.found(self._numbers[value])
            return MASK
        return value if -_INT_LIMIT < value < _INT_LIMIT else self._redaction.text(_large_int(value))

    def _bytes(self, value: bytes | bytearray | memoryview) -> str:
        data = self._redaction.data(bytes(value))
        try:
            return self._redaction.text(data.decode())
        except UnicodeDecodeError:
            return base64.b64encode(data).decode()

    def represented(self, value: Any) -> str:
        """Return the `repr`, when nothing else describes the object."""
        try:
            text = self._redaction.text(_text(repr(value)))
        except Abandoned:
            raise
        except BaseException:
            return f"<{self._redaction.text(type_name(value))} that cannot be shown>"
        return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "…"


def _free_key(text: str, key: Any, result: dict[str, Any], numbers: dict[str, int]) -> str:
    """The text of a key, told apart from those that read the same: `1`, then `1 (int)`, then `1 (int) #2`."""
    if text in result:
        base = text = f"{text} ({type(key).__name__})"
        while text in result:
            numbers[base] = numbers.get(base, 1) + 1
            text = f"{base} #{numbers[base]}"
    return text


def _field_names(value: Any) -> list[str] | None:
    """The fields of an object that is a record of some kind, else None."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(kind)]
    fields = getattr(kind, "__attrs_attrs__", None)
    if fields is not None:
        return [str(getattr(field, "name", field)) for field in fields]
    if hasattr(kind, "__pydantic_fields__") or hasattr(kind, "model_fields"):  # what only looks like pydantic's
        return [*vars(value), *(getattr(value, "__pydantic_extra__", None) or {})]
    if not isinstance(value, SimpleNamespace) and kind.__repr__ is not _PLAIN_REPR:
        return None
    attributes = getattr(value, "__dict__", None)
    attributes = attributes if isinstance(attributes, dict) else {}
    public = [name for name in (*_slots(kind), *attributes) if not name.startswith("_")]
    return public if public or attributes or isinstance(value, SimpleNamespace) else None


def _slots(kind: type) -> list[str]:
    declared = [base.__dict__.get("__slots__", ()) for base in reversed(kind.__mro__)]
    return [name for slots in declared for name in ((slots,) if isinstance(slots, str) else slots) if name[:2] != "__"]


def _aliases(kind: type) -> dict[str, Any]:
    """What the fields of a pydantic, attrs or msgspec class are called outside it, where that is another name."""
    if encoded := getattr(kind, "__struct_encode_fields__", None):
        return dict(zip(kind.__struct_fields__, encoded, strict=False))  # type: ignore[attr-defined]
    if isinstance(fields := getattr(kind, "__pydantic_fields__", None), dict):
        return {name: field.serialization_alias or field.alias for name, field in fields.items()}
    attributes = getattr(kind, "__attrs_attrs__", None) or ()
    return {str(getattr(field, "name", field)): getattr(field, "alias", None) for field in attributes}


def _said_once(plain: list[Any], cut: str) -> list[Any]:
    """The items of a plain list, in which a row of objects that are all cut is told by one note."""
    return [item for place, item in enumerate(plain) if item is not cut or place == 0 or plain[place - 1] is not cut]


def _ordered(value: Iterable[Any]) -> list[Any]:
    items = list(value)
    try:
        return sorted(items)
    except Exception:  # of mixed or unordered types: as they come
        return items


def _text(value: str) -> str:
    """The text, with lone surrogates (which UTF-8 lacks) written as escapes."""
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


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


_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_HOLDING = frozenset(
    (
        *(kind.__iter__ for kind in (list, tuple, set, frozenset, deque, range, *_VIEWS)),
        *(dict.items, OrderedDict.items),
    )
)
"""How containers give what they hold already."""

_BY_TYPE: dict[type, Callable[[Any], Any]] = {float: _float, bool: _same, type(None): _same}

_BY_BASE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, _text),
    (bool, bool),
    (float, lambda value: _float(float.__float__(value))),
    ((datetime.datetime, datetime.date, datetime.time), lambda value: _text(value.isoformat())),
    (datetime.timedelta, lambda value: _float(datetime.timedelta.total_seconds(value))),
    ((Decimal, uuid.UUID, pathlib.PurePath, fractions.Fraction), lambda value: _text(str(value))),
)
