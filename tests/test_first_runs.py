"""What is said when all of the first runs fail alike, and the experiment that stops then."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import Experiment, ExperimentResult
from fluxloop.first_runs import ENOUGH, ENOUGH_REFUSED, FirstRuns
from fluxloop.records import ErrorKind, RunError
from tests.serving import Answer, Service, closed_port

EXECUTORS = ["inline", "threads", "asyncio", "processes"]
HINT = "Press Ctrl-C to stop; runner.stop_when_all_fail: 10 stops by itself."


def error(message: str = "no", line: int | None = 1, type: str = "ValueError", kind: ErrorKind = "agent") -> RunError:
    traceback = None if line is None else f'Traceback:\n  File "/agent.py", line {line}, in run\n{type}: {message}'
    return RunError(kind, type, message, traceback)


def said(runs: list[RunError | None], refused: bool = False) -> list[str]:
    """What is said in the course of these runs."""
    first = FirstRuns()
    return [fault for run in runs if (fault := first.add(run, refused))]


def test_ten_runs_that_fail_alike_are_said_once() -> None:
    """With the place, the error and what to do, when the tenth of them has ended."""
    assert said([error()] * 9) == []
    assert said([error()] * 500) == [
        "The first 10 runs all failed with the same error: /agent.py:1: ValueError: no."
        " Correct the agent, its arguments or its inputs."
    ]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("infrastructure", "Check the service, its address and the network."),
        ("timeout", "Check what the agent waits for, or raise runner.timeout_seconds."),
    ],
)
def test_what_to_do_is_said_by_kind(kind: ErrorKind, advice: str) -> None:
    """An outage is not mended in the agent."""
    assert said([error(kind=kind)] * 10)[0].endswith(advice)


def test_errors_are_alike_by_their_place_or_their_message() -> None:
    """And by their type."""
    numbers = count(1)
    assert said([error(message=f"no {next(numbers)}") for _ in range(10)])[0].count("/agent.py:1") == 1
    assert "/agent.py" not in said([error(line=next(numbers)) for _ in range(10)])[0]
    assert len(said([error(line=None)] * 10)) == 1
    assert said([error(message=str(next(numbers)), line=next(numbers)) for _ in range(10)]) == []
    assert said([error(message=str(next(numbers)), line=None) for _ in range(10)]) == []
    assert said([*[error()] * 9, error(type="KeyError")]) == []
    assert said([error(type="KeyError"), *[error()] * 9]) == []


@given(st.lists(st.booleans(), max_size=30), st.booleans())
def test_one_run_that_passes_is_enough(passed: list[bool], refused: bool) -> None:
    """Something is said when as many runs as tell have all failed, and at no other time."""
    enough = ENOUGH_REFUSED if refused else ENOUGH
    expected = len(passed) >= enough and not any(passed[:enough])
    assert len(said([None if one else error() for one in passed], refused)) == expected


def test_a_refused_key_is_said_at_once() -> None:
    """After three runs; not when one of them failed by something else, and without what the service said."""
    refused = error("Incorrect API key provided: sk-1234", type="openai.AuthenticationError")
    assert said([refused] * 10, refused=True) == [
        "The first 3 runs all failed because a service refused the caller (openai.AuthenticationError)."
        " Check the API key and what it may do."
    ]
    first = FirstRuns()
    told = [first.add(refused, is_refusal) for is_refusal in (True, False, True, True, True)]
    assert told == [None] * 5


def test_what_an_error_says_is_one_line() -> None:
    """It may hold anything, and be as long as it likes."""
    fault = said([error("a\n\x1b[2Jb" + "c" * 10_000, type="T" * 1_000)] * 10)[0]
    assert fault.isprintable()
    assert len(fault) < 700


def run(tmp_path: Path, target: Any, executor: str = "inline", runs: int = 30, **options: Any) -> ExperimentResult:
    inputs = [f"input {number}" for number in range(runs)]
    return Experiment(target=target, inputs=inputs, output_dir=tmp_path, executor=executor, **options).run()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """The warnings that are on the screen."""
    return lambda: [line for line in capsys.readouterr().err.splitlines() if "[WARN] The first" in line]


def wrong(text: str) -> str:
    raise ValueError(f"cannot do {text}")


async def wrong_async(text: str) -> str:
    return wrong(text)


def echo(text: str) -> str:
    return text


def ask(text: str) -> object:
    return httpx.get(os.environ["SERVICE_URL"]).raise_for_status()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_screen_says_that_all_fail(tmp_path: Path, executor: str, lines: Any) -> None:
    """The experiment goes on all the same."""
    result = run(tmp_path, wrong_async if executor == "asyncio" else wrong, executor)
    [line] = lines()
    assert line.startswith("[WARN] The first 10 runs all failed with the same error: ")
    assert re.search(r"test_first_runs\.py:\d+: ValueError: cannot do input \d+\. Correct the agent", line)
    assert line.endswith(HINT)
    assert (result.summary.status, result.summary.total_traces) == ("completed", 30)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_it_stops_when_all_fail(tmp_path: Path, executor: str, lines: Any) -> None:
    """After so many runs and not one more, with the rest as not run."""
    target = wrong_async if executor == "asyncio" else wrong
    result = run(tmp_path, target, executor, settings=["runner.stop_when_all_fail=10"])
    summary = result.summary
    assert (summary.status, result.exit_code) == ("stopped", 1)
    assert summary.stop_reason == "the first 10 runs have all failed (runner.stop_when_all_fail)"
    assert (summary.total_traces, summary.not_run) == (10, 20)
    [line] = lines()
    assert line.endswith("Correct the agent, its arguments or its inputs.")


def test_it_goes_on_when_one_has_passed(tmp_path: Path, lines: Any) -> None:
    """However many fail after it."""

    def agent(text: str) -> str:
        return text if text == "input 9" else wrong(text)

    result = run(tmp_path, agent, settings=["runner.stop_when_all_fail=10"])
    assert (result.summary.status, result.summary.passed, lines()) == ("completed", 1, [])


def test_different_errors_stop_it_as_well(tmp_path: Path, lines: Any) -> None:
    """What they are is said at the end, as they are not one."""
    kinds = [ValueError, KeyError, TypeError]
    numbers = count()

    def agent(text: str) -> str:
        raise kinds[next(numbers) % 3](text)

    result = run(tmp_path, agent, settings=["runner.stop_when_all_fail=5"])
    assert (result.summary.status, result.summary.total_traces, lines()) == ("stopped", 5, [])


def test_nothing_is_said_when_nothing_is_left(tmp_path: Path, lines: Any) -> None:
    """The table at the end says it."""
    run(tmp_path, wrong, runs=10)
    assert lines() == []


def test_a_resumed_experiment_looks_at_its_own_first_runs(tmp_path: Path, lines: Any) -> None:
    """What failed before has been mended, or it has not."""
    path = run(tmp_path, wrong, settings=["runner.stop_when_all_fail=4"]).path
    limit = {"settings": ["runner.stop_when_all_fail=4"]}  # that of an ended session does not bind the next
    again = Experiment.resume(path, wrong, [f"input {number}" for number in range(30)], **limit).run()
    assert (again.summary.status, again.summary.total_traces, again.summary.not_run) == ("stopped", 8, 22)
    assert lines() == []
    mended = Experiment.resume(path, echo, [f"input {number}" for number in range(30)], force=True).run()
    assert (mended.summary.status, mended.summary.passed) == ("completed", 22)


def test_a_run_that_is_tried_again_has_not_ended(tmp_path: Path) -> None:
    """Its first failure counts for nothing when it passes in the end."""
    tried: set[str] = set()

    def agent(text: str) -> str:
        if text in tried:
            return text
        tried.add(text)
        raise ConnectionError(text)

    options = ["runner.stop_when_all_fail=1", "runner.max_retries=1", "runner.retry_delay_seconds=0"]
    summary = run(tmp_path, agent, runs=5, settings=options).summary
    assert (summary.status, summary.passed) == ("completed", 5)


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_the_screen_says_that_a_key_is_refused(
    tmp_path: Path, executor: str, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what the service says of it."""
    with Service(lambda asked: Answer(401, body={"error": {"message": "bad key sk-12345678"}})) as service:
        monkeypatch.setenv("SERVICE_URL", service.url)
        result = run(tmp_path, ask, executor)
    [line] = lines()
    assert line == (
        "[WARN] The first 3 runs all failed because a service refused the caller (httpx.HTTPStatusError)."
        f" Check the API key and what it may do. {HINT}"
    )
    assert result.summary.by_error_kind["agent"] == 30


def test_the_screen_says_that_a_service_is_away(tmp_path: Path, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the runs are left out of the pass rate."""
    monkeypatch.setenv("SERVICE_URL", f"http://127.0.0.1:{closed_port()}")
    result = run(tmp_path, ask)
    [line] = lines()
    assert "httpx.ConnectError" in line
    assert "Check the service, its address and the network." in line
    assert (result.summary.infrastructure, result.summary.pass_rate) == (30, None)


def test_no_secret_is_shown(tmp_path: Path, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails all runs may have the key in its message."""
    monkeypatch.setenv("MY_API_KEY", "key-0123456789")

    def agent(text: str) -> str:
        raise ValueError("no such key: key-0123456789")

    run(tmp_path, agent)
    [line] = lines()
    assert "key-0123456789" not in line
    assert "no such key" in line
