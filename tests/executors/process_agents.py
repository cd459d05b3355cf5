"""Agents for worker processes, which import them: what one does is seen in its answer, or in files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx

import fluxloop
from tests.waiting import wait_until

memory: ContextVar[str] = ContextVar("memory", default="nothing")


def note(place: str, *what: Any) -> None:
    """Append a line to a file, whole."""
    with Path(place).open("a") as file:
        file.write(json.dumps([os.getpid(), *what]) + "\n")


def noted(place: Path) -> list[list[Any]]:
    """What was noted: each with the process it was noted in."""
    return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []


def process(text: str) -> int:
    return os.getpid()


async def process_async(text: str) -> int:
    return os.getpid()


def attempt(text: str) -> int:
    """Fail as often as the text says, as what may pass."""
    run = fluxloop.current_run()
    assert run is not None
    if run.attempt <= int(text):
        raise ConnectionResetError("hung up")
    return run.attempt


def limited(text: str, place: str) -> str:
    run = fluxloop.current_run()
    assert run is not None
    note(place, run.id, run.attempt, time.monotonic())
    if run.id == "trace_001" and run.attempt == 1:
        answer = httpx.Response(429, headers={"retry-after": "0.4"}, request=httpx.Request("GET", "http://service"))
        answer.raise_for_status()
    return text


def begins(text: str) -> float:
    return time.monotonic()


async def begins_async(text: str) -> float:
    """Answer when it began."""
    return time.monotonic()


def fails_late(text: int) -> int:
    """Fail from the fortieth on."""
    if text >= 40:
        raise LookupError(text)
    return text


def slow(text: str) -> str:
    time.sleep(0.1)
    return text


def waits(text: str, place: str) -> str:
    """Wait until the file `<place>.go` is there, unless the text says otherwise."""
    note(place, "begins", text)
    if text.startswith("hangs"):
        wait_until(Path(place + ".go").exists)  # waits here
    if text == "fails":
        raise LookupError(text)
    note(place, "ends", text)
    return text


async def waits_async(text: str, place: str) -> str:
    note(place, "begins", text)
    while text.startswith("hangs") and not Path(place + ".go").exists():
        await asyncio.sleep(0.01)  # waits here
    note(place, "ends", text)
    return text


def meets(text: str, place: str, count: int) -> tuple[int, int]:
    """Answer once as many as that are there, with how many there were when it left, and the process."""
    note(place, "in")
    wait_until(lambda: len(noted(Path(place))) >= count)
    inside = [what for _, what in noted(Path(place))]
    note(place, "out")
    return inside.count("in") - inside.count("out"), os.getpid()


async def meets_async(text: str, place: str, count: int) -> tuple[int, int]:
    note(place, "in")
    while len(noted(Path(place))) < count:
        await asyncio.sleep(0.005)
    inside = [what for _, what in noted(Path(place))]
    note(place, "out")
    return inside.count("in") - inside.count("out"), os.getpid()


def spans(text: str) -> tuple[int, float, float]:
    """The process, and from when to when it was at work."""
    began = time.monotonic()
    if text == "long":
        time.sleep(0.002)
    return os.getpid(), began, time.monotonic()


def mostly_short(text: int) -> tuple[int, float]:
    """One of many takes a second."""
    if text == 60:
        time.sleep(1)
    return os.getpid(), time.monotonic()


def calls(text: str, rate: str) -> tuple[int, float]:
    with fluxloop.rate_limit("service", rate):
        return os.getpid(), time.monotonic()


async def calls_async(text: str, rate: str) -> tuple[int, float]:
    async with fluxloop.rate_limit("service", rate):
        return os.getpid(), time.monotonic()


def queues(text: str, rate: str) -> tuple[float, float]:
    """When it asked, and when it was let through."""
    asked = time.monotonic()
    with fluxloop.rate_limit("service", rate):
        return asked, time.monotonic()


async def queues_async(text: str, rate: str) -> tuple[float, float]:
    asked = time.monotonic()
    async with fluxloop.rate_limit("service", rate):
        return asked, time.monotonic()


async def gives_up(text: str, rate: str, first: bool) -> None:
    """Cancel many calls, some of which have just been let through, before or after one that goes on."""
    limit = fluxloop.rate_limit("service", rate)
    if first:
        await limit.__aenter__()
    for number in range(60):
        waiting = asyncio.create_task(limit.__aenter__())
        await asyncio.sleep(0)  # now it has asked
        if number % 3 == 0:
            time.sleep(0.01)  # long enough for an answer, which it cannot notice
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    await limit.__aenter__()


def contests(text: str) -> None:
    """Use the name with another rate in each process."""
    run = fluxloop.current_run()
    assert run is not None
    with fluxloop.rate_limit("disputed", "100/s" if text == "a" else "200/s"):
        time.sleep(0.2)


def says(text: str) -> None:
    print("printed", text)
    print("told", text, file=sys.stderr)
    logging.getLogger("agent").warning("logged %s", text)
    sys.stdout.buffer.write(f"written {text}\n".encode())


def writes(text: str) -> None:
    """Print, and write past Python as a program that it starts would."""
    says(text)
    os.write(1, f"raw {text}\n".encode())


def remembers(text: str) -> str:
    found = memory.get()
    memory.set(text)
    return found


async def remembers_async(text: str) -> str:
    return remembers(text)


def shows(text: str) -> str:
    """Show the environment's secret in every way, and end as the text says."""
    secret = os.environ["SERVICE_API_KEY"]
    print(secret)
    with fluxloop.span(secret, input=secret):
        fluxloop.event(secret)
    if text == "raises":
        raise LookupError(f"no {secret}")
    if text == "crashes":
        os._exit(3)
    if text == "hangs":
        where = secret  # noqa: F841
        threading.Event().wait()  # sk-live-in-the-source
    return secret


def threads(text: str, thread: str) -> str:
    return thread


class Kept:
    """Notes when it is built, entered and left, and by whom."""

    place = os.environ.get("KEPT_PLACE", "")

    def __init__(self) -> None:
        note(self.place, "built", threading.get_ident())

    def _met(self, text: str) -> int:
        note(self.place, "run", threading.get_ident())
        wait_until(lambda: sum(what == "entered" for _, what, _ in noted(Path(self.place))) >= 2)
        return os.getpid()


class Sync(Kept):
    def __enter__(self) -> Sync:
        note(self.place, "entered", threading.get_ident())
        return self

    def __exit__(self, *error: object) -> None:
        note(self.place, "left", threading.get_ident())


class Async(Kept):
    async def __aenter__(self) -> Async:
        note(self.place, "entered", threading.get_ident())
        return self

    async def __aexit__(self, *error: object) -> None:
        note(self.place, "left", threading.get_ident())


class SyncOfSync(Sync):
    def run(self, text: str) -> int:
        return self._met(text)


class AsyncOfSync(Sync):
    async def run(self, text: str) -> int:
        return self._met(text)


class SyncOfAsync(Async):
    def run(self, text: str) -> int:
        return self._met(text)


class AsyncOfAsync(Async):
    async def run(self, text: str) -> int:
        return self._met(text)


class Leaving:
    """Fails or hangs when it is left."""

    def __enter__(self) -> Leaving:
        return self

    def __exit__(self, *error: object) -> None:
        warnings.warn("on the way out", stacklevel=2)
        if os.environ.get("LEAVES") == "hanging":
            threading.Event().wait()
        raise ConnectionError(f"cannot close {os.environ.get('SERVICE_API_KEY')}")

    def run(self, text: str) -> str:
        return text


class Graph:
    """Called as LangGraph's are."""

    async def ainvoke(self, state: dict[str, Any], config: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"messages": [{"role": "assistant", "content": state["text"].upper()}]}


def graph() -> Graph:
    return Graph()


def streams(text: str) -> Iterator[str]:
    yield from text


async def streams_async(text: str) -> AsyncIterator[str]:
    for letter in text:
        yield letter


class Point:
    """An input that is an object."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __repr__(self) -> str:
        return f"Point({self.x})"


class Unreadable(Point):
    """One that cannot be made again in another process."""

    def __reduce__(self) -> Any:
        return refuse, (self.x, os.getpid())


class Spoiled(Point):
    """One that cannot be pickled once it is spoiled."""

    is_spoiled = False

    def __reduce__(self) -> Any:
        if self.is_spoiled:
            raise ValueError("it is spoiled")
        return Spoiled, (self.x,)


def refuse(x: int, home: int) -> Unreadable | None:
    if os.getpid() == home:
        return Unreadable(x)
    if x == 2:
        sys.exit(4)
    raise LookupError(f"no point {x}")


def doubles(text: Any) -> int:
    run = fluxloop.current_run()
    assert run is not None
    assert run.expected == text.x
    return int(text.x) * 2


def seeded(text: str) -> dict[str, Any]:
    run = fluxloop.current_run()
    assert run is not None
    return {"seed": run.seed, "worker": os.getpid()}
