"""One attempt: bind, call, time, catch."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import warnings
from collections.abc import AsyncIterator, Awaitable, Iterator
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from types import GeneratorType, TracebackType
from typing import Any

from attrs import Factory, field, fields, frozen

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.binding import Binding, bind
from fluxloop.calling.collector import collected
from fluxloop.calling.frameworks import Conventions, conventions
from fluxloop.calling.loop import LoopThread
from fluxloop.calling.replay import Replay, ReplayBinding, bind_replay
from fluxloop.calling.surroundings import importable
from fluxloop.calling.target import Target, user_failure
from fluxloop.calling.template import pick
from fluxloop.deadlines import Deadlines
from fluxloop.exceptions import TargetError, redacted
from fluxloop.failures import TRANSIENT
from fluxloop.interrupt import Abandoned
from fluxloop.rates import one_share_of
from fluxloop.records import Attempt, PlannedRun
from fluxloop.stacks import task_stack, thread_stack
from fluxloop.tracing.redaction import Redaction
from fluxloop.tracing.streams import StreamedOutput

LINGER = 5.0
"""Seconds in which a cancelled attempt may still tidy up before it is left to itself."""


Loaded = tuple[Target, Binding | ReplayBinding, "str | None"]
"""The target, its binding, and the path at which the answer is found in what returns."""


@frozen(kw_only=True)
class Task:
    """What each run of an experiment does, as a value that can be sent to a worker."""

    target: Any
    """`module:qualname`, or a callable of this process."""
    args: dict[str, Any]
    inject: tuple[str, ...]
    input_template: Any
    output_path: str | None
    import_places: tuple[Path, ...]
    """Folders put first on the import path."""
    timeout_seconds: float | None = None
    """What an attempt may take. The runner keeps it for async agents; for sync ones the executor must."""
    retry_on: tuple[str, ...] = (TRANSIENT,)
    """Errors after which another attempt may help: names of exceptions, and `transient`."""
    capture_output: bool = True
    """Whether what a run prints is kept with it, where an experiment listens."""
    rate_shares: int = 1
    """Experiments that share the rates of services, as shards do."""
    redaction: Redaction = Factory(Redaction)
    """What is masked in what is seen of the runs."""
    replay: Replay | None = None
    """The recorded calls whose arguments are replayed, if any."""
    prepared: list[Loaded] = field(factory=list, eq=False, repr=False)
    """What `load` has given in this process already, for its first runner; it stays here."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(Task) if field.name != "prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Task.__init__(self, **state)

    def load(self) -> Loaded:
        """Load the target and bind its arguments.

        Raises:
            TargetError: the target cannot be loaded or bound.
        """
        return self.bound(self.load_target())

    def load_target(self) -> Target:
        """Load the target alone, as `load` does."""
        with importable(self.import_places), redacted(self.redaction.text):
            return Target.load(self.target) if isinstance(self.target, str) else Target.of(self.target)

    def bound(self, target: Target) -> Loaded:
        """Bind the arguments of a loaded target."""
        known = conventions(target.subject)
        binding = self._bind(target, known)
        # An empty path is a choice too: the whole of what returns.
        path = known.output_path if self.output_path is None else self.output_path
        return target, binding, path or None

    def _bind(self, target: Target, known: Conventions) -> Binding | ReplayBinding:
        if self.replay is None:
            return bind(target, args=self.args, inject=self.inject, input_template=self.input_template, known=known)
        with importable(self.import_places), redacted(self.redaction.text):  # it may name functions of the project
            return bind_replay(
                self.replay,
                target,
                args=self.args,
                inject=self.inject,
                input_template=self.input_template,
                known=known,
            )

    def open(self) -> Runner:
        """Build the runner, once for each worker."""
        try:
            return Runner(self, self.prepared.pop())
        except IndexError:
            return Runner(self, self.load())

    def attempt(self, planned: PlannedRun, number: int) -> OpenAttempt:
        """Open an attempt, for an executor that watches it while it runs."""
        return OpenAttempt(planned, number, self.retry_on, self.capture_output, self.redaction)


class Runner:
    """Run attempts at a task; a context manager, sync or async, for what the target opens."""

    def __init__(self, task: Task, loaded: Loaded) -> None:
        self._task = task
        self._use(loaded)
        self._loop = LoopThread()
        self._deadlines = Deadlines(task.timeout_seconds) if task.timeout_seconds else None
        self._stack = ExitStack()
        self._async_stack = AsyncExitStack()

    def _use(self, loaded: Loaded) -> None:
        self._target, self._binding, self._output_path = loaded
        target = self._target
        self._function = target.function
        self.is_async = target.is_async
        """True when the target's calls are coroutines."""

    def __enter__(self) -> Runner:
        self._stack.callback(self._loop.close)
        try:
            self._stack.enter_context(importable(self._task.import_places))
            self._stack.enter_context(one_share_of(self._task.rate_shares))
            owner = self._target.owner
            with self._entering():
                if hasattr(type(owner), "__aenter__"):
                    entered, leave = self._loop.enter(owner)
                    self._stack.callback(leave)
                    self._rebind(entered)
                elif hasattr(type(owner), "__enter__"):
                    self._rebind(self._stack.enter_context(owner))
        except BaseException:
            self._stack.close()
            raise
        return self

    async def __aenter__(self) -> Runner:
        """Enter the target on the running loop, which is then the one for `run_async`."""
        try:
            self._async_stack.enter_context(importable(self._task.import_places))
            self._async_stack.enter_context(one_share_of(self._task.rate_shares))
            owner = self._target.owner
            with self._entering():
                if hasattr(type(owner), "__aenter__"):
                    self._rebind(await self._async_stack.enter_async_context(owner))
                elif hasattr(type(owner), "__enter__"):
                    self._rebind(self._async_stack.enter_context(owner))
        except BaseException:
            await self._async_stack.aclose()
            raise
        return self

    @contextmanager
    def _entering(self) -> Iterator[None]:
        try:
            yield
        except (Abandoned, KeyboardInterrupt, TargetError):
            raise
        except BaseException as error:  # it may also call sys.exit
            told = user_failure(f"runner.target: {self._target.reference}: entering it failed", error)
            raise TargetError(self._task.redaction.text(told)) from error

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        try:
            yield
        except (Abandoned, KeyboardInterrupt):
            raise
        except BaseException as failed:
            # The runs are done and recorded; what the target leaves open is not theirs to lose.
            told = self._task.redaction.text(user_failure("leaving the target failed", failed))
            warnings.warn(told, RuntimeWarning, stacklevel=4)

    def _rebind(self, entered: Any) -> None:
        """Bind again, because what is called may be there only now."""
        self._use(self._task.bound(self._target.entered(entered)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._leaving():
            self._stack.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._leaving():
            await self._async_stack.aclose()

    def run(self, planned: PlannedRun, number: int = 1) -> Attempt:
        """Run one attempt to its end; whatever the agent raises is in what returns."""
        return self.run_opened(self._task.attempt(planned, number))

    async def run_async(self, planned: PlannedRun, number: int = 1) -> Attempt:
        """Run one attempt at an async target, on the loop of the caller; it ends when its time is over."""
        return await self.run_opened_async(self._task.attempt(planned, number))

    def run_opened(self, opened: OpenAttempt) -> Attempt:
        """Run an attempt that somebody watches, as `run` does."""
        if not self.is_async:
            # A context of its own, so that what the agent sets in it does not reach the next run.
            return contextvars.copy_context().run(self._run_sync, opened)
        limit = self._task.timeout_seconds
        opened.patience = math.inf
        try:
            return self._loop.run(self.run_opened_async(opened), limit and limit + LINGER)
        except TimeoutError:  # it swallows its cancellation, or blocks the loop
            return self._give_up(opened, limit or 0.0)
        except CancelledError:  # by a task left behind, before it began
            return opened.failed(asyncio.CancelledError())

    def _give_up(self, opened: OpenAttempt, limit: float) -> Attempt:
        """Return the record of an attempt that could not be cancelled."""
        if self._loop.answers():
            where = None if opened.task is None else task_stack(opened.task)
            return opened.abandon(limit, where, "; it goes on in spite of its cancellation")
        who = "it" if asyncio.current_task(self._loop.loop) is opened.task else "an agent's task"
        where = thread_stack(self._loop.ident)
        attempt = opened.abandon(limit, where, f"; {who} blocks the event loop, where only `await` may wait")
        self._start_anew()
        return attempt

    def _start_anew(self) -> None:
        """Leave a blocked loop behind: the attempts to come need one, and the target entered on it."""
        with self._leaving():
            self._stack.close()
        self._loop, self._stack = LoopThread(), ExitStack()
        self._deadlines = Deadlines(self._task.timeout_seconds) if self._task.timeout_seconds else None
        self._use(self._task.load())
        self.__enter__()

    def _run_sync(self, opened: OpenAttempt) -> Attempt:
        try:
            args, kwargs = self._binding.arguments(opened.planned.case, opened.begin())
            output = self._function(*args, **kwargs)
            if not _is_finished(type(output)):
                output = self._finish(opened, output)
            opened.end()
            return opened.succeeded(self._answer(opened, output))
        except Abandoned:
            raise
        except BaseException as error:
            return opened.failed(error)

    async def run_opened_async(self, opened: OpenAttempt) -> Attempt:
        """Run an attempt that somebody watches, as `run_async` does."""
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
            if not _is_finished(type(output)):
                output = await _finish_async(output, opened.run.redaction)
            opened.end()
            if opened.expired:
                return opened.timed_out(limit or 0.0, opened.expired)
            return opened.succeeded(self._answer(opened, output))
        except Abandoned:
            raise
        except BaseException as error:
            return opened.timed_out(limit or 0.0, opened.expired) if opened.expired else opened.failed(error)
        finally:
            if deadlines is not None:
                deadlines.end(opened)
            if running.cancelling() and _is_current(running):
                # A cancellation the agent has not met yet would take the record with it.
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)

    def _finish(self, opened: OpenAttempt, output: Any) -> Any:
        if _is_awaitable(output) or issubclass(type(output), AsyncIterator):

            async def finish() -> Any:
                opened.task = asyncio.current_task()
                return await _finish_async(output, opened.run.redaction)

            return self._loop.run(finish())
        return _drain(output, opened.run.redaction) if _is_stream(output) else output

    def _answer(self, opened: OpenAttempt, output: Any) -> Any:
        if output is None and self._task.replay is not None:
            output = collected(opened.run)
        return output if self._output_path is None else pick(output, self._output_path)


def _is_current(task: asyncio.Task[Any]) -> bool:
    """Not so when the coroutine of a task left behind is thrown away."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False


def _is_finished(kind: type) -> bool:
    """What needs no further step to be an answer; asked first because it is the rule."""
    return kind is str or kind is dict or kind is list or kind is type(None)


async def _finish_async(output: Any, redaction: Redaction) -> Any:
    if _is_awaitable(output):
        output = await output
        if _is_finished(type(output)):
            return output
    if issubclass(type(output), AsyncIterator):
        streamed = StreamedOutput(redaction)
        async for item in output:
            streamed.add(item)
        return streamed.value()
    return _drain(output, redaction) if _is_stream(output) else output


# These ask the type, because an odd object may answer anything itself, or raise.
def _is_awaitable(output: Any) -> bool:
    kind = type(output)
    return issubclass(kind, Awaitable) or (kind is GeneratorType and inspect.isawaitable(output))


def _is_stream(output: Any) -> bool:
    kind = type(output)
    return issubclass(kind, Iterator) and not hasattr(kind, "read")


def _drain(items: Iterator[Any], redaction: Redaction) -> Any:
    streamed = StreamedOutput(redaction)
    while True:
        try:
            streamed.add(next(items))
        except StopIteration as stop:
            return streamed.value(stop.value)
