"""Functions of every kind → the same functions, recorded.

Outside a run a wrapped function behaves as it did, for one look-up. Inside one, neither what it
returns nor what it raises changes. One thing is not as it was: coroutine and generator functions
tell wrong arguments at their first step and not at the call, for only so do they stay what
`inspect` calls a coroutine or generator function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from fluxloop.records import Observation
from fluxloop.tracing.context import Scope, current, leave
from fluxloop.tracing.recorder import Recorder, Wanted, unbound
from fluxloop.tracing.streams import StreamedOutput


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
        if scope is None:
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
        recorder.succeed(scope, observation, start, output)
        return output

    return wrapper


def _wrap_coroutine(function: Any, recorder: Recorder) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        scope = current.get()
        if scope is None:
            return await function(*args, **kwargs)
        observation, start = recorder.begin(scope, args, kwargs)
        token = current.set((scope[0], observation.id))
        try:
            output = await function(*args, **kwargs)
        except BaseException as error:
            recorder.fail(scope, observation, start, error)
            raise
        finally:
            leave(token)
        recorder.succeed(scope, observation, start, output)
        return output

    return wrapper


def _wrap_generator(function: Any, recorder: Recorder) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = current.get()
        generator = function(*args, **kwargs)
        observation, start = None, 0
        inside: Scope | None = None
        if scope is not None:
            observation, start = recorder.begin(scope, args, kwargs)
            inside = (scope[0], observation.id)
        streamed = StreamedOutput()
        step, value = generator.send, None
        # Not `yield from`, which keeps what the generator answers to `close` for itself.
        while True:
            # A generator shares its caller's context: the scope holds only while it works.
            token = current.set(inside) if inside else None
            try:
                item = step(value)
            except StopIteration as stop:
                if observation and scope:
                    recorder.succeed(scope, observation, start, streamed.value(stop.value))
                return stop.value
            except BaseException as error:
                if observation and scope:
                    _end_stream(recorder, scope, observation, start, streamed, error)
                raise
            finally:
                if token:
                    # Where it stopped, which may be in a span of its own.
                    inside = current.get() or inside
                    current.reset(token)
            if inside:
                streamed.add(item)
            try:
                step, value = generator.send, (yield item)
            except BaseException as thrown:
                # GeneratorExit too: what the generator makes of it shows at the next step.
                step, value = generator.throw, thrown

    return wrapper


def _wrap_async_generator(function: Any, recorder: Recorder) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope = current.get()
        generator = function(*args, **kwargs)
        observation, start = None, 0
        inside: Scope | None = None
        if scope is not None:
            observation, start = recorder.begin(scope, args, kwargs)
            inside = (scope[0], observation.id)
        streamed = StreamedOutput()
        step, value = generator.asend, None
        while True:
            token = current.set(inside) if inside else None
            try:
                item = await step(value)
            except StopAsyncIteration:
                if observation and scope:
                    recorder.succeed(scope, observation, start, streamed.value())
                return
            except BaseException as error:
                if observation and scope:
                    _end_stream(recorder, scope, observation, start, streamed, error)
                raise
            finally:
                if token:
                    inside = current.get() or inside
                    leave(token)
            if inside:
                streamed.add(item)
            try:
                step, value = generator.asend, (yield item)
            except GeneratorExit as closed:
                step, value = _aclose_then_raise(generator, closed), None
            except BaseException as thrown:
                step, value = generator.athrow, thrown

    return wrapper


def _aclose_then_raise(generator: Any, closed: GeneratorExit) -> Callable[[Any], Any]:
    # Not `athrow`, which says nothing when the event loop, at its end, has closed the generator already.
    async def step(_: Any) -> Any:
        await generator.aclose()
        raise closed

    return step


def _end_stream(
    recorder: Recorder,
    scope: Scope,
    observation: Observation,
    start: int,
    streamed: StreamedOutput,
    error: BaseException,
) -> None:
    recorder.succeed(scope, observation, start, streamed.value())
    # A reader that has seen enough closes the stream: that is an end, not a failure.
    if not isinstance(error, GeneratorExit):
        recorder.fail(scope, observation, start, error)
