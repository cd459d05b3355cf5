"""Fixtures all tests share."""

from __future__ import annotations

import os
import signal

import pytest

# A suite started in the background, or under nohup, inherits these ignored, and fluxloop leaves an
# ignored signal alone: tests that send signals to themselves would wait for ever.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's own configures an experiment of a test."""
    for name in [name for name in os.environ if name.startswith("FLUXLOOP_")]:
        monkeypatch.delenv(name)
