"""The names in an experiment directory, and claiming a new one."""

from __future__ import annotations

import re
from pathlib import Path

from fluxloop.clock import formatted
from fluxloop.exceptions import OutputError
from fluxloop.store.lines import sync_directory

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

# The last range is half a character, which neither a file system nor JSON takes.
_NOT_IN_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\ud800-\udfff]")


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


def claim_directory(parent: Path, name: str, seconds: float) -> Path:
    """Create the directory of a new experiment and return it.

    Creating it is the claim: a second experiment of the same second gets `_2`, then `_3`.

    Raises:
        OutputError: it cannot be created.
    """
    stem = directory_name(name, seconds)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / (stem if number == 1 else f"{stem}_{number}")
            try:
                path.mkdir()
                sync_directory(parent)
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise OutputError(
            parent, f"cannot create the experiment directory: {error.strerror or error}; name another with --output-dir"
        ) from error
