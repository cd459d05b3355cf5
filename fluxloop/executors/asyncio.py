"""Runs many at a time, on one event loop."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.loop import LoopThread
from fluxloop.exceptions import TargetError
from fluxloop.executors.flight import Ended, Flight, at_least_one
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule
from fluxloop.stacks import task_stack, thread_stack

CLOSING_SECONDS = 1.0
"""How long attempts that are left in flight may take to tidy up."""


class AsyncioExecutor:
    """Run up to `parallel` attempts at a time on an event loop, for async agents.

    The loop has a thread of its own: it works inside a running loop, as in a notebook, and
    Ctrl-C reaches the main thread. An attempt whose time is over is cancelled; one that goes on
    in spite of it is left to itself after five seconds. Should an agent block the loop, the
    attempts on it time out, and those to come get a new one.

    Args:
        parallel: attempts in flight at a time.

    Example:
        >>> from fluxloop import AsyncioExecutor, Experiment
        >>> async def agent(text: str) -> str:
        ...     return text.upper()
        >>> experiment = Experiment(target=agent, inputs=["hi"], executor=AsyncioExecutor(100))
    """

    def __init__(self, parallel: int = 8) -> None:
        self.parallel = at_least_one(parallel)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parallel})"

    def __str__(self) -> str:
        return f"asyncio, {self.parallel} at a time"

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives, yielding attempts as they end.

        Raises:
            TargetError: the agent is not async.
        """
        ended: Ended = SimpleQueue()
        with _Lanes(task, ended).closed_after() as crew:
            yield from Flight(task, schedule, self.parallel, crew, ended).batches()


class _Lanes:
    """The loop that attempts start on, and those left behind because an agent blocks them."""

    def __init__(self, task: Task, ended: Ended) -> None:
        self._task = task
        self._ended = ended
        self._lane = _Lane(task, ended)
        self._all = [self._lane]

    def start(self, attempts: Sequence[OpenAttempt], in_flight: int) -> None:
        self._lane.start(attempts)

    def abandon(self, opened: OpenAttempt) -> tuple[str | None, str]:
        lane: _Lane = opened.worker
        if lane.answers():
            return lane.where(opened), "; it goes on in spite of its cancellation"
        self._replace(lane)
        return lane.blocked_by(opened)

    def revive(self) -> None:
        if not self._lane.answers():  # blocked by what is no attempt, as a task that one has left
            self._replace(self._lane)

    def _replace(self, lane: _Lane) -> None:
        if lane is self._lane:
            self._lane = _Lane(self._task, self._ended)
            self._all.append(self._lane)
            self._lane.start(lane.not_begun())

    @contextmanager
    def closed_after(self) -> Iterator[_Lanes]:
        try:
            yield self
        finally:
            for lane in self._all:
                lane.close()


class _Lane:
    """A loop in a thread, with the target entered on it."""

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
        running = asyncio.current_task(self._loop)
        culprit = next((one for one, task in self._running.copy().items() if task is running), None)
        who = "it" if culprit is opened else culprit.planned.trace_id if culprit else "an agent's task"
        return thread_stack(self._thread.ident), f"; {who} blocks the event loop, where only `await` may wait"

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
