"""The decorators that make a function's calls visible inside a run.

Outside a run a decorated function behaves as if undecorated, for one look-up. Inside one,
tracing changes neither what the function returns nor what it raises.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar, overload

from fluxloop.records import Observation, ObservationType, ObservedError
from fluxloop.tracing.capture import as_text, capture, message, type_name
from fluxloop.tracing.context import Run, Scope, current
from fluxloop.tracing.streams import StreamedOutput
from fluxloop.tracing.usage import find_model, find_usage

F = TypeVar("F", bound=Callable[..., Any])


class _Decorator(Protocol):
    def __call__(self, function: F, /) -> F: ...


class _Recorder:
    """What is recorded of one function's calls."""

    __slots__ = ("capture_input", "capture_output", "metadata", "model", "name", "names", "skip", "type", "variadic")

    def __init__(
        self,
        function: Callable[..., Any],
        type: ObservationType,
        name: str | None,
        model: str | None,
        metadata: Any,
        capture_input: bool,
        capture_output: bool,
    ) -> None:
        self.type: ObservationType = type
        inner = _unbound(function)
        self.name = as_text(name or getattr(inner, "__name__", None) or type_name(inner))
        self.model = None if model is None else as_text(model)
        self.metadata = metadata
        self.capture_input = capture_input
        self.capture_output = capture_output
        names, self.variadic = _parameter_names(function)
        # What a method belongs to is not one of its inputs.
        self.skip = 1 if names[:1] in (("self",), ("cls",)) else 0
        self.names = names[self.skip :]

    def begin(self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Observation, int]:
        run, parent = scope
        captured = self._input(args, kwargs) if self.capture_input else None
        return run.observe(self.type, self.name, parent, captured, self.model, self.metadata)

    def _input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self.names
        if self.skip:
            args = args[self.skip :]
        captured = {name: capture(value) for name, value in zip(names, args, strict=False)}
        if len(args) > len(names):
            captured[self.variadic] = [capture(value) for value in args[len(names) :]]
        for name, value in kwargs.items():
            captured[name if type(name) is str and name.isascii() else capture(name)] = capture(value)
        return captured

    def succeed(self, scope: Scope, observation: Observation, start: int, output: Any) -> None:
        if not scope[0].end(observation, start):
            return
        if self.type == "generation":
            self._generation(observation, capture(output))
        elif self.capture_output:
            observation.output = capture(output)

    def _generation(self, observation: Observation, output: Any) -> None:
        observation.usage = find_usage(output)
        observation.model = find_model(output) or self.model
        if self.capture_output:
            observation.output = output

    def fail(self, scope: Scope, observation: Observation, start: int, error: BaseException) -> None:
        if scope[0].end(observation, start):
            observation.error = ObservedError(type_name(error), message(error))


def _parameter_names(function: Callable[..., Any]) -> tuple[tuple[str, ...], str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return (), "args"
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    return tuple(positional), variadic[0] if variadic else "args"


def _wrap(function: Any, make: Callable[[Any], _Recorder]) -> Any:
    if isinstance(function, staticmethod | classmethod):
        return type(function)(_wrap(function.__func__, make))
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"a fluxloop decorator goes on a function or a method, not on {function!r}")
    recorder = make(function)
    called = _unbound(function)
    if not inspect.isroutine(called):
        called = type(called).__call__
    if inspect.iscoroutinefunction(called):
        return _wrap_coroutine(function, recorder)
    if inspect.isasyncgenfunction(called):
        return _wrap_async_generator(function, recorder)
    if inspect.isgeneratorfunction(called):
        return _wrap_generator(function, recorder)
    return _wrap_function(function, recorder)


def _unbound(function: Any) -> Any:
    """The function below a `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _wrap_function(function: Any, recorder: _Recorder) -> Any:
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


def _wrap_coroutine(function: Any, recorder: _Recorder) -> Any:
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
            _reset(token)
        recorder.succeed(scope, observation, start, output)
        return output

    return wrapper


def _reset(token: Any) -> None:
    # A coroutine closed from outside its task ends in another context, where there is nothing to undo.
    with suppress(ValueError):
        current.reset(token)


def _wrap_generator(function: Any, recorder: _Recorder) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = current.get()
        generator = function(*args, **kwargs)
        if scope is None:
            return (yield from generator)
        observation, start = recorder.begin(scope, args, kwargs)
        inside: Scope = (scope[0], observation.id)
        streamed = StreamedOutput()
        step, value = generator.send, None
        while True:
            # A generator shares its caller's context: the scope holds only while it works.
            token = current.set(inside)
            try:
                item = step(value)
            except StopIteration as stop:
                recorder.succeed(scope, observation, start, streamed.value(stop.value))
                return stop.value
            except BaseException as error:
                _end_stream(recorder, scope, observation, start, streamed, error)
                raise
            finally:
                # Where it stopped, which may be in a span of its own.
                inside = current.get() or inside
                current.reset(token)
            streamed.add(item)
            try:
                step, value = generator.send, (yield item)
            except BaseException as thrown:
                # GeneratorExit too: what the generator makes of it shows at the next step.
                step, value = generator.throw, thrown

    return wrapper


def _wrap_async_generator(function: Any, recorder: _Recorder) -> Any:
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
                    _reset(token)
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
    recorder: _Recorder,
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


def _decorate(
    kind: ObservationType,
    target: Any,
    name: str | None,
    model: str | None,
    description: str | None,
    metadata: dict[str, Any] | None,
    capture_input: bool,
    capture_output: bool,
) -> Any:
    """Serve `@agent`, `@agent()`, `@agent("name")` and `@agent(name="name")` alike."""
    if isinstance(target, str):
        name, target = target, None
    kept = _metadata(description, metadata)

    def make(function: Any) -> _Recorder:
        return _Recorder(function, kind, name, model, kept, capture_input, capture_output)

    return (lambda function: _wrap(function, make)) if target is None else _wrap(target, make)


def _metadata(description: str | None, metadata: Any) -> dict[str, Any] | None:
    captured = {} if metadata is None else capture(metadata)
    if not isinstance(captured, dict):
        captured = {"metadata": captured}
    if description is not None:
        captured = {"description": capture(description), **captured}
    return captured or None


@overload
def agent(function: F, /) -> F: ...
@overload
def agent(
    name: str | None = None,
    *,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> _Decorator: ...
def agent(
    name: Any = None,
    *,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> Any:
    """Record each call of an agent, its entry point as a rule.

    Args:
        name: what the observation is called; the function's name by default.
        description: kept in the observation's metadata.
        metadata: any further data, kept with each observation.
        capture_input: record the arguments.
        capture_output: record what is returned or yielded.

    Example:
        >>> import fluxloop
        >>> @fluxloop.agent()
        ... def run(input_text: str) -> str:
        ...     return input_text.upper()
        >>> run("outside a run nothing is recorded")
        'OUTSIDE A RUN NOTHING IS RECORDED'
    """
    return _decorate("agent", name, None, None, description, metadata, capture_input, capture_output)


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    name: str | None = None,
    *,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> _Decorator: ...
def tool(
    name: Any = None,
    *,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> Any:
    """Record each call of a tool the agent uses; arguments as for `agent`."""
    return _decorate("tool", name, None, None, description, metadata, capture_input, capture_output)


@overload
def generation(function: F, /) -> F: ...
@overload
def generation(
    name: str | None = None,
    *,
    model: str | None = None,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> _Decorator: ...
def generation(
    name: Any = None,
    *,
    model: str | None = None,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> Any:
    """Record each call of a model, with its token usage and the model's name.

    Both are read from what the call returns: the responses of OpenAI, Anthropic, LangChain and
    Gemini, and mappings of the same shapes, streamed chunks included.

    Args:
        name: what the observation is called; the function's name by default.
        model: the model's name, where the response does not tell it.
        description: kept in the observation's metadata.
        metadata: any further data, kept with each observation.
        capture_input: record the arguments.
        capture_output: record what is returned or yielded; usage is read in any case.
    """
    return _decorate("generation", name, None, model, description, metadata, capture_input, capture_output)


class Span:
    """A stretch of work, as `span` gives it: a context manager, and a decorator."""

    def __init__(
        self,
        name: str | None,
        input: Any,
        description: str | None,
        metadata: dict[str, Any] | None,
        capture_input: bool,
        capture_output: bool,
    ) -> None:
        self._name = name
        self._input = input
        self._description = description
        self._metadata = metadata
        self._capture_input = capture_input
        self._capture_output = capture_output
        # By the id of its observation, "" outside a run: one span object may be entered again
        # inside itself, and by many tasks at once.
        self._open: dict[str | None, tuple[Run, Observation, int, Any] | None] = {}

    def __call__(self, function: F, /) -> F:
        decorate: _Decorator = _decorate(
            "span",
            None,
            self._name,
            None,
            self._description,
            self._metadata,
            self._capture_input,
            self._capture_output,
        )
        return decorate(function)

    def __enter__(self) -> Span:
        scope = current.get()
        if scope is None:
            self._open[""] = None
            return self
        run, parent = scope
        name = "span" if self._name is None else as_text(self._name)
        metadata = _metadata(self._description, self._metadata)
        observation, start = run.observe("span", name, parent, capture(self._input), None, metadata)
        self._open[observation.id] = (run, observation, start, current.set((run, observation.id)))
        return self

    def _innermost(self) -> str | None:
        scope = current.get()
        inside = "" if scope is None else scope[1]
        # Else it is below another observation, or closed from outside its task.
        return inside if inside in self._open else next(reversed(self._open), None)

    def update(self, *, output: Any = None, metadata: dict[str, Any] | None = None) -> None:
        """Record the span's output, or add to its metadata; nothing outside a run."""
        entered = self._open.get(self._innermost())
        if entered is None or entered[0].closed:
            return
        observation = entered[1]
        if output is not None:
            observation.output = capture(output)
        if metadata is not None:
            observation.metadata = {**(observation.metadata or {}), **(_metadata(None, metadata) or {})}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        entered = self._open.pop(self._innermost(), None)
        if entered is None:
            return False
        run, observation, start, token = entered
        # A generator that was left open ends among its caller's calls, whose scope is not ours to change.
        if current.get() == (run, observation.id):
            _reset(token)
        if run.end(observation, start) and error is not None:
            observation.error = ObservedError(type_name(error), message(error))
        return False

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return self.__exit__(kind, error, traceback)


@overload
def span(function: F, /) -> F: ...
@overload
def span(
    name: str | None = None,
    *,
    input: Any = None,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> Span: ...
def span(
    name: Any = None,
    *,
    input: Any = None,
    description: str | None = None,
    metadata: dict[str, Any] | None = None,
    capture_input: bool = True,
    capture_output: bool = True,
) -> Any:
    """Record a stretch of work, as a decorator or a context manager.

    Args:
        name: what the observation is called; for a decorated function its name by default.
        input: recorded as the input of a `with` block.
        description: kept in the observation's metadata.
        metadata: any further data, kept with the observation.
        capture_input: record the arguments of a decorated function.
        capture_output: record what a decorated function returns or yields.

    Example:
        >>> import fluxloop
        >>> with fluxloop.span("rank", input={"k": 3}) as step:
        ...     best = sorted([3, 1, 2])
        ...     step.update(output=best)
    """
    if name is None or isinstance(name, str):
        return Span(name, input, description, metadata, capture_input, capture_output)
    return Span(None, input, description, metadata, capture_input, capture_output)(name)


def event(name: str, /, **metadata: Any) -> None:
    """Record that something happened, at this moment, with any data; nothing outside a run.

    Example:
        >>> import fluxloop
        >>> fluxloop.event("cache_hit", key="q1")
    """
    scope = current.get()
    if scope is None:
        return
    run, parent = scope
    observation, start = run.observe(
        "event", as_text(name), parent, None, None, capture(metadata) if metadata else None
    )
    run.end(observation, start)


@overload
def prompt(function: F, /) -> F: ...
@overload
def prompt(
    name: str | None = None, *, model: str | None = None, capture_tokens: bool = True, **options: Any
) -> _Decorator: ...
def prompt(name: Any = None, *, model: str | None = None, capture_tokens: bool = True, **options: Any) -> Any:
    """Record each call of a model: the older name of `generation`.

    Args:
        name: as for `generation`.
        model: as for `generation`.
        capture_tokens: accepted for older code; usage is recorded whenever a response tells it.
        options: as for `generation`.
    """
    return generation(name, model=model, **options)


@overload
def trace(function: F, /) -> F: ...
@overload
def trace(name: str | None = None, observation_type: str = "span", **options: Any) -> _Decorator: ...
def trace(name: Any = None, observation_type: str = "span", **options: Any) -> Any:
    """Record each call of a function: the older name of `span`.

    Args:
        name: as for `span`.
        observation_type: `agent`, `tool`, `generation`, `span` or `event`, or an enum of these.
        options: as for `agent`.
    """
    kinds: dict[str, Any] = {"agent": agent, "tool": tool, "generation": generation, "span": span, "event": span}
    kind = getattr(observation_type, "value", observation_type)
    if kind not in kinds:
        raise ValueError(f"observation_type: expected one of {', '.join(kinds)}, got {observation_type!r}")
    return kinds[kind](name, **options)
