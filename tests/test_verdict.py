"""What the pass rate counts: the README's table, held against the function and the summary."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.records import ErrorKind, RunError, Status, Trace
from fluxloop.summary import Summary, SummaryBuilder
from fluxloop.testing import make_trace
from fluxloop.verdict import failed_before, has_failed, verdict

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PLAIN = make_trace()
FIELDS = (
    *("passed", "infrastructure", "not_run", "superseded", "rerolled", "passed_after_failure"),
    *("left_out_after_failure", "by_status.ok", "by_status.error", "by_status.timeout", "by_status.crashed"),
)
"""Of the summary, those the table is to say everything about."""


def error(kind: ErrorKind) -> RunError:
    return RunError(kind, "ValueError", "no")


def ended(status: Status, kind: ErrorKind | None = None, *earlier: ErrorKind) -> Trace:
    """A run that ended so, after attempts that ended otherwise."""
    return attrs.evolve(
        PLAIN,
        status=status,
        passed=status == "ok",
        error=None if kind is None else error(kind),
        errors=tuple(map(error, earlier)),
        attempts=1 + len(earlier),
    )


def summary(*traces: Trace, planned: int | None = None, **counts: int) -> Summary:
    planned = len(traces) if planned is None else planned
    builder = SummaryBuilder(experiment_name="demo", planned=planned, started_at="", ran_on={}, **counts)
    for trace in traces:
        builder.add(trace)
    return builder.build("completed", completed_at="")


ROWS: dict[str, Callable[[], Summary]] = {
    "`ok`": lambda: summary(ended("ok")),
    "`error`, of the agent": lambda: summary(ended("error", "agent")),
    "`timeout`": lambda: summary(ended("timeout", "timeout")),
    "`crashed`, the worker died": lambda: summary(ended("crashed", "agent")),
    "`error`, by infrastructure": lambda: summary(ended("error", "infrastructure")),
    "`crashed`, its machine was lost": lambda: summary(ended("crashed", "infrastructure")),
    "`ok`, after failures of the agent that were retried": lambda: summary(
        ended("ok", None, "infrastructure", "agent")
    ),
    "`ok`, after a failure by infrastructure that was retried": lambda: summary(ended("ok", None, "infrastructure")),
    "`error`, by infrastructure, after failures of the agent that were retried": lambda: summary(
        ended("error", "infrastructure", "timeout")
    ),
    "not run": lambda: summary(planned=1),
    "replaced by `--retry-failed`: a failure of the agent": lambda: summary(superseded=1, rerolled=1),
    "replaced by `--retry-failed`: by infrastructure": lambda: summary(superseded=1),
}
"""An experiment of one run for each row of the table."""


def table() -> dict[str, list[str]]:
    section = README.split("\n### What the pass rate counts\n", 1)[1].split("\n### ", 1)[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def field(summary: Summary, name: str) -> Any:
    outer, _, inner = name.partition(".")
    value = getattr(summary, outer)
    return value[inner] if inner else value


def test_the_table_has_a_row_for_whatever_may_become_of_a_run() -> None:
    """No row more and none less."""
    assert list(table()) == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_the_table_is_true(row: str) -> None:
    """What is in the numerator, the denominator or in neither, and in which fields it is counted."""
    numerator, denominator, left_out, counted_in, _ = table()[row]
    found = ROWS[row]()
    assert found.passed == (numerator == "yes")
    assert found.judged == (denominator == "yes") == (found.pass_rate is not None)
    assert (left_out == "yes") == (denominator != "yes")
    if found.pass_rate is not None:
        assert found.pass_rate.value == found.passed
    assert set(re.findall(r"`([\w.]+)`", counted_in)) == {name for name in FIELDS if field(found, name)}


@pytest.mark.parametrize("row", ROWS)
def test_the_end_table_says_what_the_readme_says_of_it(row: str) -> None:
    """Word for word, with the number one."""
    from fluxloop.reports.rows import summary_rows

    told = " ".join(text for _, text in summary_rows(ROWS[row]()))
    for words in re.findall(r"`([^`]+)`", table()[row][-1]):
        assert words in told


@pytest.mark.parametrize(("status", "kind"), [*product(get_args(Status), (None, *get_args(ErrorKind)))])
@pytest.mark.parametrize("passed", [True, False])
def test_a_verdict_is_by_the_kind_of_the_error_alone(status: Status, kind: ErrorKind | None, passed: bool) -> None:
    """An outage is left out, whatever the status; anything else passed or failed."""
    run = attrs.evolve(ended(status, kind), passed=passed)
    expected = "left out" if kind == "infrastructure" else "passed" if passed else "failed"
    assert verdict(run) == expected
    assert has_failed(run) == (expected == "failed")
    assert has_failed(attrs.evolve(run, errors=(error("timeout"),)))
    assert not failed_before(attrs.evolve(run, errors=(error("infrastructure"),)))


ENDS: list[tuple[Status, ErrorKind | None]] = [
    ("ok", None),
    ("error", "agent"),
    ("error", "infrastructure"),
    ("timeout", "timeout"),
    ("crashed", "agent"),
    ("crashed", "infrastructure"),
]
kinds = st.sampled_from(get_args(ErrorKind))


@given(st.lists(st.tuples(st.sampled_from(ENDS), st.lists(kinds, max_size=3)), max_size=20))
def test_no_failure_of_the_agent_is_lost(runs: list[tuple[tuple[Status, ErrorKind | None], list[ErrorKind]]]) -> None:
    """A run in which the agent failed in some attempt counts as failed, or is told as a bias; no other is."""
    traces = [ended(status, kind, *earlier) for (status, kind), earlier in runs]
    found = summary(*traces)
    failed = found.judged - found.passed
    assert failed + found.passed_after_failure + found.left_out_after_failure == sum(map(has_failed, traces))
    hidden = [trace for trace in traces if failed_before(trace) and verdict(trace) != "failed"]
    assert bool(found.bias) == any("biased" in remark for remark in found.remarks) == bool(hidden)
