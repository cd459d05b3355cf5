"""Runs that are tried again, and the pace at which they start, under a service that misbehaves."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

import fluxloop
from fluxloop import AsyncioExecutor, Executor, Experiment, Schedule, Task, ThreadsExecutor
from fluxloop.records import Attempt, PlannedRun, Trace
from tests.serving import Answer, Asked, Service

QUICKLY = {"runner.retry_delay_seconds": 0.01}
EXECUTORS = ("inline", "threads", "asyncio")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def attempt() -> int:
    """The number of the attempt that the calling agent is at."""
    run = fluxloop.current_run()
    assert run is not None
    return run.attempt


@fluxloop.tool()
def look_up(text: str) -> str:
    print(f"attempt {attempt()}")
    return f"{text}, at attempt {attempt()}"


def failing(error: BaseException, until: int, executor: str = "inline", of: str | None = None) -> Any:
    """An agent that raises in its attempts before number `until`, on one input or on every."""

    def agent(text: str) -> str:
        answer = look_up(text)
        if attempt() < until and of in (text, None):
            raise error
        return answer

    async def agent_async(text: str) -> str:
        return agent(text)

    return agent_async if executor == "asyncio" else agent


def run(
    target: Any, inputs: Sequence[str] = ("hi",), *, overrides: dict[str, Any] | None = None, **options: Any
) -> Any:
    return Experiment(target=target, inputs=inputs, overrides={**QUICKLY, **(overrides or {})}, **options).run()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_run_that_fails_and_then_succeeds_is_one_ok_trace(executor: str) -> None:
    """It keeps the errors, the observations and the printed text of every attempt; the retries are counted."""
    agent = failing(ConnectionResetError("lost"), 3, executor)
    result = run(agent, executor=executor, max_retries=5, capture_output=True)

    (trace,) = lines(result.path / "traces.jsonl")
    assert (trace["status"], trace["passed"], trace["error"], trace["attempts"]) == ("ok", True, None, 3)
    assert trace["output"] == "hi, at attempt 3"
    assert trace["stdout"] == "attempt 1\nattempt 2\nattempt 3\n"
    told = [(error["kind"], error["type"], error["message"]) for error in trace["errors"]]
    assert told == [("infrastructure", "ConnectionResetError", "lost")] * 2
    assert all("raise error" in error["traceback"] for error in trace["errors"])
    assert trace["total_ms"] > trace["duration_ms"]

    seen = lines(result.path / "observations.jsonl")
    expected = [("look_up", number, f"hi, at attempt {number}") for number in (1, 2, 3)]
    assert [(o["name"], o["attempt"], o["output"]) for o in seen] == expected
    (short,) = lines(result.path / "trace_summary.jsonl")
    assert (short["status"], short["attempts"], short["observation_count"]) == ("ok", 3, 3)
    summary = json.loads((result.path / "summary.json").read_text())
    assert (summary["retries"], summary["successful"], summary["infrastructure"]) == (2, 1, 0)
    assert summary["pass_rate"]["value"] == 1


def test_each_attempt_has_a_memory_of_its_own_and_the_runs_seed() -> None:
    """`{run_id}` is fresh, so that a half-done conversation is not gone on with."""

    def agent(text: str, thread: str) -> None:
        seen.append((thread, fluxloop.current_run().seed))  # type: ignore[union-attr]
        if attempt() < 3:
            raise ConnectionResetError

    seen: list[tuple[str, int]] = []
    run(agent, max_retries=2, overrides={"runner.args": {"thread": "{run_id}"}})
    threads, seeds = zip(*seen, strict=True)
    assert (len(set(threads)), len(set(seeds))) == (3, 1)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_outage_that_lasts_is_counted_apart(executor: str) -> None:
    """A run whose every attempt fails so is `infrastructure`, and says nothing of the agent's pass rate."""
    agent = failing(ConnectionResetError("lost"), 99, executor, of="unlucky")
    result = run(agent, ["good", "unlucky"], executor=executor, max_retries=2)

    (failed,) = result.failures
    assert (failed.input, failed.status, failed.attempts, len(failed.errors)) == ("unlucky", "error", 3, 2)
    assert failed.error is not None
    assert failed.error.kind == "infrastructure"
    assert [o.attempt for o in failed.observations] == [1, 2, 3]
    summary = result.summary
    assert (summary.total_traces, summary.failed, summary.infrastructure, summary.retries) == (2, 1, 1, 2)
    assert summary.by_error_kind == {"agent": 0, "infrastructure": 1, "timeout": 0}
    assert summary.pass_rate is not None
    assert (summary.pass_rate.value, summary.pass_rate.clusters) == (1, 1)
    assert summary.failing_inputs == ()
    assert result.exit_code == 0


def test_nothing_is_tried_again_by_default() -> None:
    """A retry repeats what the agent does to the world, so it has to be asked for."""
    (trace,) = run(failing(ConnectionResetError(), 2))
    assert (trace.status, trace.attempts, trace.error.kind) == ("error", 1, "infrastructure")


@pytest.mark.parametrize(
    ("error", "names", "again", "kind"),
    [
        (ValueError(), None, False, "agent"),
        (ValueError(), ["ValueError"], True, "agent"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), ["ValueError"], True, "agent"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), ["builtins.ValueError"], True, "agent"),
        (KeyError(), ["ValueError"], False, "agent"),
        (ConnectionResetError(), ["ValueError"], False, "infrastructure"),
        (ConnectionResetError(), ["ValueError", "transient"], True, "infrastructure"),
        (ConnectionResetError(), [], False, "infrastructure"),
        (TimeoutError(), None, True, "infrastructure"),
        (asyncio.CancelledError(), ["CancelledError"], True, "agent"),
    ],
)
def test_what_is_tried_again_can_be_named(error: Any, names: list[str] | None, again: bool, kind: str) -> None:
    """By `runner.retry_on`, through base classes; what a failure counts as does not depend on it."""
    overrides = {} if names is None else {"runner.retry_on": names}
    (trace,) = run(failing(error, 2), max_retries=1, overrides=overrides)
    assert (trace.status, trace.attempts) == (("ok", 2) if again else ("error", 1))
    (told,) = trace.errors or [trace.error]
    assert told.kind == kind


@pytest.mark.parametrize("executor", ["threads", "asyncio"])
@pytest.mark.parametrize(("names", "again"), [(None, False), (["transient"], False), (["TimeoutError"], True)])
def test_our_own_timeout_is_tried_again_only_when_it_is_named(
    executor: str, names: list[str] | None, again: bool
) -> None:
    """It may well be the agent that is slow, so `transient` does not cover it, as it does an agent's own."""
    done = threading.Event()

    def agent(text: str) -> str:
        if attempt() == 1:
            done.wait()
        return text

    async def agent_async(text: str) -> str:
        if attempt() == 1:
            await asyncio.Event().wait()
        return text

    overrides = {} if names is None else {"runner.retry_on": names}
    target = agent_async if executor == "asyncio" else agent
    result = run(target, executor=executor, timeout_seconds=0.2, max_retries=1, overrides=overrides)
    done.set()

    (trace,) = result
    (told,) = trace.errors or [trace.error]
    assert (trace.status, trace.attempts) == (("ok", 2) if again else ("timeout", 1))
    assert (told.kind, told.type) == ("timeout", "TimeoutError")
    assert result.summary.by_error_kind == {"agent": 0, "infrastructure": 0, "timeout": 0 if again else 1}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_run_that_waits_for_its_retry_holds_up_no_other(executor: str) -> None:
    """With one at a time the others run meanwhile, until one failure too many: then nothing waits or starts."""
    agent = failing(ConnectionResetError(), 99, executor, of="unlucky")

    def picky(text: str) -> str:
        if text == "bad":
            raise ValueError
        return str(agent(text))

    async def picky_async(text: str) -> str:
        if text == "bad":
            raise ValueError
        return str(await agent(text))

    result = run(
        picky_async if executor == "asyncio" else picky,
        ["unlucky", "good", "bad", "late"],
        executor=executor,
        max_retries=1,
        max_failures=1,
        overrides={"runner.retry_delay_seconds": 1000},
    )
    assert [(trace.input, trace.status) for trace in result] == [("good", "ok"), ("bad", "error")]
    assert (result.summary.status, result.summary.not_run) == ("stopped", 2)


def headers() -> dict[str, str]:
    run = fluxloop.current_run()
    assert run is not None
    return {"run": run.id, "attempt": str(run.attempt)}


def which(asked: Asked) -> tuple[str, int]:
    """The run that asks, and the number of its attempt."""
    return asked.headers["run"], int(asked.headers["attempt"])


def asking(url: str, executor: str, seconds: Callable[[], float | None] = lambda: None) -> Any:
    """An agent that asks a service, and waits as long as `seconds` gives."""

    async def by_httpx(text: str) -> Any:
        async with httpx.AsyncClient(timeout=seconds(), verify=TLS) as client:
            answer = await client.get(url, headers=headers())
        return answer.raise_for_status().json()

    def by_requests(text: str) -> Any:
        answer = requests.get(url, headers=headers(), timeout=seconds())
        answer.raise_for_status()
        return answer.json()

    return by_httpx if executor == "asyncio" else by_requests


TLS = ssl.create_default_context()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_nothing_starts_until_a_service_may_be_called_again(executor: str) -> None:
    """A 429 with `Retry-After` holds for every run, not only for the one that met it."""
    answered: list[float] = []

    def answer(asked: Asked) -> Answer:
        answered.append(time.monotonic())
        return Answer(429, {"Retry-After": "0.4"}) if len(answered) == 1 else Answer()

    with Service(answer) as service:
        result = run(asking(service.url, executor), list("abcde"), executor=executor, max_retries=1)

    assert [trace.status for trace in result] == ["ok"] * 5
    assert len(service.asked) == 6
    assert min(asked.arrived for asked in service.asked[1:]) >= answered[0] + 0.4


class Noting:
    """An executor that notes when it asks for each attempt, and when a pause is heard of."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.asked: dict[tuple[str, int], float] = {}
        """When it asked for each attempt that it was given, in their order."""
        self.pauses: list[tuple[float, float, float]] = []
        """When an attempt that ended with `Retry-After` was about to be settled, when it was, and the seconds."""

    def run(self, task: Task, schedule: Schedule) -> Iterable[Sequence[Attempt]]:
        take, settle = schedule.take, schedule.settle

        def noted_take() -> tuple[PlannedRun, int] | None:
            before = time.monotonic()
            if (taken := take()) is not None:
                self.asked[taken[0].trace_id, taken[1]] = before
            return taken

        def noted_settle(attempt: Attempt) -> Trace | None:
            before = time.monotonic()
            trace = settle(attempt)
            if attempt.retry_after is not None:
                self.pauses.append((before, time.monotonic(), attempt.retry_after))
            return trace

        schedule.take, schedule.settle = noted_take, noted_settle  # type: ignore[method-assign]
        return self.executor.run(task, schedule)


RUNS = 200
RATE = 200
TOO_MANY = Answer(429, {"Retry-After-Ms": "20"})
HANG, RESET, CUT = Answer(fault="hang"), Answer(fault="reset"), Answer(fault="cut", body={"half": "of it"})
# What the attempts at a run meet, by the run's number; all others meet nothing.
FAULTS = {
    **dict.fromkeys(range(10, RUNS, 20), (TOO_MANY,)),
    **dict.fromkeys(range(11, RUNS, 20), (Answer(500),)),
    **dict.fromkeys(range(13, RUNS - 40, 20), (HANG,)),
    **dict.fromkeys(range(15, RUNS, 20), (RESET,)),
    **dict.fromkeys(range(17, RUNS, 20), (CUT, Answer(503))),
    **dict.fromkeys(range(18, RUNS, 20), (Answer(529), RESET, TOO_MANY)),
    100: (Answer(429, {"Retry-After": "1"}),),
}


def number() -> int:
    return int(headers()["run"].removeprefix("trace_"))


def misbehaving(asked: Asked) -> Answer:
    run, attempt = which(asked)
    faults = FAULTS.get(int(run.removeprefix("trace_")), ())
    return faults[attempt - 1] if attempt <= len(faults) else Answer(body={"answer": run})


@pytest.mark.parametrize(("name", "executor"), [("threads", ThreadsExecutor(20)), ("asyncio", AsyncioExecutor(20))])
def test_a_service_that_misbehaves_fails_no_run_and_is_not_overrun(name: str, executor: Executor) -> None:
    """With retries every run is ok at last, and no attempt starts sooner than the rate and the pauses allow.

    Half of the hanging answers are ended by the client's timeout, the others by `runner.timeout_seconds`.
    """
    noting = Noting(executor)
    with Service(misbehaving) as service:
        result = run(
            asking(service.url, name, lambda: 0.6 if number() % 40 == 13 else None),
            ["hi"],
            iterations=RUNS,
            executor=noting,
            timeout_seconds=0.8,
            max_retries=9,
            overrides={"runner.start_rate": f"{RATE}/s", "runner.retry_on": ["transient", "TimeoutError"]},
        )

    traces = {trace.trace_id: trace for trace in result}
    assert len(traces) == result.summary.successful == RUNS
    assert all(trace.output == {"answer": trace_id} for trace_id, trace in traces.items())
    assert all(traces[f"trace_{run:03d}"].attempts > len(faults) for run, faults in FAULTS.items())
    assert {"timeout", "infrastructure"} == {error.kind for trace in result for error in trace.errors}

    # An attempt may reach the service late, for many reasons, but none may reach it early.
    arrived = {which(asked): asked.arrived for asked in service.asked}
    assert len(arrived) == len(service.asked)
    assert set(arrived) <= set(noting.asked)
    assert len(noting.asked) == RUNS + result.summary.retries == sum(trace.attempts for trace in result)
    soonest = 0.0
    for attempt, asked in noting.asked.items():
        assert arrived.get(attempt, math.inf) >= soonest - 1e-6
        soonest = max(soonest, asked) + 1 / RATE
    for before, after, seconds in noting.pauses:
        later = [arrived.get(attempt, math.inf) for attempt, asked in noting.asked.items() if asked > after]
        assert min(later, default=math.inf) >= before + seconds
        assert seconds < 1 or len(later) > RUNS / 4
    assert max(seconds for *_, seconds in noting.pauses) == 1


def test_an_outage_that_lasts_to_the_end_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first error that is tried again, and how many runs waited for another attempt when time was over."""

    def agent(text: str) -> str:
        raise ConnectionError("the service is down")

    result = Experiment(
        target=agent, inputs=["a", "b"], output_dir=tmp_path, max_retries=5, max_time=0.5, progress=False
    ).run()
    told = capsys.readouterr().err
    assert result.summary.not_run == 2
    assert "trace_001 is tried again after ConnectionError: the service is down." in told
    assert "2 runs waited for another attempt; the last error was ConnectionError: the service is down." in told
