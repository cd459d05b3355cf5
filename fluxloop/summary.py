"""Traces → Summary, one at a time, in memory that does not grow with what the traces hold."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

import msgspec
from attrs import Factory, define, frozen

from fluxloop.clusters import Clusters
from fluxloop.records import RunError, Status, Usage
from fluxloop.statistics import pass_rate_interval
from fluxloop.tracebacks import place
from fluxloop.verdict import failed_before, verdict

ExperimentStatus = Literal["running", "completed", "interrupted", "stopped", "failed"]

BIASED = "the pass rate is biased upwards"
MAX_ERROR_GROUPS = 100
"""Kinds of error told apart; an agent whose every error is of another kind must not fill the memory."""
MAX_PERSONAS = 1000
MAX_FAILING_INPUTS = 100
MAX_MESSAGE = 1000
"""Characters of an error's message in the summary; the trace has it whole."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What a file may say that something is counted as."""


class FinishedRun(Protocol):
    """What is counted of a run, be it a `Trace` or a line of `traces.jsonl`."""

    trace_id: str
    input_id: str
    input_index: int
    persona: str | None
    status: Status
    passed: bool
    error: RunError | None
    duration_ms: float
    attempts: int
    observation_count: int
    usage: Usage | None

    @property
    def errors(self) -> Sequence[RunError]: ...
    @property
    def output(self) -> Any: ...
    @property
    def metadata(self) -> dict[str, Any] | None: ...


@frozen(kw_only=True, slots=False)
class PassRate:
    """The share of judged runs that passed, with its interval; runs of one input are not independent.

    Which runs are judged, and which passed, `fluxloop.verdict` says.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    clusters: int
    """Inputs, or sources of inputs, that were run: what the interval's width depends on most."""


@frozen(kw_only=True, slots=False)
class Durations:
    """Durations of the runs in milliseconds; percentiles by nearest rank."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


@define(kw_only=True, slots=False)
class ErrorGroup:
    """Failures of one kind and type at one place."""

    type: str
    kind: str
    place: str | None
    """`file:line` of the innermost frame in the user's own code."""
    count: int
    message: str
    """The first of them."""
    trace_id: str
    input_id: str


@define(kw_only=True, slots=False)
class FailingInput:
    """An input some of whose runs failed."""

    input_id: str
    failed: int


@define(kw_only=True, slots=False)
class PersonaRow:
    """The runs of one persona."""

    persona: str
    runs: int = 0
    passed: int = 0
    infrastructure: int = 0
    """Runs ended by an outage; they do not count towards the rate."""
    pass_rate: float | None = None


@frozen(kw_only=True, slots=False)
class Summary:
    """What an experiment came to: the content of `summary.json`."""

    experiment_name: str
    status: ExperimentStatus
    stop_reason: str | None
    total_traces: Count
    successful: Count
    failed: Count
    passed: Count
    infrastructure: Count
    """Failed runs that an outage ended: connections, timeouts and overload of services."""
    pass_rate: PassRate | None
    planned: Count
    not_run: int
    avg_duration_ms: float | None
    duration_ms: Durations | None
    by_status: dict[str, int]
    by_error_kind: dict[str, int]
    errors: tuple[ErrorGroup, ...]
    errors_not_grouped: int
    """Failures beyond the first hundred groups."""
    failing_inputs: tuple[FailingInput, ...]
    """The first hundred inputs on which the agent failed, the worst of them first."""
    without_output: int
    """Successful runs whose output is null."""
    retries: int
    """Attempts beyond the first of each run."""
    personas: tuple[PersonaRow, ...]
    usage: Usage | None
    observation_count: int
    fail_under: float | None
    """The gate on the pass rate, if one was set."""
    started_at: str
    completed_at: str | None
    ran_on: dict[str, Any]
    """Versions, platform, git commit, seed, tags, and a digest of the inputs."""
    superseded: int = 0
    """Runs that were run again on resume; their records are in `superseded.jsonl`."""
    rerolled: int = 0
    """Of these, failures of the agent: errors, timeouts and crashes. They bias the pass rate upwards."""
    passed_after_failure: int = 0
    """Passed runs whose earlier attempts were failures of the agent, which a retry replaced; the same bias."""
    left_out_after_failure: int = 0
    """The same of runs that infrastructure ended at last."""
    remarks: tuple[str, ...] = ()
    """What a reader of the figures must know of how they came about."""
    outputs_without_text: int = 0
    """Successful runs whose output is an object that only Python's default `repr` describes."""
    masked: dict[str, int] = Factory(dict)
    """In how many runs something was masked, by the name of the variable or key whose secret it was."""

    @property
    def judged(self) -> int:
        """How many runs the pass rate is a share of."""
        return self.total_traces - self.infrastructure

    @property
    def bias(self) -> str:
        """What makes the pass rate look better than it is, in a few words; empty when nothing does."""
        retried = self.passed_after_failure + self.left_out_after_failure
        counts = [f"{count} {how}" for count, how in ((self.rerolled, "re-rolled"), (retried, "retried")) if count]
        failures = "failure" if self.rerolled + retried == 1 else "failures"
        return f"biased upwards by {' and '.join(counts)} {failures} of the agent" if counts else ""


@define(kw_only=True)
class SummaryBuilder:
    """Add traces up.

    Example:
        >>> builder = SummaryBuilder(experiment_name="demo", planned=0, started_at="", ran_on={})
        >>> builder.build("completed", completed_at="").total_traces
        0
    """

    experiment_name: str
    planned: int
    started_at: str
    ran_on: dict[str, Any]
    fail_under: float | None = None
    superseded: int = 0
    rerolled: int = 0
    failures_left: int = 0
    """Runs that were left without a result when the agent had failed and another attempt was due."""
    remarks: tuple[str, ...] = ()
    masked: dict[str, int] = Factory(dict)
    total: int = 0
    judged: int = 0
    passed: int = 0
    passed_after_failure: int = 0
    left_out_after_failure: int = 0
    observations: int = 0
    usage: Usage | None = None
    by_status: dict[str, int] = Factory(lambda: {"ok": 0, "error": 0, "timeout": 0, "crashed": 0})
    by_kind: dict[str, int] = Factory(lambda: {"agent": 0, "infrastructure": 0, "timeout": 0})
    errors: dict[tuple[str, str, str | None], ErrorGroup] = Factory(dict)
    ungrouped: int = 0
    without_output: int = 0
    outputs_without_text: int = 0
    retries: int = 0
    failing: dict[int, FailingInput] = Factory(dict)
    personas: dict[str, PersonaRow] = Factory(dict)
    durations: array[float] = Factory(lambda: array("d"))
    duration_sum: float = 0.0
    _clusters: Clusters = Factory(Clusters)

    def add(self, trace: FinishedRun) -> ErrorGroup | None:
        """Count one finished run; return its error's group when it is the first of it."""
        counts_as = verdict(trace)
        judged, passed = counts_as != "left out", counts_as == "passed"
        self.total += 1
        self.judged += judged
        self.passed += passed
        if trace.errors and counts_as != "failed" and failed_before(trace):
            self.passed_after_failure += passed
            self.left_out_after_failure += not judged
        self.by_status[trace.status] += 1
        self.durations.append(trace.duration_ms)
        self.duration_sum += trace.duration_ms
        self.retries += trace.attempts - 1
        self.observations += trace.observation_count
        if trace.usage is not None:
            self.usage = trace.usage if self.usage is None else self.usage + trace.usage
        metadata = trace.metadata
        source = metadata.get("source_id") if metadata else None
        self._clusters.add(trace.input_index, trace.input_id, None if source is None else str(source), judged, passed)
        if trace.status == "ok":
            output = trace.output
            if output is None:
                self.without_output += 1
            elif type(output) is not str or output[:1] == "<":  # most texts begin otherwise
                self.outputs_without_text += _is_default_repr(output)
        if counts_as == "failed":
            self._count_failing(trace)
        if trace.persona is not None:
            self._count_persona(trace.persona, passed, judged)
        return None if trace.error is None else self._count_error(trace.error, trace)

    def count_masked(self, names: Iterable[str]) -> None:
        """Count one finished run for each secret that was masked in it, which no trace tells."""
        for name in names:
            self.masked[name] = self.masked.get(name, 0) + 1

    def _count_failing(self, trace: FinishedRun) -> None:
        row = self.failing.get(trace.input_index)
        if row is not None:
            row.failed += 1
        elif len(self.failing) < MAX_FAILING_INPUTS:
            self.failing[trace.input_index] = FailingInput(input_id=trace.input_id, failed=1)

    def _count_persona(self, persona: str, passed: bool, judged: bool) -> None:
        row = self.personas.get(persona)
        if row is None:
            if len(self.personas) >= MAX_PERSONAS:
                return
            row = self.personas[persona] = PersonaRow(persona=persona)
        row.runs += 1
        row.passed += passed
        row.infrastructure += not judged

    def _count_error(self, error: RunError, trace: FinishedRun) -> ErrorGroup | None:
        self.by_kind[error.kind] += 1
        where = place(error)
        group = self.errors.get((error.kind, error.type, where))
        if group is not None:
            group.count += 1
            return None
        if len(self.errors) >= MAX_ERROR_GROUPS:
            self.ungrouped += 1
            return None
        text = error.message
        group = ErrorGroup(
            type=error.type,
            kind=error.kind,
            place=where,
            count=1,
            message=text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…",
            trace_id=trace.trace_id,
            input_id=trace.input_id,
        )
        self.errors[error.kind, error.type, where] = group
        return group

    def build(self, status: ExperimentStatus, *, completed_at: str | None, stop_reason: str | None = None) -> Summary:
        """Return the summary of what has been added so far."""
        for row in self.personas.values():
            judged = row.runs - row.infrastructure
            row.pass_rate = row.passed / judged if judged else None
        successful = self.by_status["ok"]
        return Summary(
            experiment_name=self.experiment_name,
            status=status,
            stop_reason=stop_reason,
            total_traces=self.total,
            successful=successful,
            failed=self.total - successful,
            passed=self.passed,
            infrastructure=self.by_kind["infrastructure"],
            pass_rate=self._pass_rate(),
            planned=self.planned,
            not_run=self.planned - self.total,
            avg_duration_ms=round(self.duration_sum / self.total, 3) if self.total else None,
            duration_ms=self._durations(),
            by_status=dict(self.by_status),
            by_error_kind=dict(self.by_kind),
            errors=tuple(sorted(self.errors.values(), key=lambda group: -group.count)),
            errors_not_grouped=self.ungrouped,
            failing_inputs=tuple(sorted(self.failing.values(), key=lambda row: -row.failed)),
            without_output=self.without_output,
            outputs_without_text=self.outputs_without_text,
            retries=self.retries,
            personas=tuple(self.personas.values()),
            usage=self.usage,
            observation_count=self.observations,
            fail_under=self.fail_under,
            started_at=self.started_at,
            completed_at=completed_at,
            ran_on=self.ran_on,
            superseded=self.superseded,
            rerolled=self.rerolled,
            passed_after_failure=self.passed_after_failure,
            left_out_after_failure=self.left_out_after_failure,
            remarks=(*self.remarks, *self._left(), *self._biases()),
            masked=dict(sorted(self.masked.items())),
        )

    def _left(self) -> Iterator[str]:
        if self.failures_left:
            runs = "1 run" if self.failures_left == 1 else f"{self.failures_left} runs"
            why = "the agent had failed, another attempt was due (runner.retry_on), and the experiment ended first"
            yield f"{runs} did not count: {why}, which makes the pass rate look better than it is"

    def _biases(self) -> Iterator[str]:
        if self.rerolled:
            were = "failure of the agent was" if self.rerolled == 1 else "failures of the agent were"
            yield f"{self.rerolled} {were} run again on resume (superseded.jsonl): re-rolled, so {BIASED}"
        retried = "after a failure of the agent that was retried (runner.retry_on, runner.max_crash_retries)"
        if self.passed_after_failure:
            yield f"{self.passed_after_failure} of {self.passed} passed runs passed only {retried}, so {BIASED}"
        if self.left_out_after_failure:
            runs = self.by_kind["infrastructure"]
            of = f"{self.left_out_after_failure} of {runs} runs that infrastructure ended"
            yield f"{of} are left out {retried}, so {BIASED}"

    def _pass_rate(self) -> PassRate | None:
        runs, passes = self._clusters.counts()
        interval = pass_rate_interval(runs, passes)
        if interval is None:
            return None
        return PassRate(
            value=self.passed / self.judged,
            low=interval.low,
            high=interval.high,
            level=interval.level,
            method=interval.method,
            clusters=sum(count > 0 for count in runs),
        )

    def _durations(self) -> Durations | None:
        if not self.durations:
            return None
        ordered = sorted(self.durations)

        def percentile(share: float) -> float:
            return ordered[math.ceil(share * len(ordered)) - 1]

        return Durations(
            mean=round(self.duration_sum / self.total, 3),
            p50=percentile(0.50),
            p95=percentile(0.95),
            p99=percentile(0.99),
            max=ordered[-1],
        )


_DEFAULT_REPR = re.compile(r"<(?:[\w.]|<locals>)+ object at 0x[0-9a-fA-F]+>")


def _is_default_repr(output: Any) -> bool:
    """Tell whether an output, as it is or as JSON, names an object and its place in memory, and nothing more."""
    if isinstance(output, msgspec.Raw):
        json = bytes(output)
        output = json.startswith(b'"<') and json.decode()[1:-1]
    return isinstance(output, str) and _DEFAULT_REPR.fullmatch(output) is not None


def lasting_remarks(remarks: Sequence[str]) -> tuple[str, ...]:
    """Return the remarks that no later count makes anew."""
    return tuple(remark for remark in remarks if BIASED not in remark)
