"""What each run of an experiment does, and what runs attempts at it for any executor."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import Factory, field, fields, frozen

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.binding import Binding, bind
from fluxloop.calling.frameworks import Conventions, conventions
from fluxloop.calling.replay import Replay, ReplayBinding, bind_replay
from fluxloop.calling.surroundings import importable
from fluxloop.calling.target import Target
from fluxloop.exceptions import redacted
from fluxloop.failures import RECOGNISED, TRANSIENT, Outages
from fluxloop.interrupt import Abandoned
from fluxloop.lane import Lanes
from fluxloop.open_target import OpenTarget
from fluxloop.records import Attempt, PlannedRun
from fluxloop.tracing.context import Late
from fluxloop.tracing.redaction import Redaction

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
    outages: Outages = RECOGNISED
    """What counts as infrastructure, beyond what is recognised."""
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
    late: Late = field(factory=Late, eq=False, repr=False)
    """Counts what comes of its runs in this process after they are closed."""

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(Task) if one.name not in ("prepared", "late")}

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

    def prepare(self) -> Target:
        """Load the target, for the first that opens it, and return it."""
        if not self.prepared:
            self.prepared.append(self.load())
        return self.prepared[-1][0]

    def open_target(self) -> OpenTarget:
        """Load the target, to be entered and called."""
        try:
            return OpenTarget(self, self.prepared.pop())
        except IndexError:
            return OpenTarget(self, self.load())

    def open(self) -> Runner:
        """Build the runner, once for each worker."""
        return Runner(self)

    def attempt(self, planned: PlannedRun, number: int) -> OpenAttempt:
        """Open an attempt, for an executor that watches it while it runs."""
        return OpenAttempt(planned, number, self.retry_on, self.capture_output, self.redaction, self.late, self.outages)


class Runner:
    """Run attempts at a task; a context manager, sync or async, for what the target opens."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._target = task.open_target()
        self._lanes: Lanes | None = None
        self._waiting: dict[OpenAttempt, Future[Attempt]] = {}
        self._failure: BaseException | None = None
        """Why nothing more can run."""

    @property
    def is_async(self) -> bool:
        """True when the target's calls are coroutines."""
        return self._target.is_async

    def __enter__(self) -> Runner:
        self._target.__enter__()
        if self._target.is_async:
            self._lanes = Lanes(self._task, self, self._target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lanes is None:
            self._target.__exit__(kind, error, trace)
        else:
            self._lanes.close()

    async def __aenter__(self) -> Runner:
        """Enter the target, while the running loop goes on."""
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def run(self, planned: PlannedRun, number: int = 1) -> Attempt:
        """Run one attempt to its end; whatever the agent raises is in what returns."""
        return self.run_opened(self._task.attempt(planned, number))

    async def run_async(self, planned: PlannedRun, number: int = 1) -> Attempt:
        """Run one attempt at an async target, while the running loop goes on; it ends when its time is over."""
        opened = self._task.attempt(planned, number)
        ended = asyncio.wrap_future(self._start(opened))
        try:
            return await asyncio.wait_for(asyncio.shield(ended), self._target.patience)
        except TimeoutError:
            return await asyncio.to_thread(self._give_up, opened)  # it may enter the target again
        except asyncio.CancelledError:
            self._cancel(opened)
            raise

    def run_opened(self, opened: OpenAttempt) -> Attempt:
        """Run an attempt that somebody watches, as `run` does."""
        if self._lanes is None:
            return self._target.run(opened)
        opened.patience = math.inf
        ended = self._start(opened)
        try:
            return ended.result(self._target.patience)
        except TimeoutError:  # it swallows its cancellation, or blocks the loop
            return self._give_up(opened)
        except Abandoned:
            opened.leave()
            raise

    def _start(self, opened: OpenAttempt) -> Future[Attempt]:
        if self._lanes is None:
            raise RuntimeError("the runner is not entered, or its target is sync: use run")
        if self._failure is not None:
            raise self._failure
        ended = self._waiting[opened] = Future()
        self._lanes.start([opened], 1)
        return ended

    def put(self, ended: tuple[OpenAttempt, Attempt] | BaseException) -> None:
        """Hand over an attempt that has ended, or what keeps all from running, from any thread."""
        if isinstance(ended, BaseException):
            self._failure = ended
            while self._waiting:
                self._waiting.popitem()[1].set_exception(ended)
        elif (answered := self._waiting.pop(ended[0], None)) is not None:
            answered.set_result(ended[1])

    def _cancel(self, opened: OpenAttempt) -> None:
        """Let an attempt end that nobody waits for any more."""
        self._waiting.pop(opened, None)
        if (task := opened.task) is not None:
            task.get_loop().call_soon_threadsafe(task.cancel)
        opened.leave()

    def _give_up(self, opened: OpenAttempt) -> Attempt:
        """Return the record of an attempt that could not be cancelled."""
        assert self._lanes is not None
        self._waiting.pop(opened, None)
        return opened.abandon(self._task.timeout_seconds or 0.0, *self._lanes.abandon(opened))
