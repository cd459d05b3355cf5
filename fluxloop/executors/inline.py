"""Runs one at a time, in the thread of the caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fluxloop.clock import sleep
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


class InlineExecutor:
    """Run one attempt after the other, here.

    A sync agent runs in the calling thread, where nothing can end it but itself: it has no
    timeout. An async one runs on an event loop beside it.

    Example:
        >>> from fluxloop import Experiment, InlineExecutor
        >>> Experiment(target=str.upper, inputs=["hi"], executor=InlineExecutor())
        <Experiment experiment of builtins:str.upper>
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __str__(self) -> str:
        return "inline, one at a time"

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives, yielding each attempt as it ends."""
        with task.open() as runner:
            while True:
                if taken := schedule.take():
                    yield (runner.run(*taken),)
                elif schedule.finished:
                    return
                else:
                    sleep(schedule.wait_seconds())
                    yield ()
