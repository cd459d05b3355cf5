"""An experiment as Markdown: an index, and a page for each run."""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import attrs
import msgspec
from attrs import define, field

from fluxloop.exceptions import OutputError, UsageError
from fluxloop.notices import notice
from fluxloop.progress import counted, shown_place
from fluxloop.records import Trace
from fluxloop.reports.escaping import as_text, block, cell, code, fenced, plain
from fluxloop.reports.folder import INDEX, MARK, PAGES, report_folder
from fluxloop.reports.page import preview, status_of, trace_page
from fluxloop.reports.rows import shown_duration, summary_rows
from fluxloop.store.codec import decode_trace
from fluxloop.store.layout import CONFIG, SUMMARY, SUPERSEDED, TRACES
from fluxloop.store.lock import writer_of
from fluxloop.store.modes import mode_of, result_file
from fluxloop.store.rewriting import current_file
from fluxloop.store.runs import StoredRuns
from fluxloop.summary import ErrorGroup, Summary
from fluxloop.tracebacks import frames_of

Only = Literal["failed"]

MAX_EXAMPLE = 2_000
"""Characters shown of an example's input, message and frames."""
MAX_SLOWEST = 10
MAX_FAILING = 20


def write_markdown(
    path: Path, summary: Summary, output: Path | None = None, *, only: Only | None = None, overwrite: bool = False
) -> Path:
    """Write `index.md` and a page for each run, in memory that does not grow with them; return the index.

    Args:
        path: the experiment directory.
        summary: what its runs come to.
        output: where the report goes, by default into the experiment directory.
        only: `failed` for the runs that did not pass.
        overwrite: replace an earlier report; files of others stay in any case.

    Raises:
        OutputError: the experiment is damaged, says where; or the report cannot be written there.
    """
    if only not in (None, "failed"):
        raise UsageError(f"only: expected 'failed' or None, got {only!r}")
    output = path if output is None else output
    with report_folder(output, overwrite=overwrite, mode=mode_of(path)) as stage:
        index = _Index(
            path=path,
            output=output,
            summary=summary,
            only=only,
            examples={group.trace_id: None for group in summary.errors},
        )
        rows = stage / "rows"
        with open(rows, "w", encoding="utf-8", opener=result_file) as file:
            for number, trace in enumerate(_traces(path, summary.total_traces), 1):
                if only is None or not trace.passed:
                    _write_page(stage / PAGES / _page_name(trace.trace_id, number), trace, index.record(number))
                    file.write(index.row(trace, number))
                index.note(trace, number)
        with (
            open(stage / INDEX, "w", encoding="utf-8", opener=result_file) as file,
            rows.open(encoding="utf-8") as written,
        ):
            file.writelines(index.head())
            shutil.copyfileobj(written, file)
        rows.unlink()
    return output / INDEX


def _traces(path: Path, count: int) -> Iterator[Trace]:
    """As many runs as are counted; later ones have been added since."""
    given = 0
    file = current_file(path, TRACES)
    for run in islice(StoredRuns(path).every(), count):
        given += 1
        if run.difference is not None:
            notice(f"{run.difference}; the report shows what {TRACES} has")
        try:
            yield decode_trace(run.trace_line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise OutputError(Path(f"{file}:{given}"), f"not a trace: {error}") from None
    if given < count:
        raise OutputError(file, f"ends after {given} of the {count} runs that {SUMMARY} counts; see fluxloop verify")


def _write_page(path: Path, trace: Trace, record: str) -> None:
    back = f"[all runs](../{INDEX})"
    text = "".join((MARK, "\n", back, "\n\n", *trace_page(trace, record)))
    with open(path, "wb", opener=result_file) as file:
        file.write(text.encode())


def _page_name(trace_id: str, number: int) -> str:
    """A name of its own for each run: ids are `trace_` and digits, each number once, but of any length."""
    return f"{trace_id}.md" if len(trace_id) <= 80 else f"line_{number}.md"


@define(kw_only=True)
class _Example:
    """The first run of a kind of failure."""

    page: str
    input: str
    frames: str
    """The user's own, where it failed."""


@define(kw_only=True)
class _Index:
    """What `index.md` needs of the runs that have passed by; never more than a few hundred of them."""

    path: Path
    output: Path
    summary: Summary
    only: Only | None
    examples: dict[str, _Example | None]
    """By trace id, those that the summary names."""
    without_error: int = 0
    """Runs that did not pass although nothing was raised."""
    first_without_error: _Example | None = None
    slowest: list[tuple[float, int, Trace]] = field(factory=list)
    listed: int = 0
    _record_link: str | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._record_link = _link(current_file(self.path, TRACES), self.output / PAGES)

    def record(self, number: int) -> str:
        """Where all of a run is, as seen from its page."""
        told = f"`{TRACES}`, line {number}"
        return told if self._record_link is None else f"[{told}]({self._record_link}#L{number})"

    def row(self, trace: Trace, number: int) -> str:
        """The run's row in the table of all."""
        self.listed += 1
        persona = f" {preview(trace.persona, 30)} |" if self.summary.personas else ""
        error = trace.error
        came = preview(trace.output, 60) if error is None else cell(f"{error.type}: {error.message}", 60)
        return (
            f"| {_to_page(trace.trace_id, number)} | {cell(trace.input_id, 40)} | {preview(trace.input, 60)} |{persona}"
            f" {trace.iteration + 1} | {status_of(trace)} | {shown_duration(trace.duration_ms)} | {came} |\n"
        )

    def note(self, trace: Trace, number: int) -> None:
        """Keep what the sections above the table need of it."""
        if trace.trace_id in self.examples and self.examples[trace.trace_id] is None:
            self.examples[trace.trace_id] = _example(trace, number)
        if trace.error is None and not trace.passed:
            self.without_error += 1
            self.first_without_error = self.first_without_error or _example(trace, number)
        # A trace may be large; of these only the first lines are wanted.
        small = (trace.duration_ms, -number)
        if len(self.slowest) < MAX_SLOWEST or small > self.slowest[0][:2]:
            push = heapq.heappush if len(self.slowest) < MAX_SLOWEST else heapq.heappushpop
            push(self.slowest, (*small, _shortened(trace)))

    def head(self) -> Iterator[str]:
        """Everything above the rows of the table."""
        summary = self.summary
        yield MARK
        yield f"\n# {code(summary.experiment_name, 100)}\n\n{rate_in_words(summary)}\n"
        yield from (f"\n> Note: {plain(remark)}\n" for remark in self._remarks())
        yield "\n| | |\n|---|---|\n"
        yield from (f"| {label} | {text} |\n" for label, text in self._facts())
        yield from self._failures()
        yield from self._slowest()
        yield from self._personas()
        title = f"Runs ({self.listed})" if self.only is None else f"Runs that did not pass ({self.listed})"
        yield f"\n## {title}\n\n"
        if self.listed:
            persona = " Persona |" if summary.personas else ""
            yield f"| Run | Input | Asked |{persona} No. | Status | Duration | Came out |\n"
            yield f"|---|---|---|{'---|' if summary.personas else ''}---:|---|---:|---|\n"
        else:
            yield "None.\n"

    def _remarks(self) -> Iterator[str]:
        yield from self.summary.remarks
        if self.summary.superseded:
            runs = counted(self.summary.superseded, "record")
            yield f"{runs} of runs that were run again on resume: in {SUPERSEDED}"

    def _facts(self) -> Iterator[tuple[str, str]]:
        summary = self.summary
        yield "Status", _status(self.path, summary)
        ours = attrs.evolve(summary, stop_reason=None, errors=(), failing_inputs=(), remarks=())
        told = {"runs", "gate", "duration", "tokens", "masked"}
        yield from ((label.capitalize(), plain(text)) for label, text in summary_rows(ours) if label in told)
        yield "Began", cell(summary.started_at)
        if summary.completed_at is not None:
            yield "Ended", cell(summary.completed_at)
        for label, key in ("fluxloop", "fluxloop"), ("Python", "python"), ("Platform", "platform"), ("Seed", "seed"):
            if key in summary.ran_on:
                yield label, cell(as_text(summary.ran_on[key]))
        git = summary.ran_on.get("git")
        if isinstance(git, dict):
            changed = "" if git.get("clean") else ", with changes that were not committed"
            yield "Git", f"{cell(str(git.get('commit')))}{changed}"
        if summary.ran_on.get("tags"):
            yield "Tags", cell(as_text(summary.ran_on["tags"]), 200)
        links = [(name, _link(self.path / name, self.output)) for name in (SUMMARY, TRACES, CONFIG)]
        yield "Files", ", ".join(f"`{name}`" if link is None else f"[{name}]({link})" for name, link in links)

    def _failures(self) -> Iterator[str]:
        summary = self.summary
        if not summary.errors and not self.without_error:
            return
        yield "\n## Failures\n"
        for group in summary.errors:
            yield from self._failure(group)
        if summary.errors_not_grouped:
            yield f"\n{counted(summary.errors_not_grouped, 'failure')} of further kinds are not told apart here.\n"
        if self.without_error:
            yield f"\n### {self.without_error} × no error, but not passed\n"
            if self.first_without_error is not None:
                yield f"\nFirst in {self.first_without_error.page}, asked:\n\n{fenced(self.first_without_error.input)}"
        failing = summary.failing_inputs
        if failing:
            listed = ", ".join(f"{code(row.input_id, 40)} ({row.failed})" for row in failing[:MAX_FAILING])
            more = f" and {len(failing) - MAX_FAILING} more" if len(failing) > MAX_FAILING else ""
            yield f"\nInputs the agent failed on, and how often: {listed}{more}.\n"

    def _failure(self, group: ErrorGroup) -> Iterator[str]:
        kind = "" if group.kind == "agent" else f" ({group.kind})"
        yield f"\n### {group.count} × {code(group.type)}{kind}\n"
        where = f"At {code(shown_place(group.place), 200)}. " if group.place else ""
        example = self.examples.get(group.trace_id)
        first = code(group.trace_id) if example is None else example.page
        yield f"\n{where}First in {first}, input {code(group.input_id)}"
        if example is not None:
            yield f", which asked:\n\n{fenced(example.input)}\nand failed with:\n\n"
        else:
            yield ":\n\n"
        yield block(group.message, MAX_EXAMPLE, "its page")
        if example is not None and example.frames:
            yield f"\nin your own code, the last call last:\n\n{fenced(example.frames)}"

    def _slowest(self) -> Iterator[str]:
        if len(self.slowest) < 2:
            return
        yield "\n## Slowest\n\n| Run | Duration | Input | Asked |\n|---|---:|---|---|\n"
        for duration, number, trace in sorted(self.slowest, key=lambda row: row[:2], reverse=True):
            is_written = self.only is None or not trace.passed
            run = _to_page(trace.trace_id, -number) if is_written else cell(trace.trace_id)
            yield f"| {run} | {shown_duration(duration)} | {cell(trace.input_id)} | {preview(trace.input, 80)} |\n"

    def _personas(self) -> Iterator[str]:
        if not self.summary.personas:
            return
        yield "\n## Personas\n\n| Persona | Runs | Passed | Pass rate |\n|---|---:|---:|---:|\n"
        for row in self.summary.personas:
            rate = "" if row.pass_rate is None else f"{row.pass_rate:.1%}"
            yield f"| {cell(row.persona)} | {row.runs} | {row.passed} | {rate} |\n"


def rate_in_words(summary: Summary) -> str:
    """Return the pass rate and its interval as sentences of Markdown."""
    rate, runs = summary.pass_rate, summary.total_traces
    if rate is None:
        return f"**Infrastructure ended every run ({runs}).**" if runs else "**No run has finished.**"
    told = f"**{summary.passed} of {counted(summary.judged, 'run')} passed: {rate.value:.1%}.**"
    if summary.bias:
        told += f" This is {summary.bias}."
    if summary.infrastructure:
        told += f" {counted(summary.infrastructure, 'run')} that infrastructure ended are not counted."
    inputs = f"{counted(rate.clusters, 'input')}"
    return (
        f"{told} As far as {inputs} can tell, the agent's true pass rate is between {rate.low:.1%} and {rate.high:.1%}"
        f" ({rate.level:.0%} interval; runs of one input are not independent)."
    )


def _status(path: Path, summary: Summary) -> str:
    if summary.status == "running":
        writer = writer_of(path)
        return "killed before its end" if writer is None else f"still running, by {cell(writer)}"
    reason = "" if summary.stop_reason is None else f": {cell(summary.stop_reason, 300)}"
    return f"{summary.status}{reason}"


def _example(trace: Trace, number: int) -> _Example:
    error = trace.error
    frames = "" if error is None or not error.traceback else frames_of(error).own
    asked = as_text(trace.input)
    shown = asked if len(asked) <= MAX_EXAMPLE else f"{asked[:MAX_EXAMPLE]}…"
    return _Example(page=_to_page(trace.trace_id, number), input=shown, frames=frames[-MAX_EXAMPLE:])


def _shortened(trace: Trace) -> Trace:
    """The same with an input short enough to keep, and nothing else that is large."""
    asked = as_text(trace.input)[:400]
    return attrs.evolve(
        trace,
        input=asked,
        output=None,
        metadata=None,
        expected=None,
        errors=(),
        error=None,
        stdout=None,
        stderr=None,
        observations=(),
    )


def _to_page(trace_id: str, number: int) -> str:
    return f"[{plain(trace_id, 80)}]({PAGES}/{quote(_page_name(trace_id, number))})"


def _link(path: Path, start: Path) -> str | None:
    """The way from a folder to a file, as a link has it; None when there is none, as between drives."""
    try:
        return quote(os.fsencode(os.path.relpath(path.absolute(), start.absolute()).replace(os.sep, "/")))
    except (ValueError, OSError):
        return None
