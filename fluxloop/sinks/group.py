"""The results sink and any others, written to together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fluxloop.exceptions import SinkError, UsageError
from fluxloop.records import Trace
from fluxloop.sinks.base import SinkContext, TraceSink
from fluxloop.sinks.jsonl import JsonlSink
from fluxloop.store.presence import TakenAwayError
from fluxloop.summary import Summary
from fluxloop.tracing.capture import describe, type_name

# A sink of a user's may raise anything; a real signal is a flag while the loop writes.
_FAILURES = (Exception, SystemExit, KeyboardInterrupt)


class SinkGroup:
    """Write to the results sink, which must succeed, and to others, which may fail.

    A failing secondary sink is told once, gets the traces that follow, and never costs the results.
    """

    def __init__(self, results: JsonlSink, others: Sequence[TraceSink], warn: Callable[[str], None]) -> None:
        self._results = results
        self._others = tuple(others)
        self._warn = warn
        self._failed: dict[int, int] = {}
        self._shared = 0
        self._opened: list[TraceSink] = []

    def open(self, context: SinkContext) -> None:
        """Open all sinks.

        Raises:
            UsageError: one of them cannot be opened; nothing has run yet.
        """
        for sink in (self._results, *self._others):
            try:
                sink.open(context)
            except _FAILURES as error:
                raise UsageError(f"the sink {type_name(sink)} cannot be opened: {_told(error)}") from error
            self._opened.append(sink)

    def write(self, traces: Sequence[Trace]) -> None:
        """Write finished runs to the results.

        Raises:
            SinkError: the results could not be written.
        """
        try:
            self._results.write_batch(traces)
        except _FAILURES as error:
            raise _lost("the results cannot be written", error) from error

    def check(self) -> None:
        """Do nothing while what was written is there.

        Raises:
            SinkError: the disk did not take it, or somebody else has changed it.
        """
        try:
            self._results.check()
        except _FAILURES as error:
            raise _lost("the results cannot be written", error) from error

    def look(self) -> None:
        """Check as `check` does, by looking now; also when the results are closed.

        Raises:
            SinkError: the disk did not take it, or somebody else has changed it.
        """
        try:
            self._results.look()
        except _FAILURES as error:
            raise _lost("the results are not complete", error) from error

    def share(self, traces: Sequence[Trace]) -> None:
        """Hand runs that are written to the other sinks."""
        self._shared += len(traces)
        for sink in self._others:
            try:
                sink.write_batch(traces)
            except _FAILURES as error:
                self._report(sink, error, len(traces))

    def close_results(self, summary: Summary) -> None:
        """Close the results sink, if it is open.

        Raises:
            SinkError: it could not be closed; what was written last may be lost.
        """
        if self._results in self._opened:
            self._opened.remove(self._results)
            try:
                self._results.close(summary)
            except _FAILURES as error:
                raise _lost("the results cannot be closed", error) from error

    def close_others(self, summary: Summary) -> None:
        """Close every other sink that is open, whatever becomes of the rest."""
        opened, self._opened = self._opened, []
        for sink in opened:
            try:
                sink.close(summary)
            except _FAILURES as error:
                self._warn(f"the sink {type_name(sink)} could not be closed: {_told(error)}")
        for sink in self._others:
            if count := self._failed.get(id(sink)):
                self._warn(f"the sink {type_name(sink)} failed for {count} of {self._shared} runs")

    def _report(self, sink: TraceSink, error: BaseException, runs: int) -> None:
        if id(sink) not in self._failed:
            self._warn(f"the sink {type_name(sink)} failed; the results are not affected: {_told(error)}")
        self._failed[id(sink)] = self._failed.get(id(sink), 0) + runs


def _lost(what: str, error: BaseException) -> SinkError:
    return SinkError(str(error) if isinstance(error, TakenAwayError) else f"{what}: {_told(error)}")


def _told(error: BaseException) -> str:
    return ": ".join(describe(error))
