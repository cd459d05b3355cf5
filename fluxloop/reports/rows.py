"""A summary as a few rows of text."""

from __future__ import annotations

from collections.abc import Iterable

from fluxloop.progress import counted, told_error
from fluxloop.summary import ErrorGroup, Summary
from fluxloop.visible import one_line

MAX_ERRORS = 5
MAX_FAILING = 8
MAX_MASKED = 8


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """Return labels and texts: runs, pass rate, durations, errors, and what is worth a remark."""
    rows = [("runs", _runs(summary))]
    rate = summary.pass_rate
    if rate is not None:
        clusters = f"{rate.clusters} input{'' if rate.clusters == 1 else 's'}"
        interval = f"{rate.level:.0%} interval {rate.low:.1%} to {rate.high:.1%}, from {clusters}"
        if summary.infrastructure:
            interval += f", without the {counted(summary.infrastructure, 'run')} that infrastructure failed"
        rows.append(("pass rate", f"{rate.value:.1%}  ({interval})"))
    if summary.fail_under is not None and summary.planned:
        met = rate is not None and rate.value >= summary.fail_under
        rows.append(("gate", f"{'met' if met else 'missed'}: at least {summary.fail_under:.1%} must pass"))
    durations = summary.duration_ms
    if durations is not None:
        told = ("mean", durations.mean), ("p50", durations.p50), ("p95", durations.p95), ("max", durations.max)
        rows.append(("duration", ", ".join(f"{name} {shown_duration(value)}" for name, value in told)))
    if summary.usage is not None:
        rows.append(("tokens", f"{summary.usage.input_tokens or 0} in, {summary.usage.output_tokens or 0} out"))
    rows += _labelled("errors", [_error(group) for group in summary.errors[:MAX_ERRORS]])
    rows += _labelled("failing", _failing(summary))
    more = len(summary.errors) - MAX_ERRORS
    if more > 0:
        rows.append(("", f"and more kinds of error, {more} in all, in summary.json"))
    if summary.masked:
        rows.append(("masked", _masked(summary.masked)))
    rows += _labelled("note", summary.remarks)
    if summary.infrastructure and not summary.retries:
        rows.append(("hint", "what infrastructure failed may pass: --max-retries 3 makes such attempts again"))
    if summary.successful and summary.without_output == summary.successful:
        rows.append(("hint", "every run returned nothing: does the agent return its answer?"))
    if summary.outputs_without_text:
        outputs = "1 output is" if summary.outputs_without_text == 1 else f"{summary.outputs_without_text} outputs are"
        rows.append(("hint", f"{outputs} an object without text (<… object at 0x…>): return its text or its data"))
    if summary.successful and not summary.observation_count:
        rows.append(
            ("hint", "no run had an observation: put @fluxloop.tool() on the functions your agent calls to see inside")
        )
    return rows


def _labelled(label: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts)]


def _failing(summary: Summary) -> list[str]:
    """The inputs that failed most, with how often."""
    failing = summary.failing_inputs
    if not failing:
        return []
    listed = ", ".join(f"{one_line(row.input_id, 40)} ({row.failed})" for row in failing[:MAX_FAILING])
    more = len(failing) - MAX_FAILING
    return [f"{listed} and {more} more" if more > 0 else listed]


def _masked(masked: dict[str, int]) -> str:
    """Whose secrets were masked, and in how many runs, the most frequent first."""
    names = sorted(masked, key=lambda name: (-masked[name], name))
    listed = ", ".join(f"{one_line(name, 40)} in {counted(masked[name], 'run')}" for name in names[:MAX_MASKED])
    more = len(names) - MAX_MASKED
    return f"{listed} and {more} more" if more > 0 else listed


def _runs(summary: Summary) -> str:
    failed = summary.total_traces - summary.passed
    told = f"{summary.total_traces} of {summary.planned}: {summary.passed} passed, {failed} failed"
    if summary.infrastructure:
        told += f" ({'all' if summary.infrastructure == failed else summary.infrastructure} by infrastructure)"
    if summary.not_run:
        told += f", {summary.not_run} not run"
    if summary.stop_reason:
        told += f" ({summary.status}: {one_line(summary.stop_reason)})"
    if summary.retries:
        told += f"; {summary.retries} {'retry' if summary.retries == 1 else 'retries'}"
    return told


def shown_duration(milliseconds: float) -> str:
    """Return a duration in the unit that suits it, from microseconds to seconds."""
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    if milliseconds < 10_000:
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"


def _error(group: ErrorGroup) -> str:
    kind = "" if group.kind == "agent" else f"{group.kind}, "
    return f"{group.count} × {told_error(group, 80)} ({kind}as {group.trace_id})"


def text_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return rows as lines, labels in a column."""
    return "\n".join(f"  {label:<10}{one_line(text, 300)}" for label, text in rows)
