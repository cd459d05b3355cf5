"""Traces in a list."""

from __future__ import annotations

from fluxloop.records import Trace
from fluxloop.sinks.base import SinkContext, TraceSink


class MemorySink(TraceSink):
    """Keep traces in memory, for tests and small experiments.

    Example:
        >>> from fluxloop import Experiment, MemorySink
        >>> sink = MemorySink()
        >>> Experiment(target=str.upper, inputs=["hi"], sinks=[sink]).run()  # doctest: +SKIP
        >>> [trace.output for trace in sink.traces]  # doctest: +SKIP
        ['HI']
    """

    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def open(self, context: SinkContext) -> None:
        """Forget the traces of an earlier experiment."""
        self.traces.clear()

    def write(self, trace: Trace) -> None:
        """Keep the trace."""
        self.traces.append(trace)
