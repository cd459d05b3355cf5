"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from fluxloop.calling.eventloop import new_event_loop
from fluxloop.calling.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


def loop_threads() -> int:
    return sum(thread.name == "fluxloop-loop" for thread in threading.enumerate())


async def value_of(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_coroutines_run_to_their_end(loop: LoopThread) -> None:
    """Each gives its result, or raises what it raised."""

    async def fails() -> None:
        raise ValueError("no")

    assert loop.run(value_of(1)) == 1
    with pytest.raises(ValueError, match="no"):
        loop.run(fails())
    assert loop.run(value_of(2)) == 2


def test_it_works_inside_a_running_loop(loop: LoopThread) -> None:
    """As in a notebook, whose own loop runs already."""

    async def notebook() -> int:
        return loop.run(value_of(3))

    assert asyncio.run(notebook()) == 3


def test_all_coroutines_share_one_loop(loop: LoopThread) -> None:
    """A client opened in one run works in the next."""

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert loop.run(running()) is loop.run(running())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_the_loop_survives_what_a_task_raises(loop: LoopThread, error: type[BaseException]) -> None:
    """Also what asyncio lets through to the loop itself."""

    async def child() -> None:
        raise error

    async def parent() -> str:
        try:
            await asyncio.create_task(child())
        except BaseException as raised:
            return type(raised).__name__
        return "nothing"

    assert loop.run(parent()) == error.__name__
    assert loop.run(value_of(4)) == 4


def test_a_closed_loop_leaves_no_thread_and_no_task() -> None:
    """Closing cancels what was left behind, ends async generators and may be done twice."""
    before = loop_threads()
    loop = LoopThread()
    ended: list[str] = []
    kept: list[object] = []

    async def left_behind() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("generator")

    async def start() -> None:
        kept.append(asyncio.create_task(left_behind()))
        kept.append(items := stream())
        await anext(items)
        await asyncio.sleep(0)

    loop.run(start())
    assert loop_threads() == before + 1
    loop.close()
    loop.close()
    assert ended == ["task", "generator"]
    assert loop_threads() == before


def test_an_unused_loop_has_no_thread() -> None:
    """Sync agents do not pay for a thread."""
    before = loop_threads()
    LoopThread().close()
    assert loop_threads() == before


def test_a_manager_is_entered_and_left_in_one_task(loop: LoopThread) -> None:
    """Task groups and cancel scopes ask for it."""
    tasks = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        tasks.append(asyncio.current_task())
        async with asyncio.TaskGroup():
            yield "inside"
        tasks.append(asyncio.current_task())

    value, leave = loop.enter(manager())
    assert value == "inside"
    assert loop.run(value_of(5)) == 5
    leave()
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]


def test_a_manager_that_fails_to_enter_or_leave_says_so(loop: LoopThread) -> None:
    """The error reaches who enters, or who leaves."""

    @asynccontextmanager
    async def no_entry() -> AsyncIterator[None]:
        raise OSError("closed")
        yield

    @asynccontextmanager
    async def no_exit() -> AsyncIterator[None]:
        yield
        raise OSError("stuck")

    with pytest.raises(OSError, match="closed"):
        loop.enter(no_entry())
    _, leave = loop.enter(no_exit())
    with pytest.raises(OSError, match="stuck"):
        leave()


def test_a_manager_that_ended_by_itself_says_why_when_left(loop: LoopThread) -> None:
    """A background task that failed meanwhile is not passed over in silence."""

    @asynccontextmanager
    async def manager() -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group

    async def fails() -> None:
        raise ConnectionError("the line is down")

    async def use(group: asyncio.TaskGroup) -> None:
        await asyncio.wait([group.create_task(fails())])
        for _ in range(5):
            await asyncio.sleep(0)

    group, leave = loop.enter(manager())
    loop.run(use(group))
    with pytest.raises(BaseExceptionGroup) as raised:
        leave()
    assert isinstance(raised.value.exceptions[0], ConnectionError)


def test_closing_waits_for_nothing_that_will_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that swallows its cancellation is left behind, with its thread, which is a daemon."""
    monkeypatch.setattr("fluxloop.calling.loop._CLOSING_SECONDS", 0.1)
    stuck = LoopThread()
    release: list[Callable[[], None]] = []

    async def stubborn() -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    async def start() -> asyncio.Task[None]:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        inner = asyncio.get_running_loop()
        release.append(lambda: inner.call_soon_threadsafe(released.set))
        task.add_done_callback(lambda _: inner.stop())
        return task

    released = asyncio.Event()
    task = stuck.run(start())
    (thread,) = (thread for thread in threading.enumerate() if thread.ident == stuck.ident)
    stuck.close()
    assert thread.daemon
    assert not task.done()
    release[0]()
    thread.join(5)
    task.get_loop().close()


def test_a_loop_says_nothing_of_its_own_closed_files(caplog: pytest.LogCaptureFixture) -> None:
    """Who needs them says that the agent has closed them; every other error of a callback is told."""

    def fails() -> None:
        raise OSError(errno.EBADF, "mine")

    loop: Any = new_event_loop()
    number = loop._ssock.fileno()
    kept = os.dup(number)
    os.close(number)
    loop.call_soon(loop._read_from_self)
    loop.call_soon(fails)
    loop.call_soon(loop.stop)
    loop.run_forever()
    os.dup2(kept, number)
    os.close(kept)
    loop.close()
    assert [record.exc_info[1].args[1] for record in caplog.records if record.exc_info and record.exc_info[1]] == [
        "mine"
    ]
