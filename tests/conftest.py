"""Fixtures all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fluxloop.tracing.context import given_up
from tests.durability.lab import Lab, laboratory

# A suite started in the background, or under nohup, inherits these ignored, and fluxloop leaves an
# ignored signal alone: tests that send signals to themselves would wait for ever.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# What an example may take says how busy the machine is, and nothing of the claim.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder outside this repository, for whose state every experiment would ask git for longer than it runs."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("outside"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Command lines in processes of their own, anywhere, without the start of a Python."""
    place = tmp_path_factory.mktemp("forking")
    with laboratory(place, place) as lab:
        yield lab


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's own configures an experiment of a test."""
    for name in [name for name in os.environ if name.startswith("FLUXLOOP_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Runs that other tests gave up, and that hang on, keep no stream replaced in this one."""
    given_up.clear()
