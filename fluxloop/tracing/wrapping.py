"""Functions of every kind → the same functions, recorded.

Outside a run a wrapped function behaves as it did, for one look-up. Inside one, neither what it
returns nor what it raises changes; a stream or a coroutine it returns has a proxy, which behaves
as it does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from fluxloop.records import Observation
from fluxloop.tracing.context import Scope, current, is_late, leave
from fluxloop.tracing.proxy import proxied
from fluxloop.tracing.recorder import Recorder, Wanted, unbound
from fluxloop.tracing.signed import signed
from fluxloop.tracing.stepping import AsyncSteps, Steps, StreamedCall

_WHOLE = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})
"""What is there at once; asked first because it is the rule."""


def wrap(function: Any, wanted: Wanted) -> Any:
    """Return the function with its calls recorded; a static or class method stays one.

    Raises:
        TypeError: it is no function or method.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(wrap(function.__func__, wanted))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"a fluxloop decorator goes on a function or a method, not on {function!r}")
    recorder = Recorder(function, wanted)
    called = unbound(function)
    if not inspect.isroutine(called):
        called = type(called).__call__
    if inspect.iscoroutinefunction(called):
        return _wrap_coroutine(function, recorder)
    if inspect.isasyncgenfunction(called):
        return _wrap_async_generator(function, recorder)
    if inspect.isgeneratorfunction(called):
        return _wrap_generator(function, recorder)
    return _wrap_function(function, recorder)


def _wrap_function(function: Any, recorder: Recorder) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        scope = current.get()
        if scope is None or (scope[0].closed and is_late(scope)):
            return function(*args, **kwargs)
        observation, start = recorder.begin(scope, args, kwargs)
        token = current.set((scope[0], observation.id))
        try:
            output = function(*args, **kwargs)
        except BaseException as error:
            recorder.fail(scope, observation, start, error)
            raise
        finally:
            current.reset(token)
        try:
            if type(output) not in _WHOLE:
                return _handed_on(recorder, scope, observation, start, output)
            recorder.succeed(scope, observation, start, output)
            return output
        except RecursionError:  # no frame is left for it; where there was one to begin, there is one to end
            scope[0].end(observation, start)
            return output

    return wrapper


def _wrap_coroutine(function: Any, recorder: Recorder) -> Any:
    async def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scope = current.get()
        if scope is None or (scope[0].closed and is_late(scope)):
            return await function(*args, **kwargs)
        observation, start = recorder.begin(scope, args, kwargs)
        return await _awaited(recorder, scope, observation, start, functools.partial(function, *args, **kwargs))

    return signed(function, "coroutine", call)


async def _awaited(
    recorder: Recorder, scope: Scope, observation: Observation, start: int, coroutine: Callable[[], Any]
) -> Any:
    token = current.set((scope[0], observation.id))
    try:
        output = await coroutine()
    except BaseException as error:
        recorder.fail(scope, observation, start, error)
        raise
    finally:
        leave(token)
    return _handed_on(recorder, scope, observation, start, output)


def _handed_on(recorder: Recorder, scope: Scope, observation: Observation, start: int, output: Any) -> Any:
    """What the caller gets: the output, or what gives it later, which is then when the observation ends."""
    kind = type(output)
    if kind not in _WHOLE:
        if kind is CoroutineType:  # as the methods of asynchronous clients return, which are no coroutine functions
            return _awaited(recorder, scope, observation, start, lambda: output)
        proxy = proxied(output, lambda: StreamedCall(recorder, scope, observation, start, output))
        if proxy is not None:
            return proxy
    recorder.succeed(scope, observation, start, output)
    return output


def _wrap_generator(function: Any, recorder: Recorder) -> Any:
    return signed(function, "generator", functools.partial(Steps, function, recorder))


def _wrap_async_generator(function: Any, recorder: Recorder) -> Any:
    return signed(function, "async generator", functools.partial(AsyncSteps, function, recorder))
