"""Work in a thread of its own, awaited."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Callable
from typing import TypeVar

from fluxloop.system import new_thread

T = TypeVar("T")

WAKE_SECONDS = 0.2
"""How often a loop that awaits is woken: until it is, it does nothing about a signal that has come."""


async def in_thread(work: Callable[[], T], *, name: str, on_cancel: Callable[[], None]) -> T:
    """Run `work` in a thread and return its result, while the calling loop goes on.

    Not `asyncio.to_thread`, whose few threads are shared and hold up the end of the process.

    Args:
        work: what to run, with the caller's context.
        name: what the thread is called.
        on_cancel: asks `work` to end early; its end is awaited before the cancellation goes on.
    """
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(work))
        except BaseException as error:
            done.set_exception(error)

    new_thread(run, name).start()
    waiting = asyncio.wrap_future(done)
    try:
        await _ended(waiting)
    except asyncio.CancelledError:
        on_cancel()
        await _ended(waiting)
        waiting.exception()  # asyncio need not tell it; the cancellation is what goes on
        raise
    except BaseException:  # nobody awaits it any more
        on_cancel()
        raise
    return waiting.result()


async def _ended(waiting: asyncio.Future[T]) -> None:
    while not waiting.done():
        await asyncio.wait([waiting], timeout=WAKE_SECONDS)
