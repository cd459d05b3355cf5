"""Runs many at a time, on one event loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

from fluxloop.attempt import OpenAttempt
from fluxloop.executors.flight import Ended, Flight, at_least_one
from fluxloop.executors.lane import Lane
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


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
        self._lane = Lane(task, ended)
        self._all = [self._lane]

    def start(self, attempts: Sequence[OpenAttempt], in_flight: int) -> None:
        self._lane.start(attempts)

    def abandon(self, opened: OpenAttempt) -> tuple[str | None, str]:
        lane: Lane = opened.worker
        if lane.answers():
            return lane.where(opened), "; it goes on in spite of its cancellation"
        self._replace(lane)
        return lane.blocked_by(opened)

    def revive(self) -> None:
        if not self._lane.answers():  # blocked by what is no attempt, as a task that one has left
            self._replace(self._lane)

    def _replace(self, lane: Lane) -> None:
        if lane is self._lane:
            self._lane = Lane(self._task, self._ended)
            self._all.append(self._lane)
            self._lane.start(lane.not_begun())

    @contextmanager
    def closed_after(self) -> Iterator[_Lanes]:
        try:
            yield self
        finally:
            for lane in self._all:
                lane.close()
