"""What an experiment directory holds, told without the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

NAMES = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")


class Run(NamedTuple):
    """A run that is whole in all three files, as bytes."""

    trace_id: str
    observations: bytes
    trace: bytes
    summary: bytes


def record(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line, else None."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) and "trace_id" in value else None


def whole_runs(contents: dict[str, bytes]) -> list[Run]:
    """The runs from the start on that all three files tell alike."""
    observations, traces, summaries = (contents[name].splitlines(keepends=True) for name in NAMES)
    found: list[Run] = []
    at = 0
    for trace_line, summary_line in zip(traces, summaries, strict=False):
        trace, summary = record(trace_line), record(summary_line)
        if trace is None or summary is None:
            break
        lines = observations[at : at + len(trace["observations"])]
        if [record(line) for line in lines] != trace["observations"]:
            break
        if any(summary[key] != trace[key] for key in summary if key != "error"):
            break
        at += len(lines)
        found.append(Run(trace["trace_id"], b"".join(lines), trace_line, summary_line))
    return found


def read(path: Path) -> dict[str, bytes]:
    """The three line files."""
    return {name: (path / name).read_bytes() for name in NAMES}


def runs_of(path: Path) -> list[Run]:
    """The whole runs of a directory; none while a file is not there yet."""
    try:
        return whole_runs(read(path))
    except FileNotFoundError:
        return []


def whole(run: Run) -> tuple[Any, ...]:
    """What a run says but for its times, its observations' ids and the places of its traceback."""
    trace = json.loads(run.trace)
    for one in (trace, *trace["observations"]):
        for key in ("start_time", "end_time", "duration_ms", "total_ms", "id", "parent_id"):
            one.pop(key, None)
    error = trace["error"] and (trace["error"]["type"], trace["error"]["message"])
    return (
        trace["trace_id"],
        trace["input_id"],
        trace["iteration"],
        json.dumps(trace["output"]),
        trace["status"],
        trace["seed"],
        str(error),
        json.dumps([[one["name"], one["output"]] for one in trace["observations"]]),
    )
