"""A user's own sinks."""

from __future__ import annotations

from typing import Any

from fluxloop import SinkContext, Summary, Trace, TraceSink

MADE: list[Recording] = []


class Recording(TraceSink):
    def __init__(self, label: str = "plain", fail_on: str = "") -> None:
        self.label = label
        self.fail_on = fail_on
        self.calls: list[str] = []
        self.context: Any = None
        MADE.append(self)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fail_on:
            raise ConnectionError(f"{name} refused")

    def open(self, context: SinkContext) -> None:
        self.context = context
        self._called("open")

    def write(self, trace: Trace) -> None:
        self._called("write")

    def close(self, summary: Summary) -> None:
        self._called("close")


class NoSink:
    """Has nothing of a sink."""
