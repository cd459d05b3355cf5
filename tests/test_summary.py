"""Traces added up."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import Experiment
from fluxloop.records import ErrorKind, RunError, Status, Trace, Usage
from fluxloop.store.runs import StoredRuns
from fluxloop.summary import MAX_ERROR_GROUPS, MAX_PERSONAS, Summary, SummaryBuilder
from fluxloop.testing import make_trace, run_once
from fluxloop.tracebacks import place

KEYS = {
    *("experiment_name", "status", "stop_reason", "total_traces", "successful", "failed", "passed", "pass_rate"),
    *("planned", "not_run", "avg_duration_ms", "duration_ms", "by_status", "by_error_kind", "errors"),
    *(
        "errors_not_grouped",
        "failing_inputs",
        "without_output",
        "personas",
        "usage",
        "observation_count",
        "fail_under",
        "started_at",
        "completed_at",
        "infrastructure",
        "retries",
    ),
    *("ran_on", "superseded", "rerolled", "passed_after_failure", "left_out_after_failure", "remarks"),
    *("masked", "outputs_without_text"),
}

counts = st.none() | st.integers(0, 1000)


def error(type: str = "ValueError", where: str | None = "a.py:1", kind: Any = "agent") -> RunError:
    file, _, line = (where or "").partition(":")
    traceback = f'Traceback (most recent call last):\n  File "{file}", line {line}, in f\n{type}: no\n'
    return RunError(kind, type, "no", traceback if where else None)


def build(*traces: Trace, planned: int | None = None, **options: Any) -> Summary:
    builder = SummaryBuilder(
        experiment_name="demo",
        planned=len(traces) if planned is None else planned,
        started_at="start",
        ran_on={"seed": 1},
        **options,
    )
    for trace in traces:
        builder.add(trace)
    return builder.build("completed", completed_at="end")


PLAIN = make_trace()
ENDS: list[tuple[Status, ErrorKind | None]] = [
    ("ok", None),
    ("ok", None),
    ("error", "agent"),
    ("error", "infrastructure"),
    ("timeout", "timeout"),
    ("crashed", "infrastructure"),
]


@st.composite
def finished(draw: st.DrawFn) -> Trace:
    import attrs

    status, kind = draw(st.sampled_from(ENDS))
    index = draw(st.integers(0, 30))
    source = draw(st.none() | st.sampled_from(["s1", "s2"]))
    return attrs.evolve(
        PLAIN,
        status=status,
        passed=status == "ok" and draw(st.booleans()),
        error=None if kind is None else error(draw(st.sampled_from("AB")), draw(st.sampled_from(["a:1", "b:2"])), kind),
        input_index=index,
        input_id=f"input_{index}",
        persona=draw(st.none() | st.sampled_from(["novice", "expert"])),
        duration_ms=draw(st.floats(0, 1000)),
        usage=draw(st.none() | st.builds(Usage, counts, counts)),
        attempts=draw(st.integers(1, 4)),
        observation_count=draw(st.integers(0, 9)),
        metadata=None if source is None else {"source_id": source},
    )


@given(st.lists(finished(), max_size=30), st.integers(0, 5))
def test_the_summary_is_the_sum_of_its_records(traces: list[Trace], owed: int) -> None:
    """Every count is what one finds by counting the traces."""
    summary = build(*traces, planned=len(traces) + owed)
    judged = [trace for trace in traces if trace.error is None or trace.error.kind != "infrastructure"]
    assert (summary.total_traces, summary.planned, summary.not_run) == (len(traces), len(traces) + owed, owed)
    assert summary.successful == sum(trace.status == "ok" for trace in traces)
    assert summary.failed == len(traces) - summary.successful
    assert summary.passed == sum(trace.passed for trace in traces)
    assert summary.infrastructure == len(traces) - len(judged)
    assert summary.retries == sum(trace.attempts - 1 for trace in traces)
    assert sum(summary.by_status.values()) == len(traces)
    assert {k: v for k, v in summary.by_status.items() if v} == Counter(trace.status for trace in traces)
    assert {k: v for k, v in summary.by_error_kind.items() if v} == Counter(t.error.kind for t in traces if t.error)
    assert summary.observation_count == sum(trace.observation_count for trace in traces)
    assert {(g.kind, g.type, g.place): g.count for g in summary.errors} == Counter(
        (t.error.kind, t.error.type, place(t.error)) for t in traces if t.error
    )
    assert [g.count for g in summary.errors] == sorted((g.count for g in summary.errors), reverse=True)
    of = {name: [t for t in traces if t.persona == name] for name in {t.persona for t in traces if t.persona}}
    assert {row.persona: (row.runs, row.passed, row.infrastructure) for row in summary.personas} == {
        name: (len(own), sum(t.passed for t in own), sum(t not in judged for t in own)) for name, own in of.items()
    }
    assert all(
        row.pass_rate == (row.passed / (row.runs - row.infrastructure) if row.runs > row.infrastructure else None)
        for row in summary.personas
    )
    assert {row.input_id: row.failed for row in summary.failing_inputs} == Counter(
        trace.input_id for trace in judged if not trace.passed
    )
    told = [t.usage for t in traces if t.usage]
    if told:
        assert summary.usage is not None
        assert (summary.usage.input_tokens or 0) == sum(u.input_tokens or 0 for u in told)
        assert (summary.usage.output_tokens or 0) == sum(u.output_tokens or 0 for u in told)
    else:
        assert summary.usage is None
    if judged:
        assert summary.pass_rate is not None
        assert summary.pass_rate.value == summary.passed / len(judged)
        assert 0 <= summary.pass_rate.low <= summary.pass_rate.value <= summary.pass_rate.high <= 1
    else:
        assert summary.pass_rate is None
    if traces:
        assert summary.duration_ms is not None
        durations = sorted(trace.duration_ms for trace in traces)
        assert abs(summary.duration_ms.mean - statistics.fmean(durations)) < 0.001
        assert summary.avg_duration_ms == summary.duration_ms.mean
        assert summary.duration_ms.max == durations[-1]
        for share, value in ((0.5, summary.duration_ms.p50), (0.95, summary.duration_ms.p95)):
            assert sum(d <= value for d in durations) >= share * len(durations) > sum(d < value for d in durations)
    else:
        assert (summary.duration_ms, summary.avg_duration_ms) == (None, None)


def outage(**changes: Any) -> Trace:
    """A run that a service's outage ended."""
    return make_trace(status="error", passed=False, error=error("ConnectionError", kind="infrastructure"), **changes)


def test_an_outage_is_not_the_agents_failure() -> None:
    """What infrastructure fails is counted, and changes neither the rate, its interval nor the failing inputs."""
    runs = [make_trace(input_index=i, input_id=f"input_{i}", passed=i > 0) for i in range(4)]
    without = build(*runs)
    summary = build(*runs, *(outage(input_index=i, input_id=f"input_{i}", persona="p") for i in range(3, 9)))

    assert (summary.total_traces, summary.successful, summary.failed) == (10, 4, 6)
    assert (summary.passed, summary.infrastructure, summary.by_error_kind["infrastructure"]) == (3, 6, 6)
    assert summary.pass_rate == without.pass_rate
    assert summary.pass_rate is not None
    assert (summary.pass_rate.value, summary.pass_rate.clusters) == (0.75, 4)
    assert summary.failing_inputs == without.failing_inputs
    assert [row.input_id for row in summary.failing_inputs] == ["input_0"]
    assert [(row.runs, row.passed, row.infrastructure, row.pass_rate) for row in summary.personas] == [(6, 0, 6, None)]


def test_nothing_but_outages_has_no_rate() -> None:
    """Where no run says anything of the agent, none is told."""
    summary = build(outage(), outage(metadata={"source_id": "s"}))
    assert (summary.infrastructure, summary.pass_rate, summary.failing_inputs) == (2, None, ())


def test_our_own_timeouts_count_against_the_agent() -> None:
    """An agent that is too slow fails, unlike one whose service did not answer."""
    summary = build(
        make_trace(), make_trace(status="timeout", passed=False, error=error("TimeoutError", kind="timeout"))
    )
    assert (summary.infrastructure, summary.by_error_kind["timeout"]) == (0, 1)
    assert summary.pass_rate is not None
    assert summary.pass_rate.value == 0.5


def test_errors_of_another_kind_are_another_group() -> None:
    """A client may raise one type, at one line, for a wrong request and for an outage."""
    summary = build(
        *(make_trace(status="error", passed=False, error=error("HTTPStatusError")) for _ in range(2)),
        make_trace(status="error", passed=False, error=error("HTTPStatusError", kind="infrastructure")),
    )
    assert [(g.type, g.kind, g.count) for g in summary.errors] == [
        ("HTTPStatusError", "agent", 2),
        ("HTTPStatusError", "infrastructure", 1),
    ]


def test_retries_are_the_attempts_beyond_the_first() -> None:
    """Of failed runs as of those that a retry has saved."""
    assert build(make_trace(), make_trace(attempts=3), outage(attempts=2)).retries == 3


def test_percentiles_are_nearest_rank() -> None:
    """Of 100 durations from 1 to 100, p95 is 95: a duration that was measured."""
    durations = build(*(make_trace(duration_ms=float(ms)) for ms in range(100, 0, -1))).duration_ms
    assert durations is not None
    assert (durations.p50, durations.p95, durations.p99, durations.max) == (50, 95, 99, 100)


def test_runs_of_one_source_are_one_cluster() -> None:
    """Inputs generated from one source make the interval as wide as if they were one input."""

    def rate(metadata: Any, index: Any) -> tuple[float, float]:
        found = build(
            *(make_trace(input_index=index(i), passed=i % 20 < 10, metadata=metadata(i)) for i in range(40))
        ).pass_rate
        assert found is not None
        return found.low, found.high

    by_source = rate(lambda i: {"source_id": i // 10}, lambda i: i)
    by_input = rate(lambda i: None, lambda i: i // 10)
    apart = rate(lambda i: {"other": 1}, lambda i: i)
    assert by_source == by_input
    assert by_source[1] - by_source[0] > apart[1] - apart[0]


def test_the_first_of_an_error_is_announced() -> None:
    """`add` returns the group once, with the first message and its trace."""
    builder = SummaryBuilder(experiment_name="demo", planned=3, started_at="", ran_on={})
    first = builder.add(make_trace(status="error", passed=False, error=error(), trace_id="trace_005"))
    assert first is not None
    assert (first.type, first.place, first.trace_id, first.message) == ("ValueError", "a.py:1", "trace_005", "no")
    assert builder.add(make_trace(status="error", passed=False, error=error())) is None
    assert builder.add(make_trace()) is None
    assert first.count == 2


def test_memory_stays_bounded() -> None:
    """An agent whose every error or persona is another fills neither the memory nor the file."""
    many = MAX_ERROR_GROUPS + 20
    summary = build(
        *(make_trace(status="error", passed=False, error=error(f"E{i}")) for i in range(many)),
        *(make_trace(persona=f"p{i}") for i in range(MAX_PERSONAS + 5)),
    )
    assert (len(summary.errors), summary.errors_not_grouped) == (MAX_ERROR_GROUPS, 20)
    assert len(summary.personas) == MAX_PERSONAS


def test_every_key_is_in_the_summary() -> None:
    """Also when nothing has run."""
    import msgspec

    assert msgspec.json.decode(msgspec.json.encode(build(fail_under=0.5))).keys() == KEYS


# Where an error happened


def raised_by(agent: Any) -> RunError:
    found = run_once(agent, "hi").error
    assert found is not None
    return found


def test_the_place_is_the_users_innermost_line() -> None:
    """Frames of the standard library and of packages below it are passed over."""
    import json

    def agent(text: str) -> Any:
        return json.loads(text)

    line = agent.__code__.co_firstlineno + 1
    assert place(raised_by(agent)) == f"{__file__}:{line}"


def test_an_exception_group_has_a_place() -> None:
    """Though its frames stand behind a bar."""

    def agent(text: str) -> Any:
        raise ExceptionGroup("several", [ValueError("a")])

    found = raised_by(agent)
    assert place(found) == f"{__file__}:{agent.__code__.co_firstlineno + 1}"


def test_a_traceback_in_a_message_is_no_place() -> None:
    """An error that quotes another process's traceback happened where it was raised."""

    def agent(text: str) -> Any:
        raise RuntimeError('worker died:\n  File "/other/process.py", line 3, in work\nValueError: no')

    found = raised_by(agent)
    assert place(found) == f"{__file__}:{agent.__code__.co_firstlineno + 1}"


def test_a_place_may_be_missing_or_foreign() -> None:
    """Without traceback there is none; where every frame is a library's, the innermost counts."""
    library = statistics.__file__
    assert place(RunError("agent", "E", "no")) is None
    assert place(RunError("agent", "E", "no", "no frames")) is None
    assert place(RunError("agent", "E", "", f'  File "{library}", line 7, in f\n')) == f"{library}:7"


@pytest.mark.parametrize(
    ("output", "is_counted"),
    [
        (object(), True),
        ([object()], False),
        ("<a.b.<locals>.X object at 0x7f>", True),
        ("said <a.X object at 0x7f>", False),
        ("<p>text</p>", False),
        ("", False),
        (7, False),
    ],
)
def test_an_output_that_only_names_an_object_is_counted(output: object, is_counted: bool, tmp_path: Path) -> None:
    """It passes, and the table at the end has a hint; read back from the files the count is the same."""
    result = Experiment(target=lambda text: output, inputs=["a", "b"], output_dir=tmp_path).run()
    assert (result.summary.passed, result.summary.outputs_without_text) == (2, 2 * is_counted)
    assert ("hint", "2 outputs are an object without text (<… object at 0x…>): return its text or its data") in (
        result.table()
    ) or not is_counted
    again = SummaryBuilder(experiment_name="demo", planned=2, started_at="", ran_on={})
    for run in StoredRuns(result.path):
        again.add(run.trace)
    assert again.build("completed", completed_at=None).outputs_without_text == 2 * is_counted
