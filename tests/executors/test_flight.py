"""The attempts in flight, seen from the thread that starts and settles them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from fluxloop import Task
from fluxloop.attempt import OpenAttempt
from fluxloop.executors.flight import MAX_BATCH, Ended, Flight
from fluxloop.plan import Plan
from fluxloop.records import Attempt, Case
from fluxloop.runner import Runner
from fluxloop.schedule import Schedule


class AtOnce:
    """A crew that runs each attempt to its end as it starts."""

    def __init__(self, runner: Runner, ended: Ended) -> None:
        self.runner = runner
        self.ended = ended
        self.abandoned: list[OpenAttempt] = []

    def start(self, attempts: Sequence[OpenAttempt], in_flight: int) -> None:
        for opened in attempts:
            self.ended.put((opened, self.runner.run_opened(opened)))

    def abandon(self, opened: OpenAttempt) -> tuple[str | None, str]:
        self.abandoned.append(opened)
        return None, ""


def fly(target: Any, count: int, parallel: int, timeout_seconds: float) -> tuple[list[list[Attempt]], AtOnce]:
    """The batches that a flight of so many runs comes to."""
    task = Task(
        target=target,
        args={},
        inject=(),
        input_template=None,
        output_path=None,
        import_places=(),
        timeout_seconds=timeout_seconds,
    )
    schedule = Schedule(Plan(cases=[Case(0, "i0", "hi")], iterations=count, seed=1))
    ended: Ended = SimpleQueue()
    batches = []
    with task.open() as runner:
        crew = AtOnce(runner, ended)
        for batch in Flight(task, schedule, parallel, crew, ended).batches():
            batches.append(batch)
            for attempt in batch:
                schedule.settle(attempt)
    return batches, crew


def test_an_attempt_that_ended_in_time_is_no_timeout_however_late_it_is_seen() -> None:
    """More may end at once than are settled at a time; those that wait for it are not overdue."""
    count = MAX_BATCH + 5
    batches, crew = fly(lambda text: time.sleep(0.0001), count, count, 0.000001)
    attempts = [attempt for batch in batches for attempt in batch]
    assert [attempt.status for attempt in attempts] == ["ok"] * count
    assert crew.abandoned == []
    assert max(len(batch) for batch in batches) == MAX_BATCH


@pytest.mark.parametrize("parallel", [1, 3, 50])
def test_every_run_lands_once(parallel: int) -> None:
    """However many fly at a time."""
    batches, _ = fly(str.upper, 20, parallel, 0)
    landed = [attempt.planned.trace_id for batch in batches for attempt in batch]
    assert sorted(landed) == sorted(set(landed))
    assert len(landed) == 20
    assert max(len(batch) for batch in batches) <= parallel
