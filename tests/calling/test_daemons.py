"""The threads behind `asyncio.to_thread`."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxloop import Experiment
from fluxloop.calling.daemons import DaemonThreads


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    threads = DaemonThreads()
    yield threads
    threads.shutdown()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What calls wait for; it opens when the test is over."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_a_call_gives_its_result_or_raises_its_error(threads: DaemonThreads) -> None:
    """Whatever that is; the thread goes on."""

    def fails(error: BaseException) -> None:
        raise error

    assert threads.submit("{}, {b}".format, 1, b=2).result() == "1, 2"
    for error in (ValueError("no"), SystemExit(3), KeyboardInterrupt()):
        assert threads.submit(fails, error).exception() is error
    assert threads.submit(str.upper, "hi").result() == "HI"


def test_no_call_waits_for_another(threads: DaemonThreads) -> None:
    """A hundred that wait for one another come to their end."""
    together = threading.Barrier(100)
    futures = [threads.submit(together.wait, 10) for _ in range(100)]
    assert sorted(future.result() for future in futures) == list(range(100))


def test_a_thread_that_is_free_is_used_again(threads: DaemonThreads) -> None:
    """Calls one after another do not each get a thread of their own."""
    threads.submit(int).result()
    idents = {threads.submit(threading.get_ident).result() for _ in range(200)}
    assert len(idents) < 100


def test_nothing_of_a_call_is_kept(threads: DaemonThreads) -> None:
    """An idle thread holds neither the arguments nor the result of its last call."""

    class Large:
        pass

    given = Large()
    kept = weakref.ref(given)
    assert threads.submit(lambda value: value, given).result() is given
    del given
    while kept() is not None:
        gc.collect()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no size is too large")
def test_a_call_waits_for_a_thread_when_the_system_gives_no_more(threads: DaemonThreads, gate: threading.Event) -> None:
    """Where none is there at all it is an error, and the call is not made later."""
    made: list[str] = []
    before = threading.stack_size()
    try:
        threading.stack_size(1 << 47)  # more than there is address space for
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threads.submit(made.append, "refused")
        threading.stack_size(before)
        busy = threads.submit(gate.wait)
        threading.stack_size(1 << 47)
        waiting = [threads.submit(str.upper, text) for text in "abc"]
    finally:
        threading.stack_size(before)
    gate.set()
    assert busy.result()
    assert [future.result() for future in waiting] == ["A", "B", "C"]
    assert threads.submit(str.upper, "d").result() == "D"
    assert made == []


def test_after_the_end_no_thread_is_left(gate: threading.Event) -> None:
    """Idle ones end at once, busy ones with their call; none is waited for."""
    threads = DaemonThreads()
    idle: threading.Thread = threads.submit(threading.current_thread).result()
    inside: list[threading.Thread] = []

    def hangs() -> bool:
        inside.append(threading.current_thread())
        return gate.wait()

    busy = [threads.submit(hangs) for _ in range(2)]
    threads.shutdown()
    gate.set()
    assert all(future.result() for future in busy)
    for thread in (idle, *inside):
        assert thread.daemon
        thread.join()


def test_a_hundred_agents_may_wait_in_threads_at_once(tmp_path: Path) -> None:
    """`asyncio.to_thread` gives each a thread, however few cores there are."""
    together = threading.Barrier(100)

    async def agent(text: str) -> int:
        return await asyncio.to_thread(together.wait, 20)

    result = Experiment(
        target=agent, inputs=["a", "b"], iterations=50, parallel=100, output_dir=tmp_path, timeout_seconds=30
    ).run()
    assert sorted(trace.output for trace in result) == list(range(100))


@pytest.mark.parametrize("executor", ["inline", "asyncio", "threads"])
def test_a_call_that_hangs_does_not_keep_the_process(executor: str, tmp_path: Path) -> None:
    """The run is a timeout, the experiment goes on, and the process ends while the call still hangs."""
    code = (
        "import asyncio, time\n"
        "from fluxloop import Experiment\n"
        "async def agent(text):\n"
        "    if text == 'hangs':\n"
        "        await asyncio.to_thread(time.sleep, 1000)\n"
        "    return text\n"
        f"result = Experiment(target=agent, inputs=['hangs', 'a'], executor='{executor}', timeout_seconds=0.3).run()\n"
        "print([trace.status for trace in result])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "['timeout', 'ok']\n"
