"""The plain records that flow from the plan to the files.

Every field is always present in a file, `null` when empty. Records are built once or more for
each run, so they are not frozen (half the cost) and built by position; nothing changes one after
its run. They have no slots, because msgspec writes slots in the order of the alphabet and other
attributes in theirs.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import define

from fluxloop.visible import one_line

_MOST = 2**63 - 1
"""What a whole number can be in every reader of JSON."""

Status = Literal["ok", "error", "timeout", "crashed"]
ErrorKind = Literal["agent", "infrastructure", "timeout"]
ObservationType = Literal["agent", "tool", "generation", "span", "event"]


@define(slots=False)
class Case:
    """One input and what belongs to it."""

    index: int
    """Position in the input file, from 0, before any filter."""
    id: str
    input: Any
    persona: str | None = None
    expected: Any = None
    metadata: dict[str, Any] | None = None
    """Whatever else the entry held; `source_id` is here when the entry has one."""

    @property
    def source_id(self) -> str | None:
        """The input this one was derived from, as statistics cluster them."""
        source = self.metadata.get("source_id") if self.metadata else None
        return None if source is None else str(source)


@define(slots=False)
class PlannedRun:
    """One run that is to happen: a case and an iteration of it."""

    trace_id: str
    case: Case
    iteration: int
    """From 0."""
    seed: int


@define(slots=False)
class Usage:
    """Tokens of model calls."""

    input_tokens: int | None
    output_tokens: int | None

    def __add__(self, other: Usage) -> Usage:
        """Return the sum, in which a figure is None only when neither tells it."""
        return Usage(_sum(self.input_tokens, other.input_tokens), _sum(self.output_tokens, other.output_tokens))


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one + other, _MOST)


@define(slots=False)
class ErrorSummary:
    """What went wrong, as every file tells it."""

    kind: ErrorKind
    type: str
    message: str


@define(slots=False)
class RunError:
    """What went wrong, with the traceback."""

    kind: ErrorKind
    type: str
    message: str
    traceback: str | None = None

    def summary(self) -> ErrorSummary:
        """Return the same without the traceback."""
        return ErrorSummary(self.kind, self.type, self.message)


@define(slots=False)
class ObservedError:
    """What a traced call raised."""

    type: str
    message: str


@define(slots=False)
class Observation:
    """One traced call, or one event, inside a run."""

    id: str
    trace_id: str
    parent_id: str | None
    attempt: int
    type: ObservationType
    name: str
    start_time: str
    end_time: str | None = None
    """None for a call that had not ended when its run did."""
    duration_ms: float | None = None
    input: Any = None
    output: Any = None
    error: ObservedError | None = None
    model: str | None = None
    usage: Usage | None = None
    metadata: Any = None

    def copy(self) -> Observation:
        """Return an observation with the values of this one, which threads of the agent may still end.

        The end is read first, and is written last: what has an end is whole.
        """
        return Observation(
            self.id,
            self.trace_id,
            self.parent_id,
            self.attempt,
            self.type,
            self.name,
            self.start_time,
            self.end_time,
            self.duration_ms,
            self.input,
            self.output,
            self.error,
            self.model,
            self.usage,
            self.metadata,
        )


@define(slots=False)
class Attempt:
    """One try at a planned run, as an executor yields it."""

    planned: PlannedRun
    number: int
    """From 1."""
    status: Status
    input: Any
    output: Any
    error: RunError | None
    start_time: str
    end_time: str
    duration_ms: float
    observations: tuple[Observation, ...]
    stdout: str | None
    stderr: str | None
    retry: bool = False
    """True when another attempt may help, as `runner.retry_on` says; the schedule decides."""
    retry_after: float | None = None
    """For how many seconds the service asked to be left alone."""
    is_overload: bool = False
    """True when the service answered 429, which asks everyone to wait."""
    is_refusal: bool = False
    """True when a service has refused its caller: 401 or 403."""
    left_running: bool = False
    """True when it was given up and nothing could end it."""
    told: Case | None = None
    """The case as the files show it, where that differs: its secrets masked."""
    masked: tuple[str, ...] = ()
    """The names of the secrets that were masked in it."""
    exposed: tuple[str, ...] = ()
    """The names of those that stand in an id, which is never masked."""


@define(slots=False)
class TraceSummary:
    """A line of `trace_summary.jsonl`."""

    trace_id: str
    input_id: str
    input_index: int
    iteration: int
    persona: str | None
    input: Any
    output: Any
    status: Status
    passed: bool
    error: ErrorSummary | None
    duration_ms: float
    start_time: str
    attempts: int
    seed: int
    observation_count: int
    usage: Usage | None


@define(slots=False, repr=False)
class Trace:
    """A line of `traces.jsonl`: everything about one run."""

    trace_id: str
    input_id: str
    input_index: int
    iteration: int
    persona: str | None
    input: Any
    output: Any
    status: Status
    passed: bool
    error: RunError | None
    duration_ms: float
    """The last attempt, without waiting."""
    start_time: str
    attempts: int
    seed: int
    observation_count: int
    usage: Usage | None
    end_time: str
    total_ms: float
    """All attempts and the waiting between them."""
    metadata: dict[str, Any] | None
    expected: Any
    errors: tuple[RunError, ...]
    """The errors of earlier attempts."""
    stdout: str | None
    stderr: str | None
    observations: tuple[Observation, ...]

    def __repr__(self) -> str:
        named = f"{one_line(self.trace_id)} of {one_line(self.input_id)}"
        return f"<Trace {named}: {self.status}, {self.observation_count} observations>"

    def summary(self) -> TraceSummary:
        """Return the short form of the trace."""
        error = self.error
        return TraceSummary(
            self.trace_id,
            self.input_id,
            self.input_index,
            self.iteration,
            self.persona,
            self.input,
            self.output,
            self.status,
            self.passed,
            None if error is None else error.summary(),
            self.duration_ms,
            self.start_time,
            self.attempts,
            self.seed,
            self.observation_count,
            self.usage,
        )
