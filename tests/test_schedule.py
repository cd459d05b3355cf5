"""What starts next, and what an attempt's end means."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.plan import Plan
from fluxloop.records import Attempt, Case, Observation, PlannedRun, RunError, TraceSummary, Usage
from fluxloop.schedule import Schedule, total_usage

counts = st.none() | st.integers(0, 10**9)
usages = st.none() | st.builds(Usage, counts, counts)


def observation(usage: Usage | None) -> Observation:
    return Observation("o", "t", None, 1, "generation", "name", "", usage=usage)


@given(st.integers(0, 20), st.integers(1, 4))
def test_each_planned_run_is_given_once_and_in_order(count: int, iterations: int) -> None:
    """As a first attempt; then nothing more."""
    plan = Plan(cases=[Case(i, str(i), i) for i in range(count)], iterations=iterations, seed=0)
    schedule = Schedule(plan)
    taken = list(iter(schedule.take, None))
    assert taken == [(run, 1) for run in plan]
    assert schedule.take() is None


def test_a_stopped_schedule_gives_nothing_more() -> None:
    """Whatever is left stays in the plan."""
    stopped = False
    schedule = Schedule(Plan(cases=[Case(0, "a", 1)], iterations=3, seed=0), lambda: stopped)
    assert schedule.take() is not None
    stopped = True
    assert schedule.take() is None


def test_an_attempt_becomes_a_trace() -> None:
    """With everything of its case, its plan and itself."""
    case = Case(4, "id", "raw", "novice", ["e"], {"k": 1})
    error = RunError("agent", "ValueError", "no", "trace")
    seen = (observation(Usage(1, None)), observation(Usage(2, 3)))
    planned = PlannedRun("trace_007", case, 2, 99)
    attempt = Attempt(planned, 1, "error", "in", None, error, "s", "e", 1.5, seen, "out", "err")
    schedule = Schedule([planned])
    schedule.take()
    trace = schedule.settle(attempt)
    assert trace is not None
    assert (trace.trace_id, trace.input_id, trace.input_index, trace.iteration) == ("trace_007", "id", 4, 2)
    assert (trace.persona, trace.expected, trace.metadata, trace.seed) == ("novice", ["e"], {"k": 1}, 99)
    assert (trace.input, trace.output, trace.status, trace.passed, trace.error) == ("in", None, "error", False, error)
    assert (trace.start_time, trace.end_time, trace.duration_ms, trace.total_ms) == ("s", "e", 1.5, 1.5)
    assert (trace.attempts, trace.errors, trace.stdout, trace.stderr) == (1, (), "out", "err")
    assert (trace.observations, trace.observation_count, trace.usage) == (seen, 2, Usage(3, 3))
    short = trace.summary()
    assert short.error is not None
    assert (short.error.kind, short.error.type, short.error.message) == ("agent", "ValueError", "no")
    same = [field.name for field in attrs.fields(TraceSummary) if field.name != "error"]
    assert [getattr(short, name) for name in same] == [getattr(trace, name) for name in same]


@given(st.lists(usages))
def test_usage_adds_up(given_usages: list[Usage | None]) -> None:
    """A figure is None only when no part tells it."""
    total = total_usage([observation(usage) for usage in given_usages])
    told = [usage for usage in given_usages if usage is not None]

    def expected(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    if not told:
        assert total is None
    else:
        assert total == Usage(
            expected([usage.input_tokens for usage in told]), expected([usage.output_tokens for usage in told])
        )


def test_adding_usage_changes_no_part() -> None:
    """The sum is a record of its own."""
    part = Usage(1, 1)
    total = total_usage([observation(part), observation(part)])
    assert total == Usage(2, 2)
    assert part == Usage(1, 1)


def test_a_run_comes_back_once() -> None:
    """An executor that gives back what it was not given, or gives it back twice, is told so."""
    planned = PlannedRun("trace_001", Case(0, "a", 1), 0, 0)
    attempt = Attempt(planned, 1, "ok", 1, 1, None, "s", "e", 1.5, (), None, None)
    schedule = Schedule([planned])
    with pytest.raises(ValueError, match="gave back trace_001, which is not in flight"):
        schedule.settle(attempt)
    schedule.take()
    schedule.settle(attempt)
    with pytest.raises(ValueError, match="not in flight"):
        schedule.settle(attempt)
