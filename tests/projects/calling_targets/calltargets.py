"""Agents of every shape a target can have; `EVENTS` tells what was entered and left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

EVENTS: list[str] = []


def function(text: str) -> str:
    return f"function {text}"


async def coroutine(text: str) -> str:
    await asyncio.sleep(0)
    return f"coroutine {text}"


def generator(text: str) -> Iterator[str]:
    yield "generator "
    yield text


async def async_generator(text: str) -> AsyncIterator[str]:
    yield "async generator "
    yield text


def returns_coroutine(text: str) -> Any:
    return coroutine(text)


def returns_generator(text: str) -> Any:
    return generator(text)


def returns_async_generator(text: str) -> Any:
    return async_generator(text)


async def coroutine_of_generator(text: str) -> Any:
    return generator(text)


async def coroutine_of_async_generator(text: str) -> Any:
    return async_generator(text)


class Agent:
    """An agent whose methods are all kinds of callable."""

    def __init__(self) -> None:
        self.calls = 0

    def answer(self, text: str) -> str:
        self.calls += 1
        return f"answer {self.calls} {text}"

    async def answer_async(self, text: str) -> str:
        return f"async {text}"

    @staticmethod
    def static(text: str) -> str:
        return f"static {text}"

    @classmethod
    def of_class(cls, text: str) -> str:
        return f"{cls.__name__} {text}"

    class Inner:
        def answer(self, text: str) -> str:
            return f"inner {text}"


class Callable_:  # noqa: N801
    def __call__(self, text: str) -> str:
        return f"called {text}"


class AsyncCallable:
    async def __call__(self, text: str) -> str:
        return f"awaited {text}"


class Runs:
    def run(self, text: str) -> str:
        return f"ran {text}"


class RunsAsync:
    async def run(self, text: str) -> str:
        return f"ran async {text}"


class Invokes:
    def invoke(self, text: str) -> str:
        return f"invoked {text}"

    def __call__(self, text: str) -> str:
        return f"called {text}"


class InvokesAsync(Invokes):
    async def ainvoke(self, text: str) -> str:
        return f"ainvoked {text}"


class Mute:
    def speak(self, text: str) -> str:
        return text


class NeedsArguments:
    def __init__(self, key: str) -> None:
        self.key = key

    def answer(self, text: str) -> str:
        return text


class NeedsTwo:
    def __init__(self, key: str, url: str) -> None:
        self.key = key

    def run(self, text: str) -> str:
        return f"{self.key} {text}"


def factory_with_arguments(key: str, url: str, *more: str, kind: str = "a") -> NeedsTwo:
    return NeedsTwo(key, url)


partial_of_a_class = partial(NeedsArguments, "key")
partial_of_a_partial = partial(partial(NeedsArguments), "key")
partial_that_needs_more = partial(NeedsTwo, "key")
partial_that_runs = partial(NeedsTwo, "key", "url")
agent = Agent()
namespace = SimpleNamespace(agent=agent, kind=Agent, needing=NeedsArguments, partial=partial_of_a_class)
callable_instance = Callable_()
async_callable_instance = AsyncCallable()
runs = Runs()
runs_async = RunsAsync()
invokes = Invokes()
invokes_async = InvokesAsync()
mute = Mute()
nothing = None
number = 7


def factory() -> Callable[[str], str]:
    EVENTS.append("built")
    return lambda text: f"made {text}"


def factory_of_agent() -> Runs:
    return Runs()


def factory_that_fails() -> None:
    raise RuntimeError("no database")


def factory_that_exits() -> None:
    raise SystemExit("no key")


async def async_factory() -> None:
    """A factory cannot be async."""


@contextlib.contextmanager
def managed() -> Iterator[Callable[..., str]]:
    EVENTS.append("enter")
    try:
        yield lambda persona, question: f"{persona}: {question}"
    finally:
        EVENTS.append("leave")


@contextlib.asynccontextmanager
async def managed_async() -> AsyncIterator[Callable[..., Any]]:
    async def agent(question: str) -> str:
        return f"managed {question}"

    async with asyncio.TaskGroup():
        EVENTS.append("enter")
        try:
            yield agent
        finally:
            EVENTS.append("leave")


@contextlib.contextmanager
def managed_nothing() -> Iterator[None]:
    yield


class Client:
    """A sync context manager whose method is the agent."""

    def __enter__(self) -> Client:
        EVENTS.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        EVENTS.append("leave")

    def answer(self, text: str) -> str:
        return f"client {text}"

    def fail(self, text: str) -> str:
        raise ValueError(text)


class Factory:
    """A context manager that gives something else than itself."""

    def __enter__(self) -> Runs:
        return Runs()

    def __exit__(self, *error: object) -> None:
        EVENTS.append("leave")

    def run(self, text: str) -> str:
        return "the factory itself"


class Pool:
    """A context manager that is no agent itself and gives one."""

    def __enter__(self) -> Runs:
        return Runs()

    def __exit__(self, *error: object) -> None:
        EVENTS.append("leave")


class Nothing(Client):
    """A context manager whose `__enter__` returns nothing."""

    def __enter__(self) -> None:  # type: ignore[override]
        EVENTS.append("enter")


class AsyncClient:
    """An async context manager around a task group, which must be left in the task it was entered in."""

    async def __aenter__(self) -> AsyncClient:
        self.group = asyncio.TaskGroup()
        await self.group.__aenter__()
        EVENTS.append("enter")
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.group.__aexit__(*error)
        EVENTS.append("leave")

    async def answer(self, text: str) -> str:
        return await self.group.create_task(coroutine(text))

    async def fail(self, text: str) -> str:
        raise ValueError(text)

    def answer_sync(self, text: str) -> str:
        return f"sync {text}"


class AnyioClient:
    """As above, with anyio's task group and cancel scope."""

    async def __aenter__(self) -> AnyioClient:
        import anyio

        self.group = anyio.create_task_group()
        await self.group.__aenter__()
        EVENTS.append("enter")
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.group.cancel_scope.cancel()
        await self.group.__aexit__(*error)
        EVENTS.append("leave")

    async def answer(self, text: str) -> str:
        return f"anyio {text}"


class FailsOnEnter:
    def __enter__(self) -> None:
        raise OSError("no socket")

    def __exit__(self, *error: object) -> None:
        EVENTS.append("leave")

    def run(self, text: str) -> str:
        return text


class ExitsOnEnter(FailsOnEnter):
    def __enter__(self) -> None:
        raise SystemExit(3)


class FailsOnAsyncEnter:
    async def __aenter__(self) -> None:
        raise OSError("no socket")

    async def __aexit__(self, *error: object) -> None:
        EVENTS.append("leave")

    def run(self, text: str) -> str:
        return text


class FailsOnLeave(Client):
    def __exit__(self, *error: object) -> None:
        raise OSError("the socket is gone")


class ExitsOnLeave(Client):
    def __exit__(self, *error: object) -> None:
        raise SystemExit(3)


class DiesMeanwhile:
    """An async context manager whose background task fails while the agent is in use."""

    async def __aenter__(self) -> DiesMeanwhile:
        self.group = asyncio.TaskGroup()
        await self.group.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.group.__aexit__(*error)

    async def answer(self, text: str) -> str:
        async def background() -> None:
            raise ConnectionError("the line is down")

        task = self.group.create_task(background())
        await asyncio.wait([task])
        return text
