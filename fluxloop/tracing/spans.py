"""A stretch of work as a context manager."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar

from fluxloop.clock import perf_counter_ns
from fluxloop.records import Observation
from fluxloop.tracing.capture import as_text, capture
from fluxloop.tracing.context import OpenRun, current, leave, recording
from fluxloop.tracing.recorder import Wanted, kept_metadata, observed
from fluxloop.tracing.wrapping import wrap

F = TypeVar("F", bound=Callable[..., Any])


class Span:
    """A stretch of work, as `span` gives it: a context manager, and a decorator."""

    def __init__(
        self,
        name: str | None,
        *,
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
        self._open: dict[str | None, tuple[OpenRun, Observation, int, Any] | None] = {}

    def __call__(self, function: F, /) -> F:
        wanted = Wanted(
            type="span",
            name=self._name,
            metadata=kept_metadata(self._description, self._metadata),
            capture_input=self._capture_input,
            capture_output=self._capture_output,
        )
        wrapped: F = wrap(function, wanted)
        return wrapped

    def __enter__(self) -> Span:
        scope = recording()
        if scope is None:
            self._open[""] = None
            return self
        run, parent = scope
        redaction = run.redaction
        name = "span" if self._name is None else as_text(self._name, redaction)
        metadata = kept_metadata(self._description, self._metadata, redaction)
        observation, start = run.observe("span", name, parent, capture(self._input, redaction), None, metadata)
        self._open[observation.id] = (run, observation, start, current.set((run, observation.id)))
        return self

    def _innermost(self) -> str | None:
        scope = current.get()
        inside = "" if scope is None else scope[1]
        if scope is not None and inside not in self._open:  # it is below another observation
            while inside is not None and inside not in self._open:
                inside = scope[0].parent_of(inside)
        # Else it is closed from outside its task.
        return inside if inside in self._open else next(reversed(self._open), None)

    def update(self, *, output: Any = None, metadata: dict[str, Any] | None = None) -> None:
        """Record the span's output, or add to its metadata; nothing outside a run."""
        entered = self._open.get(self._innermost())
        if entered is None or entered[0].closed:
            return
        observation = entered[1]
        if output is not None:
            observation.output = capture(output, entered[0].redaction)
        if metadata is not None:
            added = kept_metadata(None, metadata, entered[0].redaction) or {}
            observation.metadata = {**(observation.metadata or {}), **added}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        entered = self._open.pop(self._innermost(), None)
        if entered is None:
            return False
        run, observation, start, token = entered
        # A generator that was left open ends among its caller's calls, whose scope is not ours to change.
        if current.get() == (run, observation.id):
            leave(token)
        end = perf_counter_ns()
        if error is not None:
            observation.error = observed(error, run.redaction)
        run.end(observation, start, end)
        return False

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return self.__exit__(kind, error, traceback)
