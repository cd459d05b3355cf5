"""Run an AI agent on every input, many times, and say how reliable it is.

    from fluxloop import Experiment
    result = Experiment(target=my_agent, inputs=["hi", "bye"], iterations=5).run()

Names are imported when first used: code that only imports the decorators pays for nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxloop.config import ExperimentConfig
    from fluxloop.exceptions import (
        ConfigError,
        FluxloopError,
        GenerationError,
        InputError,
        MergeError,
        MissingPackageError,
        OutputError,
        ResumeError,
        SinkError,
        TargetError,
        UsageError,
    )
    from fluxloop.executors.asyncio import AsyncioExecutor
    from fluxloop.executors.base import Executor
    from fluxloop.executors.inline import InlineExecutor
    from fluxloop.executors.processes import ProcessesExecutor
    from fluxloop.executors.ray import RayExecutor
    from fluxloop.executors.threads import ThreadsExecutor
    from fluxloop.experiment import Experiment
    from fluxloop.merging import merge
    from fluxloop.rates import rate_limit
    from fluxloop.recording.calls import disable_recording, enable_recording, record, record_call_args
    from fluxloop.recording.file import recording_errors
    from fluxloop.records import Attempt, Case, Observation, PlannedRun, RunError, Trace, TraceSummary, Usage
    from fluxloop.result import ExperimentResult, load
    from fluxloop.runner import Task
    from fluxloop.schedule import Schedule
    from fluxloop.sinks.base import SinkContext, TraceSink
    from fluxloop.sinks.jsonl import JsonlSink
    from fluxloop.sinks.memory import MemorySink
    from fluxloop.summary import Summary
    from fluxloop.tracing.context import Run, carry_context, current_run
    from fluxloop.tracing.decorators import agent, event, generation, prompt, span, tool, trace

__version__ = "0.2.0"

_HOMES = {
    "fluxloop.config": ("ExperimentConfig",),
    "fluxloop.exceptions": (
        "ConfigError",
        "FluxloopError",
        "GenerationError",
        "InputError",
        "MergeError",
        "MissingPackageError",
        "OutputError",
        "ResumeError",
        "SinkError",
        "TargetError",
        "UsageError",
    ),
    "fluxloop.executors.asyncio": ("AsyncioExecutor",),
    "fluxloop.executors.base": ("Executor",),
    "fluxloop.executors.inline": ("InlineExecutor",),
    "fluxloop.executors.processes": ("ProcessesExecutor",),
    "fluxloop.executors.ray": ("RayExecutor",),
    "fluxloop.executors.threads": ("ThreadsExecutor",),
    "fluxloop.experiment": ("Experiment",),
    "fluxloop.merging": ("merge",),
    "fluxloop.rates": ("rate_limit",),
    "fluxloop.recording.calls": ("disable_recording", "enable_recording", "record", "record_call_args"),
    "fluxloop.recording.file": ("recording_errors",),
    "fluxloop.records": (
        "Attempt",
        "Case",
        "Observation",
        "PlannedRun",
        "RunError",
        "Trace",
        "TraceSummary",
        "Usage",
    ),
    "fluxloop.result": ("ExperimentResult", "load"),
    "fluxloop.runner": ("Task",),
    "fluxloop.schedule": ("Schedule",),
    "fluxloop.sinks.base": ("SinkContext", "TraceSink"),
    "fluxloop.sinks.jsonl": ("JsonlSink",),
    "fluxloop.sinks.memory": ("MemorySink",),
    "fluxloop.summary": ("Summary",),
    "fluxloop.tracing.context": ("Run", "carry_context", "current_run"),
    "fluxloop.tracing.decorators": ("agent", "event", "generation", "prompt", "span", "tool", "trace"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncioExecutor",
    "Attempt",
    "Case",
    "ConfigError",
    "Executor",
    "Experiment",
    "ExperimentConfig",
    "ExperimentResult",
    "FluxloopError",
    "GenerationError",
    "InlineExecutor",
    "InputError",
    "JsonlSink",
    "MemorySink",
    "MergeError",
    "MissingPackageError",
    "Observation",
    "OutputError",
    "PlannedRun",
    "ProcessesExecutor",
    "RayExecutor",
    "ResumeError",
    "Run",
    "RunError",
    "Schedule",
    "SinkContext",
    "SinkError",
    "Summary",
    "TargetError",
    "Task",
    "ThreadsExecutor",
    "Trace",
    "TraceSink",
    "TraceSummary",
    "Usage",
    "UsageError",
    "agent",
    "carry_context",
    "current_run",
    "disable_recording",
    "enable_recording",
    "event",
    "generation",
    "load",
    "merge",
    "prompt",
    "rate_limit",
    "record",
    "record_call_args",
    "recording_errors",
    "span",
    "tool",
    "trace",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fluxloop' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
