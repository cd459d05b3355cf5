"""A loop in a thread, with a target entered on it."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.loop import LoopThread
from fluxloop.exceptions import TargetError
from fluxloop.executors.flight import Ended
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.stacks import task_stack, thread_stack

CLOSING_SECONDS = 1.0
"""How long attempts that are left in flight may take to tidy up."""


class Lane:
    """Run attempts together on one loop, and put each on the queue when it has ended.

    Args:
        task: what each attempt does; its target is entered on the loop.
        ended: the queue that is filled.

    Raises:
        TargetError: the target cannot be loaded or entered, or is not async.
    """

    def __init__(self, task: Task, ended: Ended) -> None:
        self._ended = ended
        self._context = copy_context()
        self._thread = LoopThread()
        self._loop = self._thread.loop
        self._given: dict[OpenAttempt, bool] = {}
        """Attempts that have not begun; who takes one out runs it."""
        self._running: dict[OpenAttempt, asyncio.Task[Attempt | None]] = {}
        try:
            self._runner, self._leave = self._thread.enter(task.open())
            if not self._runner.is_async:
                raise TargetError("the asyncio executor runs async agents, and this one is sync: use threads")
        except BaseException:
            self._thread.close()
            raise

    def start(self, attempts: Sequence[OpenAttempt]) -> None:
        for opened in attempts:
            opened.worker = self
            self._given[opened] = True
        self._loop.call_soon_threadsafe(self._launch, attempts)

    def _launch(self, attempts: Sequence[OpenAttempt]) -> None:
        for opened in attempts:
            running = self._loop.create_task(
                self._run(opened), name=opened.planned.trace_id, context=self._context.copy()
            )
            self._running[opened] = running
            running.add_done_callback(partial(self._landed, opened))

    async def _run(self, opened: OpenAttempt) -> Attempt | None:
        # Else it begins elsewhere, because this loop was blocked.
        return await self._runner.run_opened_async(opened) if self._given.pop(opened, False) else None

    def _landed(self, opened: OpenAttempt, running: asyncio.Task[Attempt | None]) -> None:
        del self._running[opened]
        if not running.cancelled():
            attempt = running.result()
        else:  # by an agent that cancels all tasks it finds, before this one began
            attempt = opened.failed(asyncio.CancelledError()) if opened.worker is self else None
        self._given.pop(opened, None)
        if attempt is not None:
            self._ended.put((opened, attempt))

    def not_begun(self) -> list[OpenAttempt]:
        """Take back the attempts that this loop, being blocked, has not begun."""
        return [opened for opened in list(self._given) if self._given.pop(opened, False)]

    def answers(self) -> bool:
        """Tell whether the loop is alive, or blocked by an agent."""
        return self._thread.answers()

    def where(self, opened: OpenAttempt) -> str | None:
        """Return where an attempt waits."""
        running = self._running.get(opened)
        return None if running is None else task_stack(running)

    def blocked_by(self, opened: OpenAttempt) -> tuple[str | None, str]:
        """Return where the loop is blocked, and who does it, as far as that can be told."""
        culprit = self.blocker()
        who = "it" if culprit is opened else culprit.planned.trace_id if culprit else "an agent's task"
        return thread_stack(self._thread.ident), f"; {who} blocks the event loop, where only `await` may wait"

    def blocker(self) -> OpenAttempt | None:
        """Return the attempt that has the loop, or None when it is a task that one has left."""
        running = asyncio.current_task(self._loop)
        return next((one for one, task in self._running.copy().items() if task is running), None)

    def close(self) -> None:
        """Cancel what is in flight, leave the target, end the thread; leave a blocked one behind."""
        self._given.clear()  # what has not begun does not begin any more
        if self._running and self.answers():
            with suppress(TimeoutError):  # it blocks as it tidies up
                self._thread.run(self._cancel(), 2 * CLOSING_SECONDS)
        if self.answers():
            try:
                self._leave()
            except TimeoutError:
                warnings.warn("leaving the target took too long, and was given up", RuntimeWarning, stacklevel=2)
        self._thread.close()

    async def _cancel(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=CLOSING_SECONDS)
