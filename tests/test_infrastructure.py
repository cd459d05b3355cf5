"""Runs that infrastructure fails, as `runner.infrastructure` names it and as the agent's package does not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment
from fluxloop.summary import Summary

EXECUTORS = ["inline", "threads", "asyncio", "processes"]


def run(tmp_path: Path, target: Any, executor: str = "inline", **options: Any) -> Summary:
    inputs = ["a", "b", "c", "d"]
    return Experiment(target=target, inputs=inputs, output_dir=tmp_path, executor=executor, **options).run().summary


class ServiceDownError(Exception):
    """The error of a client that an agent has written itself."""


def down(text: str) -> str:
    raise RuntimeError("no answer") from ServiceDownError()


async def down_async(text: str) -> str:
    return down(text)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_is_named_is_of_infrastructure(tmp_path: Path, executor: str) -> None:
    """By `runner.infrastructure`; it leaves the pass rate, in every executor."""
    target = down_async if executor == "asyncio" else down
    named = run(tmp_path, target, executor, settings=["runner.infrastructure=[ServiceDownError]"])
    assert (named.infrastructure, named.pass_rate) == (4, None)


def test_what_is_not_named_is_the_agents(tmp_path: Path) -> None:
    """To retry it does not reclassify it."""
    options = [
        "runner.retry_on=[ServiceDownError, RuntimeError]",
        "runner.max_retries=1",
        "runner.retry_delay_seconds=0",
    ]
    summary = run(tmp_path, down, settings=options)
    assert (summary.infrastructure, summary.failed, summary.retries) == (0, 4, 4)


def test_what_is_named_is_tried_again(tmp_path: Path) -> None:
    """As what is recognised is."""
    options = ["runner.infrastructure=[ServiceDownError]", "runner.max_retries=1", "runner.retry_delay_seconds=0"]
    summary = run(tmp_path, down, settings=options)
    assert (summary.infrastructure, summary.retries) == (4, 4)


async def waits(text: str) -> None:
    await asyncio.sleep(60)


def test_a_run_over_its_time_is_never_of_infrastructure(tmp_path: Path) -> None:
    """Whatever is named: its time is the experiment's own."""
    options = ["runner.infrastructure=[TimeoutError, CancelledError, Exception]", "runner.timeout_seconds=0.05"]
    summary = run(tmp_path, waits, "asyncio", settings=options)
    assert (summary.infrastructure, summary.by_status["timeout"]) == (0, 4)


AGENT = """
class ServiceDownError(Exception):
    status_code = 503

def run(text):
    raise ServiceDownError(text)
"""


def test_an_agent_that_is_installed_fails_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exceptions have no shape, wherever its package is."""
    place = tmp_path / "site-packages"
    place.mkdir()
    for name in ("installed_agent", "installed_client"):
        (place / f"{name}.py").write_text(AGENT)
    (tmp_path / "own_agent.py").write_text("from installed_client import run")
    monkeypatch.syspath_prepend(place)
    monkeypatch.syspath_prepend(tmp_path)
    own = run(tmp_path, "installed_agent:run")
    of_client = run(tmp_path, "own_agent:run")
    for name in ("installed_agent", "installed_client", "own_agent"):
        sys.modules.pop(name, None)
    assert (own.infrastructure, of_client.infrastructure) == (0, 4)
