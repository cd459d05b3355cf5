"""The run the code is in."""

from __future__ import annotations

import asyncio
import doctest
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fluxloop
from fluxloop.testing import run_once
from fluxloop.tracing import context, decorators, streams

PROPERTIES = ("id", "input_id", "iteration", "persona", "expected", "metadata", "seed", "run_id")


def about(run: Any) -> dict[str, Any]:
    """Return everything a run tells."""
    return {name: getattr(run, name) for name in PROPERTIES}


def test_outside_a_run_there_is_none() -> None:
    """`current_run()` is None before, after and beside a run."""
    beside: list[Any] = []

    def agent(text: str) -> None:
        thread = threading.Thread(target=lambda: beside.append(fluxloop.current_run()))
        thread.start()
        thread.join()

    assert fluxloop.current_run() is None
    run_once(agent, "hi")
    assert beside == [None]
    assert fluxloop.current_run() is None


def test_a_run_tells_everything_about_itself() -> None:
    """Inside a run its ids, input, iteration, persona, expectation, metadata and seed are known."""
    seen: list[Any] = []

    def agent(text: str) -> None:
        run = fluxloop.current_run()
        assert run is not None
        seen.append(about(run))
        seen.append(repr(run))

    run_once(agent, "hi", persona="novice", expected=["x"], metadata={"a": [1]}, iteration=4, seed=7)
    run_id = seen[0].pop("run_id")
    assert len(run_id) == 36
    assert seen[0] == {
        "id": "trace_001",
        "input_id": "input_001",
        "iteration": 4,
        "persona": "novice",
        "expected": ["x"],
        "metadata": {"a": [1]},
        "seed": 7,
    }
    assert seen[1] == "<Run trace_001 of input_001, iteration 4>"


def test_what_an_input_does_not_have_is_empty() -> None:
    """Without persona, expectation and metadata a run tells None and an empty mapping."""
    seen: list[Any] = []
    run_once(lambda text: seen.append(about(fluxloop.current_run())), "hi")
    assert (seen[0]["persona"], seen[0]["expected"], seen[0]["metadata"]) == (None, None, {})


def test_changing_what_a_run_tells_changes_nothing() -> None:
    """Metadata and expectation are copies, each time and to the depth."""

    def agent(text: str) -> Any:
        run = fluxloop.current_run()
        assert run is not None
        run.metadata["deep"]["list"].append("changed")
        run.metadata.clear()
        run.expected.append("changed")
        run.expected[0].clear()
        return [run.metadata, run.expected]

    trace = run_once(agent, "hi", metadata={"deep": {"list": [1]}}, expected=[{"a": 1}])
    assert trace.output == [{"deep": {"list": [1]}}, [{"a": 1}]]
    assert trace.metadata == {"deep": {"list": [1]}}
    assert trace.expected == [{"a": 1}]


PUBLIC = ["attempt", "expected", "id", "input_id", "iteration", "metadata", "persona", "run_id", "seed"]


def test_a_run_has_what_an_agent_may_know_of_it() -> None:
    """What fluxloop keeps of it, such as its observations, is out of the agent's reach."""
    names = run_once(lambda text: dir(fluxloop.current_run()), "hi").output
    assert [name for name in names if not name.startswith("_")] == PUBLIC


@pytest.mark.parametrize("name", [*PUBLIC, "closed", "observations", "stdout", "offset", "redaction"])
def test_what_a_run_is_cannot_be_set(name: str) -> None:
    """What a run tells is not for an agent to change."""

    def agent(text: str) -> None:
        setattr(fluxloop.current_run(), name, "other")

    error = run_once(agent, "hi").error
    assert error is not None
    assert error.type == "AttributeError"


def test_a_run_id_is_the_same_within_a_run_and_fresh_in_the_next() -> None:
    """Memory kept under `run_id` does not leak between runs."""

    def agent(text: str) -> Any:
        run = fluxloop.current_run()
        assert run is not None
        return [run.run_id, run.run_id]

    first, second = run_once(agent, "hi").output, run_once(agent, "hi").output
    assert first[0] == first[1] != second[0]


def test_a_run_is_found_wherever_its_code_runs() -> None:
    """Tasks, `asyncio.to_thread` and traced calls are in the run; a pool is with `carry_context`."""

    def here() -> Any:
        run = fluxloop.current_run()
        return None if run is None else run.id

    async def here_async() -> Any:
        return here()

    async def agent(text: str) -> Any:
        with ThreadPoolExecutor() as pool:
            return [
                here(),
                await asyncio.create_task(here_async()),
                *await asyncio.gather(here_async(), here_async()),
                await asyncio.to_thread(here),
                fluxloop.tool(here)(),
                pool.submit(fluxloop.carry_context(here)).result(),
                pool.submit(here).result(),
            ]

    assert run_once(agent, "hi").output == ["trace_001"] * 7 + [None]


def test_carried_calls_run_at_once_and_keep_their_results_and_errors() -> None:
    """One carried function may run in many threads at the same time; outcomes are its own."""
    meeting = threading.Barrier(4, timeout=10)
    raised = SystemExit(1)

    def meet(number: int, *, add: int = 0) -> int:
        meeting.wait()
        if number == 3:
            raise raised
        return number + add

    def agent(text: str) -> Any:
        carried = fluxloop.carry_context(meet)
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(carried, number, add=10) for number in range(4)]
            assert futures[3].exception() is raised
            return [future.result() for future in futures[:3]]

    assert run_once(agent, "hi").output == [10, 11, 12]


def test_what_an_agent_sets_does_not_reach_the_next_run() -> None:
    """Context variables an agent sets end with its run."""
    from contextvars import ContextVar

    memory: ContextVar[str] = ContextVar("memory", default="empty")

    def agent(text: str) -> str:
        before = memory.get()
        memory.set(text)
        return before

    assert [run_once(agent, "hi").output for _ in range(2)] == ["empty", "empty"]
    assert memory.get() == "empty"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_draws_other_ids() -> None:
    """Two processes forked from one do not give the same ids."""

    def ids() -> str:
        trace = run_once(lambda text: [fluxloop.event("e") for _ in range(3)] and None, "hi")
        return " ".join(o.id for o in trace.observations)

    drawn = []
    for _ in range(2):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, ids().encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            drawn.append(answer.read())
        os.waitpid(child, 0)
    assert len(set(drawn[0].split() + drawn[1].split() + ids().split())) == 9


@pytest.mark.parametrize("module", [context, decorators, streams], ids=lambda m: m.__name__)
def test_examples_in_docstrings_hold(module: Any) -> None:
    """The examples run as they stand."""
    results = doctest.testmod(module, extraglobs={"carry_context": fluxloop.carry_context})
    assert results.failed == 0
    assert results.attempted > 0
