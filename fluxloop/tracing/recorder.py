"""What is recorded of one function's calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from attrs import frozen

from fluxloop.clock import perf_counter_ns
from fluxloop.records import Observation, ObservationType, ObservedError
from fluxloop.tracing.capture import as_text, capture, describe, masked_by_name, type_name
from fluxloop.tracing.context import Scope
from fluxloop.tracing.redaction import NOTHING, Redaction
from fluxloop.tracing.secret_names import Secrecy, secrecy
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
        "known",
        "metadata",
        "model",
        "name",
        "names",
        "secret",
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
        names, self.known, self.variadic, self.defaults = _parameters(function)
        # What a method belongs to is not one of its inputs.
        self.skip = 1 if names[:1] in (("self",), ("cls",)) else 0
        self.names = names[self.skip :]
        said = ((name, secrecy(name)) for name in (*self.known, self.variadic))
        self.secret: dict[str, Secrecy] = {name: what for name, what in said if what}
        """Parameters whose names say that their values are secret."""

    def begin(self, scope: Scope, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Observation, int]:
        run, parent = scope
        redaction = run.redaction
        captured = self._input(args, kwargs, redaction) if self.capture_input else None
        name, model, metadata = self.name, self.model, self.metadata
        # These were given at the decoration, when nobody knew what is secret.
        if redaction.is_needed:
            name = redaction.text(name)
            model = None if model is None else redaction.text(model)
        if metadata is not None:
            metadata = capture(metadata, redaction)
        return run.observe(self.type, name, parent, captured, model, metadata)

    def _input(self, args: tuple[Any, ...], kwargs: dict[str, Any], redaction: Redaction) -> dict[str, Any]:
        names = self.names
        if self.skip:
            args = args[self.skip :]
        captured: dict[str, Any] = {}
        for name, value in zip(names, args, strict=False):
            captured[name] = capture(value, redaction)
        if len(args) > len(names):
            captured[self.variadic] = [capture(value, redaction) for value in args[len(names) :]]
        for name, value in kwargs.items():
            if name in self.known:
                captured[name if name.isascii() else capture(name)] = capture(value, redaction)
            else:  # a name of the caller's, to be judged now
                captured.update(capture({name: value}, redaction))
        for name, value in self.defaults.items():
            if name not in captured:
                captured[name] = capture(value, redaction)
        if self.secret and redaction.by_name:
            for name in self.secret.keys() & captured.keys():
                captured[name] = masked_by_name(captured[name], self.secret[name])
        return captured

    def succeed(
        self,
        scope: Scope,
        observation: Observation,
        start: int,
        output: Any,
        *,
        assembled: Any = None,
        end: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """End the observation with what the call gave.

        Args:
            scope: where the function was called.
            observation: the call's.
            start: when it began, on the performance counter.
            output: what it returned, or what its stream has given.
            assembled: the answer a stream has put together itself, for usage that its items do not tell.
            end: when it ended; now by default.
            error: why a stream broke off after that.
        """
        if end is None:
            end = perf_counter_ns()
        redaction = scope[0].redaction
        generated = self.type == "generation"
        plain = capture(output, redaction) if generated or self.capture_output else None
        if self.capture_output:
            observation.output = plain
        if generated:
            observation.usage = find_usage(plain)
            observation.model = find_model(plain) or observation.model
            if assembled is not None and observation.usage is None:
                told = capture(assembled, redaction)
                observation.usage = find_usage(told)
                observation.model = find_model(told) or observation.model
        if error is not None:
            observation.error = observed(error, redaction)
        scope[0].end(observation, start, end)

    def fail(self, scope: Scope, observation: Observation, start: int, error: BaseException) -> None:
        end = perf_counter_ns()
        observation.error = observed(error, scope[0].redaction)
        scope[0].end(observation, start, end)


def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], frozenset[str], str, dict[str, Any]]:
    """The positional parameters, all that have a name, what further arguments are called, and the defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell
        return (), frozenset(), "args", {}
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    named = frozenset(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return tuple(positional), named, variadic[0] if variadic else "args", defaults


def unbound(function: Any) -> Any:
    """The function below a `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def observed(error: BaseException, redaction: Redaction) -> ObservedError:
    return ObservedError(*map(redaction.text, describe(error)))


def kept_metadata(description: str | None, metadata: Any, redaction: Redaction = NOTHING) -> dict[str, Any] | None:
    captured = {} if metadata is None else capture(metadata, redaction)
    if not isinstance(captured, dict):
        captured = {"metadata": captured}
    if description is not None:
        captured = {"description": capture(description, redaction), **captured}
    return captured or None
