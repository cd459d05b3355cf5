"""Experiments that end before their plan does: by too many failures, by time, by their caller."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult, Trace, TraceSink

EXECUTORS = ["inline", "threads", "asyncio"]
INPUTS = list("abcdefghij")
Agent = Callable[[str], Any]


def fitting(executor: str, agent: Callable[[str], str]) -> Agent:
    """The agent as it is, or as a coroutine function that gives up the loop once."""
    if executor != "asyncio":
        return agent

    async def awaited(text: str) -> str:
        await asyncio.sleep(0)
        return agent(text)

    return awaited


def run(tmp_path: Path, executor: str, agent: Agent, inputs: list[str] = INPUTS, **options: Any) -> ExperimentResult:
    return Experiment(target=agent, inputs=inputs, executor=executor, output_dir=tmp_path, **options).run()


def outputs(result: ExperimentResult) -> list[Any]:
    return [trace.output for trace in result]


def assert_stopped(result: ExperimentResult, reason: str) -> None:
    """The files hold what was run, the rest is counted as not run, and the code is 1."""
    summary = result.summary
    assert (summary.status, summary.stop_reason, result.exit_code) == ("stopped", reason, 1)
    assert summary.total_traces == len(list(result)) == len(list(result.summaries()))
    assert summary.total_traces + summary.not_run == summary.planned
    assert json.loads((result.path / "summary.json").read_text())["status"] == "stopped"


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What agents wait for that would hang for ever."""
    event = threading.Event()
    yield event
    event.set()


class OnTrace(TraceSink):
    """Call something with each trace that is on disk."""

    def __init__(self, call: Callable[[Trace], None]) -> None:
        self._call = call

    def write(self, trace: Trace) -> None:
        self._call(trace)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(("limit", "failures"), [(3, 3), ("20%", 2), (0.2, 2), ("11%", 2)])
def test_it_stops_at_so_many_failures(tmp_path: Path, executor: str, limit: Any, failures: int) -> None:
    """A number of runs, or a share of those planned, rounded up; nothing starts after the last of them."""

    def agent(text: str) -> str:
        if text != "b":
            raise ValueError(text)
        return text

    result = run(tmp_path, executor, fitting(executor, agent), max_failures=limit)
    assert_stopped(result, f"{failures} failed runs (runner.max_failures)")
    assert [trace.input for trace in result] == INPUTS[: failures + 1]
    assert (result.summary.passed, len(result.failures)) == (1, failures)


@pytest.mark.parametrize("executor", ["threads", "asyncio"])
def test_those_in_flight_finish_when_it_stops(tmp_path: Path, executor: str) -> None:
    """What had started before the failure that was one too many is run to its end and recorded."""
    started = threading.Semaphore(0)
    failed = threading.Event()

    def wait_for_the_stop(text: str) -> str:
        if text == "a":
            assert started.acquire(timeout=20)
            assert started.acquire(timeout=20)
            raise ValueError("one too many")
        started.release()
        assert failed.wait(20)
        return text

    async def agent(text: str) -> str:
        return await asyncio.to_thread(wait_for_the_stop, text)

    target = agent if executor == "asyncio" else wait_for_the_stop
    sink = OnTrace(lambda trace: failed.set())
    result = run(tmp_path, executor, target, parallel=3, max_failures=1, sinks=[sink])
    assert_stopped(result, "1 failed run (runner.max_failures)")
    assert sorted(trace.input for trace in result) == ["a", "b", "c"]
    assert (result.summary.passed, result.summary.not_run, result.left_running) == (2, 7, 0)


@pytest.mark.parametrize("error", [ValueError, ConnectionResetError, KeyboardInterrupt])
def test_failures_of_every_kind_count(tmp_path: Path, error: type[BaseException]) -> None:
    """The agent's own and those of infrastructure: an outage is no reason to go on."""

    def agent(text: str) -> str:
        raise error

    assert_stopped(run(tmp_path, "threads", agent, max_failures=2), "2 failed runs (runner.max_failures)")


def test_a_limit_that_the_last_run_reaches_stops_nothing(tmp_path: Path) -> None:
    """There was nothing left to stop: the experiment has completed."""

    def agent(text: str) -> str:
        if text == "j":
            raise ValueError
        return text

    summary = run(tmp_path, "inline", agent, max_failures=1).summary
    assert (summary.status, summary.stop_reason, summary.not_run) == ("completed", None, 0)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_attempts_that_are_repeated_are_no_failures(tmp_path: Path, executor: str) -> None:
    """Only the last attempt of a run says whether it failed."""
    seen: set[str] = set()

    def agent(text: str) -> str:
        if text not in seen:
            seen.add(text)
            raise ConnectionResetError
        return text

    retries: dict[str, Any] = {"max_retries": 1, "overrides": {"runner.retry_delay_seconds": 0}}
    result = run(tmp_path, executor, fitting(executor, agent), max_failures=1, **retries)
    assert (result.summary.status, result.summary.passed, result.summary.retries) == ("completed", 10, 10)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_waiting_retry_is_not_run(tmp_path: Path, executor: str) -> None:
    """When the experiment stops, a run that waits for its next attempt is one that was not run."""
    called: list[str] = []

    def agent(text: str) -> str:
        called.append(text)
        raise ConnectionResetError if text == "a" else ValueError

    retries: dict[str, Any] = {"max_retries": 3, "overrides": {"runner.retry_delay_seconds": 1000}}
    result = run(tmp_path, executor, fitting(executor, agent), max_failures=1, **retries)
    assert_stopped(result, "1 failed run (runner.max_failures)")
    assert [trace.input for trace in result] == ["b"]
    assert (called, result.summary.infrastructure, result.summary.retries) == (["a", "b"], 0, 0)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_it_stops_when_its_time_is_over(tmp_path: Path, executor: str) -> None:
    """Nothing starts any more, and what has started is run to its end."""
    started: list[str] = []

    def agent(text: str) -> str:
        started.append(text)
        time.sleep(0.2)
        return text

    async def agent_async(text: str) -> str:
        started.append(text)
        await asyncio.sleep(0.2)
        return text

    target = agent_async if executor == "asyncio" else agent
    parallel = 1 if executor == "inline" else 2
    result = run(tmp_path, executor, target, INPUTS * 100, max_time=0.3, parallel=parallel)
    assert_stopped(result, "0.3 s are over (runner.max_time)")
    assert sorted(outputs(result)) == sorted(started)
    assert result.summary.passed == len(started) < 1000


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_hangs_is_left_when_time_and_grace_are_over(
    tmp_path: Path, executor: str, released: threading.Event
) -> None:
    """It counts as not run, and the result says how many may still be running."""
    started: list[str] = []

    def agent(text: str) -> None:
        started.append(text)
        released.wait()

    async def agent_async(text: str) -> None:
        started.append(text)
        await asyncio.Event().wait()

    target = agent_async if executor == "asyncio" else agent
    parallel = 1 if executor == "inline" else 3
    grace = {"runner.grace_seconds": 0.1}
    result = run(tmp_path, executor, target, max_time=0.1, parallel=parallel, overrides=grace)
    assert_stopped(result, "0.1 s are over (runner.max_time)")
    assert result.summary.total_traces == 0
    assert len(started) <= result.left_running <= parallel


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("waits", ["for a retry", "for its rate"])
def test_time_is_over_also_while_nothing_may_start(tmp_path: Path, executor: str, waits: str) -> None:
    """The stop comes when it is due, not when the next attempt would be."""

    def agent(text: str) -> str:
        if waits == "for a retry":
            raise ConnectionResetError
        return text

    options: dict[str, Any] = {"overrides": {"runner.start_rate": "1/h"}}
    if waits == "for a retry":
        options = {"max_retries": 1, "overrides": {"runner.retry_delay_seconds": 1000}}
    result = run(tmp_path, executor, fitting(executor, agent), max_time=0.2, **options)
    assert_stopped(result, "0.2 s are over (runner.max_time)")
    assert set(outputs(result)) <= ({"a"} if waits == "for its rate" else set())


class Gate:
    """An agent whose calls wait until it is opened, and which tells when two of them wait."""

    def __init__(self, executor: str) -> None:
        self.opened = threading.Event()
        self.waiting = threading.Barrier(3)
        self.target: Agent = self._wait_async if executor == "asyncio" else self._wait

    def _wait(self, text: str) -> str:
        self.waiting.wait(20)
        assert self.opened.wait(20)
        return text

    async def _wait_async(self, text: str) -> str:
        return await asyncio.to_thread(self._wait, text)


async def cancelled(experiment: Experiment, when: Callable[[], Any], then: Callable[[], Any] = lambda: None) -> None:
    """Run until `when` returns, cancel, and wait for the end."""
    running = asyncio.create_task(experiment.run_async())
    await asyncio.to_thread(when)
    running.cancel()
    await asyncio.sleep(0)  # the cancellation is delivered
    then()
    with pytest.raises(asyncio.CancelledError):
        await running


def assert_cancelled(folder: Path, done: list[str]) -> None:
    """The directory holds what was done, and says that the rest was not run."""
    (path,) = folder.iterdir()
    result = fluxloop.load(path)
    summary = result.summary
    assert (summary.status, summary.stop_reason, result.exit_code) == ("interrupted", "cancelled", 130)
    assert sorted(outputs(result)) == done
    assert (summary.passed, summary.not_run) == (len(done), len(INPUTS) - len(done))


@pytest.mark.parametrize("executor", ["threads", "asyncio"])
def test_a_cancelled_run_async_lets_those_in_flight_finish(tmp_path: Path, executor: str) -> None:
    """Nothing more starts, and the cancellation goes on once everything is on disk."""
    gate = Gate(executor)
    experiment = Experiment(target=gate.target, inputs=INPUTS, executor=executor, parallel=2, output_dir=tmp_path)
    asyncio.run(cancelled(experiment, gate.waiting.wait, gate.opened.set))
    assert_cancelled(tmp_path, ["a", "b"])


def test_a_cancelled_run_async_leaves_what_hangs(tmp_path: Path, released: threading.Event) -> None:
    """When the grace is over it ends, though the agent does not, whatever it does about its cancellation."""
    starts = {name: threading.Event() for name in ("waiting", "waiting_async", "stubborn", "blocking")}

    def waiting(text: str) -> None:
        starts["waiting"].set()
        released.wait()

    async def waiting_async(text: str) -> None:
        starts["waiting_async"].set()
        await asyncio.Event().wait()

    async def stubborn(text: str) -> None:
        starts["stubborn"].set()
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def blocking(text: str) -> None:
        starts["blocking"].set()
        released.wait()

    def experiment(agent: Agent, executor: str) -> Experiment:
        folder = tmp_path / agent.__name__
        grace = {"runner.grace_seconds": 0.1}
        return Experiment(target=agent, inputs=INPUTS, executor=executor, output_dir=folder, overrides=grace)

    async def main() -> None:
        agents = (waiting, "threads"), (waiting_async, "asyncio"), (stubborn, "asyncio")
        await asyncio.gather(*(cancelled(experiment(*one), starts[one[0].__name__].wait) for one in agents))
        # By itself: all share a loop, on which the others would not start.
        await cancelled(experiment(blocking, "asyncio"), starts["blocking"].wait)

    asyncio.run(main())
    for name in starts:
        assert_cancelled(tmp_path / name, [])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_cancelled_run_async_waits_for_no_start(tmp_path: Path, executor: str) -> None:
    """It ends at once while the next run may start in an hour."""
    written = threading.Event()
    experiment = Experiment(
        target=fitting(executor, str.lower),
        inputs=INPUTS,
        executor=executor,
        output_dir=tmp_path,
        overrides={"runner.start_rate": "1/h"},
        sinks=[OnTrace(lambda trace: written.set())],
    )
    asyncio.run(cancelled(experiment, written.wait))
    assert_cancelled(tmp_path, ["a"])
