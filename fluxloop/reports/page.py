"""One run as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fluxloop.progress import counted
from fluxloop.records import Observation, RunError, Trace, Usage
from fluxloop.reports.escaping import as_text, block, cell, code, fenced, line
from fluxloop.reports.rows import shown_duration
from fluxloop.tracebacks import frames_of

MAX_TEXT = 20_000
"""Characters shown of an input, an output, a traceback or what was printed."""
MAX_OBSERVED = 4_000
"""Characters shown of what one observation took or gave."""
MAX_OBSERVATIONS = 200
"""Observations shown of one run."""
MAX_ERRORS = 20
"""Errors of earlier attempts shown."""
_DEEPEST = 30
"""Levels of the tree that are indented."""


def trace_page(trace: Trace, whole: str) -> Iterator[str]:
    """Yield the page piece by piece, from its heading on.

    Args:
        trace: the run.
        whole: Markdown that says where all of it is.
    """
    yield f"# {code(trace.trace_id)}\n"
    yield "\n| | |\n|---|---|\n"
    yield from (f"| {label} | {text} |\n" for label, text in _facts(trace, whole))
    if trace.error is not None:
        yield "\n## Error\n\n"
        yield from _error(trace.error, whole)
    yield from _section("Input", trace.input, whole)
    if trace.expected is not None:
        yield from _section("Expected", trace.expected, whole)
    if trace.error is None or trace.output is not None:
        yield from _section("Output", trace.output, whole)
    if trace.observations:
        yield "\n## What happened\n\n"
        yield from _observations(trace.observations, whole)
    if trace.errors:
        yield f"\n## Errors of earlier attempts\n\n{counted(len(trace.errors), 'attempt')} failed before.\n"
        for number, error in enumerate(trace.errors[:MAX_ERRORS], 1):
            yield f"\n### Attempt {number}\n\n"
            yield from _error(error, whole)
        if len(trace.errors) > MAX_ERRORS:
            yield f"\n*{len(trace.errors) - MAX_ERRORS} more are in {whole}.*\n"
    for title, text in ("Printed", trace.stdout), ("Printed to stderr", trace.stderr):
        if text:
            yield from _section(title, text.removesuffix("\n"), whole)
    if trace.metadata:
        yield from _section("Metadata", trace.metadata, whole)


def status_of(trace: Trace) -> str:
    """Return in a word or two how a run ended; what did not pass stands out."""
    if trace.passed:
        return "passed"
    if trace.status == "ok":
        return "**not passed**"
    kind = trace.error.kind if trace.error is not None else "agent"
    return f"**{trace.status}**" + (" (infrastructure)" if kind == "infrastructure" else "")


def _facts(trace: Trace, whole: str) -> Iterator[tuple[str, str]]:
    yield "Input", f"{cell(trace.input_id, 100)}, run {trace.iteration + 1} of it"
    if trace.persona is not None:
        yield "Persona", cell(trace.persona, 100)
    yield "Status", status_of(trace)
    duration = shown_duration(trace.duration_ms)
    if trace.attempts > 1:
        duration += f" in the last of {trace.attempts} attempts, {shown_duration(trace.total_ms)} in all"
    yield "Duration", duration
    yield "Started", cell(trace.start_time)
    if trace.usage is not None:
        yield "Tokens", _usage(trace.usage)
    yield "Seed", str(trace.seed)
    yield "Record", whole


def _usage(usage: Usage) -> str:
    return f"{usage.input_tokens or 0} in, {usage.output_tokens or 0} out"


def _section(title: str, value: Any, whole: str) -> Iterator[str]:
    yield f"\n## {title}\n\n"
    yield block(value, MAX_TEXT, whole)


def _error(error: RunError, whole: str) -> Iterator[str]:
    kind = "" if error.kind == "agent" else f" ({error.kind})"
    yield f"Ended by {code(error.type, 100)}{kind}\n\n"
    yield block(error.message, MAX_TEXT, whole)
    if not error.traceback:
        return
    frames = frames_of(error)
    if frames.own and frames.others:
        yield "\nIn your own code, the last call last:\n\n"
        yield block(frames.own, MAX_TEXT, whole)
        yield "\nThe whole traceback:\n\n"
    else:
        yield "\nTraceback:\n\n"
    yield block(error.traceback.rstrip("\n"), MAX_TEXT, whole)


def _observations(observations: Sequence[Observation], whole: str) -> Iterator[str]:
    shown = observations[:MAX_OBSERVATIONS]
    rows = list(_tree(shown))
    yield fenced("\n".join(_lines(rows)))
    left = len(observations) - len(shown)
    if left:
        yield f"\n*The first {len(shown)} of {len(observations):,} observations; all of them are in {whole}.*\n"
    for number, (_, one) in enumerate(rows, 1):
        yield f"\n### {number}. {one.type} {code(one.name)}\n"
        parts = ("Input", one.input), ("Output", one.output), ("Metadata", one.metadata)
        for label, value in parts:
            if value is not None:
                yield f"\n{label}\n\n{block(value, MAX_OBSERVED, whole)}"
        if one.error is not None:
            yield f"\nError {code(one.error.type)}\n\n{block(one.error.message, MAX_OBSERVED, whole)}"


def _lines(rows: Sequence[tuple[str, Observation]]) -> Iterator[str]:
    """The tree, with durations in a column and a line for each attempt where there were several."""
    names = [f"{prefix}{one.type} {line(one.name, 60)}" for prefix, one in rows]
    width = min(80, max(map(len, names)))
    digits = len(str(len(rows)))
    attempts = {one.attempt for _, one in rows}
    attempt = None
    for number, (name, (_, one)) in enumerate(zip(names, rows, strict=True), 1):
        if len(attempts) > 1 and one.attempt != attempt:
            attempt = one.attempt
            yield f"attempt {attempt}"
        duration = "not ended" if one.duration_ms is None else shown_duration(one.duration_ms)
        if one.type == "event":
            duration = ""
        model = "" if one.model is None else line(one.model, 40)
        tokens = "" if one.usage is None else _usage(one.usage)
        error = "" if one.error is None else f"{line(one.error.type, 40)}: {line(one.error.message, 80)}"
        more = ", ".join(text for text in (model, tokens, error) if text)
        yield f"{number:>{digits}}  {name:<{width}}  {duration:>9}  {more}".rstrip()


def _tree(observations: Sequence[Observation]) -> Iterator[tuple[str, Observation]]:
    """Each observation below its parent, with the branches that lead to it."""
    places = {one.id: place for place, one in reversed(list(enumerate(observations)))}
    children: dict[int | None, list[int]] = {}
    for place, one in enumerate(observations):
        parent = None if one.parent_id is None else places.get(one.parent_id)
        children.setdefault(parent, []).append(place)
    told: set[int] = set()
    # After the roots come those that no root leads to, as no writer of ours leaves them.
    starts = sorted(children.get(None, []), key=lambda place: observations[place].attempt)
    for start in (*starts, *range(len(observations))):
        waiting = [(start, "", "")]
        while waiting:
            place, prefix, below = waiting.pop()
            if place in told:
                continue
            told.add(place)
            yield prefix, observations[place]
            inner = children.get(place, [])
            for number, child in reversed(list(enumerate(inner, 1))):
                is_last = number == len(inner)
                branch = below + ("└─ " if is_last else "├─ ")
                deeper = below + ("   " if is_last else "│  ")
                is_shown = len(deeper) <= 3 * _DEEPEST
                waiting.append((child, branch, deeper) if is_shown else (child, below, below))


def preview(value: Any, width: int) -> str:
    """Return the beginning of a captured value for a table."""
    return "" if value is None else cell(as_text(value), width)
