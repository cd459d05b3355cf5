"""All async work of a process runs on one loop, so that what a module makes when it is imported works for good."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from fluxloop import Experiment, ExperimentResult
from fluxloop.calling.loop import LoopThread, give_back, take_loop
from fluxloop.failures import is_of_another_loop
from fluxloop.testing import run_once


class Service(BaseHTTPRequestHandler):
    """Answers on connections that are kept, which is what ties a client to its loop."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *parts: object) -> None: ...

    def do_GET(self) -> None:
        self.answer(b"ok", "text/plain")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(
            b'{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,'
            b' "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}]}',
            "application/json",
        )

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


Closing = list[Callable[[], Any]]


def run(target: Any, executor: str, folder: Path, **options: Any) -> ExperimentResult:
    options = {"inputs": ["a", "b"], "iterations": 3, "parallel": 1 if executor == "inline" else 3, **options}
    return Experiment(target=target, executor=executor, output_dir=folder, progress=False, **options).run()


@pytest.fixture
def closing() -> Iterator[list[Callable[[], Any]]]:
    """What closes the clients of a test, on the loop they belong to."""
    closing: list[Callable[[], Any]] = []
    yield closing
    loop = take_loop()
    for close in closing:
        loop.run(close(), 10)
    give_back(loop)


def client_of_httpx(address: str, closing: Closing) -> Callable[[str], Any]:
    client = httpx.AsyncClient()
    closing.append(client.aclose)

    async def agent(question: str) -> str:
        return (await client.get(address)).text

    return agent


def client_of_openai(address: str, closing: Closing) -> Callable[[str], Any]:
    client = openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0)
    closing.append(client.close)

    async def agent(question: str) -> str | None:
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": question}])
        return answer.choices[0].message.content

    return agent


def contended_semaphore(address: str, closing: Closing) -> Callable[[str], Any]:
    semaphore = asyncio.Semaphore(1)

    async def agent(question: str) -> str:
        async with semaphore:
            await asyncio.sleep(0.001)
        return "ok"

    return agent


def background_task(address: str, closing: Closing) -> Callable[[str], Any]:
    """A client that starts a task of its own at its first call, as those of websockets and queues do."""
    queue: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []

    async def end() -> None:
        tasks[0].cancel()

    async def serve() -> None:
        while True:
            (await queue.get()).set_result("ok")

    async def agent(question: str) -> str:
        if not tasks:
            tasks.append(asyncio.create_task(serve()))
            closing.append(end)
        await queue.put(answer := asyncio.get_running_loop().create_future())
        return await answer

    return agent


def sync_callable(address: str, closing: Closing) -> Callable[[str], Any]:
    return partial(lambda agent, question: agent(question), client_of_httpx(address, closing))


ASYNC_AGENTS = [client_of_httpx, client_of_openai, contended_semaphore, background_task]


@pytest.mark.parametrize(
    ("make", "executor"),
    [
        *((make, executor) for make in ASYNC_AGENTS for executor in ("inline", "asyncio", "threads")),
        *((sync_callable, executor) for executor in ("inline", "threads")),
    ],
)
def test_a_client_made_once_works_in_every_experiment_of_a_process(
    make: Callable[..., Any], executor: str, address: str, closing: Closing, tmp_path: Path
) -> None:
    """The second experiment, and one under another executor, are as good as the first."""
    agent = make(address, closing)
    for each in (executor, executor, "threads"):
        result = run(agent, each, tmp_path)
        assert {trace.output for trace in result} == {"ok"}, [trace.error for trace in result.failures]
        assert result.summary.passed == 6
    assert run_once(agent, "hi").output == "ok"


def test_all_experiments_share_the_loop(tmp_path: Path) -> None:
    """Also those at the same time, and the coroutines of sync callables."""
    loops = set()
    met = threading.Barrier(2)

    async def agent(text: str) -> None:
        await asyncio.to_thread(met.wait, 30)
        loops.add(asyncio.get_running_loop())

    def experiment(target: Any, executor: str) -> None:
        assert run(target, executor, tmp_path, inputs=["a"], iterations=1, parallel=1).summary.passed == 1

    beside = threading.Thread(target=experiment, args=(agent, "asyncio"))
    beside.start()
    experiment(lambda text: agent(text), "threads")
    beside.join()
    assert len(loops) == 1


def test_an_experiment_inside_an_async_agent_ends(tmp_path: Path) -> None:
    """It blocks the loop it is called on, so it has one of its own, which is gone afterwards."""

    async def inner(text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    async def outer(text: str) -> Any:
        return run_once(inner, text).output

    before = threading.active_count()
    for _ in range(2):
        result = run(outer, "asyncio", tmp_path, timeout_seconds=30)
        assert {trace.output for trace in result} == {"A", "B"}
    assert threading.active_count() <= before + 1


def test_a_loop_whose_threads_an_agent_has_shut_down_is_replaced(tmp_path: Path) -> None:
    """`asyncio.to_thread` works in the next experiment."""

    async def breaks(text: str) -> None:
        await asyncio.get_running_loop().shutdown_default_executor()

    async def agent(text: str) -> str:
        return await asyncio.to_thread(text.upper)

    assert run(breaks, "asyncio", tmp_path).summary.passed == 6
    assert run(agent, "asyncio", tmp_path).summary.passed == 6


def test_a_blocked_loop_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes next has a new one, and its thread ends once it goes on."""
    monkeypatch.setattr("fluxloop.calling.loop.ANSWER_SECONDS", 0.1)
    gate = threading.Event()
    first = take_loop()
    (thread,) = (thread for thread in threading.enumerate() if thread.ident == first.ident)
    first.loop.call_soon_threadsafe(gate.wait)
    second = take_loop()
    assert second is not first
    give_back(first)
    gate.set()
    thread.join(30)
    assert not thread.is_alive()
    assert take_loop() is second
    give_back(second)
    give_back(second)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_loop_of_its_own() -> None:
    """The thread of its parent's is not there."""
    give_back(take_loop())
    child = os.fork()
    if not child:
        try:
            loop = take_loop()
            os._exit(loop.run(asyncio.sleep(0, 7), 10))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


SCRIPT = """
    import asyncio
    from fluxloop import Experiment

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            print("tidied")

    tasks = []
    async def agent(text):
        tasks.append(asyncio.create_task(waits()))
        await asyncio.sleep(0)
        return text

    if __name__ == "__main__":
        print(Experiment(target=agent, inputs=["a"], progress=False).run().summary.passed)
"""


def test_what_is_left_on_the_loop_may_tidy_up_as_the_process_ends(tmp_path: Path) -> None:
    """Quietly: asyncio has no pending task to complain of."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("1\ntidied\n", "", 0)


TWICE = """
    import asyncio, httpx, pytest
    from fluxloop import Experiment

    client = httpx.AsyncClient()
    semaphore = asyncio.Semaphore(1)

    async def agent(question):
        async with semaphore:
            return (await client.get("{address}")).text

    def run(executor):
        experiment = Experiment(target=agent, inputs=["a", "b"], iterations=2, executor=executor, progress=False,
                                parallel=1 if executor == "inline" else 2)
        return experiment.run().summary.passed

    @pytest.mark.parametrize("time", [1, 2])
    @pytest.mark.parametrize("executor", ["inline", "asyncio", "threads", "processes"])
    def test_agent(executor, time):
        assert run(executor) == 4

    async def test_agent_inside_a_loop():
        assert run("asyncio") == 4
"""


def test_two_tests_of_one_pytest_process_are_alike(address: str, tmp_path: Path) -> None:
    """The agent of a test module works in its second test, under every executor, and inside a plugin's loop."""
    (tmp_path / "test_twice.py").write_text(textwrap.dedent(TWICE).replace("{address}", address))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "anyio", "-o", "anyio_mode=auto", "-p", "no:cacheprovider"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# What belongs to another loop


def used_elsewhere(address: str, closing: Closing) -> Callable[[str], Any]:
    """A client that was used on a loop of the user's own, which is closed now."""
    agent = client_of_httpx(address, [])
    asyncio.run(agent("first"))
    return agent


def used_elsewhere_by_openai(address: str, closing: Closing) -> Callable[[str], Any]:
    agent = client_of_openai(address, [])
    asyncio.run(agent("first"))
    return agent


def future_of_another_loop(address: str, closing: Closing) -> Callable[[str], Any]:
    loop = asyncio.new_event_loop()
    loop.close()

    async def agent(question: str) -> str:
        answer: asyncio.Future[str] = loop.create_future()
        return await answer

    return agent


def a_loop_for_each_call(address: str, closing: Closing) -> Callable[[str], Any]:
    """The usual wrapper around an async client, whose second call finds the loop of the first closed."""
    client = client_of_httpx(address, [])
    return lambda question: asyncio.run(client(question))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("make", "executor"),
    [
        (used_elsewhere, "asyncio"),
        (used_elsewhere_by_openai, "asyncio"),
        (future_of_another_loop, "asyncio"),
        (a_loop_for_each_call, "inline"),
    ],
)
def test_what_belongs_to_another_loop_is_explained_and_not_the_agents_failure(
    make: Callable[..., Any], executor: str, address: str, tmp_path: Path
) -> None:
    """It is in no pass rate, and the error says what to do."""
    result = run(make(address, []), executor, tmp_path, parallel=1)
    foreign = [trace.error for trace in result.failures if trace.error]
    assert foreign
    assert {error.kind for error in foreign} == {"infrastructure"}
    assert all("make it in the agent or in a class target" in error.message for error in foreign)
    rate = result.summary.pass_rate
    assert rate is None or rate.value == 1.0
    assert result.summary.passed + len(foreign) == 6
    gc.collect()  # clients of a closed loop cannot be closed any more, which Python remarks here


class HostileError(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "is_foreign"),
    [
        (RuntimeError("Event loop is closed"), True),
        (RuntimeError("<asyncio.locks.Lock> is bound to a different event loop"), True),
        (RuntimeError("the user said: Event loop is closed"), False),
        (RuntimeError("no"), False),
        (HostileError(), False),
        (ExceptionGroup("", [RuntimeError("Event loop is closed")]), True),
        (ExceptionGroup("", [RuntimeError("Event loop is closed"), ValueError("the agent's own")]), False),
    ],
)
def test_which_errors_are_of_another_loop(error: BaseException, is_foreign: bool) -> None:
    """By what asyncio says, directly, in a group, or as the cause of another."""
    assert is_of_another_loop(error) is is_foreign
    outer = KeyError("outer")
    outer.__cause__ = error
    assert is_of_another_loop(outer) is is_foreign


def test_the_loop_of_one_thread_is_not_shared() -> None:
    """A loop thread of its own can still be had, as tests of loops need it."""
    loop = LoopThread()
    assert loop.run(asyncio.sleep(0, 1)) == 1
    loop.close()
