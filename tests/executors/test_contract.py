"""What every executor keeps to, and a user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Executor, Experiment, InlineExecutor
from fluxloop.plan import Plan
from fluxloop.records import Attempt, Case
from fluxloop.runner import Task
from fluxloop.schedule import Schedule


def task(target: Any) -> Task:
    return Task(target=target, args={}, inject=(), input_template=None, output_path=None, import_places=())


def plan(count: int = 4, iterations: int = 2) -> Plan:
    return Plan(cases=[Case(i, f"i{i}", f"text {i}") for i in range(count)], iterations=iterations, seed=1)


class Reversed:
    """A user's executor: takes all there is, runs it from the end, yields in pairs."""

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        taken = list(iter(schedule.take, None))
        with task.open() as runner:
            while taken:
                yield [runner.run(*taken.pop()) for _ in range(min(2, len(taken)))]


class Listing:
    """One that returns a plain list instead of a generator."""

    def run(self, task: Task, schedule: Schedule) -> Any:
        return list(InlineExecutor().run(task, schedule))


async def echo_async(text: str) -> str:
    return text


@pytest.mark.parametrize("executor", [InlineExecutor(), Reversed(), Listing()])
@pytest.mark.parametrize("target", [str.title, echo_async])
def test_every_planned_run_is_run_once(executor: Any, target: Any) -> None:
    """Whatever the order, each comes back with its own input and output."""
    assert isinstance(executor, Executor)
    attempts = [a for batch in executor.run(task(target), Schedule(plan())) for a in batch]
    assert sorted(a.planned.trace_id for a in attempts) == [run.trace_id for run in plan()]
    assert all(a.output == (a.input.title() if target is str.title else a.input) for a in attempts)


def test_inline_pulls_one_at_a_time_and_in_order() -> None:
    """A run is taken only when the one before has been yielded."""
    events: list[str] = []

    class Watched(Schedule):
        def take(self) -> Any:
            events.append("take")
            return super().take()

    for batch in InlineExecutor().run(task(lambda text: events.append(text)), Watched(plan(3, 1))):
        events.append(f"settle {len(batch)}")
    assert events == [
        *("take", "text 0", "settle 1", "take", "text 1", "settle 1", "take", "text 2", "settle 1", "take")
    ]


def test_inline_stops_when_the_schedule_does() -> None:
    """What is not taken is not run."""
    done: list[str] = []
    batches = InlineExecutor().run(task(done.append), Schedule(plan(), lambda: len(done) == 3))
    assert len(list(batches)) == len(done) == 3


def test_inline_leaves_the_target_when_it_is_closed() -> None:
    """Also in the middle of the plan."""
    events: list[str] = []

    class Client:
        def __enter__(self) -> Client:
            events.append("enter")
            return self

        def __exit__(self, *error: object) -> None:
            events.append("leave")

        def run(self, text: str) -> str:
            return text

    batches = InlineExecutor().run(task(Client), Schedule(plan()))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert events == ["enter", "leave"]


@pytest.mark.parametrize("executor", [Reversed(), Listing()])
def test_an_experiment_runs_on_a_users_executor(executor: Any, tmp_path: Path) -> None:
    """Results are written in the order it yields them."""
    result = Experiment(
        target=str.upper, inputs=["a", "b", "c"], iterations=3, output_dir=tmp_path, executor=executor
    ).run()
    ids = [trace.trace_id for trace in result]
    planned = [f"trace_{n:03d}" for n in range(1, 10)]
    assert ids == (planned[::-1] if isinstance(executor, Reversed) else planned)
    assert result.summary.successful == 9
