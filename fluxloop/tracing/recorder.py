"""What is recorded of one function's calls."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

from attrs import frozen

from fluxloop.records import Observation, ObservationType, ObservedError
from fluxloop.tracing.capture import as_text, capture, message, type_name
from fluxloop.tracing.context import Scope
from fluxloop.tracing.usage import find_model, find_usage


@frozen(kw_only=True)
class Wanted:
    """What a decorator asks to be recorded."""

    type: ObservationType
    name: str | None = None
    """The function's own name by default."""
    model: str | None = None
    metadata: Any = None
    """Plain data already."""
    capture_input: bool = True
    capture_output: bool = True


class Recorder:
    """What is recorded of one function's calls."""

    __slots__ = (
        "capture_input",
        "capture_output",
        "defaults",
        "metadata",
        "model",
        "name",
        "names",
        "skip",
        "type",
        "variadic",
    )

    def __init__(self, function: Callable[..., Any], wanted: Wanted) -> None:
        inner = unbound(function)
        self.type = wanted.type
        self.name = as_text(wanted.name or getattr(inner, "__name__", None) or type_name(inner))
        self.model = None if wanted.model is None else as_text(wanted.model)
        self.metadata = wanted.metadata
        self.capture_input = wanted.capture_input
        self.capture_output = wanted.capture_output
        names, self.variadic, self.defaults = _parameters(function)
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
        for name, value in self.defaults.items():
            if name not in captured:
                captured[name] = capture(value)
        return captured

    def succeed(self, scope: Scope, observation: Observation, start: int, output: Any) -> None:
        end = time.perf_counter_ns()
        generated = self.type == "generation"
        # Captured first: in another thread the run may be over before a large value is.
        plain = capture(output) if generated or self.capture_output else None
        if not scope[0].end(observation, start, end):
            return
        if self.capture_output:
            observation.output = plain
        if generated:
            observation.usage = find_usage(plain)
            observation.model = find_model(plain) or self.model

    def fail(self, scope: Scope, observation: Observation, start: int, error: BaseException) -> None:
        if scope[0].end(observation, start):
            observation.error = ObservedError(type_name(error), message(error))


def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], str, dict[str, Any]]:
    """The positional parameters, what further positional arguments are called, and the defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return (), "args", {}
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return tuple(positional), variadic[0] if variadic else "args", defaults


def unbound(function: Any) -> Any:
    """The function below a `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def kept_metadata(description: str | None, metadata: Any) -> dict[str, Any] | None:
    captured = {} if metadata is None else capture(metadata)
    if not isinstance(captured, dict):
        captured = {"metadata": captured}
    if description is not None:
        captured = {"description": capture(description), **captured}
    return captured or None
