"""A recording that each test has for itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop.recording import calls, file


@pytest.fixture(autouse=True)
def nothing_recorded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on, counted or told before a test, and what it does is undone."""
    monkeypatch.setattr(file, "_chosen", None)
    monkeypatch.setattr(file, "_errors", 0)
    monkeypatch.setattr(calls, "_counts", {})
    monkeypatch.setattr(calls, "_redaction", None)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A file that is recorded to."""
    path = tmp_path / "recordings" / "args.jsonl"
    fluxloop.enable_recording(path)
    return path


Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(recording: Path) -> Lines:
    """Read what was recorded, and see that nothing went wrong."""

    def read() -> list[dict[str, Any]]:
        assert fluxloop.recording_errors() == 0
        return [json.loads(line) for line in recording.read_bytes().splitlines()]

    return read
