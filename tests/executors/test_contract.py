"""What every executor keeps to, and a user's own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import AsyncioExecutor, Executor, Experiment, ExperimentResult, InlineExecutor, ThreadsExecutor
from fluxloop.plan import Plan
from fluxloop.records import Attempt, Case, Trace
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
        with task.open() as runner:
            return [[runner.run(*taken) for taken in iter(schedule.take, None)]]


def settled(executor: Any, task: Task, schedule: Schedule) -> list[Trace]:
    """What an executor comes to, settled as the experiment's loop does."""
    return [trace for batch in executor.run(task, schedule) for a in batch if (trace := schedule.settle(a))]


async def echo_async(text: str) -> str:
    return text


OURS = [
    (InlineExecutor(), "sync"),
    (InlineExecutor(), "async"),
    (AsyncioExecutor(4), "async"),
    (ThreadsExecutor(4), "sync"),
    (ThreadsExecutor(4), "async"),
]
under_each = pytest.mark.parametrize(("executor", "kind"), OURS)
many_at_once = pytest.mark.parametrize(("executor", "kind"), OURS[2:])


@pytest.mark.parametrize(
    ("executor", "target"),
    [
        *((executor, echo_async if kind == "async" else str.title) for executor, kind in OURS),
        *((executor, target) for executor in (Reversed(), Listing()) for target in (str.title, echo_async)),
    ],
)
def test_every_planned_run_is_run_once(executor: Any, target: Any) -> None:
    """Whatever the order, each comes back with its own input and output."""
    assert isinstance(executor, Executor)
    traces = settled(executor, task(target), Schedule(plan()))
    assert sorted(trace.trace_id for trace in traces) == [run.trace_id for run in plan()]
    assert all(t.output == (t.input.title() if target is str.title else t.input) for t in traces)


def test_inline_pulls_one_at_a_time_and_in_order() -> None:
    """A run is taken only when the one before has been yielded."""
    events: list[str] = []

    class Watched(Schedule):
        def take(self) -> Any:
            events.append("take")
            return super().take()

    schedule = Watched(plan(3, 1))
    for batch in InlineExecutor().run(task(lambda text: events.append(text)), schedule):
        events.append(f"settle {len(batch)}")
        for attempt in batch:
            schedule.settle(attempt)
    assert events == [
        *("take", "text 0", "settle 1", "take", "text 1", "settle 1", "take", "text 2", "settle 1", "take")
    ]


def test_inline_stops_when_the_schedule_does() -> None:
    """What is not taken is not run."""
    done: list[str] = []
    schedule = Schedule(plan(), urgency=lambda: 1 if len(done) == 3 else 0)
    assert len(settled(InlineExecutor(), task(done.append), schedule)) == len(done) == 3


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


class Patient:
    """A user's executor that keeps at it until the schedule is finished."""

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        with task.open() as runner:
            while not schedule.finished:
                if taken := schedule.take():
                    yield [runner.run(*taken)]
                else:
                    time.sleep(schedule.wait_seconds())
                    yield []


def test_a_users_executor_gets_retries_for_free(tmp_path: Path) -> None:
    """It runs attempts; which run is tried again, and when, the schedule says."""

    @fluxloop.tool
    def call(attempt: int) -> None:
        if attempt < 3:
            raise ConnectionError("busy")

    def agent(text: str) -> str:
        run = fluxloop.current_run()
        assert run is not None
        if text == "b":
            call(run.attempt)
        return text

    result = Experiment(
        target=agent,
        inputs=["a", "b", "c"],
        output_dir=tmp_path,
        executor=Patient(),
        max_retries=2,
        overrides={"runner.retry_delay_seconds": 0.02},
    ).run()
    assert (result.summary.status, result.summary.successful, result.summary.retries) == ("completed", 3, 2)
    tried = next(trace for trace in result if trace.input == "b")
    assert [error.kind for error in tried.errors] == ["infrastructure"] * 2
    assert [observation.attempt for observation in tried.observations] == [1, 2, 3]


# What each of ours keeps to


def run(target: Any, executor: Any, folder: Path, inputs: Sequence[Any], **options: Any) -> ExperimentResult:
    return Experiment(target=target, inputs=inputs, output_dir=folder, executor=executor, **options).run()


def as_agent(behave: Callable[[str], Any], kind: str) -> Any:
    """An agent that does it, sync or async."""

    async def agent_async(text: str) -> Any:
        return behave(text)

    return agent_async if kind == "async" else behave


@many_at_once
def test_at_most_parallel_are_in_flight(executor: Any, kind: str, tmp_path: Path) -> None:
    """And as many as that, as long as there is work; a retry holds a place like any other attempt."""
    lock = threading.Lock()
    inside: set[tuple[str, int]] = set()
    most: list[int] = []
    full = threading.Event()

    def enters() -> tuple[str, int]:
        found = fluxloop.current_run()
        assert found is not None
        me = (found.id, found.attempt)
        with lock:
            inside.add(me)
            most.append(len(inside))
            if len(inside) == 4:
                full.set()
        return me

    def leaves(me: tuple[str, int]) -> None:
        with lock:
            inside.remove(me)
        if me[1] == 1:
            raise ConnectionError

    def agent(text: str) -> None:
        me = enters()
        full.wait(10)
        leaves(me)

    async def agent_async(text: str) -> None:
        me = enters()
        while not full.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        leaves(me)

    target = agent_async if kind == "async" else agent
    options = {"runner.retry_delay_seconds": 0}
    result = run(target, executor, tmp_path, list("abcdefghij"), iterations=3, max_retries=1, overrides=options)
    assert (result.summary.successful, result.summary.retries) == (30, 30)
    assert max(most) == 4


@many_at_once
def test_more_places_than_runs_are_no_harm(executor: Any, kind: str, tmp_path: Path) -> None:
    """Nothing is built for a place that no run takes."""
    built: list[str] = []

    class Agent:
        def __enter__(self) -> Agent:
            built.append("entered")
            return self

        def __exit__(self, *error: object) -> None:
            built.append("left")

        run = staticmethod(as_agent(str.upper, kind))

    result = run(Agent, type(executor)(50), tmp_path, ["a", "b"])
    assert {trace.output for trace in result} == {"A", "B"}
    assert built.count("entered") == built.count("left") <= 2


@under_each
@pytest.mark.parametrize("manager", ["sync", "async"])
def test_a_target_is_built_and_entered_once_by_each_worker(
    executor: Any, kind: str, manager: str, tmp_path: Path
) -> None:
    """Each thread has one of its own for all its runs, and the loop has one; it is left where it was entered."""
    lock = threading.Lock()
    events: dict[Any, list[tuple[str, int]]] = {}
    several = isinstance(executor, ThreadsExecutor) and kind == "sync"
    met = threading.Barrier(4 if several else 1)

    def note(owner: object, what: str) -> None:
        with lock:
            events.setdefault(owner, []).append((what, threading.get_ident()))

    class Base:
        def __init__(self) -> None:
            note(self, "built")

        def behave(self, text: str) -> str:
            if text in "abcd":
                met.wait(10)  # so that each worker has something to do
            note(self, "run")
            return text

    class Sync(Base):
        def __enter__(self) -> Sync:
            note(self, "entered")
            return self

        def __exit__(self, *error: object) -> None:
            note(self, "left")

    class Async(Base):
        async def __aenter__(self) -> Async:
            note(self, "entered")
            return self

        async def __aexit__(self, *error: object) -> None:
            note(self, "left")

    class Agent(Sync if manager == "sync" else Async):  # type: ignore[misc]
        if kind == "sync":

            def run(self, text: str) -> str:
                return str(self.behave(text))

        else:

            async def run(self, text: str) -> str:
                return str(self.behave(text))

    result = run(Agent, executor, tmp_path, list("abcdefgh"))
    assert result.summary.successful == 8
    # Where several are needed, the one that was built to prove the target is none of them.
    used = [told for told in events.values() if len(told) > 1]
    assert (len(used), len(events)) == ((4, 5) if several else (1, 1))
    for told in used:
        assert [what for what, _ in told] == ["built", "entered", *["run"] * (len(told) - 3), "left"]
        (_, built_in), (_, entered_in), *_, (_, left_in) = told
        assert entered_in == left_in
        assert built_in == entered_in or manager == "async" or not several
    assert sum(len(told) for told in used) == 8 + 3 * len(used)


mood: contextvars.ContextVar[str] = contextvars.ContextVar("mood", default="none")


@under_each
def test_context_variables_are_the_callers_and_then_the_runs_own(executor: Any, kind: str, tmp_path: Path) -> None:
    """A run sees what the caller has set; what it sets itself no other run sees, nor the caller."""

    def behave(text: str) -> str:
        found = mood.get()
        mood.set(text)
        return found

    token = mood.set("the caller's")
    try:
        result = run(as_agent(behave, kind), executor, tmp_path, list("abc"), iterations=3)
        assert mood.get() == "the caller's"
    finally:
        mood.reset(token)
    assert [trace.output for trace in result] == ["the caller's"] * 9
    assert fluxloop.current_run() is None


@under_each
@pytest.mark.parametrize("way", ["run", "run_async"])
def test_it_works_inside_a_running_loop(executor: Any, kind: str, way: str, tmp_path: Path) -> None:
    """As in a notebook; with `run_async` that loop goes on meanwhile."""
    beside = threading.Event()

    def behave(text: str) -> str:
        if way == "run_async":
            assert beside.wait(10)
        return text

    async def main() -> ExperimentResult:
        experiment = Experiment(
            target=as_agent(behave, kind), inputs=["a", "b"], output_dir=tmp_path, executor=executor
        )
        if way == "run":
            return experiment.run()
        asyncio.get_running_loop().call_later(0.01, beside.set)
        return await experiment.run_async()

    assert {trace.output for trace in asyncio.run(main())} == {"a", "b"}


@many_at_once
def test_what_is_printed_stays_with_its_run(
    executor: Any, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while all of them print in turns."""
    turns = threading.Barrier(4)

    def agent(text: str) -> None:
        for number in range(5):
            print(text, number)
            turns.wait(10)

    async def agent_async(text: str) -> None:
        for number in range(5):
            print(text, number)
            await asyncio.sleep(0.001)

    target = agent_async if kind == "async" else agent
    result = run(target, executor, tmp_path, list("abcd"), capture_output=True)
    assert {trace.input: trace.stdout for trace in result} == {
        name: "".join(f"{name} {number}\n" for number in range(5)) for name in "abcd"
    }
    assert capsys.readouterr().out == ""
