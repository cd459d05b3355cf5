"""The contract between the experiment's loop and whatever runs its attempts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


@runtime_checkable
class Executor(Protocol):
    """Run attempts and yield what they came to.

    An executor pulls from the schedule when it has room and yields attempts as they end, in
    batches. It writes nothing and decides nothing: the experiment's loop settles each attempt.
    """

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives until it gives no more.

        Args:
            task: what each attempt does; `task.open()` builds the runner, once for each worker.
            schedule: `take()` gives the next planned run and its attempt number, or None.
        """
        ...
