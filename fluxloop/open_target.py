"""A target between entering and leaving it, and how one attempt at it goes: bind, call, time, catch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.answer import FINISHED, settled, settled_async, whole, whole_async
from fluxloop.calling.collector import collected
from fluxloop.calling.loop import LoopThread, NotLeft, give_back, take_loop
from fluxloop.calling.surroundings import importable
from fluxloop.calling.target import user_failure
from fluxloop.calling.template import pick
from fluxloop.deadlines import Deadlines
from fluxloop.exceptions import TargetError
from fluxloop.interrupt import Abandoned
from fluxloop.notices import notice
from fluxloop.rates import one_share_of
from fluxloop.records import Attempt

if TYPE_CHECKING:
    from fluxloop.runner import Loaded, Task

LINGER = 5.0
"""Seconds in which a cancelled attempt may still tidy up before it is left to itself."""


class OpenTarget:
    """A loaded target that is entered, where it is a context manager, and called.

    A sync target is entered and called in the thread that opens it; an async one on the loop that all
    async work of the process shares.

    Args:
        task: what each attempt does.
        loaded: the target with its binding.
    """

    def __init__(self, task: Task, loaded: Loaded) -> None:
        self._task = task
        self._use(loaded)
        self._loop: LoopThread | None = None
        self._deadlines = Deadlines(task.timeout_seconds) if task.timeout_seconds else None
        self._stack = ExitStack()

    def _use(self, loaded: Loaded) -> None:
        self._target, self._binding, self._output_path = loaded
        self._function = self._target.function
        self.is_async = self._target.is_async
        """True when the target's calls are coroutines."""

    @property
    def loop(self) -> LoopThread:
        """The loop that its async work runs on, taken when it is first needed."""
        if self._loop is not None and not self._loop.is_blocked:
            return self._loop
        self._let_loop_go()  # what is left of a blocked one is nothing that could be waited for
        self._loop = take_loop()
        return self._loop

    @property
    def patience(self) -> float | None:
        """Seconds after which an attempt on the loop that has not ended is given up; None for never."""
        limit = self._task.timeout_seconds
        return limit and limit + LINGER

    def _let_loop_go(self) -> None:
        if self._loop is not None:
            give_back(self._loop)
            self._loop = None

    def __enter__(self) -> OpenTarget:
        self._stack.callback(self._let_loop_go)
        try:
            self._stack.enter_context(importable(self._task.import_places))
            self._stack.enter_context(one_share_of(self._task.rate_shares))
            owner = self._target.owner
            is_async = hasattr(type(owner), "__aenter__")
            with self._entering():
                if is_async or (self.is_async and hasattr(type(owner), "__enter__")):
                    # On the loop although its manager is sync, because clients ask for the running loop.
                    entered, leave = self.loop.enter(owner if is_async else _on_loop(owner))
                    self._stack.callback(leave)
                    self._rebind(entered)
                elif hasattr(type(owner), "__enter__"):
                    self._rebind(self._stack.enter_context(owner))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @contextmanager
    def _entering(self) -> Iterator[None]:
        try:
            yield
        except (Abandoned, KeyboardInterrupt, TargetError):
            raise
        except BaseException as error:  # it may also call sys.exit
            description = user_failure(f"runner.target: {self._target.reference}: entering it failed", error)
            raise TargetError(self._task.redaction.text(description)) from error

    def _rebind(self, entered: Any) -> None:
        """Bind again, because what is called may be there only now."""
        self._use(self._task.bound(self._target.entered(entered)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.close()
        except (Abandoned, KeyboardInterrupt):
            raise
        except NotLeft:
            notice("the target was not left, because an agent blocks its event loop or has broken it")
        except BaseException as failed:
            # The runs are done and recorded; what the target leaves open is not theirs to lose.
            notice(self._task.redaction.text(user_failure("leaving the target failed", failed)))

    def run(self, opened: OpenAttempt) -> Attempt:
        """Run one attempt at a sync target to its end, in this thread."""
        # A context of its own, so that what the agent sets in it does not reach the next run.
        return copy_context().run(self._run, opened)

    def _run(self, opened: OpenAttempt) -> Attempt:
        try:
            args, kwargs = self._binding.arguments(opened.planned.case, opened.begin())
            output = self._function(*args, **kwargs)
            if type(output) not in FINISHED:
                output = settled(output, opened.run, partial(self._wait, opened))
            answer = self._answer(opened, output)
            if type(answer) is str:  # asked first because most are
                return opened.succeeded(opened.plain(answer, None))
            return opened.succeeded(whole(answer, opened.plain, opened.run, partial(self._wait, opened)))
        except Abandoned:
            opened.leave()
            raise
        except BaseException as error:
            return opened.failed(error)

    def _wait(self, opened: OpenAttempt, pending: Any) -> Any:
        """A sync callable may give what is to be awaited, too: a lambda around an async client does."""
        return self.loop.run(self._finish(opened, pending))

    async def _finish(self, opened: OpenAttempt, pending: Any) -> Any:
        opened.task = asyncio.current_task()
        try:
            return await settled_async(pending, opened.run)
        finally:
            opened.task = None  # what follows is in the thread again

    async def run_on_loop(self, opened: OpenAttempt) -> Attempt:
        """Run one attempt at an async target, on the loop it was entered on; it ends when its time is over."""
        limit = self._task.timeout_seconds
        opened.task = running = asyncio.current_task()
        assert running is not None
        deadlines = self._deadlines
        try:
            args, kwargs = self._binding.arguments(opened.planned.case, opened.begin())
            if deadlines is not None:
                opened.patience = max(opened.patience, LINGER)
                deadlines.begin(opened)
            output = self._function(*args, **kwargs)
            if type(output) not in FINISHED:
                output = await settled_async(output, opened.run)
            answer = self._answer(opened, output)
            if type(answer) is str:
                plain = opened.plain(answer, None)
            else:
                plain = await whole_async(answer, opened.plain, opened.run)
            if opened.expired:
                return opened.timed_out(limit or 0.0, opened.expired)
            return opened.succeeded(plain)
        except Abandoned:
            opened.leave()
            raise
        except BaseException as error:
            return opened.timed_out(limit or 0.0, opened.expired) if opened.expired else opened.failed(error)
        finally:
            if deadlines is not None:
                deadlines.end(opened)
            if running.cancelling() and _is_current(running):
                # A cancellation the agent has not met yet would take the record with it.
                with suppress(asyncio.CancelledError):
                    await asyncio.tasks.sleep(0)  # not the double of `asyncio.sleep` an agent may have left

    def _answer(self, opened: OpenAttempt, output: Any) -> Any:
        if output is None and self._task.replay is not None:
            output = collected(opened.run)
        return output if self._output_path is None else pick(output, self._output_path)


@asynccontextmanager
async def _on_loop(owner: Any) -> AsyncIterator[Any]:
    with owner as entered:
        yield entered


def _is_current(task: asyncio.Task[Any]) -> bool:
    """Not so when the coroutine of a task left behind is thrown away."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
