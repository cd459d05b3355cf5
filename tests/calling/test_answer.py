"""What an agent returns has come to its end before it is an answer."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluxloop import AsyncioExecutor, Experiment, Trace
from fluxloop.calling.answer import AT_ONCE
from fluxloop.testing import run_once


@dataclasses.dataclass
class Record:
    answer: Any


class Model(pydantic.BaseModel, arbitrary_types_allowed=True):
    answer: Any


Pair = collections.namedtuple("Pair", "answer other")


class Eventually:
    """An awaitable that is no coroutine."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Any:
        return coroutine(self.value).__await__()


async def coroutine(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def same(value: Any) -> Any:
    return value


async def fails() -> None:
    raise ValueError("the order number is missing")


def future(value: Any) -> Any:
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(lambda: value)
    finally:
        pool.shutdown(wait=False)


def generator(value: Any) -> Iterator[Any]:
    yield value


async def async_generator(value: Any) -> AsyncIterator[Any]:
    yield value


# How a value may still be to come, and what it then is.
LATER: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "coroutine": (coroutine, lambda value: value),
    "awaitable": (Eventually, lambda value: value),
    "future": (future, lambda value: value),
    "generator": (generator, lambda value: value if isinstance(value, str) else [value]),
    "async generator": (async_generator, lambda value: value if isinstance(value, str) else [value]),
    "map": (lambda value: map(same, [value]), lambda value: value if isinstance(value, str) else [value]),
}
# Where it may stand, and what is recorded of that.
WITHIN: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "nothing": (lambda value: value, lambda value: value),
    "mapping": (lambda value: {"answer": value}, lambda value: {"answer": value}),
    "list": (lambda value: [1, value], lambda value: [1, value]),
    "tuple": (lambda value: (value,), lambda value: [value]),
    "nested": (lambda value: {"a": [{"b": (value,)}]}, lambda value: {"a": [{"b": [value]}]}),
    "deque": (lambda value: collections.deque([value]), lambda value: [value]),
    "dataclass": (Record, lambda value: {"answer": value}),
    "pydantic": (lambda value: Model(answer=value), lambda value: {"answer": value}),
    "namedtuple": (lambda value: Pair(value, 1), lambda value: {"answer": value, "other": 1}),
}


def both(make: Callable[[], Any], **options: Any) -> list[Trace]:
    """The traces of a sync and of an async agent that return what is made."""

    def sync_agent(text: str) -> Any:
        return make()

    async def async_agent(text: str) -> Any:
        return make()

    return [run_once(agent, "hi", **options) for agent in (sync_agent, async_agent)]


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("later", LATER)
def test_an_answer_has_come_before_it_is_recorded(later: str, within: str) -> None:
    """Of each kind and wherever it stands, from sync agents and from async ones."""
    wrap, settled = LATER[later]
    put, recorded = WITHIN[within]
    for trace in both(lambda: put(wrap(7))):
        assert (trace.status, trace.output) == ("ok", recorded(settled(7)))


nested = st.recursive(
    st.integers() | st.text(),
    lambda inner: st.tuples(st.sampled_from(["list", "mapping", "coroutine", "awaitable"]), inner),
    max_leaves=20,
)


def build(tree: Any) -> tuple[Any, Any]:
    """What an agent returns, and what is to be recorded of it."""
    if not isinstance(tree, tuple):
        return tree, tree
    kind, (value, plain) = tree[0], build(tree[1])
    if kind == "list":
        return [value, value], [plain, plain]
    if kind == "mapping":
        return {"a": value}, {"a": plain}
    return LATER[kind][0](value), plain


@example(("list", ("awaitable", ("coroutine", 0))))
@given(nested)
def test_nothing_awaitable_is_left_however_it_is_nested(tree: Any) -> None:
    """Awaitables of containers of awaitables come to their values, each awaited once wherever it stands twice."""

    async def agent(text: str) -> Any:
        return build(tree)[0]

    assert run_once(agent, "hi").output == build_recorded(tree)


def build_recorded(tree: Any) -> Any:
    value, plain = build(tree)
    close(value)
    return run_once(lambda text: plain, "hi").output


def close(value: Any) -> None:
    """End what was built and is not to be awaited."""
    if isinstance(value, Eventually):
        close(value.value)
    elif hasattr(value, "cr_frame"):
        if value.cr_frame is not None:
            close(value.cr_frame.f_locals["value"])
        value.close()
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            close(one)


@pytest.mark.parametrize("within", ["nothing", "mapping", "dataclass"])
def test_what_an_awaitable_raises_is_the_runs_error(within: str) -> None:
    """A forgotten `await` hides no failure."""
    for trace in both(lambda: WITHIN[within][0](fails())):
        assert trace.error is not None
        assert (trace.error.kind, trace.error.message) == ("agent", "the order number is missing")


def awaited() -> Any:
    used = coroutine(1)
    used.close()
    return used


def drained() -> Any:
    used = generator(1)
    list(used)
    return used


class Endless:
    def __await__(self) -> Any:
        return Endless()
        yield


@pytest.mark.parametrize("within", ["nothing", "mapping"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (awaited, "the answer holds the coroutine coroutine(), which was awaited already"),
        (drained, "the answer holds the generator generator(), which was used up already"),
        (Endless, "the answer never comes: after 100 awaits there is another "),
    ],
)
def test_what_cannot_be_awaited_any_more_is_an_error_in_words(
    make: Callable[[], Any], message: str, within: str
) -> None:
    """No value comes of it, so the run has none."""
    for trace in both(lambda: WITHIN[within][0](make())):
        assert (trace.status, trace.output) == ("error", None)
        assert trace.error is not None
        assert trace.error.message.startswith(message)


def test_a_forgotten_await_runs_under_every_executor(tmp_path: Path) -> None:
    """What the agent forgot to await has run, and its failure counts."""

    async def answer(text: str) -> str:
        if text == "bad":
            raise ValueError("no")
        return text.upper()

    async def forgets(text: str) -> Any:
        return answer(text)

    for executor in ("inline", "asyncio", "threads"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = Experiment(target=forgets, inputs=["a", "bad"], output_dir=tmp_path, executor=executor).run()
        assert {trace.input: trace.output for trace in result} == {"a": "A", "bad": None}
        assert result.summary.by_error_kind["agent"] == 1


def test_a_path_into_the_output_may_end_at_an_awaitable() -> None:
    """The answer is awaited; what else the output holds is not asked."""

    def make() -> Any:
        return {"answer": coroutine("yes"), "other": itertools.count()}

    assert [trace.output for trace in both(make, output_path="answer")] == ["yes", "yes"]


def test_iterators_without_an_end_are_left_alone_within_an_answer() -> None:
    """A counter that belongs to an object is shown as what it is, and not drained."""
    for trace in both(lambda: Record(itertools.count(3))):
        assert trace.output == {"answer": "count(3)"}


def test_items_of_a_stream_may_be_awaitable() -> None:
    """A generator of coroutines gives what they come to."""

    def stream() -> Iterator[Any]:
        yield coroutine(1)
        yield {"deep": coroutine(2)}
        return None

    assert [trace.output for trace in both(stream)] == [[1, {"deep": 2}]] * 2


def test_waiting_for_the_answer_is_the_agents_time() -> None:
    """What is awaited after the agent has returned counts into the duration."""

    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "late"

    for trace in both(lambda: {"answer": slow()}):
        assert trace.output == {"answer": "late"}
        assert trace.duration_ms >= 50


class Witness:
    """Tells in its `repr` which thread captures it."""

    def __repr__(self) -> str:
        return str(threading.get_ident())


@pytest.mark.parametrize(("count", "is_beside"), [(100, False), (AT_ONCE, True)])
def test_a_large_answer_is_captured_beside_the_loop(count: int, is_beside: bool) -> None:
    """So that its neighbours go on; a small one where it is, which costs less. It is kept whole, secrets masked."""
    loops = []

    async def agent(text: str) -> Any:
        loops.append(threading.get_ident())
        rows = [{"number": number} for number in range(count)]
        yet_to_come = coroutine([Witness(), {"password": "hunter22hunter22"}])
        return {"rows": rows, "by": Witness(), "late": yet_to_come}

    trace = run_once(agent, "hi")
    assert trace.output["rows"] == [{"number": number} for number in range(count)]
    assert trace.output["late"][1] == {"password": "***"}
    for thread in (trace.output["by"], trace.output["late"][0]):
        assert (int(thread) != loops[0]) == is_beside


def test_neighbours_go_on_while_a_large_answer_is_captured(tmp_path: Path) -> None:
    """The walk through it waits here for a step that another run takes on the same loop."""
    stepped = threading.Event()

    class Waiting:
        def __repr__(self) -> str:
            return str(stepped.wait(30))

    async def agent(text: str) -> Any:
        if text == "large":
            return [*range(AT_ONCE), Waiting()]
        for _ in range(10):
            await asyncio.sleep(0.01)
        stepped.set()
        return text

    options: dict[str, Any] = {"executor": AsyncioExecutor(2), "output_dir": tmp_path}
    result = Experiment(target=agent, inputs=["large", "other"], **options).run()
    (large,) = [trace for trace in result if trace.input == "large"]
    assert large.output[-1] == "True"
