"""An event loop in a thread of its own.

Coroutines run there under every executor: it works inside a running loop, as in a notebook,
and Ctrl-C still reaches the main thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSING_SECONDS = 2.0


class LoopThread:
    """Run coroutines to their end on one loop, from any other thread.

    Example:
        >>> loop = LoopThread()
        >>> loop.run(asyncio.sleep(0, "done"))
        'done'
        >>> loop.close()
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result; the loop starts with the first."""
        if self._loop is None:
            self._start()
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the second Ctrl-C, which ends the waiting and not the coroutine
            raise

    def enter(self, manager: AbstractAsyncContextManager[T]) -> tuple[T, Callable[[], None]]:
        """Enter a context manager on the loop.

        Both ends happen in one task, which is what managers built on task groups ask for.

        Returns:
            What entering gave, and what to call to leave.
        """
        entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        left: concurrent.futures.Future[None] = concurrent.futures.Future()
        leave = asyncio.Event()

        async def lifespan() -> None:
            try:
                async with manager as value:
                    entered.set_result(value)
                    await leave.wait()
                left.set_result(None)
            except BaseException as error:
                (left if entered.done() else entered).set_exception(error)

        async def start() -> asyncio.Task[None]:
            return asyncio.create_task(lifespan())

        task = self.run(start())

        def close() -> None:
            if not task.done() and self._loop is not None:
                self._loop.call_soon_threadsafe(leave.set)
            left.result()  # also says why it has ended by itself

        return entered.result(), close

    def _start(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._closing = False

        def serve() -> None:
            asyncio.set_event_loop(loop)
            while not self._closing:  # an agent may stop the loop, but not the experiment
                # What a task of the agent's raises here, whoever awaits that task gets too.
                with suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()

        self._thread = threading.Thread(target=serve, name="fluxloop-loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel what is left, close the loop and end the thread, or leave a hung one behind."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        try:
            left = asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(_CLOSING_SECONDS)
        except concurrent.futures.TimeoutError:
            left = 1  # the loop itself is blocked
        self._closing = True
        if left:
            return  # a task swallows its cancellation; the thread is a daemon and holds nothing up
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> int:
    """Cancel every other task and return how many would not end."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    pending: set[asyncio.Task[Any]] = set()
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=_CLOSING_SECONDS / 2)
    await loop.shutdown_asyncgens()
    return len(pending)
