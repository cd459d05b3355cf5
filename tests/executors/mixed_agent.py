"""An agent that does a bit of everything, sync and async; any worker can import it."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextvars import ContextVar
from typing import Any

import fluxloop

memory: ContextVar[str] = ContextVar("memory", default="nothing")


def entry(word: str) -> str:
    if word == "broken":
        raise LookupError(f"no entry for {word}")
    return word.upper()


@fluxloop.tool
def look_up(word: str) -> str:
    return entry(word)


@fluxloop.tool(name="look_up")
async def look_up_async(word: str) -> str:
    await asyncio.sleep(0.001)
    return entry(word)


@fluxloop.generation(model="toy-1")
def generate(prompt: str) -> dict[str, Any]:
    return {"text": prompt[::-1], "usage": {"input_tokens": len(prompt), "output_tokens": 2}}


def seen() -> dict[str, Any]:
    """What a run is told of itself."""
    run = fluxloop.current_run()
    assert run is not None
    return {
        "memory": memory.get(),
        "run": (run.id, run.input_id, run.iteration, run.attempt, run.persona, run.expected, run.metadata),
        "seed": run.seed,
        "drawn": random.Random(run.seed).random(),
    }


def fail(question: str) -> None:
    """Raise what some questions are about."""
    run = fluxloop.current_run()
    assert run is not None
    if question == "reset" and run.attempt == 1:
        raise ConnectionResetError("the service hung up")
    if question == "down":
        raise ConnectionRefusedError("nobody there")
    if question == "exit":
        sys.exit(3)
    if question == "cause":
        try:
            look_up("broken")
        except LookupError as error:
            raise ValueError("cannot answer") from error


@fluxloop.agent
def answer(question: str) -> dict[str, Any]:
    told = seen()
    memory.set(question)
    print(question, "begins")
    found = look_up(question)
    time.sleep(0.001)
    with fluxloop.span("second thoughts", metadata={"of": question}):
        fluxloop.event("doubt", about=found)
        generate(found)
    print(question, "goes on", file=sys.stderr)
    fail(question)
    time.sleep(0.001)
    print(question, "ends")
    return told


@fluxloop.agent(name="answer")
async def answer_async(question: str) -> dict[str, Any]:
    told = seen()
    memory.set(question)
    print(question, "begins")
    await asyncio.gather(look_up_async("beside"), asyncio.to_thread(look_up, "aside"))
    found = await look_up_async(question)
    with fluxloop.span("second thoughts", metadata={"of": question}):
        fluxloop.event("doubt", about=found)
        await asyncio.sleep(0.001)
        generate(found)
    print(question, "goes on", file=sys.stderr)
    fail(question)
    await asyncio.sleep(0.001)
    print(question, "ends")
    return told
