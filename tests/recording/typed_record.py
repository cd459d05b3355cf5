"""`record` in all forms, for mypy to check; nothing runs this file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from typing import Protocol, assert_type

import fluxloop


class Ask(Protocol):
    """The exact signature of the functions, names, kinds and defaults included."""

    def __call__(self, question: str, /, limit: int = ..., *, strict: bool) -> list[str]: ...


@fluxloop.record
def bare(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.record()
def called(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.record("app:named")
def named(question: str, /, limit: int = 1, *, strict: bool) -> list[str]:
    return [question]


@fluxloop.record(target="app:named")
async def coroutine(question: str) -> int:
    return len(question)


@fluxloop.record
async def stream(question: str) -> AsyncGenerator[str, None]:
    yield question


asks: list[Ask] = [bare, called, named]
assert_type(bare("why", strict=True), list[str])


async def check() -> None:
    """What is awaited and yielded keeps its type."""
    waiting: Awaitable[int] = coroutine("why")
    assert_type(await waiting, int)
    async for item in stream("why"):
        assert_type(item, str)
