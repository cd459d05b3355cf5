"""The decorators that make a function's calls visible inside a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, overload

from fluxloop.records import ObservationType
from fluxloop.tracing.capture import as_text, capture
from fluxloop.tracing.context import recording
from fluxloop.tracing.recorder import Wanted, kept_metadata
from fluxloop.tracing.spans import Span
from fluxloop.tracing.wrapping import wrap

F = TypeVar("F", bound=Callable[..., Any])


class _Decorator(Protocol):
    def __call__(self, function: F, /) -> F: ...


def _decorate(
    kind: ObservationType,
    target: Any,
    *,
    model: str | None = None,
    description: str | None,
    metadata: dict[str, Any] | None,
    capture_input: bool,
    capture_output: bool,
) -> Any:
    """Serve `@agent`, `@agent()`, `@agent("name")` and `@agent(name="name")` alike."""
    bare = target is not None and not isinstance(target, str)
    wanted = Wanted(
        type=kind,
        name=None if bare else target,
        model=model,
        metadata=kept_metadata(description, metadata),
        capture_input=capture_input,
        capture_output=capture_output,
    )
    return wrap(target, wanted) if bare else lambda function: wrap(function, wanted)


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
        capture_input: record the arguments, defaults included.
        capture_output: record what is returned or yielded, or what passes through a stream that is returned.

    Example:
        >>> import fluxloop
        >>> @fluxloop.agent()
        ... def run(input_text: str) -> str:
        ...     return input_text.upper()
        >>> run("outside a run nothing is recorded")
        'OUTSIDE A RUN NOTHING IS RECORDED'
    """
    return _decorate(
        "agent",
        name,
        description=description,
        metadata=metadata,
        capture_input=capture_input,
        capture_output=capture_output,
    )


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
    return _decorate(
        "tool",
        name,
        description=description,
        metadata=metadata,
        capture_input=capture_input,
        capture_output=capture_output,
    )


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

    Both are read from what the call returns: the responses of the common services and frameworks,
    and mappings of the same shapes, streamed chunks included. Input tokens include what was cached,
    output tokens what the model thought.

    Args:
        name: what the observation is called; the function's name by default.
        model: the model's name, where the response does not tell it.
        description: kept in the observation's metadata.
        metadata: any further data, kept with each observation.
        capture_input: record the arguments, defaults included.
        capture_output: record what is returned or yielded; usage is read in any case.
    """
    return _decorate(
        "generation",
        name,
        model=model,
        description=description,
        metadata=metadata,
        capture_input=capture_input,
        capture_output=capture_output,
    )


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
        capture_input: record the arguments of a decorated function, defaults included.
        capture_output: record what a decorated function returns or yields.

    Example:
        >>> import fluxloop
        >>> with fluxloop.span("rank", input={"k": 3}) as step:
        ...     best = sorted([3, 1, 2])
        ...     step.update(output=best)
    """
    bare = name is not None and not isinstance(name, str)
    made = Span(
        None if bare else name,
        input=input,
        description=description,
        metadata=metadata,
        capture_input=capture_input,
        capture_output=capture_output,
    )
    return made(name) if bare else made


def event(name: str, /, **metadata: Any) -> None:
    """Record that something happened, at this moment, with any data; nothing outside a run.

    Example:
        >>> import fluxloop
        >>> fluxloop.event("cache_hit", key="q1")
    """
    scope = recording()
    if scope is None:
        return
    run, parent = scope
    redaction = run.redaction
    captured = capture(metadata, redaction) if metadata else None
    observation, start = run.observe("event", as_text(name, redaction), parent, None, None, captured)
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
