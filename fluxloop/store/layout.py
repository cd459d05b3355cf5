"""The names in an experiment directory, and its own."""

from __future__ import annotations

import re

from fluxloop.clock import formatted

OBSERVATIONS = "observations.jsonl"
TRACES = "traces.jsonl"
TRACE_SUMMARY = "trace_summary.jsonl"
SUMMARY = "summary.json"
CONFIG = "config.yaml"
STALLS = "stalls.txt"
"""Written only when nothing has finished for long."""
SUPERSEDED = "superseded.jsonl"
"""Lines of `traces.jsonl` that a resume has run again; only then."""
LINE_FILES = (OBSERVATIONS, TRACES, TRACE_SUMMARY)
"""In the order in which a run reaches them: it is done when it is whole in all three."""
LOCK = ".lock"
"""There while somebody writes, and after a crash."""
RESERVE = ".reserve"
"""As `LOCK`."""
FILES = (*LINE_FILES, SUPERSEDED, CONFIG, SUMMARY, STALLS, LOCK, RESERVE)
"""Every file of ours."""

# The last range is half a character, which neither a file system nor JSON takes.
_NOT_IN_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]")

_BEING_MADE = re.compile(r"\..+\.[0-9a-f]{8}(?:\.new)?")


def name_problem(name: str) -> str | None:
    """Say why `name` cannot name an experiment, or None when it can."""
    if not name.strip() or name in (".", "..") or _NOT_IN_NAME.search(name):
        return f"expected one path component, without separators or control characters, got {name!r}"
    if len(name.encode()) > 200:
        return f"expected at most 200 bytes, got {len(name.encode())}"
    return None


def directory_name(name: str, seconds: float) -> str:
    """Return `<name>_<YYYYMMDD_HHMMSS>`, in UTC."""
    return f"{name}_{formatted(seconds, '%Y%m%d_%H%M%S')}"


def is_being_made(name: str) -> bool:
    """Tell the hidden name of a directory that is being made, or was when its process was killed."""
    return _BEING_MADE.fullmatch(name) is not None
