"""The sinks a configuration names."""

from __future__ import annotations

from collections.abc import Sequence

from fluxloop.calling.target import find_object
from fluxloop.config.model import SinkConfig
from fluxloop.exceptions import TargetError
from fluxloop.sinks.base import TraceSink
from fluxloop.tracing.capture import describe


def configured_sinks(chosen: Sequence[SinkConfig]) -> tuple[TraceSink, ...]:
    """Import and make the sinks, each from its `module:Class` and arguments.

    Raises:
        TargetError: one cannot be imported or made, or is no `TraceSink`.
    """
    return tuple(_make(f"output.sinks.{index}", one) for index, one in enumerate(chosen))


def _make(key: str, chosen: SinkConfig) -> TraceSink:
    kind = find_object(chosen.sink, key=key)
    try:
        sink = kind(**chosen.args)
    except Exception as error:
        raise TargetError(f"{key}: {chosen.sink} cannot be made: {': '.join(describe(error))}") from error
    if not isinstance(sink, TraceSink):
        raise TargetError(f"{key}: {chosen.sink} is not a subclass of fluxloop.TraceSink")
    return sink
