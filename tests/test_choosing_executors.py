"""Which executor an experiment gets, by itself or by name, and what bounds its attempts."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import AsyncioExecutor, ConfigError, Experiment, InlineExecutor, ThreadsExecutor
from fluxloop.config import RunnerConfig, load_config
from fluxloop.executors.chosen import executor_for, limits_for, timeout_for
from fluxloop.schedule import Limits
from fluxloop_cli.main import main

AGENTS = """\
def sync(text):
    return text

async def asynchronous(text):
    return text
"""
ASYNC_ALONE = (
    "runner.executor: asyncio runs async agents, and this one is sync: expected threads or auto, or make it async"
)
ONE_AT_A_TIME = "runner.parallel: inline runs one at a time, got 4: expected 1, or another runner.executor"
NO_END = "runner.timeout_seconds: inline cannot end a sync agent: expected 0, or runner.executor threads or auto"

IMPOSSIBLE = [
    ("sync", {"executor": "asyncio"}, ASYNC_ALONE),
    ("sync", {"executor": "asyncio", "parallel": 4, "timeout_seconds": 5}, ASYNC_ALONE),
    ("sync", {"executor": "inline", "parallel": 4}, ONE_AT_A_TIME),
    ("asynchronous", {"executor": "inline", "parallel": 4}, ONE_AT_A_TIME),
    ("sync", {"executor": "inline", "timeout_seconds": 5}, NO_END),
]
"""The agent, what is asked for, and what is told."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with agents in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('"a"\n')
    return tmp_path


@pytest.fixture
def module(folder: Path) -> str:
    """A module of agents; each test has its own, because Python keeps the first of a name."""
    name = f"agents_of_{folder.name}"
    (folder / f"{name}.py").write_text(AGENTS)
    return name


def sync(text: str) -> bool:
    """Tell whether it runs in the main thread."""
    return threading.current_thread() is threading.main_thread()


async def asynchronous(text: str) -> bool:
    return sync(text)


async def generating(text: str) -> AsyncIterator[str]:
    yield text


class AsyncCall:
    async def __call__(self, text: str) -> str:
        return text


class Both:
    """As the agents of LangChain are."""

    def invoke(self, text: str) -> str:
        return text

    async def ainvoke(self, text: str) -> str:
        return text


def runner(**values: Any) -> RunnerConfig:
    return load_config({"runner": values}, environment={}).config.runner


def chosen(*, is_async: bool, **values: Any) -> str:
    return repr(executor_for(runner(**values), is_async=is_async, where="here"))


def told(error: pytest.ExceptionInfo[ConfigError]) -> list[tuple[str, str]]:
    return [(problem.where, f"{problem.key}: {problem.message}") for problem in error.value.problems]


@pytest.mark.parametrize(
    ("is_async", "parallel", "timeout", "expected"),
    [
        (True, 1, None, "AsyncioExecutor(1)"),
        (True, 8, None, "AsyncioExecutor(8)"),
        (True, 1, 5, "AsyncioExecutor(1)"),
        (True, 8, 0, "AsyncioExecutor(8)"),
        (False, 1, None, "InlineExecutor()"),
        (False, 1, 0, "InlineExecutor()"),
        (False, 1, 5, "ThreadsExecutor(1)"),
        (False, 4, None, "ThreadsExecutor(4)"),
        (False, 4, 0, "ThreadsExecutor(4)"),
        (False, 4, 5, "ThreadsExecutor(4)"),
    ],
)
def test_auto_takes_what_fits_the_agent(is_async: bool, parallel: int, timeout: float | None, expected: str) -> None:
    """Asyncio for async agents; for sync ones threads where they are of use, and else the thread that calls."""
    assert chosen(is_async=is_async, parallel=parallel, timeout_seconds=timeout) == expected


@pytest.mark.parametrize(
    ("is_async", "values", "expected"),
    [
        (True, {"executor": "asyncio", "parallel": 3}, "AsyncioExecutor(3)"),
        (True, {"executor": "threads", "parallel": 3}, "ThreadsExecutor(3)"),
        (True, {"executor": "inline", "timeout_seconds": 5}, "InlineExecutor()"),
        (False, {"executor": "threads"}, "ThreadsExecutor(1)"),
        (False, {"executor": "inline"}, "InlineExecutor()"),
        (False, {"executor": "inline", "timeout_seconds": 0}, "InlineExecutor()"),
    ],
)
def test_a_name_is_taken_at_its_word(is_async: bool, values: dict[str, Any], expected: str) -> None:
    """What is named is used wherever it can do what is asked; inline can end an async agent."""
    assert chosen(is_async=is_async, **values) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (sync, "inline, one at a time"),
        (asynchronous, "asyncio, 1 at a time"),
        (generating, "asyncio, 1 at a time"),
        (AsyncCall(), "asyncio, 1 at a time"),
        (Both(), "asyncio, 1 at a time"),
        (lambda text: asynchronous(text), "inline, one at a time"),
    ],
)
def test_async_is_what_the_agent_says_of_itself(target: Any, expected: str) -> None:
    """Async functions, generators, calls and methods; not what merely returns a coroutine when it is called."""
    assert Experiment(target=target, inputs=["a"]).preview().executor == expected
    assert Experiment(target=target, inputs=["a"]).run().summary.successful == 1


@pytest.mark.parametrize(
    ("options", "in_main_thread"),
    [
        ({}, True),
        ({"executor": "inline"}, True),
        ({"executor": "threads"}, False),
        ({"executor": "auto", "parallel": 2}, False),
        ({"timeout_seconds": 60}, False),
        ({"settings": ["runner.executor=threads"]}, False),
        ({"executor": InlineExecutor()}, True),
        ({"executor": ThreadsExecutor(2)}, False),
        ({"executor": ThreadsExecutor(2), "settings": ["runner.executor=inline"]}, False),
    ],
)
def test_runs_happen_where_the_executor_says(options: dict[str, Any], in_main_thread: bool) -> None:
    """By name, by rule, by setting, or by an object, which goes before a name of the configuration."""
    result = Experiment(target=sync, inputs=["a", "b"], **options).run()
    assert [trace.output for trace in result] == [in_main_thread] * 2


@pytest.mark.parametrize(
    "options", [{"executor": "asyncio"}, {"executor": AsyncioExecutor(2)}, {"executor": "inline"}, {"parallel": 3}]
)
def test_async_agents_never_run_in_the_main_thread(options: dict[str, Any]) -> None:
    """Ctrl-C reaches the main thread, whichever executor they have."""
    result = Experiment(target=asynchronous, inputs=["a", "b"], **options).run()
    assert [trace.output for trace in result] == [False] * 2


@pytest.mark.parametrize(("agent", "values", "message"), IMPOSSIBLE)
def test_the_impossible_is_told_once_with_its_file_and_key(
    folder: Path, module: str, agent: str, values: dict[str, Any], message: str
) -> None:
    """Looking at the experiment tells it as running does; nothing has run and nothing is left behind."""
    (folder / "c.yaml").write_text(f"runner: {values | {'target': f'{module}:{agent}'}}\ninputs: {{file: in.jsonl}}\n")
    experiment = Experiment("c.yaml")
    looks: list[Callable[[], Any]] = [experiment.preview, experiment.run]
    for look in looks:
        with pytest.raises(ConfigError) as error:
            look()
        assert told(error) == [("c.yaml", message)]
        assert str(error.value) == f"c.yaml: {message}"
    assert not (folder / "experiments").exists()


@pytest.mark.parametrize(("agent", "values", "message"), IMPOSSIBLE)
def test_without_a_file_the_configuration_is_named(agent: str, values: dict[str, Any], message: str) -> None:
    """From Python alone there is no file to name."""
    with pytest.raises(ConfigError) as error:
        Experiment(target={"sync": sync, "asynchronous": asynchronous}[agent], inputs=["a"], **values).run()
    assert told(error) == [("configuration", message)]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(("agent", "values", "message"), IMPOSSIBLE)
def test_the_command_refuses_the_impossible(
    folder: Path, module: str, agent: str, values: dict[str, Any], message: str, dry: tuple[str, ...]
) -> None:
    """One message and exit code 2, also for options beside a file that is right."""
    (folder / "c.yaml").write_text(f"runner: {{target: '{module}:{agent}'}}\ninputs: {{file: in.jsonl}}\n")
    options = [f"--{key.removesuffix('_seconds')}={value}" for key, value in values.items()]
    result = CliRunner().invoke(main, ["run", "experiment", "-c", "c.yaml", "--quiet", *options, *dry])
    assert (result.exit_code, result.output) == (2, f"Error: c.yaml: {message}\n")
    assert not (folder / "experiments").exists()


def test_a_name_that_is_none_is_told_with_all_there_are() -> None:
    """At once, when the experiment is made."""
    with pytest.raises(ConfigError) as error:
        Experiment(target=sync, inputs=["a"], executor="thread")
    assert str(error.value) == (
        "runner.executor='thread': expected one of auto, inline, asyncio, threads, processes, ray, got 'thread'"
    )


def test_an_executor_of_ones_own_says_itself_how_many_run(folder: Path) -> None:
    """`parallel` beside an object would be passed over in silence, so it is refused; 1 is no wish."""
    with pytest.raises(ConfigError) as error:
        Experiment(target=sync, inputs=["a"], executor=ThreadsExecutor(8), parallel=4).run()
    assert told(error) == [
        ("configuration", "runner.parallel: the executor given decides how many run at a time, got 4")
    ]
    assert list(folder.glob("experiments")) == []
    assert Experiment(target=sync, inputs=["a"], executor=ThreadsExecutor(8), parallel=1).run().summary.passed == 1


@pytest.mark.parametrize(("given", "seconds"), [(None, 600.0), (0, None), (5, 5.0), (0.5, 0.5), (3600, 3600.0)])
def test_an_attempt_has_ten_minutes_unless_told_otherwise(given: float | None, seconds: float | None) -> None:
    """A call that hangs holds a job for minutes and not for hours; 0 is any time."""
    assert timeout_for(runner(timeout_seconds=given)) == seconds


def test_by_default_no_limits() -> None:
    """Nothing but the grace of those in flight at a stop."""
    assert limits_for(runner(), 100) == Limits(grace=30.0)


def test_limits_are_those_of_the_configuration() -> None:
    """Each key reaches its limit."""
    given = runner(
        max_retries=3,
        max_crash_retries=2,
        retry_delay_seconds=0.5,
        max_failures=7,
        max_time="1h30m",
        grace_seconds=5,
    )
    expected = Limits(
        max_retries=3, max_crash_retries=2, retry_delay=0.5, max_failures=7, max_seconds=5400.0, grace=5.0
    )
    assert limits_for(given, 100) == expected


@pytest.mark.parametrize(("given", "expected"), [(None, [0, 0, 1]), (0, [0, 0, 0]), (3, [3, 3, 3])])
def test_a_crash_is_retried_where_machines_come_and_go(given: int | None, expected: list[int]) -> None:
    """With ray once unless told otherwise, elsewhere when told."""
    found = []
    for name in ("auto", "processes", "ray"):
        asked = runner(executor=name, max_crash_retries=given)
        found.append(limits_for(asked, 1, executor_for(asked, is_async=False, where="c.yaml")).max_crash_retries)
    assert found == expected


@pytest.mark.parametrize(
    ("values", "gap"),
    [
        ({}, 0.0),
        ({"start_rate": "60/min"}, 1.0),
        ({"start_rate": "5/s"}, 0.2),
        ({"run_delay_seconds": 2}, 2.0),
        ({"start_rate": "60/min", "run_delay_seconds": 2}, 2.0),
        ({"start_rate": "60/h", "run_delay_seconds": 2}, 60.0),
    ],
)
def test_starts_keep_to_the_slower_of_rate_and_delay(values: dict[str, Any], gap: float) -> None:
    """Both bound how soon the next attempt may start."""
    assert limits_for(runner(**values), 1).start_gap == gap


@pytest.mark.parametrize(
    ("limit", "planned", "failures"),
    [("10%", 100, 10), ("10%", 5, 1), ("10%", 11, 2), ("0.1%", 10, 1), ("100%", 8, 8), (1, 8, 1), (20, 8, 20)],
)
def test_a_share_of_failures_is_a_number_of_runs(limit: Any, planned: int, failures: int) -> None:
    """Of all runs planned, rounded up: never none."""
    assert limits_for(runner(max_failures=limit), planned).max_failures == failures


@given(percent=st.integers(1, 100), hundreds=st.integers(1, 10**6))
def test_whole_percents_of_hundreds_are_exact(percent: int, hundreds: int) -> None:
    """7 % of 100 runs are 7, though 0.07 × 100 is a little more in floats."""
    limits = limits_for(runner(max_failures=f"{percent}%"), hundreds * 100)
    assert limits.max_failures == percent * hundreds
