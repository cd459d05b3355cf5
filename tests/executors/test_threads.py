"""Runs in threads of their own: who works, who is given up, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult, Task, ThreadsExecutor
from fluxloop.plan import Plan
from fluxloop.records import Case
from fluxloop.schedule import Schedule
from tests.noticing import noticed
from tests.waiting import wait_until

LIMIT = 0.3


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for a moment only."""
    monkeypatch.setattr("fluxloop.executors.threads.CLOSING_SECONDS", 0.1)


def run(target: Any, folder: Path, inputs: Any, **options: Any) -> ExperimentResult:
    return Experiment(target=target, inputs=inputs, output_dir=folder, executor="threads", **options).run()


def task(target: Any) -> Task:
    return Task(target=target, args={}, inject=(), input_template=None, output_path=None, import_places=())


def schedule(count: int) -> Schedule:
    return Schedule(Plan(cases=[Case(i, f"i{i}", f"text {i}") for i in range(count)], iterations=1, seed=1))


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("fluxloop-")}


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    """It is told once that it may go on, and the process ends while it does."""
    code = (
        "import time\n"
        "from fluxloop import Experiment\n"
        "def agent(text):\n"
        "    if text.startswith('hangs'):\n"
        "        time.sleep(1000)\n"
        "    return text\n"
        "inputs = ['hangs 1', 'hangs 2', 'a']\n"
        "result = Experiment(target=agent, inputs=inputs, executor='threads', parallel=3, timeout_seconds=0.3).run()\n"
        "print(sorted(trace.status for trace in result))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "['ok', 'timeout', 'timeout']\n"
    assert done.stderr.count("it may still be running") == 1


def test_all_that_hang_are_given_up_and_replaced(tmp_path: Path, gate: threading.Event) -> None:
    """Each time is over by itself; none waits for another."""

    def agent(text: str) -> str:
        if text.startswith("hangs"):
            gate.wait()
        return text

    result = run(agent, tmp_path, ["hangs 1", "hangs 2", "hangs 3", *"abcdef"], parallel=3, timeout_seconds=LIMIT)
    assert result.summary.by_status == {"ok": 6, "error": 0, "timeout": 3, "crashed": 0}
    assert result.left_running == 3


def test_a_coroutine_that_a_sync_agent_returns_is_named_where_it_hangs(tmp_path: Path, gate: threading.Event) -> None:
    """It is awaited on a loop beside the thread, and the record shows the line there."""

    async def work(text: str) -> str:
        while text == "hangs" and not gate.is_set():
            await asyncio.sleep(0.01)  # hangs here
        return text

    traces = {t.input: t for t in run(lambda text: work(text), tmp_path, ["hangs", "a"], timeout_seconds=LIMIT)}
    assert traces["a"].output == "a"
    assert traces["hangs"].error is not None
    assert "# hangs here" in str(traces["hangs"].error.traceback)


def test_a_worker_given_up_leaves_its_target_once_it_ends(tmp_path: Path, gate: threading.Event) -> None:
    """And takes no further run."""
    left: list[threading.Thread] = []
    ran: list[tuple[str, threading.Thread]] = []

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *error: object) -> None:
            left.append(threading.current_thread())

        def run(self, text: str) -> str:
            ran.append((text, threading.current_thread()))
            if text == "hangs":
                gate.wait()
            elif text == "releases":
                gate.set()
                wait_until(lambda: len(left) == 1)
            return text

    result = run(Client, tmp_path, ["hangs", "releases", "a", "b"], timeout_seconds=LIMIT)
    assert result.summary.successful == 3
    assert [text for text, _ in ran] == ["hangs", "releases", "a", "b"]
    first, *others = [thread for _, thread in ran]
    assert left[0] is first
    assert first not in others
    assert left[1:] == [others[0]]


def test_what_has_not_begun_when_it_ends_never_begins(gate: threading.Event) -> None:
    """An attempt that waits for a worker, which enters its target, is given back to nobody."""
    entering = threading.Event()
    ran: list[str] = []

    class Slow:
        def __enter__(self) -> Slow:
            entering.set()
            gate.wait()
            return self

        def __exit__(self, *error: object) -> None: ...

        def run(self, text: str) -> None:
            ran.append(text)

    before = workers()
    batches = ThreadsExecutor(2).run(task(Slow), schedule(2))
    assert next(iter(batches)) == []
    assert entering.wait(10)
    batches.close()  # type: ignore[attr-defined]
    gate.set()
    wait_until(lambda: workers() <= before)
    assert ran == []


def test_a_worker_that_entered_leaves_when_another_could_not(tmp_path: Path) -> None:
    """It is told, the others do the work, and nothing stays open."""
    lock = threading.Lock()
    events: list[str] = []
    failing: SimpleQueue[threading.Thread] = SimpleQueue()

    class Client:
        def __enter__(self) -> Client:
            with lock:
                events.append("entered")
                if len(events) == 2:
                    failing.put(threading.current_thread())
                    raise ConnectionError("one is enough")
            return self

        def __exit__(self, *error: object) -> None:
            events.append("left")

        def run(self, text: str) -> str:
            if text == "a":
                failing.get(timeout=10).join()
            return text

    before = workers()
    with noticed(r"one thread fewer: .*one is enough"):
        result = run(Client, tmp_path, ["a", "b"], parallel=2)
    assert result.summary.passed == 2
    wait_until(lambda: workers() <= before)
    assert events == ["entered", "entered", "left"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no size is too large")
def test_fewer_threads_than_asked_for_do_the_work(tmp_path: Path) -> None:
    """Where the system gives no more, it is told, and those that are there go on."""
    before = threading.stack_size()

    def agent(text: str) -> str:
        threading.stack_size(1 << 47)  # more than there is address space for
        wait_until(lambda: len(told) > 0)
        return text

    try:
        with noticed("no more than 1 threads can be started") as told:
            result = run(agent, tmp_path, ["a", "b"], parallel=2, overrides={"runner.run_delay_seconds": 0.2})
    finally:
        threading.stack_size(before)
    assert result.summary.successful == 2


def test_a_retry_may_run_beside_the_attempt_given_up(tmp_path: Path, gate: threading.Event) -> None:
    """It is a run of its own, with a worker of its own."""
    threads: list[threading.Thread] = []

    def agent(text: str) -> str:
        found = fluxloop.current_run()
        assert found is not None
        threads.append(threading.current_thread())
        if found.attempt == 1:
            gate.wait()
        return f"attempt {found.attempt}"

    options = {"runner.retry_on": ["TimeoutError"], "runner.retry_delay_seconds": 0}
    result = run(agent, tmp_path, ["a"], timeout_seconds=LIMIT, max_retries=1, overrides=options)
    assert [(trace.output, trace.attempts) for trace in result] == [("attempt 2", 2)]
    assert len(set(threads)) == 2
    assert result.left_running == 1
