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

    Example:
        >>> class OneByOne:
        ...     def run(self, task, schedule):
        ...         with task.open() as runner:  # enters what the target opens, and leaves it
        ...             while not schedule.finished:
        ...                 if taken := schedule.take():
        ...                     yield [runner.run(*taken)]
        ...                 else:  # nothing may start now: a retry or a rate waits
        ...                     time.sleep(schedule.wait_seconds())
        ...                     yield []
    """

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives until it is finished.

        Args:
            task: what each attempt does; `task.open()` builds the runner, once for each worker, to
                be entered as a context manager. `runner.run(planned, number)` runs one attempt to
                its end, in this thread or, for an async agent, on a loop beside it;
                `await runner.run_async(planned, number)` runs one on a loop of the executor's.
            schedule: `take()` gives the next planned run and its attempt number, or None when
                nothing may start now; `finished` says when to end, also when attempts in flight are
                to be left; `wait_seconds()` how long to wait with room to spare. All belong to the
                thread that calls `run`. Each attempt taken is to be yielded once, and a batch,
                though it be empty, at least every tenth of a second, so that Ctrl-C is heeded.
        """
        ...


@runtime_checkable
class Elsewhere(Protocol):
    """An executor that sends the task to other processes."""

    crash_retries: int
    """Further attempts at a run whose worker has died, where the configuration says nothing."""

    def check(self, task: Task) -> None:
        """Find out, before anything runs, whether the task can be sent.

        Raises:
            TargetError: it cannot; says what to do.
        """
        ...

    def stacks(self) -> str:
        """Return where everything is in those processes, from any thread while it runs."""
        ...
