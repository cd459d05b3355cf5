"""Recording what a service's functions are called with.

While nothing is recorded, which is the rule, a call costs one look-up.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

from fluxloop.clock import time_ns, timestamp
from fluxloop.recording.file import append, choose, current_file, failed
from fluxloop.recording.markers import VERSION, escaped, marker
from fluxloop.tracing.capture import Halt, Walk, capture, message, type_name
from fluxloop.tracing.context import current
from fluxloop.tracing.recorder import unbound
from fluxloop.tracing.redaction import Redaction

F = TypeVar("F", bound=Callable[..., Any])

_counts: dict[str, count[int]] = {}
_redaction: Redaction | None = None
_encode: Callable[[Any], str] | None = None


def enable_recording(path: str | os.PathLike[str]) -> None:
    """Record the calls of this process to a file of JSON lines from now on, whatever the environment says.

    Args:
        path: is appended to; made with its folder when the first call is recorded.
    """
    choose(path)


def disable_recording() -> None:
    """Record no calls of this process from now on, whatever the environment says."""
    choose(None)


def record_call_args(target: str, *args: Any, **kwargs: Any) -> None:
    """Record what a function is called with; nothing unless recording is on, and nothing inside a run.

    Whatever goes wrong is counted, and told once in the log; the caller never sees it. For a function
    with a parameter called `target` there is `record`.

    Args:
        target: the function, as `module:function`.
        args: what it is called with by position.
        kwargs: what it is called with by name.

    Example:
        >>> import fluxloop
        >>> def handle(data: dict[str, str]) -> str:
        ...     fluxloop.record_call_args(target="app.server:handle", data=data)
        ...     return data["content"]
    """
    path = current_file()
    if path is not None:
        _record(path, target, args, kwargs, ())


def _record(path: str, target: str, args: Any, kwargs: dict[str, Any], names: tuple[str, ...]) -> None:
    """Record a call, come what may.

    Args:
        path: the file.
        target: the function.
        args: what it is called with by position.
        kwargs: what it is called with by name.
        names: what the parameters by position are called, which tells what is secret.
    """
    global _redaction
    try:
        if current.get() is not None:
            return  # a replayed call is no call of the service
        if _redaction is None:
            _redaction = Redaction()
        _redaction.refresh()
        secrets: list[str] = []
        plain = _plain(args, kwargs, names, _redaction, secrets)
        if secrets:
            plain = _plain(args, kwargs, names, _redaction.also(secrets), secrets)
        iteration = next(_counts.get(target) or _counts.setdefault(target, count()))
        record = {
            "_version": VERSION,
            "target": str(target),
            "iteration": iteration,
            "args": plain[0],
            "kwargs": plain[1],
            "timestamp": timestamp(time_ns()),
        }
        append(path, (_encoder()(record) + "\n").encode())
    except (Exception, Halt) as error:
        failed(f"{path}: {type_name(error)}: {message(error)}")


def _plain(
    args: Any, kwargs: dict[str, Any], names: tuple[str, ...], redaction: Redaction, secrets: list[str]
) -> tuple[list[Any], dict[str, Any]]:
    walk = _CallWalk(redaction, secrets)
    unnamed = ("",) * (len(args) - len(names))
    return [walk.argument(name, value) for name, value in zip((*names, *unnamed), args, strict=False)], walk(kwargs, 0)


class _CallWalk(Walk):
    """As in runs, but callables are told apart from all else."""

    __slots__ = ()

    def argument(self, name: str, value: Any) -> Any:
        try:
            return self._named(name, value, 1)
        except Exception:  # even its type is hostile
            return self.represented(value)

    def _object(self, value: Any, depth: int) -> Any:
        if callable(value):
            return marker(capture(_name(value), self._redaction))
        plain = super()._object(value, depth)
        # A mapping's keys, of whatever type, have been through `_mapping`.
        return escaped(plain) if type(plain) is dict and not isinstance(value, Mapping) else plain

    def _mapping(self, value: Any, depth: int) -> dict[str, Any]:
        return escaped(super()._mapping(value, depth))


def _name(value: Any) -> str:
    """`module:qualname` of a callable, or of its class."""
    function = unbound(value)
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return f"{type(function).__module__}:{type(function).__qualname__}"
    return f"{getattr(function, '__module__', None) or 'builtins'}:{name}"


def _encoder() -> Callable[[Any], str]:
    global _encode
    if _encode is None:
        import json  # a service that records nothing need not have it

        _encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
    return _encode


class _Decorator(Protocol):
    def __call__(self, function: F, /) -> F: ...


@overload
def record(function: F, /) -> F: ...
@overload
def record(target: str | None = None) -> _Decorator: ...
def record(target: Any = None) -> Any:
    """Record what a function of a service is called with, each time, before it runs.

    It takes functions and methods, sync and async, and generators of both kinds; what they return
    and raise does not change.

    Args:
        target: what the recording calls it; by default `module:function`, where it is defined.

    Example:
        >>> import fluxloop
        >>> @fluxloop.record()
        ... def handle(data: dict[str, str]) -> str:
        ...     return data["content"].upper()
        >>> handle({"content": "nothing is recorded until it is turned on"})
        'NOTHING IS RECORDED UNTIL IT IS TURNED ON'
    """
    if target is None or isinstance(target, str):
        return lambda function: _wrap(function, target)
    return _wrap(target, None)


def _wrap(function: Any, target: str | None) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_wrap(function.__func__, target))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"fluxloop.record goes on a function or a method, not on {function!r}")
    called = unbound(function)
    if not inspect.isroutine(called):
        called = type(called).__call__
    note = _noting(function, target)
    if inspect.iscoroutinefunction(called):
        return _wrap_coroutine(function, note)
    if inspect.isasyncgenfunction(called):
        return _wrap_async_generator(function, note)
    if inspect.isgeneratorfunction(called):
        return _wrap_generator(function, note)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if (path := current_file()) is not None:
            note(path, args, kwargs)
        return function(*args, **kwargs)

    return wrapper


_Note = Callable[[str, tuple[Any, ...], dict[str, Any]], None]


def _wrap_coroutine(function: Any, note: _Note) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if (path := current_file()) is not None:
            note(path, args, kwargs)
        return await function(*args, **kwargs)

    return wrapper


def _wrap_generator(function: Any, note: _Note) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if (path := current_file()) is not None:
            note(path, args, kwargs)
        return (yield from function(*args, **kwargs))

    return wrapper


def _wrap_async_generator(function: Any, note: _Note) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if (path := current_file()) is not None:
            note(path, args, kwargs)
        steps = function(*args, **kwargs)
        step = steps.__anext__()
        while True:
            try:
                item = await step
            except StopAsyncIteration:
                return
            try:
                step = steps.asend((yield item))
            except GeneratorExit:
                await steps.aclose()
                raise
            except BaseException as thrown:
                step = steps.athrow(thrown)

    return wrapper


def _noting(function: Any, target: str | None) -> _Note:
    """What records a call of the function."""
    names = _positional(function)
    # What a method belongs to is not one of its arguments.
    skip = 1 if names[:1] in (("self",), ("cls",)) else 0
    names = names[skip:]

    def note(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal target
        if target is None:
            target = recorded_name(function)
        given = args[skip:]
        _record(path, target, given, kwargs, names[: len(given)])

    return note


def _positional(function: Any) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))


def recorded_name(function: Any) -> str:
    """Return `module:function`, as a configuration names it, also where the module is the program itself."""
    module, _, name = _name(function).partition(":")
    if module == "__main__":
        main: Any = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else Path(file).stem if file else module
    return f"{module}:{name}"
