"""What executors share that send the task to workers in other processes."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from fluxloop.executors.flight import at_least_one
from fluxloop.executors.remote.dispatch import Dispatch
from fluxloop.executors.remote.sending import packed
from fluxloop.executors.remote.transport import Transport
from fluxloop.open_target import LINGER
from fluxloop.rates import one_share_of
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


class WorkersExecutor(ABC):
    """Run up to `parallel` attempts at a time in workers: sync agents one in each, async ones many."""

    crash_retries = 0
    """Further attempts at a run whose worker has died, where the configuration says nothing."""
    short = 8
    """Short attempts that a worker is sent at a time: so that it need not wait until each is settled."""

    def __init__(self, parallel: int) -> None:
        self.parallel = at_least_one(parallel)
        self._running: list[Dispatch] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parallel})"

    @abstractmethod
    def _workers(self, task: Task) -> AbstractContextManager[tuple[Transport, int]]:
        """Enter what starts workers for the task; get with it how many may share attempts at an async agent."""

    def check(self, task: Task) -> None:
        """Find out whether the task can be sent to another process.

        Raises:
            TargetError: it cannot; says what to do.
        """
        packed(task)

    def stacks(self) -> str:
        """Return where everything is in the workers, from any thread."""
        return "\n".join(dispatch.stacks() for dispatch in self._running.copy())

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives, yielding attempts as they end.

        Raises:
            TargetError: the target cannot be sent to a worker, or no worker can load it.
        """
        target = task.prepared[0][0] if task.prepared else task.load_target()
        task.prepared.clear()  # what was built to prove the target is for no worker
        is_async, limits = target.is_async, schedule.limits
        # What is sent ahead would start in spite of these.
        is_strict = limits.max_failures is not None or limits.stop_when_all_fail > 0 or limits.start_gap > 0
        with one_share_of(task.rate_shares), self._workers(task) as (transport, most):
            workers = min(self.parallel, most) if is_async else self.parallel
            dispatch = Dispatch(
                task=task,
                schedule=schedule,
                transport=transport,
                workers=workers,
                parallel=self.parallel,
                together=-(-self.parallel // workers),
                short=1 if is_async or is_strict else self.short,
                patience=LINGER if is_async else 0.0,
            )
            self._running.append(dispatch)
            try:
                yield from dispatch.batches()
            finally:
                self._running.remove(dispatch)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
