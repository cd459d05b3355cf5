"""Attempts at an async target, together on the process's loop; the one way async agents run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.eventloop import new_task
from fluxloop.calling.loop import BLOCKS, BROKEN, BUSY_SECONDS
from fluxloop.exceptions import TargetError
from fluxloop.interrupt import Abandoned
from fluxloop.open_target import OpenTarget
from fluxloop.records import Attempt
from fluxloop.stacks import task_stack, thread_stack

if TYPE_CHECKING:
    from fluxloop.runner import Task

CLOSING_SECONDS = 1.0
"""How long attempts that are left in flight may take to tidy up."""


class Ended(Protocol):
    """Takes each attempt when it has ended, or what keeps all from running, from any thread."""

    def put(self, ended: tuple[OpenAttempt, Attempt] | BaseException, /) -> None: ...


class Lane:
    """Run attempts together on the loop, and hand over each when it has ended.

    Args:
        target: an async target, entered on the loop.
        ended: what they are handed to.
    """

    def __init__(self, target: OpenTarget, ended: Ended) -> None:
        self._target = target
        self._ended = ended
        self._context = copy_context()
        self._thread = target.loop
        self._loop = self._thread.loop
        self._given: dict[OpenAttempt, bool] = {}
        """Attempts that have not begun; who takes one out runs it."""
        self._running: dict[OpenAttempt, asyncio.Task[None]] = {}
        self._stack = ExitStack()
        self._stack.enter_context(self._thread.told_if_broken(self._broken))

    @property
    def is_broken(self) -> bool:
        """Whether its loop has come to its end."""
        return self._thread.is_broken

    @property
    def is_blocked(self) -> bool:
        """Whether its loop is known to run nothing more."""
        return self._thread.is_blocked

    def _broken(self) -> None:
        """Hand over what will not end any more, because the loop has."""
        for opened in [*self._running, *self.not_begun()]:
            self._ended.put((opened, opened.failed(RuntimeError(BROKEN))))

    def start(self, attempts: Sequence[OpenAttempt]) -> None:
        for opened in attempts:
            opened.worker = self
            self._given[opened] = True
        self._loop.call_soon_threadsafe(self._launch, attempts)

    def _launch(self, attempts: Sequence[OpenAttempt]) -> None:
        for opened in attempts:
            running = new_task(
                self._run(opened), self._loop, name=opened.planned.trace_id, context=self._context.copy()
            )
            self._running[opened] = running
            running.add_done_callback(partial(self._landed, opened))

    async def _run(self, opened: OpenAttempt) -> None:
        if self._given.pop(opened, False):  # else it begins elsewhere, because this loop was blocked
            attempt = await self._target.run_on_loop(opened)
            # At once rather than when the loop comes to it, because the next attempt may block it.
            self._ended.put((opened, attempt))

    def _landed(self, opened: OpenAttempt, running: asyncio.Task[None]) -> None:
        del self._running[opened]
        self._given.pop(opened, None)
        if asyncio._get_running_loop() is None:  # an agent that nests loops has unset it for all that follow
            asyncio._set_running_loop(self._loop)
        # By an agent that cancels all tasks it finds, before this one began, or that took the loop from under it.
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        if error is not None and opened.worker is self:
            self._ended.put((opened, opened.failed(error)))

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
        return thread_stack(self._thread.ident), f"; {who} {BLOCKS}"

    def blocker(self) -> OpenAttempt | None:
        """Return the attempt that has the loop, or None when it is a task that one has left."""
        running = asyncio.current_task(self._loop)
        return next((one for one, task in self._running.copy().items() if task is running), None)

    def close(self) -> None:
        """Cancel what is in flight and leave the target; what a blocked loop holds stays as it is."""
        self._given.clear()  # what has not begun does not begin any more
        if self._running and self._thread.answers(BUSY_SECONDS):
            # It blocks as it tidies up, or cancels whatever it finds.
            with suppress(CancelledError, TimeoutError):
                self._thread.run(self._cancel(), 2 * CLOSING_SECONDS)
        self._thread.answers(BUSY_SECONDS)  # leaving asks no blocked loop
        self._target.__exit__(None, None, None)
        self._stack.close()

    async def _cancel(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.tasks.wait(running, timeout=CLOSING_SECONDS)  # not the double an agent may have left


class Lanes:
    """The lane on which attempts start, and those left behind because an agent blocks their loop.

    Args:
        task: what each attempt does.
        ended: takes each attempt when it has ended.
        target: the task's target, if it is entered already.

    Raises:
        TargetError: the target cannot be loaded or entered, or is not async.
    """

    def __init__(self, task: Task, ended: Ended, target: OpenTarget | None = None) -> None:
        self._task = task
        self._ended = ended
        self._lane = self._open() if target is None else Lane(target, ended)
        self._all = [self._lane]
        self._is_over = False
        """True once the target could not be entered again."""
        self._lock = threading.RLock()  # an executor of a user's own may call from many threads

    def _open(self) -> Lane:
        target = self._task.open_target()
        target.__enter__()
        if not target.is_async:
            target.__exit__(None, None, None)
            raise TargetError("what the target gives when it is entered is sync: use the executor inline or processes")
        return Lane(target, self._ended)

    def start(self, attempts: Sequence[OpenAttempt], in_flight: int) -> None:
        """Start attempts."""
        with self._lock:
            if self._lane.is_blocked:
                self._replace(self._lane)
            if not self._is_over:
                self._lane.start(attempts)

    def abandon(self, opened: OpenAttempt) -> tuple[str | None, str]:
        """Go on without an attempt that does not end; return where it is, and what is to be said of it."""
        lane: Lane = opened.worker
        if lane.answers():
            return lane.where(opened), "; it goes on in spite of its cancellation"
        self._replace(lane)
        return lane.blocked_by(opened)

    def revive(self) -> None:
        """See to attempts that were handed over long ago and have not begun."""
        if not self._lane.answers():  # blocked by what is no attempt, as a task that one has left
            self._replace(self._lane)

    def _replace(self, lane: Lane) -> None:
        with self._lock:
            if lane is self._lane and not self._is_over:
                self._start_anew(lane)

    def _start_anew(self, lane: Lane) -> None:
        try:
            self._lane = self._open()
        except Abandoned:
            raise
        except BaseException as error:  # by a database that takes no further client; what has ended is handed over
            self._is_over = True
            self._ended.put(error)
            return
        self._all.append(self._lane)
        self._lane.start(lane.not_begun())

    @contextmanager
    def closed_after(self) -> Iterator[Lanes]:
        """Close all lanes at the end."""
        try:
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """Cancel what is in flight, and leave the target."""
        with ExitStack() as each:  # whatever one of them meets, the others are closed, too
            for lane in self._all:
                each.callback(lane.close)
