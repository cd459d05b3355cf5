"""What agents do wrong, under every executor: it is in their record, and the experiment goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult, TargetError, Trace
from tests.noticing import noticed
from tests.waiting import wait_until

SYNC = [("inline", "sync"), ("threads", "sync")]
ASYNC = [("inline", "async"), ("asyncio", "async"), ("threads", "async")]
EVERYWHERE = [*SYNC, *ASYNC]
# Nothing can end what hangs in the caller's own thread.
TIMED = [("threads", "sync"), *ASYNC]

everywhere = pytest.mark.parametrize(("executor", "kind"), EVERYWHERE)
where_async = pytest.mark.parametrize(("executor", "kind"), ASYNC)
where_timed = pytest.mark.parametrize(("executor", "kind"), TIMED)

LIMIT = 0.3
"""Seconds an attempt may take where one hangs: long for those that do not."""


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is past its time is waited for a moment only."""
    monkeypatch.setattr("fluxloop.open_target.LINGER", 0.1)
    monkeypatch.setattr("fluxloop.calling.loop._CLOSING_SECONDS", 0.2)
    monkeypatch.setattr("fluxloop.lane.CLOSING_SECONDS", 0.1)
    monkeypatch.setattr("fluxloop.executors.threads.CLOSING_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(target: Any, executor: str, *inputs: str, **options: Any) -> ExperimentResult:
    options = {"parallel": 1, "timeout_seconds": 0, **options}
    return Experiment(target=target, inputs=inputs, executor=executor, **options).run()


def as_agent(behave: Callable[[str], Any], kind: str) -> Any:
    """An agent that does it, sync or async."""

    def agent(text: str) -> Any:
        return behave(text)

    async def async_agent(text: str) -> Any:
        return behave(text)

    return agent if kind == "sync" else async_agent


def by_input(result: ExperimentResult) -> dict[str, Trace]:
    assert result.summary.status == "completed"
    return {trace.input: trace for trace in result}


# What hangs


@where_timed
def test_an_agent_that_hangs_is_a_timeout(executor: str, kind: str, gate: threading.Event) -> None:
    """The traceback names the line it hangs at, what it did is kept, and the next run takes its place."""

    @fluxloop.tool
    def stuck() -> None:
        gate.wait()  # hangs here

    @fluxloop.tool
    async def stuck_async() -> None:
        await asyncio.Event().wait()  # hangs here

    def agent(text: str) -> str:
        if text == "hangs":
            print("still well")
            stuck()
        return text

    async def async_agent(text: str) -> str:
        if text == "hangs":
            print("still well")
            await stuck_async()
        return text

    target = agent if kind == "sync" else async_agent
    result = run(target, executor, "hangs", "a", "b", timeout_seconds=LIMIT, capture_output=True)
    traces = by_input(result)
    hung = traces["hangs"]
    assert hung.error is not None
    assert (hung.status, hung.error.kind, hung.error.type) == ("timeout", "timeout", "TimeoutError")
    assert hung.error.message == "no answer within 0.3 s (runner.timeout_seconds)"
    assert "# hangs here" in str(hung.error.traceback)
    assert "fluxloop/runner.py" not in str(hung.error.traceback)
    assert (hung.stdout, [o.name.rpartition("_")[0] or o.name for o in hung.observations]) == (
        "still well\n",
        ["stuck"],
    )
    assert (traces["a"].output, traces["b"].output) == ("a", "b")
    # A thread cannot be ended; a task has been.
    assert result.left_running == (kind == "sync")


@where_async
def test_an_agent_that_ends_in_spite_of_its_cancellation_is_a_timeout(executor: str, kind: str) -> None:
    """Its answer comes too late, and so does its error; the traceback names the line it was at."""

    async def agent(text: str) -> str:
        if text.startswith("slow"):
            try:
                await asyncio.Event().wait()  # hangs here
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                if text == "slow and raises":
                    raise ValueError("tidying up failed") from None
        return text

    result = run(agent, executor, "slow", "slow and raises", "a", timeout_seconds=LIMIT)
    traces = by_input(result)
    assert traces.pop("a").output == "a"
    for trace in traces.values():
        assert trace.error is not None
        assert (trace.status, trace.output, trace.error.type) == ("timeout", None, "TimeoutError")
        assert "# hangs here" in str(trace.error.traceback)
    assert result.left_running == 0


@where_async
def test_an_agent_that_swallows_its_cancellation_is_left_to_itself(
    executor: str, kind: str, gate: threading.Event
) -> None:
    """It is recorded with the line it is at, and its slot is free again."""

    async def agent(text: str) -> str:
        while text == "stubborn" and not gate.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)  # hangs here
        return text

    result = run(agent, executor, "stubborn", "a", "b", timeout_seconds=LIMIT)
    traces = by_input(result)
    error = traces["stubborn"].error
    assert error is not None
    assert error.message.endswith("(runner.timeout_seconds); it goes on in spite of its cancellation")
    assert "# hangs here" in str(error.traceback)
    assert (traces["a"].output, traces["b"].output) == ("a", "b")
    assert result.left_running == 1


@where_async
def test_an_agent_that_blocks_its_loop_is_a_timeout(
    executor: str, kind: str, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that blocks is named; the runs that follow have a new loop, with a client of their own."""
    monkeypatch.setattr("fluxloop.calling.loop.ANSWER_SECONDS", 0.1, raising=False)
    entered: list[object] = []
    left: list[object] = []

    class Client:
        async def __aenter__(self) -> Client:
            entered.append(self)
            self.loop = asyncio.get_running_loop()
            return self

        async def __aexit__(self, *error: object) -> None:
            left.append(self)

        async def run(self, text: str) -> bool:
            if text == "blocks":
                gate.wait()  # hangs here
            await asyncio.sleep(0)
            return self.loop is asyncio.get_running_loop()

    result = run(Client, executor, "blocks", "a", "b", timeout_seconds=LIMIT)
    traces = by_input(result)
    error = traces["blocks"].error
    assert error is not None
    assert error.message.endswith("; it blocks the event loop, where only `await` may wait")
    assert "# hangs here" in str(error.traceback)
    assert (traces["a"].output, traces["b"].output) == (True, True)
    assert result.left_running == 1
    # The blocked one cannot be left, and holds up nothing.
    blocked, client = entered
    assert left == [client]
    assert client is not blocked


@pytest.mark.parametrize(
    ("executor", "kind", "fault"), [*((*home, "goes on") for home in TIMED), *((*home, "blocks") for home in ASYNC)]
)
def test_what_comes_later_appears_nowhere(
    executor: str,
    kind: str,
    fault: str,
    gate: threading.Event,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in its own record, nor in its next attempt's, nor in another run's, nor on the screen."""
    if fault == "blocks":
        monkeypatch.setattr("fluxloop.calling.loop.ANSWER_SECONDS", 0.1, raising=False)
    late = threading.Event()

    @fluxloop.tool
    def after() -> str:
        return "late"

    def goes_on() -> str:
        after()
        fluxloop.event("late")
        print("late")
        late.set()
        return "late"

    def releases(text: str) -> str:
        gate.set()
        assert late.wait(10)
        print("in time")
        return text

    def first(text: str) -> bool:
        current = fluxloop.current_run()
        return text == "hangs" and current is not None and current.attempt == 1

    def sync_agent(text: str) -> str:
        if not first(text):
            return releases(text)
        with fluxloop.span("open"):
            gate.wait()
            return goes_on()

    async def blocks(text: str) -> str:
        return sync_agent(text)

    async def stubborn(text: str) -> str:
        if not first(text):
            gate.set()
            while not late.is_set():
                await asyncio.sleep(0.01)
            return releases(text)
        with fluxloop.span("open"):
            while not gate.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
            return goes_on()

    result = run(
        sync_agent if kind == "sync" else blocks if fault == "blocks" else stubborn,
        executor,
        "hangs",
        "a",
        timeout_seconds=LIMIT,
        capture_output=True,
        max_retries=1,
        overrides={"runner.retry_on": ["TimeoutError"], "runner.retry_delay_seconds": 0},
    )
    traces = by_input(result)
    hung = traces["hangs"]
    assert [error.kind for error in hung.errors] == ["timeout"]
    assert [(o.name, o.attempt, o.end_time, o.output) for o in hung.observations] == [("open", 1, None, None)]
    assert (hung.status, hung.output, hung.stdout) == ("ok", "hangs", "in time\n")
    assert (traces["a"].output, traces["a"].stdout, traces["a"].observations) == ("a", "in time\n", ())
    assert "late" not in capsys.readouterr().out


# What ends a run


@everywhere
@pytest.mark.parametrize(
    ("error", "type"),
    [
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError("mine"), "asyncio.exceptions.CancelledError"),
    ],
)
def test_what_would_end_more_than_a_run_is_an_error_of_that_run(
    executor: str, kind: str, error: BaseException, type: str
) -> None:
    """Also what ends threads, tasks, loops and processes."""

    def behave(text: str) -> str:
        if text == "ends":
            raise error
        return text

    traces = by_input(run(as_agent(behave, kind), executor, "ends", "a", "b"))
    told = traces["ends"].error
    assert told is not None
    assert (traces["ends"].status, told.kind, told.type) == ("error", "agent", type)
    assert "raise error" in str(told.traceback)
    assert (traces["a"].output, traces["b"].output) == ("a", "b")


@where_async
@pytest.mark.parametrize("awaits", [False, True])
def test_an_agent_may_cancel_its_own_task(executor: str, kind: str, awaits: bool) -> None:
    """One that has its answer gives it; one that awaits once more has been cancelled."""

    async def agent(text: str) -> str:
        if text == "cancels":
            task = asyncio.current_task()
            assert task is not None
            task.cancel("my own")
            if awaits:
                await asyncio.sleep(0)
        return text

    trace = by_input(run(agent, executor, "cancels", "a", timeout_seconds=60))["cancels"]
    if awaits:
        assert trace.error is not None
        assert (trace.status, trace.error.type) == ("error", "asyncio.exceptions.CancelledError")
    else:
        assert (trace.status, trace.output) == ("ok", "cancels")


@where_async
def test_an_agent_that_cancels_all_tasks_ends_runs_and_no_more(executor: str, kind: str) -> None:
    """The runs in flight with it are errors, those that follow are well, and the client stays open for them."""
    left: list[str] = []

    class Client:
        open = False

        async def __aenter__(self) -> Client:
            self.open = True
            return self

        async def __aexit__(self, *error: object) -> None:
            self.open = False
            left.append("left")

        async def run(self, text: str) -> bool:
            if text == "cancels":
                for task in asyncio.all_tasks():
                    task.cancel()
            for _ in range(5):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            return self.open

    traces = by_input(run(Client, executor, "cancels", "a", "b", "c"))
    assert [trace.output for trace in traces.values()] == [True] * 4
    assert left == ["left"]


@where_async
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_task_of_an_agents_own_ends_no_more_than_its_run(
    executor: str, kind: str, error: type[BaseException]
) -> None:
    """Also where asyncio lets what it raises through to the loop."""

    async def fails() -> None:
        raise error("from below")

    async def agent(text: str) -> str:
        if text == "fails":
            await asyncio.create_task(fails())
        await asyncio.sleep(0.001)
        return text

    traces = by_input(run(agent, executor, "fails", "a", "b", parallel=1 if executor == "inline" else 3))
    assert traces["fails"].error is not None
    assert (traces["fails"].error.type, traces["fails"].error.message) == (error.__name__, "from below")
    assert (traces["a"].output, traces["b"].output) == ("a", "b")


@where_async
def test_a_task_left_behind_that_cancels_all_others_ends_only_those_runs(executor: str, kind: str) -> None:
    """Also a run whose task it finds before that has begun."""
    behind: list[asyncio.Task[None]] = []

    async def cancels_all() -> None:
        for _ in range(20):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

    async def agent(text: str) -> str:
        if text == "leaves":
            behind.append(asyncio.create_task(cancels_all()))
        return text

    traces = by_input(run(agent, executor, "leaves", "a", "b", "c", "d"))
    errors = {trace.error.type for trace in traces.values() if trace.error}
    assert errors <= {"asyncio.exceptions.CancelledError"}
    assert traces["leaves"].output == "leaves"


@where_async
def test_an_agent_may_stop_its_loop(executor: str, kind: str) -> None:
    """The loop goes on, for this run and for the others."""

    async def agent(text: str) -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return text

    assert run(agent, executor, "a", "b", "c", timeout_seconds=60).summary.successful == 3


@where_async
def test_closing_the_loop_is_an_error_of_the_run(executor: str, kind: str) -> None:
    """A loop that runs cannot be closed; the next run finds it running."""

    async def agent(text: str) -> str:
        if text == "closes":
            asyncio.get_running_loop().close()
        return text

    traces = by_input(run(agent, executor, "closes", "a"))
    assert "Cannot close a running event loop" in str(traces["closes"].error)
    assert traces["a"].output == "a"


# What agents start


@everywhere
def test_an_agent_may_start_threads(executor: str, kind: str) -> None:
    """What they do is the run's where they carry its context, and nobody's where not."""

    @fluxloop.tool
    def work(name: str) -> None:
        print(name)

    def behave(text: str) -> str:
        for name, target in (("carried", fluxloop.carry_context(work)), ("bare", work)):
            thread = threading.Thread(target=target, args=(name,))
            thread.start()
            thread.join()
        return text

    for trace in run(as_agent(behave, kind), executor, "a", "b", capture_output=True):
        assert (trace.status, trace.stdout) == ("ok", "carried\n")
        assert [observation.input for observation in trace.observations] == [{"name": "carried"}]


@everywhere
def test_an_agent_may_start_processes(executor: str, kind: str) -> None:
    """It waits for them as anywhere."""

    def behave(text: str) -> str:
        done = subprocess.run([sys.executable, "-c", f"print({text!r})"], capture_output=True, text=True, check=True)
        return done.stdout

    assert {trace.output for trace in run(as_agent(behave, kind), executor, "a", "b")} == {"a\n", "b\n"}


@where_async
def test_an_async_agent_may_start_processes(executor: str, kind: str) -> None:
    """The loop, which is not the main thread's, learns of their end."""

    async def agent(text: str) -> int | None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", f"exit({len(text)})")
        return await process.wait()

    assert {trace.output for trace in run(agent, executor, "a", "bc")} == {1, 2}


@everywhere
def test_a_process_an_agent_forks_ends_with_its_run(executor: str, kind: str, folder: Path) -> None:
    """However the child's call ends, it does not go on with the experiment: each run is in the files once."""
    function = "async def run(text):" if kind == "async" else "def run(text):"
    (folder / "forking.py").write_text(
        "import os, sys\n"
        f"{function}\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        if text == 'starts another': os.fork()\n"
        "        if text == 'exits': sys.exit(0)\n"
        "        if text == 'raises': raise ValueError\n"
        "        if text == 'ends at once': os._exit(0)\n"
        "        return text\n"
        "    os.waitpid(child, 0)\n"
        "    return text\n"
    )
    inputs = ["exits", "raises", "ends at once", "returns", "starts another"]
    parallel = 1 if executor == "inline" else 2
    code = (
        "from fluxloop import Experiment\n"
        f"Experiment(target='forking:run', inputs={inputs}, executor='{executor}', parallel={parallel}).run()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)

    (path,) = (folder / "experiments").iterdir()
    result = fluxloop.load(path)
    assert sorted(trace.output for trace in result) == sorted(inputs)
    assert result.summary.status == "completed"


@pytest.mark.parametrize(("executor", "kind"), SYNC)
def test_a_sync_agent_may_have_a_loop_of_its_own(executor: str, kind: str) -> None:
    """What it awaits there is the run's."""

    @fluxloop.tool
    async def work(text: str) -> str:
        await asyncio.sleep(0)
        print(text)
        return text

    async def main(text: str) -> list[str]:
        return await asyncio.gather(work(text), work(text))

    for trace in run(lambda text: asyncio.run(main(text)), executor, "a", "b", capture_output=True):
        assert (trace.output, trace.stdout) == ([trace.input] * 2, f"{trace.input}\n" * 2)
        assert len(trace.observations) == 2


# What agents change


@everywhere
def test_an_agent_may_change_the_directory(executor: str, kind: str, folder: Path) -> None:
    """Also into one that is gone; the results are where they belong, and the caller is where it was."""

    def behave(text: str) -> str:
        place = folder / f"place {text}"
        place.mkdir()
        os.chdir(place)
        place.rmdir()
        return text

    result = run(as_agent(behave, kind), executor, "a", "b")
    assert Path.cwd() == folder
    assert result.path.parent == folder / "experiments"
    assert result.summary.successful == len(list(result)) == 2


@everywhere
def test_an_agent_may_close_standard_output(executor: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It closes nothing for the others."""

    def behave(text: str) -> str:
        print("before", text)
        sys.stdout.close()
        sys.stderr.close()
        return text

    result = run(as_agent(behave, kind), executor, "a", "b", capture_output=True)
    print("still here")
    assert {trace.stdout for trace in result} == {"before a\n", "before b\n"}
    assert capsys.readouterr().out == "still here\n"


# What a target opens


class NoEntry:
    def __enter__(self) -> NoEntry:
        raise ConnectionError("no database")

    def __exit__(self, *error: object) -> None: ...

    def run(self, text: str) -> str:
        return text


class NoAsyncEntry:
    async def __aenter__(self) -> NoAsyncEntry:
        raise ConnectionError("no database")

    async def __aexit__(self, *error: object) -> None: ...

    async def run(self, text: str) -> str:
        return text


class Exits(NoEntry):
    def __enter__(self) -> Exits:
        sys.exit("not today")


def fluxloop_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("fluxloop")}


@pytest.mark.parametrize(
    ("executor", "target"),
    [
        ("inline", NoEntry),
        ("inline", NoAsyncEntry),
        ("inline", Exits),
        ("asyncio", NoAsyncEntry),
        ("threads", NoEntry),
        ("threads", NoAsyncEntry),
        ("threads", Exits),
    ],
)
def test_a_target_that_cannot_be_entered_is_one_error(executor: str, target: Any, folder: Path) -> None:
    """However many workers try; no file and no thread is left behind."""
    before = fluxloop_threads()
    told = r"entering it failed: .*test_faults\.py:\d+: (ConnectionError: no database|SystemExit: not today)"
    with pytest.raises(TargetError, match=told):
        run(target, executor, *"abcd", parallel=1 if executor == "inline" else 4)
    assert list((folder / "experiments").iterdir()) == []
    wait_until(lambda: fluxloop_threads() <= before)


@everywhere
def test_a_target_that_cannot_be_left_costs_no_result(executor: str, kind: str) -> None:
    """What goes wrong on leaving is a warning; the runs are done and recorded."""

    class Sticky:
        def __enter__(self) -> Sticky:
            return self

        def __exit__(self, *error: object) -> None:
            raise ConnectionError("already gone")

        run = staticmethod(as_agent(str.upper, kind))

    with noticed(r"leaving the target failed: .*ConnectionError: already gone"):
        result = run(Sticky, executor, "a", "b")
    assert [trace.output for trace in result] == ["A", "B"]


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_a_process_an_agent_forks_is_ended_by_signals(executor: str, folder: Path) -> None:
    """As it is outside an experiment: fluxloop's own handlers are for its own process."""
    (folder / "forking.py").write_text(
        "import os, signal\n"
        "def run(text):\n"
        "    read, write = os.pipe()\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.write(write, b'here')\n"
        "        while True: signal.pause()\n"
        "    os.read(read, 4)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    return os.WTERMSIG(os.waitpid(child, 0)[1])\n"
    )
    code = (
        "from fluxloop import Experiment\n"
        f"result = Experiment(target='forking:run', inputs=['a'], executor='{executor}').run()\n"
        "print([trace.output for trace in result])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"[{int(signal.SIGTERM)}]\n"
