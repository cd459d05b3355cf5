"""Runs on one event loop: what they do to it, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from fluxloop import AsyncioExecutor, Experiment, ExperimentResult, TargetError, Task
from fluxloop.calling.loop import give_back, take_loop
from fluxloop.plan import Plan
from fluxloop.records import Case
from fluxloop.schedule import Schedule
from tests.noticing import noticed
from tests.waiting import wait_until

LIMIT = 0.3


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is past its time is waited for a moment only."""
    monkeypatch.setattr("fluxloop.open_target.LINGER", 0.1)
    monkeypatch.setattr("fluxloop.calling.loop._CLOSING_SECONDS", 0.2)
    monkeypatch.setattr("fluxloop.calling.loop.ANSWER_SECONDS", 0.1, raising=False)
    monkeypatch.setattr("fluxloop.lane.CLOSING_SECONDS", 0.1)


def loop_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "fluxloop-loop"}


def keep_one_loop() -> None:
    """Have the process's loop running, and no other that an earlier test may have left blocked."""
    loop = take_loop()
    wait_until(lambda: {thread.ident for thread in loop_threads()} == {loop.ident})
    give_back(loop)


def run(target: Any, folder: Path, inputs: Any, **options: Any) -> ExperimentResult:
    return Experiment(target=target, inputs=inputs, output_dir=folder, executor="asyncio", **options).run()


def task(target: Any) -> Task:
    return Task(target=target, args={}, inject=(), input_template=None, output_path=None, import_places=())


def schedule(count: int) -> Schedule:
    return Schedule(Plan(cases=[Case(i, f"i{i}", f"text {i}") for i in range(count)], iterations=1, seed=1))


def test_a_sync_agent_is_refused() -> None:
    """From Python, where the executor is given, it is told what to take instead."""
    with pytest.raises(TargetError, match="runs async agents, and this one is sync: use threads"):
        next(iter(AsyncioExecutor(2).run(task(str.upper), schedule(1))))


def test_those_beside_one_that_blocks_are_told_who_it_is(tmp_path: Path, gate: threading.Event) -> None:
    """They end with it as timeouts that name its run and its line; what comes after has a new loop."""
    all_in = threading.Event()

    async def agent(text: str) -> str:
        if text == "blocks":
            while not all_in.is_set():
                await asyncio.sleep(0.001)
            gate.wait()  # hangs here
        elif text.startswith("beside"):
            if text == "beside 2":
                all_in.set()
            await asyncio.Event().wait()
        return text

    inputs = ["blocks", "beside 1", "beside 2", "a", "b"]
    result = run(agent, tmp_path, inputs, parallel=3, timeout_seconds=LIMIT)
    traces = {trace.input: trace for trace in result}
    assert {name: trace.status for name, trace in traces.items()} == {
        **dict.fromkeys(inputs[:3], "timeout"),
        **dict.fromkeys(inputs[3:], "ok"),
    }
    told = {name: trace.error for name, trace in traces.items() if trace.error}
    assert "; it blocks the event loop, where only `await` may wait" in told["blocks"].message
    for name in inputs[1:3]:
        assert "; trace_001 blocks the event loop, where only `await` may wait" in told[name].message
    assert all("# hangs here" in str(error.traceback) for error in told.values())


def test_a_blocking_line_is_found_below_a_task_of_the_agents_own(tmp_path: Path, gate: threading.Event) -> None:
    """Tools gathered by an agent have tasks of their own; the record shows where the loop stands."""

    async def search(text: str) -> str:
        if text == "blocks":
            gate.wait()  # hangs here
        return text

    async def agent(text: str) -> list[str]:
        return await asyncio.gather(search(text))

    traces = {trace.input: trace for trace in run(agent, tmp_path, ["blocks", "a"], timeout_seconds=LIMIT)}
    error = traces["blocks"].error
    assert error is not None
    assert "blocks the event loop" in error.message
    assert "# hangs here" in str(error.traceback)
    assert traces["a"].output == ["a"]


@pytest.mark.parametrize("parallel", [2, 4])
def test_those_that_wait_behind_a_blocked_loop_start_on_the_new_one(
    tmp_path: Path, gate: threading.Event, parallel: int
) -> None:
    """What had not begun when the loop was blocked is no timeout, and is run once."""
    begun: list[str] = []

    async def agent(text: str) -> str:
        begun.append(text)
        if text == "blocks":
            gate.wait()
        return text

    inputs = ["blocks", *"abcdef"]
    result = run(agent, tmp_path, inputs, parallel=parallel, timeout_seconds=LIMIT)
    assert {trace.input: trace.status for trace in result} == {
        "blocks": "timeout",
        **dict.fromkeys("abcdef", "ok"),
    }
    assert sorted(begun) == sorted(inputs)


def test_a_loop_that_goes_on_after_all_starts_nothing_twice(tmp_path: Path, gate: threading.Event) -> None:
    """Runs that were moved to a new loop stay there, and the late answer is nobody's."""
    begun: list[str] = []

    async def agent(text: str) -> str:
        begun.append(text)
        if text == "blocks":
            loop = asyncio.get_running_loop()
            gate.wait()
            loop.call_later(0.01, free.set)
        else:
            gate.set()
            while not free.is_set():
                await asyncio.sleep(0.001)
        return text

    free = threading.Event()
    result = run(agent, tmp_path, ["blocks", "a", "b"], parallel=3, timeout_seconds=LIMIT)
    assert {trace.input: trace.status for trace in result} == {"blocks": "timeout", "a": "ok", "b": "ok"}
    assert sorted(begun) == ["a", "b", "blocks"]


@pytest.mark.parametrize("begun", [True, False])
def test_an_agent_that_cancels_all_tasks_ends_those_in_flight_with_it(tmp_path: Path, begun: bool) -> None:
    """They are errors of theirs, also those that have not begun; what follows is well."""
    inside: list[str] = []

    async def agent(text: str) -> str:
        inside.append(text)
        if text == "cancels":
            while begun and len(inside) < 3:
                await asyncio.sleep(0.001)
            for other in asyncio.all_tasks():
                other.cancel()
        elif text.startswith("beside"):
            await asyncio.Event().wait()
        return text

    result = run(agent, tmp_path, ["cancels", "beside 1", "beside 2", "a", "b"], parallel=3)
    errors = {trace.input: trace.error and trace.error.type for trace in result}
    assert errors == {
        **dict.fromkeys(["cancels", "a", "b"]),
        **dict.fromkeys(["beside 1", "beside 2"], "asyncio.exceptions.CancelledError"),
    }


def test_what_is_in_flight_is_cancelled_at_the_end(gate: threading.Event) -> None:
    """It may tidy up, the target is left after it, and no thread stays."""
    events: list[str] = []

    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *error: object) -> None:
            events.append("left")

        async def run(self, text: str) -> str:
            if text == "text 0":
                return text
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                events.append("tidied")
            return text

    keep_one_loop()
    before = set(threading.enumerate())
    batches = AsyncioExecutor(2).run(task(Client), schedule(2))
    assert next(batch for batch in batches if batch)[0].output == "text 0"
    batches.close()  # type: ignore[attr-defined]
    assert events == ["tidied", "left"]
    assert set(threading.enumerate()) <= before


def test_a_run_that_blocks_as_it_tidies_up_holds_up_no_end(gate: threading.Event) -> None:
    """Its loop is left behind, with its thread, which is a daemon."""

    async def agent(text: str) -> str:
        if text == "text 0":
            return text
        try:
            await asyncio.Event().wait()
        finally:
            gate.wait()
        return text

    batches = AsyncioExecutor(2).run(task(agent), schedule(2))
    assert next(batch for batch in batches if batch)[0].output == "text 0"
    batches.close()  # type: ignore[attr-defined]
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "fluxloop-loop")


def test_an_agent_may_open_many_at_once(tmp_path: Path) -> None:
    """Two hundred runs wait for one another on one loop."""
    inside = 0
    all_in = asyncio.Event()

    async def agent(text: str) -> str:
        nonlocal inside
        inside += 1
        if inside == 200:
            all_in.set()
        await all_in.wait()
        return text

    result = run(agent, tmp_path, ["a", "b"], iterations=100, parallel=200, timeout_seconds=30)
    assert result.summary.successful == 200


def test_nothing_is_told_of_what_is_left_behind(
    tmp_path: Path, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Also once a blocked loop goes on, asyncio has no pending task to complain of, and the loop's thread ends."""
    keep_one_loop()
    before = set(threading.enumerate())

    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *error: object) -> None: ...

        async def run(self, text: str) -> str:
            if text == "blocks":
                gate.wait()
            elif text == "beside":
                await asyncio.Event().wait()
            return text

    result = run(Client, tmp_path, ["beside", "blocks", "a"], parallel=2, timeout_seconds=LIMIT)
    assert result.summary.by_status["timeout"] == result.left_running == 2
    gate.set()
    (blocked,) = loop_threads() & before
    blocked.join(30)
    assert not blocked.is_alive()
    assert set(threading.enumerate()) - loop_threads() <= before
    gc.collect()
    assert caplog.records == []


def test_what_waits_behind_no_attempt_gets_a_new_loop(tmp_path: Path, gate: threading.Event) -> None:
    """A call that blocks the loop between two runs, as one left by the first may, holds up no later run."""
    loops: list[asyncio.AbstractEventLoop] = []
    blocked = threading.Event()

    def block() -> None:
        blocked.set()
        gate.wait()

    async def agent(text: str) -> str:
        loops.append(asyncio.get_running_loop())
        return text

    class Unlucky(AsyncioExecutor):
        """Blocks its loop once the first run has ended."""

        def run(self, task: Task, schedule: Schedule) -> Any:
            for batch in super().run(task, schedule):
                if batch and not blocked.is_set():
                    loops[0].call_soon_threadsafe(block)
                    blocked.wait()
                yield batch

    limits = {"runner.timeout_seconds": LIMIT, "runner.run_delay_seconds": 0.01}
    result = Experiment(
        target=agent, inputs=["a", "b", "c"], output_dir=tmp_path, executor=Unlucky(1), overrides=limits
    ).run()
    assert [trace.status for trace in result] == ["ok"] * 3
    assert len(set(loops)) == 2


def test_a_target_that_is_never_left_is_given_up(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are whole, and a warning says so."""
    monkeypatch.setattr("fluxloop.calling.loop.LEAVING_SECONDS", 0.1)

    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *error: object) -> None:
            await asyncio.Event().wait()

        async def run(self, text: str) -> str:
            return text

    with noticed() as told:
        result = run(Client, tmp_path, ["a"])
    assert "leaving the target failed: TimeoutError: it took longer than 0.1 s" in told[0]
    assert (result.summary.status, result.summary.passed) == ("completed", 1)
