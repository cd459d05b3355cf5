"""Work beside the caller's thread, and the end of an experiment whose threads do not end."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from fluxloop import Experiment, ExperimentResult
from fluxloop.background import in_thread

# Another test may have left a thread behind.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")

AGENTS = """
import asyncio, pathlib, threading, time

def start_a_thread():
    # Not a daemon, whatever the thread it is started from: Python waits for it before it exits.
    threading.Thread(target=time.sleep, args=(1000,), daemon=False).start()

def mark():
    pathlib.Path("started").touch()

def leaving_a_thread(text):
    start_a_thread()
    mark()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return text

def hanging(text):
    start_a_thread()
    mark()
    time.sleep(1000)

async def hanging_async(text):
    start_a_thread()
    mark()
    await asyncio.sleep(1000)

def sleeping(text):
    time.sleep(1000)

async def blocking(text):
    time.sleep(1000)

async def hanging_in_to_thread(text):
    mark()
    await asyncio.to_thread(time.sleep, 1000)
"""

Spawned = pexpect.spawn  # of texts
Start = Callable[..., Spawned]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run the command on one input, twice, in a terminal and a folder of its own."""
    opened: list[Spawned] = []

    def start_one(target: str, *options: str) -> Spawned:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        (folder / "agents.py").write_text(AGENTS)
        (folder / "in.jsonl").write_text('"a"\n')
        command = ["-m", "fluxloop_cli", "run", "experiment", "--target", f"agents:{target}", "--inputs", "in.jsonl"]
        process = Spawned(
            sys.executable,
            [*command, "--iterations", "2", *options],
            cwd=str(folder),
            timeout=20,
            encoding="utf-8",
            dimensions=(40, 240),
        )
        opened.append(process)
        return process

    yield start_one
    for process in opened:
        process.close(force=True)


def wait_for_start(process: Spawned) -> None:
    while not (Path(str(process.cwd)) / "started").exists():
        assert process.isalive(), process.read()
        process.expect([pexpect.TIMEOUT, "x^"], timeout=0.02)


def ended(process: Spawned) -> tuple[int | None, str]:
    """Its exit code, and the last line of its result."""
    process.expect(pexpect.EOF)
    process.close()
    (line,) = (line for line in str(process.before).splitlines() if "remaining" in line)
    return process.exitstatus, line.strip().partition(";")[0]


def test_no_thread_of_an_agent_keeps_the_process_alive(start: Start) -> None:
    """It ends with its code though Python would wait: after each Ctrl-C, and when it stops by itself."""
    hanging = [
        start("hanging", "--executor", "inline"),
        start("hanging", "--executor", "threads"),
        start("hanging_async", "--executor", "asyncio"),
        start("hanging_in_to_thread", "--executor", "asyncio"),
    ]
    leaving = start("leaving_a_thread", "--executor", "inline")
    stopping = start("hanging", "--executor", "inline", "--max-time", "0.1s", "--set", "runner.grace_seconds=0.1")
    for process in [*hanging, leaving]:
        wait_for_start(process)
        process.sendintr()
        process.expect_exact("Press Ctrl-C again to stop at once.")
    for process in hanging:
        process.sendintr()
    (Path(str(leaving.cwd)) / "go").touch()

    for process in hanging:
        assert ended(process) == (130, "remaining 2 of 2 runs were not run"), process.args
    assert ended(leaving) == (130, "remaining 1 of 2 runs were not run")
    assert ended(stopping) == (1, "remaining 2 of 2 runs were not run")


SCRIPT = """
import sys
import agents
from fluxloop import Experiment
experiment = Experiment(
    target=getattr(agents, sys.argv[1]),
    inputs=["a"],
    iterations=2,
    executor=sys.argv[2],
    max_time=0.1,
    overrides={"runner.grace_seconds": 0.1},
)
print(experiment.run().summary.status)
"""


def test_no_thread_of_fluxloops_own_keeps_a_script_alive(tmp_path: Path) -> None:
    """Where nobody calls `exit_soon`, a script ends behind agents that hang."""
    (tmp_path / "agents.py").write_text(AGENTS)
    ways = [("sleeping", "threads"), ("blocking", "asyncio"), ("hanging_in_to_thread", "asyncio")]
    scripts = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, *way], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for way in ways
    ]
    try:
        assert [script.communicate(timeout=20)[0] for script in scripts] == ["stopped\n"] * len(ways)
    finally:
        for script in scripts:
            script.kill()
            script.communicate()


def test_work_in_a_thread_has_the_callers_context() -> None:
    """Its result comes back, and what it changes in the context stays there."""
    name = contextvars.ContextVar("name", default="unset")

    def work() -> tuple[str, str, bool]:
        seen = name.get()
        name.set("the work's")
        thread = threading.current_thread()
        return seen, thread.name, thread.daemon

    async def main() -> tuple[str, str, bool]:
        name.set("the caller's")
        done = await in_thread(work, name="worker", on_cancel=lambda: None)
        assert name.get() == "the caller's"
        return done

    assert asyncio.run(main()) == ("the caller's", "worker", True)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_work_in_a_thread_raises_to_who_awaits_it(error: BaseException) -> None:
    """Whatever it is."""

    def work() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            await in_thread(work, name="worker", on_cancel=lambda: None)
        assert caught.value is error

    asyncio.run(main())


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_cancelled_work_is_asked_to_end_and_awaited(error: Exception | None) -> None:
    """The cancellation goes on when the work has come to its end, also to a bad one."""
    began, asked, order = threading.Event(), threading.Event(), []

    def work() -> None:
        began.set()
        assert asked.wait(20)
        order.append("work ends")
        if error is not None:
            raise error

    async def main() -> None:
        running = asyncio.create_task(in_thread(work, name="worker", on_cancel=asked.set))
        await asyncio.to_thread(began.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        order.append("cancelled")

    asyncio.run(main())
    assert order == ["work ends", "cancelled"]


@pytest.mark.parametrize(("one", "other"), [("threads", "threads"), ("threads", "asyncio"), ("inline", "threads")])
def test_two_experiments_run_in_two_threads_at_once(tmp_path: Path, one: str, other: str) -> None:
    """Each keeps its own runs and what they print, and the screen is as before in the end."""
    meeting = threading.Barrier(2)
    results: dict[str, ExperimentResult] = {}
    screen = (sys.stdout, sys.stderr)

    def experiment(name: str, executor: str) -> None:
        def agent(text: str) -> str:
            if text == "first":
                meeting.wait(20)
            print(f"{text} of {name}")
            return f"{name}: {text}"

        async def agent_async(text: str) -> str:
            return agent(text)

        results[name] = Experiment(
            target=agent_async if executor == "asyncio" else agent,
            inputs=["first", "second", "third"],
            iterations=1,
            name=name,
            executor=executor,
            capture_output=True,
            output_dir=tmp_path,
        ).run()

    threads = [
        threading.Thread(target=experiment, args=("one", one)),
        threading.Thread(target=experiment, args=("other", other)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for name, result in results.items():
        assert result.summary.status == "completed"
        assert [trace.output for trace in result] == [f"{name}: {text}" for text in ("first", "second", "third")]
        assert [trace.stdout for trace in result] == [f"{text} of {name}\n" for text in ("first", "second", "third")]
    assert sorted(results) == ["one", "other"]
    assert (sys.stdout, sys.stderr) == screen
