"""Event loops and tasks that go on as fluxloop needs, whatever an agent makes of the loop it runs on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
from asyncio import AbstractEventLoop, BaseEventLoop
from asyncio.futures import _chain_future  # type: ignore[attr-defined]
from collections.abc import Coroutine
from contextvars import Context
from selectors import DefaultSelector
from typing import Any, TypeVar

from fluxloop.clock import monotonic

T = TypeVar("T")


def new_event_loop() -> AbstractEventLoop:
    """Make a loop of the policy in force, whose time no agent can freeze."""
    loop = asyncio.new_event_loop()
    if isinstance(loop, BaseEventLoop):  # else it is none of Python's, such as uvloop's, which has a clock of its own
        loop.time = monotonic  # type: ignore[method-assign]
        loop.set_exception_handler(_tell)
    return loop


def _tell(loop: AbstractEventLoop, told: dict[str, Any]) -> None:
    """Say what the loop would, but nothing of its own files: that they are closed is told by what needs them."""
    error, callback = told.get("exception"), getattr(told.get("handle"), "_callback", None)
    is_own = callback is not None and callback == getattr(loop, "_read_from_self", None)
    if not (is_own and isinstance(error, OSError) and error.errno == errno.EBADF):
        loop.default_exception_handler(told)


_lost: list[Any] = []
"""What would close, as it goes, files of others that have its numbers by now."""


def reopen(loop: AbstractEventLoop) -> None:
    """Give a loop new files for its own, which an agent has closed, so that what waits on it comes to its end.

    Raises:
        OSError: there is no way to, or the system gives no files.
    """
    own: Any = loop
    try:
        own._ssock.detach()
        own._csock.detach()
        _lost.append(own._selector)
        own._selector = DefaultSelector()
        own._make_self_pipe()
    except AttributeError:  # it is none of Python's own loops for Unix
        raise OSError(errno.EBADF, "the agent has closed the files of the event loop") from None


def new_task(
    coroutine: Coroutine[Any, Any, T],
    loop: AbstractEventLoop,
    *,
    name: str | None = None,
    context: Context | None = None,
) -> asyncio.Task[T]:
    """Make a task on the loop, from its own thread, past the task factory an agent may have given it."""
    return asyncio.Task(coroutine, loop=loop, name=name, context=context)


def submit(coroutine: Coroutine[Any, Any, T], loop: AbstractEventLoop) -> concurrent.futures.Future[T]:
    """Start a coroutine on the loop from another thread, as `asyncio.run_coroutine_threadsafe` does."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def start() -> None:
        _chain_future(new_task(coroutine, loop), future)

    loop.call_soon_threadsafe(start)
    return future
