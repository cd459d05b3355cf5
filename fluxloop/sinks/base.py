"""The plug-in class for wherever traces go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from fluxloop.records import Trace

if TYPE_CHECKING:
    from fluxloop.summary import Summary


@frozen(kw_only=True)
class SinkContext:
    """What a sink may know of the experiment when it opens."""

    name: str
    path: Path
    """The experiment directory."""
    planned: int
    """How many runs are planned, with those that are done."""
    done: int = 0
    """How many were done before, in an experiment that is resumed; they are not written again."""
    config: dict[str, Any]
    """The resolved configuration, secrets masked."""


class TraceSink:
    """Take finished traces somewhere; override what you need.

    All methods are called in the thread of the experiment's loop, never two at a time. Records
    are plain data, captured already, and nothing the agent still does changes them.

    Example:
        >>> class Failures(TraceSink):
        ...     def open(self, context):
        ...         self.ids = []
        ...     def write(self, trace):
        ...         if not trace.passed:
        ...             self.ids.append(trace.trace_id)
    """

    def open(self, context: SinkContext) -> None:
        """Get ready; what is raised here stops the experiment before its first run."""

    def write(self, trace: Trace) -> None:
        """Take one finished run."""

    def write_batch(self, traces: Sequence[Trace]) -> None:
        """Take several finished runs; for a sink that does better with many at once."""
        for trace in traces:
            self.write(trace)

    def close(self, summary: Summary) -> None:
        """Finish; called once, also when the experiment stopped early."""
