"""A summary as a few rows of text."""

from __future__ import annotations

from collections.abc import Iterable

from fluxloop.progress import one_line
from fluxloop.summary import ErrorGroup, Summary

MAX_ERRORS = 5


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """Return labels and texts: runs, pass rate, durations, errors, and what is worth a remark."""
    rows = [("runs", _runs(summary))]
    rate = summary.pass_rate
    if rate is not None:
        interval = f"{rate.level:.0%} interval {rate.low:.1%} to {rate.high:.1%}"
        rows.append(("pass rate", f"{rate.value:.1%}  ({interval})"))
    if summary.fail_under is not None:
        met = rate is not None and rate.value >= summary.fail_under
        rows.append(("gate", f"{'met' if met else 'missed'}: at least {summary.fail_under:.1%} must pass"))
    durations = summary.duration_ms
    if durations is not None:
        told = ("mean", durations.mean), ("p50", durations.p50), ("p95", durations.p95), ("max", durations.max)
        rows.append(("duration", ", ".join(f"{name} {_duration(value)}" for name, value in told)))
    if summary.usage is not None:
        rows.append(("tokens", f"{summary.usage.input_tokens or 0} in, {summary.usage.output_tokens or 0} out"))
    rows += _labelled("errors", [_error(group) for group in summary.errors[:MAX_ERRORS]])
    more = len(summary.errors) - MAX_ERRORS
    if more > 0:
        rows.append(("", f"and {more} more kinds of error, in summary.json"))
    if summary.total_traces and not summary.observation_count:
        rows.append(
            ("hint", "no run had an observation: put @fluxloop.tool() on the functions your agent calls to see inside")
        )
    return rows


def _labelled(label: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts)]


def _runs(summary: Summary) -> str:
    failed = summary.total_traces - summary.passed
    told = f"{summary.total_traces} of {summary.planned}: {summary.passed} passed, {failed} failed"
    if summary.not_run:
        told += f", {summary.not_run} not run"
    if summary.stop_reason:
        told += f" ({summary.status}: {one_line(summary.stop_reason)})"
    return told


def _duration(milliseconds: float) -> str:
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 10_000:
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"


def _error(group: ErrorGroup) -> str:
    where = f" at {group.place}" if group.place else ""
    return f"{group.count} × {one_line(group.type, 60)}{where}: {one_line(group.message, 80)} (as {group.trace_id})"


def text_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return rows as lines, labels in a column."""
    return "\n".join(f"  {label:<10}{one_line(text, 300)}" for label, text in rows)
