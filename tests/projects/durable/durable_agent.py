"""An agent that fails, is tried again, forks and notes each of its calls, for experiments that are broken off."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import fluxloop


@fluxloop.tool
def look(text: str) -> str:
    if text.startswith("bad"):
        raise ValueError(f"{text}\n is not to be found: ä, €, 漢字, 🙂")
    return text[::-1]


@fluxloop.tool
def shout(text: str) -> str:
    return text.upper()


def begin(text: str) -> None:
    """Note the call, and fail as a service would."""
    run = fluxloop.current_run()
    assert run is not None
    if place := os.environ.get("CALLS"):
        handle = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{run.id}\n".encode())
        os.close(handle)
    if text.startswith("flaky") and run.attempt == 1:
        raise ConnectionError("come again")
    if text.startswith("down") and not os.environ.get("IS_UP"):
        raise ConnectionError("nobody is there")


def answer(text: str) -> str:
    begin(text)
    if text.startswith("quiet"):
        return text
    return shout(look(text))


def slow(text: str) -> str:
    """Take a few milliseconds."""
    time.sleep(0.001 * (1 + len(text) % 4))
    return answer(text)


async def slow_async(text: str) -> str:
    """Take as long on the loop."""
    await asyncio.sleep(0.001 * (1 + len(text) % 4))
    return answer(text)


def forking(text: str) -> str:
    """Leave a child behind that lives as long as the file `alive`; wait for as long as there is one called `hold`."""
    child = os.fork()
    if child == 0:
        while Path("alive").exists():
            time.sleep(0.01)
        os._exit(0)
    Path("child.new").write_text(str(child))
    os.replace("child.new", "child")
    while Path("hold").exists():
        time.sleep(0.01)
    return text


def waiting(text: str) -> str:
    """Say that it runs, and wait for as long as the file `hold` is there."""
    Path(f"ready_{os.getpid()}").touch()
    while Path("hold").exists():
        time.sleep(0.01)
    return text


def wordy(text: str) -> str:
    """Fill a disk."""
    return text * 1500


def holding(text: str) -> str:
    """Wait for as long as the file `hold` is there, but for the first input."""
    while text != "hello" and Path("hold").exists():
        time.sleep(0.01)
    return look(text)
