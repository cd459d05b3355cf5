"""From the configuration to an executor."""

from __future__ import annotations

import math

from fluxloop.config.model import RunnerConfig
from fluxloop.exceptions import ConfigError, Problem
from fluxloop.executors.asyncio import AsyncioExecutor
from fluxloop.executors.base import Elsewhere, Executor
from fluxloop.executors.inline import InlineExecutor
from fluxloop.executors.threads import ThreadsExecutor
from fluxloop.pace import spacing
from fluxloop.plan import Shard
from fluxloop.schedule import Limits

DEFAULT_TIMEOUT = 600.0
"""Seconds; so that a call that hangs does not hold a CI job for hours."""


def executor_for(runner: RunnerConfig, *, is_async: bool, where: str) -> Executor:
    """Return the executor that a configuration asks for, or that fits the agent.

    Args:
        runner: what is asked for.
        is_async: whether the agent's calls are coroutines.
        where: the place of the configuration, for messages.

    Raises:
        ConfigError: the executor cannot do what is asked.
    """
    name = runner.executor
    if name == "auto":
        name = "asyncio" if is_async else "threads" if runner.parallel > 1 or runner.timeout_seconds else "inline"
    elif problem := _problem(runner, is_async, where):
        raise ConfigError([problem])
    if name == "asyncio":
        return AsyncioExecutor(runner.parallel)
    # Who has no use for them does not pay for what they import.
    if name == "processes":
        from fluxloop.executors.processes import ProcessesExecutor

        return ProcessesExecutor(runner.parallel)
    if name == "ray":
        from fluxloop.executors.ray import RayExecutor

        ray = runner.ray
        return RayExecutor(runner.parallel, address=ray.address, num_cpus=ray.num_cpus, env=ray.env)
    return ThreadsExecutor(runner.parallel) if name == "threads" else InlineExecutor()


def _problem(runner: RunnerConfig, is_async: bool, where: str) -> Problem | None:
    if runner.executor == "asyncio" and not is_async:
        told = "asyncio runs async agents, and this one is sync: expected threads or auto, or make it async"
        return Problem(where, told, "runner.executor")
    if runner.executor == "inline" and runner.parallel > 1:
        told = f"inline runs one at a time, got {runner.parallel}: expected 1, or another runner.executor"
        return Problem(where, told, "runner.parallel")
    if runner.executor == "inline" and runner.timeout_seconds and not is_async:
        told = "inline cannot end a sync agent: expected 0, or runner.executor threads or auto"
        return Problem(where, told, "runner.timeout_seconds")
    return None


def timeout_for(runner: RunnerConfig) -> float | None:
    """Return what an attempt may take, in seconds, or None for any time."""
    return (DEFAULT_TIMEOUT if runner.timeout_seconds is None else runner.timeout_seconds) or None


def rate_shares(runner: RunnerConfig) -> int:
    """Return how many experiments share the rates, of which this is one."""
    return 1 if runner.shard is None or runner.per_shard else Shard.of(runner.shard).count


def _crash_retries(runner: RunnerConfig, executor: Executor | None) -> int:
    if runner.max_crash_retries is not None:
        return runner.max_crash_retries
    return executor.crash_retries if isinstance(executor, Elsewhere) else 0


def limits_for(runner: RunnerConfig, planned: int, executor: Executor | None = None) -> Limits:
    """Return what bounds the attempts at `planned` runs, with what the executor asks for where nothing is said."""
    failures: float | None = runner.max_failures
    gap = max(runner.run_delay_seconds, spacing(runner.start_rate) if runner.start_rate else 0.0)
    return Limits(
        max_retries=runner.max_retries,
        max_crash_retries=_crash_retries(runner, executor),
        retry_delay=runner.retry_delay_seconds,
        start_gap=gap * rate_shares(runner),
        # Rounded, because 0.07 * 100 is a little more than 7.
        max_failures=max(1, math.ceil(round(failures * planned, 6))) if isinstance(failures, float) else failures,
        stop_when_all_fail=runner.stop_when_all_fail,
        max_seconds=runner.max_time,
        grace=runner.grace_seconds,
    )
