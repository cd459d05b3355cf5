"""Fixtures all tests share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's own configures an experiment of a test."""
    for name in [name for name in os.environ if name.startswith("FLUXLOOP_")]:
        monkeypatch.delenv(name)
