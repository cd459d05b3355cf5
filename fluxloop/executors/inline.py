"""Runs one at a time, in the thread of the caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


class InlineExecutor:
    """Run one attempt after the other, here.

    A sync agent runs in the calling thread; an async one on an event loop beside it.
    """

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives, yielding each attempt as it ends."""
        with task.open() as runner:
            while taken := schedule.take():
                yield (runner.run(*taken),)
