"""All decorators in all forms, for mypy to check; nothing runs this file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Protocol, assert_type

import fluxloop
from fluxloop.tracing.context import Run


class Ask(Protocol):
    """The exact signature of `ask`, names, kinds and defaults included."""

    def __call__(self, question: str, /, limit: int = ..., *, strict: bool) -> list[str]: ...


@fluxloop.agent
def agent_bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.agent("name", description="d", metadata={"a": 1}, capture_input=False, capture_output=False)
def agent_named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.tool
def tool_bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.tool(name="t")
def tool_named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.generation
def generation_bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.generation(model="m")
def generation_named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.span
def span_bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.span("s")
def span_named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.prompt
def prompt_bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.prompt("p", model="m", capture_tokens=True)
def prompt_named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.trace
def trace_bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.trace("t", "tool")
def trace_named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


all_forms: list[Ask] = [
    agent_bare,
    agent_named,
    tool_bare,
    tool_named,
    generation_bare,
    generation_named,
    span_bare,
    span_named,
    prompt_bare,
    prompt_named,
    trace_bare,
    trace_named,
]
for one_form in (agent_bare, tool_named, generation_named, span_bare, span_named, prompt_named, trace_named):
    assert_type(one_form("q", 2, strict=True), list[str])

agent_bare("q")  # type: ignore[call-arg]
agent_named(1, strict=True)  # type: ignore[arg-type]
tool_bare(question="q", strict=True)  # type: ignore[call-arg]
tool_named("q", strict="no")  # type: ignore[arg-type]
generation_bare("q", other=1, strict=True)  # type: ignore[call-arg]
span_bare("q")  # type: ignore[call-arg]
span_named("q")  # type: ignore[call-arg]
prompt_bare("q")  # type: ignore[call-arg]
trace_named("q")  # type: ignore[call-arg]
fluxloop.agent(nmae="x")  # type: ignore[call-overload]
fluxloop.generation(model=1)  # type: ignore[call-overload]
fluxloop.span(input=1, model="m")  # type: ignore[call-overload]


@fluxloop.span
async def asynchronous(number: int) -> str:
    return str(number)


@fluxloop.tool()
async def asynchronous_named(number: int) -> str:
    return str(number)


@fluxloop.agent
def generator(number: int) -> Generator[int, str, bool]:
    yield number
    return True


@fluxloop.generation("g")
def iterator(number: int) -> Iterator[int]:
    yield number


@fluxloop.span("s")
async def async_generator(number: int) -> AsyncGenerator[int, str]:
    yield number


@fluxloop.tool
async def async_iterator(number: int) -> AsyncIterator[int]:
    yield number


assert_type(generator(1), Generator[int, str, bool])
assert_type(iterator(1), Iterator[int])
assert_type(async_generator(1), AsyncGenerator[int, str])
assert_type(async_iterator(1), AsyncIterator[int])


class Searcher:
    """Methods of all kinds."""

    @fluxloop.tool
    def method(self, text: str) -> int:
        return len(text)

    @fluxloop.span()
    async def asynchronous(self, text: str) -> int:
        return len(text)

    @staticmethod
    @fluxloop.tool("static")
    def static(text: str) -> int:
        return len(text)

    @classmethod
    @fluxloop.agent()
    def of_class(cls, text: str) -> Searcher:
        return cls()


assert_type(Searcher().method("a"), int)
assert_type(Searcher.static("a"), int)
assert_type(Searcher().static("a"), int)
assert_type(Searcher.of_class("a"), Searcher)
Searcher().method(1)  # type: ignore[arg-type]


async def use() -> None:
    """Awaited calls, blocks and the run."""
    assert_type(await asynchronous(1), str)
    assert_type(await asynchronous_named(1), str)
    assert_type(await Searcher().asynchronous("a"), int)
    kept: Callable[[int], Awaitable[str]] = asynchronous
    del kept
    async for number in async_iterator(1):
        assert_type(number, int)
    with fluxloop.span("s", input={"k": 3}, metadata={"a": 1}) as step:
        assert_type(step.update(output=[1], metadata={"a": 2}), None)
    async with fluxloop.span() as step:
        step.update(output=None)
    assert_type(fluxloop.event("e", key=1), None)
    assert_type(fluxloop.current_run(), Run | None)
    assert_type(fluxloop.carry_context(span_named)("q", strict=True), list[str])
    fluxloop.carry_context(span_named)("q")  # type: ignore[call-arg]


def through(path: bool) -> int:
    """A `with` block does not swallow errors, so that what follows it needs no return."""
    with fluxloop.span("s"):
        return 1
