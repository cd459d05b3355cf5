"""The threads behind `asyncio.to_thread`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from fluxloop.system import new_thread

P = ParamSpec("P")
R = TypeVar("R")

_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """Run each call in a thread at once, in an idle one or a new one, none of which outlives the process.

    asyncio's own pool has a handful of threads on a small machine, for which a hundred agents
    would queue, and Python waits for each of them before it exits, hung or not.

    Example:
        >>> DaemonThreads().submit(str.upper, "hi").result()
        'HI'
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # asyncio takes none but this class; its own threads never start
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._counting = threading.Lock()
        self._idle = 0
        """Threads without a call; below zero, calls without a thread."""
        self._count = 0

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Start a call."""
        future: Future[R] = Future()
        with self._counting:
            if self._idle > 0 or not self._hire():
                self._idle -= 1
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _hire(self) -> bool:
        try:
            new_thread(self._work, "fluxloop-to-thread").start()
        except RuntimeError:  # the system gives no more
            if not self._count:
                raise
            return False
        self._count += 1
        return True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del job, future, call  # nothing of the agent's stays alive here
            with self._counting:
                self._idle += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads go when they are done; none is waited for."""
        with self._counting:
            count, self._count = self._count, 0
        for _ in range(count):
            self._jobs.put(None)
