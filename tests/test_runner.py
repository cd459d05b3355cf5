"""One attempt: whatever the agent does is in its record, and nothing of it reaches the next."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fluxloop
from fluxloop import Experiment
from fluxloop.records import Trace
from fluxloop.runner import Task
from fluxloop.store.codec import decode_trace, encode
from fluxloop.testing import make_trace, run_once
from tests.waiting import wait_until

PACKAGE = str(Path(fluxloop.__file__).parent)


def both(behave: Callable[[], Any]) -> list[Trace]:
    """Run it as a sync and as an async agent, each written and read back."""

    def sync_agent(text: str) -> Any:
        return behave()

    async def async_agent(text: str) -> Any:
        return behave()

    return [decode_trace(encode(run_once(agent, "hi"))) for agent in (sync_agent, async_agent)]


def raising(error: BaseException) -> Callable[[], Any]:
    def behave() -> Any:
        raise error

    return behave


# What agents raise


@pytest.mark.parametrize(
    ("error", "type", "message"),
    [
        (ValueError("no"), "ValueError", "no"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (asyncio.CancelledError("mine"), "asyncio.exceptions.CancelledError", "mine"),
        (GeneratorExit(), "GeneratorExit", ""),
        (BaseException("base"), "BaseException", "base"),
        (MemoryError(), "MemoryError", ""),
        (ExceptionGroup("several", [ValueError("a"), KeyError("b")]), "ValueError", "a (and 1 more)"),
        (UnicodeError("half \ud800"), "UnicodeError", "half \\ud800"),
    ],
)
def test_whatever_an_agent_raises_is_an_error_of_its_run(error: BaseException, type: str, message: str) -> None:
    """Also what would end a process; the traceback shows the agent's line and none of fluxloop's."""
    for trace in both(raising(error)):
        assert trace.error is not None
        assert (trace.status, trace.passed, trace.output) == ("error", False, None)
        assert (trace.error.kind, trace.error.type, trace.error.message) == ("agent", type, message)
        assert trace.error.traceback is not None
        assert "raise error" in trace.error.traceback
        assert f'"{PACKAGE}/' not in trace.error.traceback


def test_stop_iteration_is_an_error_too() -> None:
    """Python itself turns it into a RuntimeError in a coroutine."""
    told = [trace.error.type for trace in both(raising(StopIteration("x"))) if trace.error]
    assert told == ["StopIteration", "RuntimeError"]


def test_an_error_that_cannot_be_told_is_recorded() -> None:
    """An exception whose text raises, or exits, still has a type."""

    class HostileError(Exception):
        def __str__(self) -> str:
            raise SystemExit

        __repr__ = __str__

    for trace in both(raising(HostileError())):
        assert trace.error is not None
        assert trace.error.type.endswith("HostileError")
        assert "without a readable message" in trace.error.message


def test_chained_and_grouped_tracebacks_are_the_users() -> None:
    """Causes, contexts and members keep the user's frames and lose fluxloop's."""

    @fluxloop.tool()
    def low() -> None:
        raise ValueError("low")

    def behave() -> None:
        try:
            low()
        except ValueError as error:
            try:
                raise KeyError("middle")
            except KeyError as middle:
                raise ExceptionGroup("high", [error, middle]) from error

    for trace in both(behave):
        assert trace.error is not None
        assert trace.error.traceback is not None
        assert "in low" in trace.error.traceback
        assert "direct cause" in trace.error.traceback
        assert f'"{PACKAGE}/' not in trace.error.traceback


def test_a_call_that_python_refuses_has_a_traceback() -> None:
    """Where no frame is the user's, none of fluxloop's stands in its place."""
    trace = run_once(lambda **options: None, {"a": 1}, args={})
    assert trace.status == "ok"
    trace = run_once(lambda a: None, "hi", output_path="x")
    assert trace.error is not None
    assert trace.error.traceback is not None
    assert trace.error.traceback.startswith("LookupError: runner.output_path: x: no 'x' in the output")


def test_an_exception_that_cannot_tell_its_cause_has_a_traceback_of_its_own() -> None:
    """What it comes from is left out."""

    class BrokenError(Exception):
        @property
        def __cause__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("never")

    for trace in both(raising(BrokenError("text"))):
        assert trace.error is not None
        assert trace.error.message == "text"
        assert str(trace.error.traceback).endswith("BrokenError: text\n")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError, asyncio.CancelledError])
def test_a_child_task_ends_its_own_run_only(error: type[BaseException], tmp_path: Path) -> None:
    """What a task of the agent raises reaches who awaits it, and the next run goes on."""

    async def agent(text: str) -> str:
        async def child() -> None:
            raise error("from below")

        if text == "bad":
            async with asyncio.TaskGroup() as group:
                await group.create_task(child())
        return text

    result = Experiment(target=agent, inputs=["bad", "good"], iterations=2, output_dir=tmp_path).run()
    statuses = [trace.status for trace in result]
    assert statuses == ["error", "ok", "error", "ok"]


def test_a_task_left_behind_changes_nothing(tmp_path: Path) -> None:
    """It goes on, as a client's own tasks must; what it records after its run is in no record."""
    left: list[asyncio.Task[None]] = []
    gate: list[asyncio.Event] = []

    async def agent(text: str) -> str:
        async def later(go: asyncio.Event) -> None:
            await go.wait()
            fluxloop.event("late")
            print("late")

        if gate:
            gate[-1].set()
            await left[-1]
        gate.append(asyncio.Event())
        left.append(asyncio.create_task(later(gate[-1])))
        return text

    result = Experiment(target=agent, inputs=["a", "b"], output_dir=tmp_path).run()
    assert [(trace.status, trace.observations, trace.stdout) for trace in result] == [("ok", (), None)] * 2
    assert left[0].done()
    assert not left[1].done()
    left[1].get_loop().call_soon_threadsafe(gate[1].set)
    wait_until(left[1].done)


def test_a_thread_that_goes_on_changes_nothing() -> None:
    """What it observes, prints or ends after the run is in no record."""
    go, threads = threading.Event(), []

    @fluxloop.tool()
    def slow() -> str:
        started.set()
        go.wait()
        return "late"

    started = threading.Event()

    def agent(text: str) -> str:
        threads.append(threading.Thread(target=fluxloop.carry_context(lambda: (slow(), fluxloop.event("after")))))
        threads[0].start()
        started.wait()
        return text

    trace = run_once(agent, "hi")
    before = encode(trace)
    go.set()
    threads[0].join()
    assert encode(trace) == before
    assert [(o.name, o.end_time, o.output) for o in trace.observations] == [("slow", None, None)]


# What agents return


class Hostile:
    """Raises at everything one can ask of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("leave me alone")

    def __repr__(self) -> str:
        raise RuntimeError("not even this")

    __str__ = __repr__


class AnswersAnything:
    def __getattr__(self, name: str) -> Any:
        return lambda *args: self


def cycle() -> list[Any]:
    items: list[Any] = [1]
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: {3, 1, 2}, [1, 2, 3]),
        (lambda: b"text", "text"),
        (lambda: b"\xff\xfe", "//4="),
        (lambda: float("nan"), None),
        (lambda: [float("inf"), -0.0], [None, 0.0]),
        (cycle, [1, "<cycle>"]),
        (lambda: "half \ud800", "half \\ud800"),
        (lambda: {"\ud800": 1}, {"\\ud800": 1}),
        (lambda: "x" * 5_000_000, "x" * 5_000_000),
        (lambda: ValueError("as a value"), {"type": "ValueError", "message": "as a value"}),
        (lambda: 2**70, str(2**70)),
        (lambda: iter([1, 2]), [1, 2]),
        (lambda: (letter for letter in "abc"), "abc"),
        (lambda: None, None),
        (lambda: (1, 2), [1, 2]),
    ],
)
def test_whatever_an_agent_returns_is_recorded(make: Callable[[], Any], expected: Any) -> None:
    """What JSON lacks becomes plain data by type."""
    for trace in both(make):
        assert trace.error is None
        assert trace.output == expected


@pytest.mark.parametrize("make", [Hostile, AnswersAnything, object, lambda: type, lambda: open])
def test_an_object_that_nothing_fits_costs_no_run(make: Callable[[], Any]) -> None:
    """Also one that raises at every question, or answers all of them."""
    for trace in both(make):
        assert (trace.status, trace.error) == ("ok", None)
        assert isinstance(trace.output, str)


def test_an_open_file_is_no_stream(tmp_path: Path) -> None:
    """What can be read is not drained into the record."""
    path = tmp_path / "file"
    path.write_text("secret")
    with path.open() as file:
        for trace in both(lambda: file):
            assert "secret" not in str(trace.output)


def test_generators_are_drained() -> None:
    """Texts are joined, other items listed; a return value counts when nothing was yielded."""

    def items(text: str) -> Iterator[Any]:
        yield 1
        yield text

    def only_returns(text: str) -> Any:
        return text
        yield

    async def stream(text: str) -> AsyncIterator[str]:
        yield text
        yield "!"

    def fails(text: str) -> Iterator[str]:
        yield text
        raise ValueError("midway")

    assert run_once(items, "a").output == [1, "a"]
    assert run_once(only_returns, "a").output == "a"
    assert run_once(stream, "a").output == "a!"
    assert str(run_once(fails, "a").error).count("midway")


def test_old_style_coroutines_are_awaited() -> None:
    """A generator marked by `types.coroutine` is a coroutine."""
    import types

    @types.coroutine
    def sleep() -> Any:
        yield
        return "slept"

    assert run_once(lambda text: sleep(), "hi").output == "slept"


# Nothing reaches the next run


@pytest.mark.parametrize("asynchronous", [False, True])
def test_context_variables_do_not_leak(asynchronous: bool, tmp_path: Path) -> None:
    """What an agent sets is gone in its next run."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="fresh")

    def agent(text: str) -> str:
        found = variable.get()
        variable.set("used")
        return found

    async def async_agent(text: str) -> str:
        return agent(text)

    target = async_agent if asynchronous else agent
    result = Experiment(target=target, inputs=["a"], iterations=3, output_dir=tmp_path).run()
    assert [trace.output for trace in result] == ["fresh"] * 3
    assert variable.get() == "fresh"
    assert fluxloop.current_run() is None


def test_the_input_is_recorded_as_it_was() -> None:
    """An agent that changes what it is given changes no record."""
    given = {"a": [1]}

    def agent(value: Any) -> Any:
        value["a"].append(2)
        return value

    trace = run_once(agent, given)
    assert (trace.input, trace.output, given) == ({"a": [1]}, {"a": [1, 2]}, {"a": [1]})


def test_a_run_times_itself() -> None:
    """Start and end are UTC with microseconds; the duration is what lies between."""
    trace = run_once(lambda text: text, "hi")
    assert trace.start_time <= trace.end_time
    assert trace.start_time.endswith("Z")
    assert trace.duration_ms == trace.total_ms >= 0


# The task


def test_a_task_can_be_sent_to_a_worker() -> None:
    """Pickled and back it is equal, without what was loaded here."""
    task = Task(
        target="operator:neg",
        args={"a": [1]},
        inject=("persona",),
        input_template={"x": "{input}"},
        output_path="a.b",
        import_places=(Path("/tmp"),),
    )
    task.prepared.append(None)  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert again.prepared == []
    assert msgspec.json.encode(again.args) == b'{"a":[1]}'


def test_the_kit_makes_traces() -> None:
    """`make_trace` gives a plain successful trace with the changes asked for."""
    trace = make_trace(persona="novice", iteration=2)
    assert (trace.persona, trace.iteration, trace.output, trace.status) == ("novice", 2, "echo: hi", "ok")
