"""Runs many at a time, on one event loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue

from fluxloop.exceptions import TargetError
from fluxloop.executors.flight import Ended, Flight, at_least_one
from fluxloop.lane import Lanes
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


class AsyncioExecutor:
    """Run up to `parallel` attempts at a time on an event loop, for async agents.

    All experiments of a process share the loop, which has a thread of its own: it works inside a
    running loop, as in a notebook, and Ctrl-C reaches the main thread. An attempt whose time is over
    is cancelled; one that goes on in spite of it is left to itself after five seconds. Should an agent
    block the loop, the attempts on it time out, and those to come get a new one.

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
        if not task.prepare().is_async:
            raise TargetError("the asyncio executor runs async agents, and this one is sync: use threads")
        ended: Ended = SimpleQueue()
        with Lanes(task, ended).closed_after() as crew:
            yield from Flight(task, schedule, self.parallel, crew, ended).batches()
