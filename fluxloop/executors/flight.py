"""What executors share that run attempts beside the caller's thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from fluxloop.attempt import OpenAttempt
from fluxloop.clock import monotonic
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import HEARTBEAT, Schedule

MAX_BATCH = 1_000
"""Attempts settled at a time; more would keep those that could start waiting."""

Ended = SimpleQueue[tuple[OpenAttempt, Attempt] | BaseException]
"""Attempts that have ended, or what keeps all workers from running any."""


def at_least_one(parallel: int) -> int:
    """Return the number, or raise ValueError when nothing could ever start."""
    if parallel < 1:
        raise ValueError(f"parallel: expected an integer >= 1, got {parallel}")
    return parallel


class Crew(Protocol):
    """Whoever runs the attempts, and puts each on the queue when it has ended."""

    def start(self, attempts: Sequence[OpenAttempt], in_flight: int) -> None:
        """Start attempts, which with those under way are `in_flight`."""

    def abandon(self, opened: OpenAttempt) -> tuple[str | None, str]:
        """Go on without an attempt that does not end; return where it is, and what is to be said of it."""

    def revive(self) -> None:
        """See to attempts that were handed over long ago and have not begun."""


class Flight:
    """The attempts in flight, seen from the one thread that starts and settles them.

    Args:
        task: what each attempt does.
        schedule: what may start.
        parallel: how many may be in flight.
        crew: who runs them.
        ended: the queue the crew fills.
    """

    def __init__(self, task: Task, schedule: Schedule, parallel: int, crew: Crew, ended: Ended) -> None:
        self._task = task
        self._schedule = schedule
        self._parallel = parallel
        self._crew = crew
        self._ended = ended
        self._flying: dict[str, OpenAttempt] = {}
        self._limit = task.timeout_seconds
        self._looked = self._revived = monotonic()
        self._failure: BaseException | None = None

    def batches(self) -> Iterator[list[Attempt]]:
        """Yield what has ended, at least once in a heartbeat, until the schedule is finished."""
        try:
            yield from self._batches()
        finally:
            for opened in self._flying.values():
                opened.leave()

    def _batches(self) -> Iterator[list[Attempt]]:
        self._fill()
        while not self._schedule.finished:
            batch = self._landed()
            # Before the batch is settled, so that nothing that may start waits for the disk, unless
            # what failed may hold up others: by `Retry-After`, or as one failure too many.
            if all(attempt.status == "ok" for attempt in batch):
                self._fill()
            yield batch
            if self._failure is not None:
                raise self._failure
        while batch := self._drained([]):
            yield batch

    def _fill(self) -> None:
        starting = []
        while len(self._flying) < self._parallel and (taken := self._schedule.take()):
            opened = self._task.attempt(*taken)
            self._flying[opened.planned.trace_id] = opened
            starting.append(opened)
        if starting:
            self._crew.start(starting, len(self._flying))

    def _landed(self) -> list[Attempt]:
        full = len(self._flying) >= self._parallel
        batch: list[Attempt] = []
        with suppress(Empty):
            self._land(self._ended.get(timeout=HEARTBEAT if full else self._schedule.wait_seconds()), batch)
        self._drained(batch)
        if self._limit and len(batch) < MAX_BATCH:  # else others may have ended in time and wait to be taken
            self._give_up_overdue(self._limit, batch)
        return batch

    def _drained(self, batch: list[Attempt]) -> list[Attempt]:
        with suppress(Empty):
            while len(batch) < MAX_BATCH and self._failure is None:
                self._land(self._ended.get_nowait(), batch)
        return batch

    def _land(self, ended: tuple[OpenAttempt, Attempt] | BaseException, batch: list[Attempt]) -> None:
        if isinstance(ended, BaseException):
            self._failure = ended  # raised once what has ended is settled
            return
        opened, attempt = ended
        if self._flying.get(opened.planned.trace_id) is opened:  # else it has been given up
            del self._flying[opened.planned.trace_id]
            batch.append(attempt)

    def _give_up_overdue(self, limit: float, batch: list[Attempt]) -> None:
        now = monotonic()
        if now - self._looked < HEARTBEAT / 2:
            return
        self._looked = now
        for opened in [opened for opened in self._flying.values() if opened.seconds() > limit + opened.patience]:
            del self._flying[opened.planned.trace_id]
            batch.append(opened.abandon(limit, *self._crew.abandon(opened)))
        oldest = next(iter(self._flying.values()), None)
        if oldest is not None and not oldest.has_begun and now - self._revived > limit:
            self._revived = now
            self._crew.revive()
