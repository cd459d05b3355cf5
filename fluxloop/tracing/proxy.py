"""Streams that a function returns, handed on through proxies that record what passes.

A proxy does and has what the stream behind it does and has, for `isinstance` too; only `type()`
and `is` tell them apart. The stream itself is not touched: it may be shared, or of a type that
cannot be.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import CoroutineType
from typing import Any
from weakref import WeakKeyDictionary

from fluxloop.interrupt import Abandoned
from fluxloop.tracing.stepping import StreamedCall

_READ_OTHERWISE = ("read", "fetchone")
"""What files and database cursors have: they are no answers that come piece by piece."""
_FORWARDED = (
    *("__repr__", "__str__", "__format__", "__dir__", "__hash__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__"),
    *("__ge__", "__bool__", "__len__", "__length_hint__", "__contains__", "__getitem__", "__setitem__"),
    *("__delitem__", "__reversed__", "__call__", "__await__", "__copy__", "__deepcopy__", "__reduce__"),
    *("__reduce_ex__",),
)


def proxied(source: Any, call: Callable[[], StreamedCall]) -> Any:
    """Return a proxy of what a function has returned, None when that gives no stream.

    A stream is what is an iterator by its type. A context manager that is good for nothing but
    entering it may give one.

    Args:
        source: what was returned.
        call: gives the call it belongs to.
    """
    proxy = _proxy_for(type(source))
    return None if proxy is None else proxy(source, call())


def _stream_of(source: Any, call: StreamedCall) -> Any:
    """A proxy of a further stream of the call, None when it is none."""
    proxy = _proxy_for(type(source))
    return proxy(source, call) if proxy is not None and issubclass(proxy, Iterator | AsyncIterator) else None


class Proxy:
    """What the proxies of all streams share.

    Special methods are looked up in the type: a kind of stream has a kind of proxy, with those it has.
    """

    __slots__ = ("__weakref__", "_fluxloop_call", "_fluxloop_inner", "_fluxloop_iterator", "_fluxloop_source")

    _fluxloop_source: Any
    _fluxloop_call: StreamedCall
    _fluxloop_iterator: Any
    """What is stepped: what `iter` gave, the source itself before."""
    _fluxloop_inner: dict[str, tuple[Any, Any]]
    """Its attributes that are streams, with their proxies."""

    def __init__(self, source: Any, call: StreamedCall) -> None:
        _set(self, "_fluxloop_source", source)
        _set(self, "_fluxloop_call", call)
        _set(self, "_fluxloop_iterator", source)
        _set(self, "_fluxloop_inner", {})

    @property
    def __class__(self) -> Any:
        return self._fluxloop_source.__class__

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        self._fluxloop_source.__class__ = kind

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fluxloop_source, name)
        if name.startswith("_"):
            return value
        known = self._fluxloop_inner.get(name)
        if known is not None and known[0] is value:
            return known[1]
        # For example the texts alone of a stream of events: whoever reads them reads the stream.
        inner = _stream_of(value, self._fluxloop_call)
        if inner is None:
            return value
        self._fluxloop_inner[name] = (value, inner)
        return inner

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._fluxloop_source, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._fluxloop_source, name)


_set = object.__setattr__


def _has(kind: type, name: str) -> bool:
    """Whether its objects have it: `hasattr` would also find what belongs to the type of the type."""
    return any(name in vars(base) for base in kind.__mro__)


def _is_stream(kind: type) -> bool:
    return issubclass(kind, Iterator | AsyncIterator) and not any(_has(kind, name) for name in _READ_OTHERWISE)


def _only_gives(kind: type) -> bool:
    """True for a context manager that is good for nothing but entering it."""
    pairs = (("__enter__", "__exit__"), ("__aenter__", "__aexit__"))
    is_manager = any(_has(kind, enter) and _has(kind, leave) for enter, leave in pairs)
    return is_manager and all(name.startswith("_") for name in dir(kind))


def _proxy_for(kind: type) -> type[Proxy] | None:
    try:
        if kind not in _proxies:
            _proxies[kind] = _proxy_type(kind) if _is_stream(kind) or _only_gives(kind) else None
        return _proxies[kind]
    except Abandoned:
        raise
    except BaseException:  # a metaclass can be as hostile as any object
        return None


def _proxy_type(kind: type) -> type[Proxy]:
    names: dict[str, Any] = {"__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
    for name in _FORWARDED:
        if _has(kind, name):
            names[name] = _forwarded(name) if getattr(kind, name) is not None else None
    for name, method in _METHODS.items():
        if _has(kind, name) and callable(getattr(kind, name)):
            names[name] = method
    for base, methods in ((Generator, _GENERATOR), (AsyncGenerator, _ASYNC_GENERATOR)):
        if issubclass(kind, base):
            names.update(methods)
    return type(kind.__name__, (Proxy,), names)


def _forwarded(name: str) -> Any:
    def method(self: Proxy, *args: Any) -> Any:
        source = self._fluxloop_source
        others = [one._fluxloop_source if issubclass(type(one), Proxy) else one for one in args]
        return getattr(type(source), name)(source, *others)

    method.__name__ = name
    return method


def _iter(self: Proxy) -> Any:
    # What it gives need not be the stream itself: OpenAI's gives a generator.
    _set(self, "_fluxloop_iterator", self._fluxloop_call.work(iter, self._fluxloop_source))
    return self


def _next(self: Proxy) -> Any:
    return self._fluxloop_call.step(next, self._fluxloop_iterator)


def _aiter(self: Proxy) -> Any:
    _set(self, "_fluxloop_iterator", self._fluxloop_call.work(aiter, self._fluxloop_source))
    return self


async def _anext(self: Proxy) -> Any:
    return await self._fluxloop_call.step_async(anext, self._fluxloop_iterator)


def _send(self: Proxy, value: Any, /) -> Any:
    return self._fluxloop_call.step(self._fluxloop_source.send, value)


def _throw(self: Proxy, *error: Any) -> Any:
    return self._fluxloop_call.step(self._fluxloop_source.throw, *error)


async def _asend(self: Proxy, value: Any, /) -> Any:
    return await self._fluxloop_call.step_async(self._fluxloop_source.asend, value)


async def _athrow(self: Proxy, *error: Any) -> Any:
    return await self._fluxloop_call.step_async(self._fluxloop_source.athrow, *error)


async def _aclose(self: Proxy) -> None:
    await _closed(self._fluxloop_call, self._fluxloop_source.aclose)


def _closing(name: str) -> Any:
    def method(self: Proxy, *args: Any, **kwargs: Any) -> Any:
        call = self._fluxloop_call
        closing = call.work(getattr(self._fluxloop_source, name), *args, **kwargs)
        if type(closing) is CoroutineType:
            return _closed(call, lambda: closing)
        call.end()
        return closing

    method.__name__ = name
    return method


async def _closed(call: StreamedCall, closing: Callable[[], Any]) -> Any:
    result = await call.work_async(closing)
    call.end()
    return result


def _entered(self: Proxy, entered: Any) -> Any:
    """What the caller gets who enters: a proxy where it is a stream, which is then the one of the call."""
    if entered is self._fluxloop_source:
        return self
    call = self._fluxloop_call
    inner = _stream_of(entered, call)
    if inner is None:
        call.give(entered)
        return entered
    call.source = entered
    return inner


def _enter(self: Proxy) -> Any:
    source = self._fluxloop_source
    return _entered(self, self._fluxloop_call.work(type(source).__enter__, source))


async def _aenter(self: Proxy) -> Any:
    source = self._fluxloop_source
    return _entered(self, await self._fluxloop_call.work_async(type(source).__aenter__, source))


def _exit(self: Proxy, *error: Any) -> Any:
    source, call = self._fluxloop_source, self._fluxloop_call
    swallows = call.work(type(source).__exit__, source, *error)
    call.end()
    return swallows


async def _aexit(self: Proxy, *error: Any) -> Any:
    source, call = self._fluxloop_source, self._fluxloop_call
    swallows = await call.work_async(type(source).__aexit__, source, *error)
    call.end()
    return swallows


_METHODS = {
    "__iter__": _iter,
    "__next__": _next,
    "__aiter__": _aiter,
    "__anext__": _anext,
    "__enter__": _enter,
    "__exit__": _exit,
    "__aenter__": _aenter,
    "__aexit__": _aexit,
    "close": _closing("close"),
    "aclose": _closing("aclose"),
}
_GENERATOR = {"send": _send, "throw": _throw}
_ASYNC_GENERATOR = {"asend": _asend, "athrow": _athrow, "aclose": _aclose}

_proxies: WeakKeyDictionary[type, type[Proxy] | None] = WeakKeyDictionary()
"""By the type of the stream."""
