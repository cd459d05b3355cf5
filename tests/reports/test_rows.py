"""A summary as a few rows of text."""

from __future__ import annotations

from typing import Any

from fluxloop.records import RunError, Usage
from fluxloop.reports.rows import MAX_ERRORS, summary_rows, text_table
from fluxloop.summary import SummaryBuilder
from fluxloop.testing import make_trace


def rows(*traces: Any, planned: int = 0, reason: str | None = None, **options: Any) -> list[tuple[str, str]]:
    builder = SummaryBuilder(
        experiment_name="demo", planned=planned or len(traces), started_at="", ran_on={}, **options
    )
    for trace in traces:
        builder.add(trace)
    return summary_rows(builder.build("interrupted" if reason else "completed", completed_at="", stop_reason=reason))


def test_a_summary_is_told_in_rows() -> None:
    """Runs, rate, gate, durations from microseconds to seconds, tokens and the hint about observations."""
    found = dict(
        rows(
            *(make_trace(duration_ms=ms, usage=Usage(3, None)) for ms in (0.5, 5.0, 50.0, 50_000.0)),
            planned=6,
            reason="SIGINT\n",
            fail_under=0.9,
        )
    )
    assert found["runs"] == "4 of 6: 4 passed, 0 failed, 2 not run (interrupted: SIGINT)"
    assert found["pass rate"].startswith("100.0%  (95% interval ")
    assert found["gate"] == "met: at least 90.0% must pass"
    assert found["duration"] == "mean 12.5 s, p50 5.0 ms, p95 50.0 s, max 50.0 s"
    assert found["tokens"] == "12 in, 0 out"
    assert "put @fluxloop.tool()" in found["hint"]


def test_the_kinds_of_error_are_listed() -> None:
    """The most frequent first, the rest counted, each with its place if it has one."""
    traces = [
        make_trace(
            status="error",
            passed=False,
            observation_count=1,
            error=RunError("agent", f"E{n}", "no\nmore", '  File "a.py", line 3, in f\n' if n else None),
        )
        for n in range(MAX_ERRORS + 2)
    ]
    found = rows(*traces, fail_under=0.1)
    told = [text for label, text in found if label in ("errors", "")]
    assert told[0] == "1 × E0: no more (as trace_001)"
    assert told[1] == "1 × a.py:3: E1: no more (as trace_001)"
    assert told[-1] == "and more kinds of error, 2 in all, in summary.json"
    assert dict(found)["gate"] == "missed: at least 10.0% must pass"
    assert "hint" not in dict(found)


def outage(**changes: Any) -> Any:
    """A run that a service's outage ended."""
    error = RunError("infrastructure", "ConnectionError", "refused", '  File "a.py", line 3, in f\n')
    return make_trace(status="error", passed=False, error=error, **changes)


def test_what_infrastructure_failed_is_told_apart() -> None:
    """In the runs, beside the rate and with the error; not among the failing inputs."""
    found = dict(rows(make_trace(), outage(), outage(persona="p"), fail_under=0.9))
    assert found["runs"] == "3 of 3: 1 passed, 2 failed (all by infrastructure)"
    assert found["pass rate"].startswith("100.0%  (95% interval ")
    assert found["pass rate"].endswith(", from 1 input, without the 2 runs that infrastructure failed)")
    assert found["gate"] == "met: at least 90.0% must pass"
    assert found["errors"] == "2 × a.py:3: ConnectionError: refused (infrastructure, as trace_001)"
    assert "failing" not in found


def test_nothing_but_outages_misses_a_gate() -> None:
    """There is no rate to show, and none that is high enough."""
    found = dict(rows(outage(), fail_under=0.1))
    assert "pass rate" not in found
    assert found["gate"] == "missed: at least 10.0% must pass"


def test_timeouts_are_told_as_such() -> None:
    """An error of ours is no line of the agent's."""
    error = RunError("timeout", "TimeoutError", "no answer within 5 s", None)
    found = dict(rows(make_trace(status="timeout", passed=False, error=error)))
    assert found["runs"] == "1 of 1: 0 passed, 1 failed"
    assert found["errors"] == "1 × TimeoutError: no answer within 5 s (timeout, as trace_001)"


def test_retries_are_told_with_the_runs() -> None:
    """One or many, after what was not run and why."""
    assert dict(rows(make_trace(), make_trace(attempts=2)))["runs"] == "2 of 2: 2 passed, 0 failed; 1 retry"
    found = dict(rows(make_trace(attempts=3), outage(attempts=2), planned=5, reason="SIGINT"))
    assert found["runs"] == (
        "2 of 5: 1 passed, 1 failed (all by infrastructure), 3 not run (interrupted: SIGINT); 3 retries"
    )


def test_nothing_run_has_one_row() -> None:
    """Without rate, durations and hint; as lines the labels stand in a column."""
    found = rows()
    assert found == [("runs", "0 of 0: 0 passed, 0 failed")]
    assert text_table([*found, ("", "a\nb")]) == "  runs      0 of 0: 0 passed, 0 failed\n            a b"


def test_remarks_are_notes() -> None:
    """Each in a line of its own below one label; what was re-rolled is told with them."""
    found = rows(make_trace(), remarks=("one", "two"), superseded=3, rerolled=1)
    at = found.index(("note", "one"))
    assert found[at + 1] == ("", "two")
    label, told = found[at + 2]
    assert label == ""
    assert told.startswith("1 failure of the agent was run again on resume (superseded.jsonl): re-rolled")
    assert told.endswith("re-rolled, so the pass rate is biased upwards")
    assert "note" not in dict(rows(make_trace(), superseded=3))
