"""What comes of a run after its record is made: it is counted, and neither kept nor shown."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import fluxloop
from fluxloop import AsyncioExecutor, Experiment, InlineExecutor, ThreadsExecutor
from fluxloop.store.codec import encode
from fluxloop.tracing.context import OpenRun, current, given_up
from tests.waiting import wait_until

LIMIT = 0.3


@fluxloop.tool()
def step(number: int) -> int:
    return number


class Runaway:
    """Agents that print and call on and on, once the first of them is given up too, until they are let go."""

    def __init__(self) -> None:
        self.runs: list[OpenRun] = []
        self.steps = 0
        self.let_go = threading.Event()
        self.ended = threading.Event()

    def _begin(self) -> None:
        scope = current.get()
        assert scope is not None
        self.runs.append(scope[0])

    def _end(self, text: str) -> str:
        if text == "runaway":
            self.ended.set()
        return text

    def _step(self) -> None:
        print("unseen")
        print("unseen", file=sys.stderr)
        sys.stdout.buffer.write(b"unseen")
        with fluxloop.span("span"):
            self.steps += step(1)
        fluxloop.event("event")

    def sync(self, text: str) -> str:
        self._begin()
        while text == "runaway" and not self.let_go.wait(0.001):
            self._step()
        return self._end(text)

    async def stubborn(self, text: str) -> str:
        self._begin()
        while text == "runaway" and not self.let_go.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                continue
            self._step()
        return self._end(text)

    def endless(self, text: str) -> Iterator[str]:
        self._begin()
        try:
            while text == "runaway":
                yield "more"
                self.let_go.wait(0.001)
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Let them go, while the screen is still the test's."""
        self.let_go.set()
        assert self.ended.wait(30)


@pytest.fixture
def runaway() -> Iterator[Runaway]:
    agents = Runaway()
    yield agents
    agents.let_go.set()


WAYS: dict[str, tuple[Callable[[Runaway], Any], Callable[[], Any]]] = {
    "threads": (lambda agents: agents.sync, lambda: ThreadsExecutor(2)),
    "asyncio": (lambda agents: agents.stubborn, lambda: AsyncioExecutor(2)),
    "inline, async": (lambda agents: agents.stubborn, InlineExecutor),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_given_up_takes_nothing_more(
    way: str, runaway: Runaway, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints and calls is told once at the end, is kept nowhere, and is not seen after the end either."""
    monkeypatch.setattr("fluxloop.open_target.LINGER", 0.1)
    agent, executor = WAYS[way]

    def waits(text: str) -> None:  # so that some comes late before the end
        steps = runaway.steps
        wait_until(lambda: runaway.steps > steps + 10)

    result = Experiment(
        target=agent(runaway),
        inputs=["runaway", "other"],
        timeout_seconds=LIMIT,
        executor=executor(),
        output_dir=tmp_path,
        sinks=[Waiting(waits)],
    ).run()
    waits("after the end")
    runaway.stop()

    run = runaway.runs[0]
    assert (run.observations, run.stdout, run.stderr) == ([], [], [])
    (late,) = [trace for trace in result if trace.input == "runaway"]
    assert late.status == "timeout"
    assert set((late.stdout or "").replace("unseen", " unseen").split()) == {"unseen"}
    shown = capsys.readouterr()
    assert "unseen" not in shown.out + shown.err.replace("running, unseen.", "")
    (told,) = [line for line in shown.err.splitlines() if "Not kept" in line]
    assert told.startswith("[WARN] Not kept: ")
    assert told.endswith(" characters of output that came after their runs had ended, first in trace_001.")


class Waiting(fluxloop.TraceSink):
    """Waits for something as each trace is written."""

    def __init__(self, wait: Callable[[str], None]) -> None:
        self._wait = wait

    def write(self, trace: fluxloop.Trace) -> None:
        if trace.status == "timeout":
            self._wait(trace.trace_id)


def test_an_endless_answer_ends_once_its_run_is_given_up(runaway: Runaway, tmp_path: Path) -> None:
    """Nobody asks a generator for more than its run was given time for, and its thread ends."""
    result = Experiment(
        target=runaway.endless,
        inputs=["runaway"],
        timeout_seconds=LIMIT,
        executor=ThreadsExecutor(1),
        output_dir=tmp_path,
    ).run()
    assert runaway.ended.wait(30)
    assert [trace.status for trace in result] == ["timeout"]


def test_a_run_that_is_left_in_flight_takes_nothing_more(
    runaway: Runaway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that has no record, because the experiment ended before it, is closed as well."""
    overrides = {"runner.grace_seconds": 0.1, "runner.max_time": 0.2}
    result = Experiment(
        target=runaway.sync, inputs=["runaway"], executor=ThreadsExecutor(1), output_dir=tmp_path, overrides=overrides
    ).run()
    (run,) = runaway.runs
    steps = runaway.steps
    wait_until(lambda: runaway.steps > steps + 10)
    runaway.stop()
    assert result.left_running == 1
    assert (run.observations, run.stdout, run.stderr) == ([], [], [])
    assert "unseen" not in "".join(capsys.readouterr())


def test_streams_are_put_back_once_nothing_is_left_running(runaway: Runaway, tmp_path: Path) -> None:
    """They stay replaced for what is left running, and no longer than that."""
    streams = sys.stdout, sys.stderr
    options: dict[str, Any] = {"timeout_seconds": LIMIT, "output_dir": tmp_path, "executor": ThreadsExecutor(1)}
    Experiment(target=runaway.sync, inputs=["runaway"], **options).run()
    assert (sys.stdout, sys.stderr) != streams
    runaway.stop()
    runaway.runs.clear()
    wait_until(lambda: gc.collect() and not given_up)
    Experiment(target=runaway.sync, inputs=["other"], **options).run()
    assert (sys.stdout, sys.stderr) == streams


SHARED_WORKER = """
import queue, threading
import fluxloop

asked = queue.SimpleQueue()
started = []

@fluxloop.tool()
def look_up(text):
    print("looking up")
    return text * 2

def serve():
    while True:
        text, answer = asked.get()
        answer.put(look_up(text))

def agent(text):
    if not started:
        started.append(threading.Thread(target=fluxloop.carry_context(serve), daemon=True))
        started[0].start()
    answer = queue.SimpleQueue()
    asked.put((text, answer))
    return answer.get()
"""


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_a_worker_that_runs_share_does_its_work_and_keeps_nothing(
    executor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It carries the first run's context: its calls for the others are counted, wherever the runs are."""
    (tmp_path / "shared_worker.py").write_text(SHARED_WORKER)
    result = Experiment(
        {"runner": {"python_path": [str(tmp_path)]}},
        target="shared_worker:agent",
        inputs=["abc"],
        iterations=5,
        executor=executor,
        output_dir=tmp_path / "out",
    ).run()
    sys.modules.pop("shared_worker", None)
    traces = list(result)
    assert [trace.output for trace in traces] == ["abcabc"] * 5
    assert [(trace.observation_count, trace.stdout) for trace in traces] == [(1, "looking up\n")] + [(0, None)] * 4
    shown = capsys.readouterr()
    told = "Not kept: 4 recorded calls and 44 characters of output that came after their runs had ended, first in"
    assert told in shown.err
    assert "looking up" not in shown.out + shown.err


def test_what_comes_late_of_an_earlier_experiment_is_not_counted_in_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each experiment tells of its own runs, also when it is run twice."""
    answers: SimpleQueue[Any] = SimpleQueue()
    kept: list[Callable[[], Any]] = []

    def agent(text: str) -> str:
        kept.append(fluxloop.carry_context(lambda: print("late")))
        for late in kept[:-1]:
            late()
        answers.put(text)
        return text

    experiment = Experiment(target=agent, inputs=["a", "b"], output_dir=tmp_path)
    experiment.run()
    assert "Not kept: 5 characters of output" in capsys.readouterr().err
    experiment.run()
    assert "Not kept: 5 characters of output" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["output", "error", "metadata"])
def test_a_record_never_changes(ending: str, tmp_path: Path) -> None:
    """Not by a call that a thread of the agent ends while the lines of its run are written."""
    written, over = threading.Event(), threading.Event()

    class Slow:
        def __repr__(self) -> str:
            written.wait(30)
            return "late"

    @fluxloop.tool()
    def remember(text: str) -> Any:
        open_calls.put(text)
        if ending == "error":
            written.wait(30)
            raise KeyError(text)
        return Slow()

    def afterwards() -> None:
        try:
            if ending == "metadata":
                with fluxloop.span("memory") as step:
                    open_calls.put("span")
                    step.update(output=Slow(), metadata={"slow": Slow()})
            else:
                remember("it")
        except KeyError:
            pass
        finally:
            over.set()

    open_calls: SimpleQueue[str] = SimpleQueue()

    def agent(text: str) -> str:
        threading.Thread(target=fluxloop.carry_context(afterwards), daemon=True).start()
        open_calls.get()
        return text

    class Seen(fluxloop.TraceSink):
        def write(self, trace: fluxloop.Trace) -> None:
            before = encode(trace)
            written.set()
            assert over.wait(30)
            self.is_same = encode(trace) == before

    seen = Seen()
    result = Experiment(target=agent, inputs=["hi"], output_dir=tmp_path, sinks=[seen]).run()
    assert seen.is_same
    assert result.verify().is_sound
    (trace,) = result
    (call,) = trace.observations
    assert (call.end_time, call.duration_ms, call.output, call.error) == (None, None, None, None)


def test_given_up_runs_have_the_same_calls_in_every_file(tmp_path: Path) -> None:
    """Agents that call models on and on are cut off in the middle of a call: that is open, or ended and whole."""
    over = threading.Event()
    chunks = [*({"type": "delta", "i": i} for i in range(100)), {"usage": {"input_tokens": 7, "output_tokens": 9}}]

    @fluxloop.generation()
    def model(text: str) -> Any:
        return chunks

    def agent(text: str) -> None:
        while not over.is_set():
            model(text)

    options: dict[str, Any] = {"timeout_seconds": 0.1, "executor": ThreadsExecutor(2), "output_dir": tmp_path}
    try:
        result = Experiment(target=agent, inputs=["x"], iterations=8, **options).run()
    finally:
        over.set()
    assert result.verify().is_sound
    for trace in result:
        assert trace.observations
        assert all((call.end_time is None) == (call.duration_ms is None) for call in trace.observations)
        assert all(call.output and call.usage for call in trace.observations if call.end_time is not None)
