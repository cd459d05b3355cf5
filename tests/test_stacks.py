"""Where threads and tasks are, as tracebacks tell it."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import fluxloop
from fluxloop.calling.loop import LoopThread
from fluxloop.stacks import all_stacks, task_stack, thread_stack

Awaiting = Callable[[asyncio.Event], Coroutine[Any, Any, Any]]


async def waits(event: asyncio.Event) -> None:
    await event.wait()  # waits here


async def waits_in_a_call(event: asyncio.Event) -> None:
    await waits(event)


@fluxloop.tool
async def waits_traced(event: asyncio.Event) -> None:
    await event.wait()  # waits here


async def waits_in_a_tool(event: asyncio.Event) -> None:
    await waits_traced(event)


async def stream(event: asyncio.Event) -> AsyncIterator[int]:
    yield 1
    await event.wait()  # waits here


async def waits_in_a_stream(event: asyncio.Event) -> None:
    async for _ in stream(event):
        pass


@asynccontextmanager
async def opened(event: asyncio.Event) -> AsyncIterator[None]:
    await event.wait()  # waits here
    yield


async def waits_on_entering(event: asyncio.Event) -> None:
    async with opened(event):
        pass


class Awaitable:
    def __init__(self, event: asyncio.Event) -> None:
        self.event = event

    def __await__(self) -> Generator[Any, None, None]:
        yield from waits(self.event).__await__()


async def waits_for_an_object(event: asyncio.Event) -> None:
    await Awaitable(event)


@types.coroutine
def old_style(event: asyncio.Event) -> Generator[Any, None, None]:
    yield from waits(event).__await__()


async def waits_in_the_old_style(event: asyncio.Event) -> None:
    await old_style(event)


async def waits_for_a_task(event: asyncio.Event) -> None:
    await asyncio.create_task(waits(event))


async def waits_for_a_gathering(event: asyncio.Event) -> None:
    await asyncio.gather(asyncio.sleep(0), waits(event))


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


async def started(waiting: Awaiting) -> asyncio.Task[Any]:
    """A task that has gone as far as it gets."""
    task = asyncio.create_task(waiting(asyncio.Event()), name="the waiting one")
    for _ in range(10):
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize(
    "waiting",
    [
        waits,
        waits_in_a_call,
        waits_in_a_tool,
        waits_in_a_stream,
        waits_on_entering,
        waits_for_an_object,
        waits_in_the_old_style,
        waits_for_a_task,
        waits_for_a_gathering,
    ],
)
def test_a_tasks_stack_goes_down_to_the_line_that_waits(waiting: Awaiting, loop: LoopThread) -> None:
    """Through whatever awaits it, from the task's own function on, without fluxloop's frames."""
    stack = task_stack(loop.run(started(waiting)))
    assert stack.startswith("Traceback (most recent call last):\n")
    assert stack.index(f"in {waiting.__name__}\n") <= stack.index("# waits here")
    assert "/fluxloop/tracing/" not in stack
    assert "/fluxloop/<signed>" not in stack


def test_a_task_that_has_ended_is_nowhere(loop: LoopThread) -> None:
    """Its stack has no line."""

    async def ended() -> asyncio.Task[None]:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return task

    assert task_stack(loop.run(ended())) == "Traceback (most recent call last):\n"


@pytest.fixture
def hanging() -> Iterator[threading.Thread]:
    """A thread that hangs inside a traced call."""
    inside, gate = threading.Event(), threading.Event()

    @fluxloop.tool
    def stuck() -> None:
        inside.set()
        gate.wait()  # hangs here

    thread = threading.Thread(target=stuck, name="the hanging one")
    thread.start()
    inside.wait()
    yield thread
    gate.set()
    thread.join()


def test_a_threads_stack_names_the_line_it_hangs_at(hanging: threading.Thread) -> None:
    """Without fluxloop's frames."""
    stack = thread_stack(hanging.ident)
    assert stack is not None
    assert "# hangs here" in stack
    assert "/fluxloop/tracing/" not in stack


def test_a_thread_that_does_not_run_is_nowhere() -> None:
    """One that has ended, or has not begun, has no stack."""
    thread = threading.Thread(target=int)
    assert thread_stack(thread.ident) is None
    thread.start()
    thread.join()
    assert thread_stack(thread.ident) is None


def test_all_stacks_are_those_of_every_thread_and_task(hanging: threading.Thread, loop: LoopThread) -> None:
    """Each under its name; the thread that asks is left out."""
    task = loop.run(started(waits))  # kept, since nothing else keeps it
    told = all_stacks([loop.loop])
    assert not task.done()
    assert "Thread the hanging one\n" in told
    assert "Task the waiting one\n" in told
    assert "# hangs here" in told
    assert "# waits here" in told
    assert threading.current_thread().name not in told
