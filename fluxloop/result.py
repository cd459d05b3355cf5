"""An experiment directory, read back."""

from __future__ import annotations

import html
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import attrs
import msgspec

from fluxloop.exceptions import MissingPackageError, OutputError
from fluxloop.progress import counted, shown_place
from fluxloop.records import Trace, TraceSummary
from fluxloop.store.codec import UNREADABLE, decode_trace, decode_trace_summary
from fluxloop.store.files import read_regular, regular
from fluxloop.store.layout import SUMMARY, TRACE_SUMMARY, TRACES
from fluxloop.store.recovery import count_superseded
from fluxloop.store.rewriting import current_file
from fluxloop.store.runs import StoredRuns
from fluxloop.summary import Summary, SummaryBuilder, lasting_remarks
from fluxloop.visible import one_line, visible, visible_line

if TYPE_CHECKING:
    import pandas

    from fluxloop.verifying import Verification

T = TypeVar("T")


class ExperimentResult:
    """What an experiment came to; its traces are read from the files when asked for.

    Example:
        >>> import fluxloop
        >>> result = fluxloop.load("experiments/quickstart_20261123_120000")  # doctest: +SKIP
        >>> result.summary.pass_rate.value  # doctest: +SKIP
        0.95
        >>> [trace.error.message for trace in result.failures]  # doctest: +SKIP
    """

    def __init__(self, path: Path, summary: Summary, *, left_running: int = 0) -> None:
        self.path = path
        self.summary = summary
        self.left_running = left_running
        """Attempts that nothing could end: they may go on in this process."""

    def __iter__(self) -> Iterator[Trace]:
        """Read the traces one by one, in the order they finished."""
        path = current_file(self.path, TRACES)
        return _first(len(self), _records(path, decode_trace), path)

    def __len__(self) -> int:
        return self.summary.total_traces

    def __bool__(self) -> bool:
        return True

    def summaries(self) -> Iterator[TraceSummary]:
        """Read the short form of the traces one by one, in the same order."""
        path = current_file(self.path, TRACE_SUMMARY)
        return _first(len(self), _records(path, decode_trace_summary), path)

    @property
    def failures(self) -> list[Trace]:
        """The runs that did not pass."""
        return [trace for trace in self if not trace.passed]

    @property
    def exit_code(self) -> int:
        """0 when the experiment completed, some run succeeded and no gate was missed; else as the README lists."""
        summary = self.summary
        if summary.status == "interrupted":
            # As shells tell a signal; 130, Ctrl-C's, where a caller cancelled.
            return 128 + signal.Signals.__members__.get(summary.stop_reason or "", signal.SIGINT)
        if summary.status != "completed" or (summary.total_traces and not summary.successful):
            return 1
        return 0 if self.gate_passed else 1

    @property
    def gate_passed(self) -> bool:
        """False when the pass rate is below `fail_under`; True without a gate, and for a shard without runs."""
        gate, rate = self.summary.fail_under, self.summary.pass_rate
        return gate is None or not self.summary.planned or (rate is not None and rate.value >= gate)

    def verify(self) -> Verification:
        """Check every line of the directory, ids across its files, and its counts."""
        from fluxloop.verifying import verify  # which takes the configuration's reader with it

        return verify(self.path)

    def to_markdown(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        only: Literal["failed"] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write `index.md` and, in `per_trace_analysis/`, a page for each run; return the path of the index.

        Args:
            output: the folder of the report, by default the experiment's own.
            only: `failed` for the runs that did not pass.
            overwrite: replace an earlier report. Files that fluxloop did not write are never touched.

        Raises:
            OutputError: a report is there already, the folder cannot be written to, or the experiment is damaged.
        """
        from fluxloop.reports.markdown import write_markdown

        place = None if output is None else Path(output)
        return write_markdown(self.path, self.summary, place, only=only, overwrite=overwrite)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with a row a run, the columns of `trace_summary.jsonl`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingPackageError("pandas", "to_pandas()") from None
        rows = [msgspec.to_builtins(row) for row in self.summaries()]
        frame = pandas.DataFrame(rows, columns=[field.name for field in TraceSummary.__attrs_attrs__])
        frame["start_time"] = pandas.to_datetime(frame["start_time"], utc=True)
        return frame

    def __repr__(self) -> str:
        return f"<ExperimentResult {self.headline()}, {visible_line(shown_place(str(self.path)))}>"

    def headline(self) -> str:
        """Return name, status and pass rate in one line."""
        summary = self.summary
        status = "" if summary.status == "completed" else f" ({summary.status})"
        told = f"{one_line(summary.experiment_name)}{status}: {summary.passed} of {summary.total_traces} runs passed"
        if summary.infrastructure:
            told += f", {summary.infrastructure} failed by infrastructure"
        if summary.not_run:
            told += f", {summary.not_run} not run"
        rate = summary.pass_rate
        if rate is None:
            return told
        bias = f"; {summary.bias}" if summary.bias else ""
        return f"{told} ({rate.value:.1%}, {rate.level:.0%} interval {rate.low:.1%} to {rate.high:.1%}{bias})"

    def _repr_html_(self) -> str:
        """Show the result in a notebook."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(visible(text))}</td></tr>"
            for label, text in self.table()
        )
        return f"<table><caption>{html.escape(self.headline())}</caption>{rows}</table>"

    def table(self) -> list[tuple[str, str]]:
        """Return the result as rows of label and text, for people."""
        from fluxloop.reports.rows import summary_rows

        rows = [*summary_rows(self.summary), ("results", shown_place(str(self.path)))]
        if self.summary.infrastructure:
            told = f"{counted(self.summary.infrastructure, 'run')} failed by infrastructure"
            rows.append(("hint", f"{told}; to run them again: {self._resume_with('infrastructure')}"))
        return [*rows, ("remaining", self.remaining())] if self.summary.not_run else rows

    def remaining(self) -> str:
        """Return how many runs have not been run, and how to go on."""
        told = f"{self.summary.not_run} of {self.summary.planned} runs were not run"
        return f"{told}; to go on: {self._resume_with()}"

    def _resume_with(self, retry: str | None = None) -> str:
        """How the experiment is taken up, in the words it was started with."""
        path = shown_place(str(self.path))
        given = self.summary.ran_on.get("from_python")
        if given and isinstance(given, list):
            names = dict.fromkeys("overrides" if name.startswith("runner.") else name for name in map(str, given))
            arguments = [repr(path), *(f"{name}=…" for name in names)]
            if retry:
                arguments.append(f"retry_failed={retry!r}")
            return f"Experiment.resume({', '.join(arguments)}).run()"
        told = f"fluxloop run experiment --resume {shlex.quote(path)}"
        return f"{told} --retry-failed={retry}" if retry else told


def load(path: str | os.PathLike[str]) -> ExperimentResult:
    """Read an experiment directory, also one whose experiment was cut short.

    Args:
        path: the directory that holds `summary.json`.

    Raises:
        OutputError: it is no experiment directory.
    """
    directory = Path(path)
    if directory.name == SUMMARY:
        directory = directory.parent
    try:
        content = read_regular(directory / SUMMARY)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise OutputError(directory, f"not an experiment directory: {SUMMARY}: {what}") from None
    try:
        summary = msgspec.json.decode(content, type=Summary)
    except UNREADABLE as error:
        raise OutputError(directory / SUMMARY, f"not a summary of an experiment: {error}") from None
    if summary.status == "running":
        # It runs still, or was killed: what is on disk is what counts.
        summary = _recount(directory, summary)
    elif b'"passed_after_failure"' not in content and (summary.retries or summary.superseded):
        summary = _with_bias(directory, summary)
    return ExperimentResult(directory, summary)


def _first(count: int, records: Iterator[T], path: Path) -> Iterator[T]:
    """As many records as the summary counts; later ones are of runs that were not finished."""
    given = 0
    for record in islice(records, count):
        given += 1
        yield record
    if given < count:
        raise OutputError(path, f"ends after {given} of the {count} runs that {SUMMARY} counts")


def _recount(directory: Path, told: Summary) -> Summary:
    builder = SummaryBuilder(
        experiment_name=told.experiment_name,
        planned=told.planned,
        started_at=told.started_at,
        ran_on=told.ran_on,
        fail_under=told.fail_under,
        remarks=lasting_remarks(told.remarks),
        masked=told.masked,
    )
    builder.superseded, builder.rerolled = count_superseded(directory)
    for run in StoredRuns(directory).every():  # of which it reads the traces, all of them whole
        builder.add(run.trace)
    return builder.build("running", completed_at=None)


def _with_bias(directory: Path, told: Summary) -> Summary:
    """The summary of an earlier version with what that did not count: failures of the agent that were replaced."""
    try:
        found = _recount(directory, told)
    except OutputError:  # damage; reading a summary has never asked for more than the summary
        return told
    names = ("superseded", "rerolled", "passed_after_failure", "left_out_after_failure", "remarks")
    return attrs.evolve(told, **{name: getattr(found, name) for name in names})


def _records(path: Path, decode: Callable[[bytes], T]) -> Iterator[T]:
    for number, line in enumerate(_lines(path), 1):
        try:
            yield decode(line)
        except UNREADABLE as error:
            raise OutputError(path, f"line {number} is damaged: {error}") from None


def _lines(path: Path) -> Iterator[bytes]:
    """Whole lines; one that is being written, or was cut off, has no end yet."""
    try:
        with open(path, "rb", opener=regular) as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
    except OSError as error:
        raise OutputError(path, str(error.strerror or error)) from None
