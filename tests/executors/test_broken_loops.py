"""What agents do to the loop they share: it goes on, or whoever waits for it is told at once."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult
from fluxloop.tracing.context import OpenRun
from tests.noticing import noticed
from tests.waiting import wait_until

LIMIT = 0.3
UNDER = ["inline", "asyncio", "threads"]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is past its time is waited for a moment only."""
    monkeypatch.setattr("fluxloop.open_target.LINGER", 0.1)
    monkeypatch.setattr("fluxloop.calling.loop.ANSWER_SECONDS", 0.1)
    monkeypatch.setattr("fluxloop.calling.loop.BUSY_SECONDS", 0.2)


def run(target: Any, executor: str, folder: Path, inputs: Any, **options: Any) -> ExperimentResult:
    options = {"parallel": 1 if executor == "inline" else 2, "progress": False, **options}
    return Experiment(target=target, inputs=inputs, output_dir=folder, executor=executor, **options).run()


NEST = """
    import asyncio, nest_asyncio
    from fluxloop import Experiment

    async def work(text):
        await asyncio.sleep(0.001)
        return text

    async def agent(text):
        nest_asyncio.apply()
        return asyncio.get_event_loop().run_until_complete(work(text))

    if __name__ == "__main__":
        for executor in ("inline", "asyncio", "threads"):
            options = {"parallel": 1 if executor == "inline" else 3, "executor": executor}
            result = Experiment(target=agent, inputs=["a", "b"], iterations=10, progress=False, **options).run()
            print(executor, result.summary.by_status["ok"], max(trace.duration_ms for trace in result) < 5000)
"""


def test_a_loop_that_is_nested_in_itself_goes_on(tmp_path: Path) -> None:
    """nest_asyncio, applied by an agent, makes the loop's own thread fall out of its loop; the runs go on."""
    (tmp_path / "nest.py").write_text(textwrap.dedent(NEST))
    ended = subprocess.run([sys.executable, "nest.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.stdout.splitlines() == [f"{executor} 20 True" for executor in UNDER], ended.stderr
    assert ended.stderr == ""


@pytest.mark.parametrize("executor", UNDER)
def test_a_loop_that_cannot_go_on_ends_its_runs_and_is_replaced(executor: str, tmp_path: Path) -> None:
    """An agent that breaks it fails at once; the next run has a new loop."""

    async def agent(text: str) -> str:
        if text == "breaks":
            loop: Any = asyncio.get_running_loop()

            def broken() -> None:
                raise OSError("bad file descriptor")

            loop._run_once = broken
            loop.run_forever = broken
            await asyncio.Event().wait()
        return text

    result = run(agent, executor, tmp_path, ["breaks", "a", "b"], parallel=1)
    traces = {trace.input: trace for trace in result}
    assert traces["breaks"].error is not None
    assert "the event loop was broken off by what an agent did to it" in traces["breaks"].error.message
    assert [traces[name].output for name in "ab"] == ["a", "b"]


class Once:
    """A target that can be entered a single time, as where a database takes no further client."""

    entered = 0
    gate = threading.Event()

    async def __aenter__(self) -> Once:
        Once.entered += 1
        if Once.entered > 1:
            raise ConnectionError("too many clients")
        return self

    async def __aexit__(self, *error: object) -> None: ...

    async def run(self, text: str) -> str:
        if text == "blocks":
            Once.gate.wait()
        return text


@pytest.mark.parametrize("executor", UNDER)
def test_a_target_that_cannot_be_entered_again_stops_the_experiment(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended is on disk, the blocked run included; the rest counts as not run, and the code is 1."""
    monkeypatch.setattr(Once, "entered", 0)
    monkeypatch.setattr(Once, "gate", gate := threading.Event())
    result = run(Once, executor, tmp_path, ["a", "blocks", "b", "c"], timeout_seconds=LIMIT)
    gate.set()
    assert {trace.input: trace.status for trace in result} == {"a": "ok", "blocks": "timeout"}
    assert (result.summary.status, result.summary.not_run, result.exit_code) == ("stopped", 2, 1)
    assert "entering it failed" in str(result.summary.stop_reason)
    assert "ConnectionError: too many clients" in str(result.summary.stop_reason)
    assert f"to go on: Experiment.resume('{result.path}'" in result.remaining()
    assert fluxloop.load(result.path).summary.total_traces == 2


def test_the_command_says_what_is_left_when_a_target_cannot_be_entered_again(tmp_path: Path) -> None:
    """It ends with 1, for runs are done, and with the line that goes on."""
    (tmp_path / "ag.py").write_text(
        "import time\n"
        "import fluxloop.open_target\n"
        "fluxloop.open_target.LINGER = 0.1\n"
        "entered = []\n"
        "class Agent:\n"
        "    async def __aenter__(self):\n"
        "        entered.append(1)\n"
        "        if len(entered) > 1: raise ConnectionError('too many clients')\n"
        "        return self\n"
        "    async def __aexit__(self, *error): ...\n"
        "    async def run(self, text):\n"
        "        time.sleep(60 if text == 'blocks' else 0)\n"
        "        return text\n"
    )
    (tmp_path / "in.jsonl").write_text('"a"\n"blocks"\n"b"\n')
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--target", "ag:Agent"]
    command += ["--inputs", "in.jsonl", "--timeout", "0.5"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "[WARN] Stopping. Reason: runner.target: ag:Agent: entering it failed: " in ended.stderr
    assert "--resume" in ended.stdout


def test_what_has_ended_is_handed_over_before_the_next_blocks_the_loop(tmp_path: Path) -> None:
    """A run that is done is no timeout, although the loop comes to nothing more."""
    gate = threading.Event()

    async def agent(text: str) -> str:
        if text == "blocks":
            gate.wait()
        return text

    result = run(agent, "asyncio", tmp_path, ["a", "blocks"], timeout_seconds=LIMIT)
    gate.set()
    assert {trace.input: trace.status for trace in result} == {"a": "ok", "blocks": "timeout"}


def test_a_loop_that_is_busy_at_the_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is left, however long a large answer takes to be encoded on the loop."""
    monkeypatch.setattr("fluxloop.calling.loop.BUSY_SECONDS", 30.0)
    left = threading.Event()

    class Agent:
        async def __aenter__(self) -> Agent:
            return self

        async def __aexit__(self, *error: object) -> None:
            left.set()

        async def run(self, text: str) -> str:
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: loop.call_soon(time.sleep, 0.3))
            return text

    assert run(Agent, "asyncio", tmp_path, ["a"]).summary.passed == 1
    assert left.is_set()


def test_a_target_on_a_blocked_loop_is_not_left_and_says_so(tmp_path: Path) -> None:
    """Nothing can be left there; whoever cleans up after it has to know."""
    gate = threading.Event()

    class Agent:
        async def __aenter__(self) -> Agent:
            return self

        async def __aexit__(self, *error: object) -> None: ...

        async def run(self, text: str) -> str:
            if text == "blocks":
                gate.wait()
            return text

    with noticed("the target was not left, because an agent blocks its event loop"):
        run(Agent, "asyncio", tmp_path, ["a", "blocks", "b"], timeout_seconds=LIMIT, parallel=1)
    gate.set()
    wait_until(lambda: sum(thread.name == "fluxloop-loop" for thread in threading.enumerate()) <= 1)


@pytest.mark.parametrize("executor", ["inline", "asyncio"])
def test_a_run_that_cancels_all_as_it_tidies_up_fails_no_experiment(executor: str, tmp_path: Path) -> None:
    """What is left in flight at the end may cancel whatever it finds, also who waits for it."""

    async def agent(text: str) -> str:
        if text == "stops":
            try:
                await asyncio.Event().wait()
            finally:
                for task in asyncio.all_tasks():
                    task.cancel()
        return text

    overrides = {"runner.max_time": 0.5, "runner.grace_seconds": 0}
    result = run(agent, executor, tmp_path, ["a", "stops", "b"], overrides=overrides, parallel=1)
    assert (result.summary.status, result.summary.passed, result.summary.not_run) == ("stopped", 1, 2)


def test_nothing_of_a_run_is_kept_until_its_time_would_be_over(tmp_path: Path) -> None:
    """The timer of an experiment that has ended holds none of its runs, and no screen."""

    async def agent(text: str) -> str:
        fluxloop.event("seen", text=text)
        return text

    for _ in range(3):
        run(agent, "asyncio", tmp_path, ["a", "b"], timeout_seconds=600)
    gc.collect()
    assert [one for one in gc.get_objects() if type(one) is OpenRun] == []


def test_a_worker_whose_loop_is_broken_gives_the_next_run_another(tmp_path: Path) -> None:
    """Under processes, too, nobody pays for what another has done."""
    (tmp_path / "breaking.py").write_text(
        "import asyncio\n"
        "async def agent(text):\n"
        "    if text == 'breaks':\n"
        "        loop = asyncio.get_running_loop()\n"
        "        def broken(): raise ValueError('no more')\n"
        "        loop._run_once = loop.run_forever = broken\n"
        "        await asyncio.Event().wait()\n"
        "    return text\n"
    )
    options = {"runner.python_path": [str(tmp_path)], "runner.executor": "processes", "runner.parallel": 1}
    result = Experiment(
        target="breaking:agent", inputs=["breaks", "a", "b"], output_dir=tmp_path, progress=False, overrides=options
    ).run()
    assert {trace.input: trace.status for trace in result} == {"breaks": "error", "a": "ok", "b": "ok"}
