"""One attempt: bind, call, time, catch."""

from __future__ import annotations

import contextvars
import inspect
import os
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import GeneratorType, TracebackType
from typing import Any

from attrs import field, fields, frozen

from fluxloop.calling.binding import Binding, bind
from fluxloop.calling.frameworks import conventions
from fluxloop.calling.loop import LoopThread
from fluxloop.calling.surroundings import importable
from fluxloop.calling.target import Target, user_failure
from fluxloop.calling.template import pick
from fluxloop.clock import milliseconds, timestamp
from fluxloop.exceptions import TargetError
from fluxloop.interrupt import Abandoned
from fluxloop.records import Attempt, PlannedRun, RunError
from fluxloop.tracing.capture import capture, message, type_name
from fluxloop.tracing.context import Run, current
from fluxloop.tracing.streams import StreamedOutput

_PACKAGE = str(Path(__file__).parent) + os.sep


Loaded = tuple[Target, Binding, "str | None"]
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
        with importable(self.import_places):
            target = Target.load(self.target) if isinstance(self.target, str) else Target.of(self.target)
        return self.bound(target)

    def bound(self, target: Target) -> Loaded:
        """Bind the arguments of a loaded target."""
        known = conventions(target.subject)
        binding = bind(target, args=self.args, inject=self.inject, input_template=self.input_template, known=known)
        # An empty path is a choice too: the whole of what returns.
        path = known.output_path if self.output_path is None else self.output_path
        return target, binding, path or None

    def open(self) -> Runner:
        """Build the runner, once for each worker."""
        return Runner(self, self.prepared.pop() if self.prepared else self.load())


class Runner:
    """Run attempts at a task, one at a time; a context manager, for what the target opens."""

    def __init__(self, task: Task, loaded: Loaded) -> None:
        self._task = task
        self._use(loaded)
        self._loop = LoopThread()
        self._stack = ExitStack()

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
            self._enter_owner()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _enter_owner(self) -> None:
        owner = self._target.owner
        try:
            if hasattr(type(owner), "__aenter__"):
                entered, leave = self._loop.enter(owner)
                self._stack.callback(leave)
            elif hasattr(type(owner), "__enter__"):
                entered = self._stack.enter_context(owner)
            else:
                return
        except (Abandoned, KeyboardInterrupt):
            raise
        except BaseException as error:  # it may also call sys.exit
            told = user_failure(f"runner.target: {self._target.reference}: entering it failed", error)
            raise TargetError(told) from error
        # Bound again, because what is called may be there only now.
        self._use(self._task.bound(self._target.entered(entered)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.close()
        except (Abandoned, KeyboardInterrupt):
            raise
        except BaseException as failed:
            # The runs are done and recorded; what the target leaves open is not theirs to lose.
            warnings.warn(user_failure("leaving the target failed", failed), RuntimeWarning, stacklevel=2)

    def run(self, planned: PlannedRun, number: int = 1) -> Attempt:
        """Run one attempt to its end; whatever the agent raises is in what returns."""
        if self.is_async:
            return self._loop.run(self.run_async(planned, number))
        # A context of its own, so that what the agent sets in it does not reach the next run.
        return contextvars.copy_context().run(self._run_sync, planned, number)

    def _run_sync(self, planned: PlannedRun, number: int) -> Attempt:
        opened = _Opened(planned, number)
        try:
            args, kwargs = self._binding.arguments(planned.case, opened.run)
            output = self._function(*args, **kwargs)
            if not _is_finished(type(output)):
                output = self._finish(output)
            opened.end()
            return opened.succeeded(self._answer(output))
        except Abandoned:
            raise
        except BaseException as error:
            return opened.failed(error)

    async def run_async(self, planned: PlannedRun, number: int = 1) -> Attempt:
        """Run one attempt at an async target, on the loop of the caller."""
        opened = _Opened(planned, number)
        try:
            args, kwargs = self._binding.arguments(planned.case, opened.run)
            output = self._function(*args, **kwargs)
            if not _is_finished(type(output)):
                output = await _finish_async(output)
            opened.end()
            return opened.succeeded(self._answer(output))
        except Abandoned:
            raise
        except BaseException as error:
            return opened.failed(error)

    def _finish(self, output: Any) -> Any:
        if _is_awaitable(output) or issubclass(type(output), AsyncIterator):
            return self._loop.run(_finish_async(output))
        return _drain(output) if _is_stream(output) else output

    def _answer(self, output: Any) -> Any:
        return output if self._output_path is None else pick(output, self._output_path)


def _is_finished(kind: type) -> bool:
    """What needs no further step to be an answer; asked first because it is the rule."""
    return kind is str or kind is dict or kind is list or kind is type(None)


async def _finish_async(output: Any) -> Any:
    if _is_awaitable(output):
        output = await output
    if issubclass(type(output), AsyncIterator):
        streamed = StreamedOutput()
        async for item in output:
            streamed.add(item)
        return streamed.value()
    return _drain(output) if _is_stream(output) else output


# These ask the type, because an odd object may answer anything itself, or raise.
def _is_awaitable(output: Any) -> bool:
    kind = type(output)
    return issubclass(kind, Awaitable) or (kind is GeneratorType and inspect.isawaitable(output))


def _is_stream(output: Any) -> bool:
    kind = type(output)
    return issubclass(kind, Iterator) and not hasattr(kind, "read")


def _drain(items: Iterator[Any]) -> Any:
    streamed = StreamedOutput()
    while True:
        try:
            streamed.add(next(items))
        except StopIteration as stop:
            return streamed.value(stop.value)


class _Opened:
    """An attempt under way."""

    __slots__ = ("_end", "_input", "_number", "_planned", "_process", "_start", "run")

    def __init__(self, planned: PlannedRun, number: int) -> None:
        self._planned = planned
        self._number = number
        self._process = os.getpid()
        self._end: int | None = None
        wall = time.time_ns()
        self._start = time.perf_counter_ns()
        self.run = Run(planned, number, wall - self._start)
        # At the start, because an agent may change what it is given.
        self._input = capture(planned.case.input)
        current.set((self.run, None))

    def end(self) -> None:
        self._end = time.perf_counter_ns()
        if os.getpid() != self._process:
            os._exit(0)

    def succeeded(self, output: Any) -> Attempt:
        return self._attempt("ok", capture(output), None)

    def failed(self, error: BaseException) -> Attempt:
        if self._end is None:
            self._end = time.perf_counter_ns()
        if os.getpid() != self._process:
            # A process the agent has forked ends here: it must not go on with the parent's experiment.
            os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
        told = RunError("agent", type_name(error), message(error), _traceback(error))
        return self._attempt("error", None, told)

    def _attempt(self, status: Any, output: Any, error: RunError | None) -> Attempt:
        run = self.run
        run.closed = True
        end = self._end or self._start
        return Attempt(
            self._planned,
            self._number,
            status,
            self._input,
            output,
            error,
            timestamp(self._start + run.offset),
            timestamp(end + run.offset),
            milliseconds(end - self._start),
            tuple(run.observations),
            capture("".join(run.stdout)) if run.stdout else None,
            capture("".join(run.stderr)) if run.stderr else None,
        )


def _traceback(error: BaseException) -> str | None:
    """The traceback as Python prints it, without fluxloop's own frames."""
    try:
        told = traceback.TracebackException.from_exception(error)
        _trim(told)
        return str(capture("".join(told.format())))
    except BaseException:  # an exception may be as hostile as any object
        return None


def _trim(told: traceback.TracebackException | None) -> None:
    while told is not None:
        told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(_PACKAGE)]
        for member in getattr(told, "exceptions", None) or ():
            _trim(member)
        told = told.__cause__ or told.__context__
