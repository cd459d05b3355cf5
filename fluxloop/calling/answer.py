"""From what an agent returns to an answer: whatever is still to be awaited or iterated has ended before."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from fluxloop.tracing.capture import TooLarge, type_name
from fluxloop.tracing.context import OpenRun
from fluxloop.tracing.streams import StreamedOutput

MAX_STEPS = 100
"""Awaitables in a chain, each of which gives the next; more are taken for endless."""

AT_ONCE = 10_000
"""Items of an answer that are captured on the event loop, in some 10 ms; more are captured beside it."""

Capture = Callable[[Any, "Pending", "int | None"], Any]
"""Makes plain data of a value, notes what in it is pending, and raises `TooLarge` beyond so many items."""
Wait = Callable[[Any], Any]
"""Awaits from a thread, until what is given has ended."""

FINISHED = frozenset({str, dict, list, type(None)})
"""Types whose values need no further step to be an answer, though there may be something pending in them."""


# These ask the type, because an odd object may answer anything itself, or raise.
def _is_awaitable(value: Any) -> bool:
    kind = type(value)
    return issubclass(kind, Awaitable) or (kind is GeneratorType and inspect.isawaitable(value))


def _is_stream(value: Any) -> bool:
    kind = type(value)
    return issubclass(kind, Iterator) and not hasattr(kind, "read")


# Within an answer only what a function makes lazily: another iterator, as a counter, may be part of an object and
# have no end.
_LAZY = (GeneratorType, AsyncGeneratorType, map, filter, zip, Future)


def _is_pending(value: Any) -> bool:
    """Tell whether what is found within an answer is still to come."""
    return issubclass(type(value), _LAZY) or _is_awaitable(value)


class Pending:
    """What within an answer is still to be awaited or iterated, and what that came to.

    Example:
        >>> pending = Pending()
        >>> letters = map(str.upper, "ab")
        >>> pending.resolved(letters), bool(pending)
        ('<pending>', True)
    """

    __slots__ = ("_found", "_results", "_rounds")

    def __init__(self) -> None:
        self._found: dict[int, Any] = {}
        self._results: dict[int, tuple[Any, Any]] = {}
        """By identity; the value is kept beside its result, so that no other gets the same identity."""
        self._rounds = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def resolved(self, value: Any) -> Any:
        """Return what a value came to, else the value itself; note a pending one, and let nobody look into it."""
        known = self._results.get(id(value))
        if known is not None:
            return known[1]
        if _is_pending(value):
            self._found[id(value)] = value
            return "<pending>"  # until it is captured again
        return value

    def settle(self, run: OpenRun, wait: Wait) -> None:
        """Bring all that was noted to its end, from a thread."""
        for value in self._noted():
            self._results[id(value)] = value, settled(value, run, wait)

    async def settle_async(self, run: OpenRun) -> None:
        """Bring all that was noted to its end, on the running loop."""
        for value in self._noted():
            self._results[id(value)] = value, await settled_async(value, run)

    def _noted(self) -> list[Any]:
        self._rounds += 1
        if self._rounds > MAX_STEPS:
            raise _endless(next(iter(self._found.values())))
        found, self._found = list(self._found.values()), {}
        return found


def whole(value: Any, capture: Capture, run: OpenRun, wait: Wait) -> Any:
    """Return a value as plain data in which nothing is pending, from a thread."""
    pending = Pending()
    plain = capture(value, pending, None)
    while pending:
        pending.settle(run, wait)
        plain = capture(value, pending, None)
    return plain


async def whole_async(value: Any, capture: Capture, run: OpenRun) -> Any:
    """Return a value as plain data in which nothing is pending, on the running loop."""
    pending = Pending()
    plain = await _captured(value, capture, pending)
    while pending:
        await pending.settle_async(run)
        plain = await _captured(value, capture, pending)
    return plain


async def _captured(value: Any, capture: Capture, pending: Pending) -> Any:
    try:
        return capture(value, pending, AT_ONCE)
    except TooLarge as large:
        # As `asyncio.to_thread` does, which an agent may have replaced.
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(None, context.run, large.whole)


def settled(value: Any, run: OpenRun, wait: Wait) -> Any:
    """Return what a value comes to once it is awaited and drained, from a thread.

    Args:
        value: what an agent returned.
        run: whose answer it is; once it is closed, nothing more is asked of a stream.
        wait: awaits on a loop beside this thread.

    Raises:
        TypeError: it has been awaited or drained already, or what it gives never ends.
    """
    for _ in range(MAX_STEPS):
        if issubclass(type(value), Future):
            value = value.result()
        elif _is_awaitable(value) or issubclass(type(value), AsyncIterator):
            value = wait(value)
        elif _is_stream(value):
            return _drained(value, run, wait)
        else:
            return value
    raise _endless(value)


async def settled_async(value: Any, run: OpenRun) -> Any:
    """Return what a value comes to once it is awaited and drained, on the running loop; raises as `settled`."""
    for _ in range(MAX_STEPS):
        if issubclass(type(value), Future):
            value = await asyncio.wrap_future(value)
        elif _is_awaitable(value):
            _refuse_used(value)
            value = await value
        elif issubclass(type(value), AsyncIterator):
            return await _drained_async(value, run)
        elif _is_stream(value):
            return await _drained_on_loop(value, run)
        else:
            return value
    raise _endless(value)


def _endless(value: Any) -> TypeError:
    return TypeError(f"the answer never comes: after {MAX_STEPS} awaits there is another {type_name(value)}")


def _refuse_used(value: Any) -> None:
    """Raise what says in words that nothing more comes of it, where Python says nothing or little."""
    kind = type(value)
    if kind is CoroutineType:
        state = inspect.getcoroutinestate(value)
        used = {"CORO_CLOSED": "was awaited already", "CORO_SUSPENDED": "is awaited elsewhere"}.get(state)
    else:
        frame = "gi_frame" if kind is GeneratorType else "ag_frame" if kind is AsyncGeneratorType else None
        used = "was used up already" if frame is not None and getattr(value, frame) is None else None
    if used is not None:
        name = getattr(value, "__qualname__", type_name(value))
        raise TypeError(f"the answer holds the {kind.__name__.replace('_', ' ')} {name}(), which {used}")


def _drained(items: Iterator[Any], run: OpenRun, wait: Wait) -> Any:
    _refuse_used(items)
    streamed = StreamedOutput(run.redaction)
    while not run.closed:
        try:
            item = next(items)
        except StopIteration as stop:
            return streamed.value(None if stop.value is None else settled(stop.value, run, wait))
        streamed.keep(whole(item, streamed.capture, run, wait))
    return streamed.value()


async def _drained_on_loop(items: Iterator[Any], run: OpenRun) -> Any:
    _refuse_used(items)
    streamed = StreamedOutput(run.redaction)
    while not run.closed:
        try:
            item = next(items)
        except StopIteration as stop:
            return streamed.value(None if stop.value is None else await settled_async(stop.value, run))
        streamed.keep(await whole_async(item, streamed.capture, run))
    return streamed.value()


async def _drained_async(items: AsyncIterator[Any], run: OpenRun) -> Any:
    _refuse_used(items)
    streamed = StreamedOutput(run.redaction)
    async for item in items:
        if run.closed:
            break
        streamed.keep(await whole_async(item, streamed.capture, run))
    return streamed.value()
