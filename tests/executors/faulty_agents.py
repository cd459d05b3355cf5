"""Agents that do what no agent should, for workers to bear; the input says what."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fluxloop
import fluxloop.calling.loop
import fluxloop.open_target

if "IN_HASTE" in os.environ:  # whoever is past its time is waited for a moment only
    fluxloop.open_target.LINGER = 0.1
    fluxloop.calling.loop.ANSWER_SECONDS = 0.2

MEGABYTE = 1 << 20


class Hostile:
    """Nothing can be known of it."""

    def __reduce__(self) -> str:
        raise RuntimeError("not to be pickled")

    def __repr__(self) -> str:
        raise RuntimeError("not to be seen")


def note(name: str) -> None:
    """Leave word of a call, and of who has had it."""
    with open(Path(os.environ["NOTES"], f"{name}-{time.monotonic_ns()}"), "w") as file:
        file.write(str(os.getpid()))


def wait_for(place: Path) -> None:
    while not place.exists():
        time.sleep(0.01)


@contextmanager
def little_memory() -> Iterator[None]:
    """Allow 50 MB beyond what there is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 50 * MEGABYTE, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


# What ends a worker


def exits() -> None:
    os._exit(3)


def segfaults() -> None:
    ctypes.string_at(0)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def needs_too_much() -> None:
    """As a library does that asks for memory and never looks whether it was given."""
    allocate = ctypes.CDLL(None).malloc
    allocate.restype = ctypes.c_void_p
    with little_memory():
        ctypes.memset(allocate(100 * MEGABYTE), 1, 100 * MEGABYTE)


def closes_all_files() -> None:
    os.closerange(3, 256)


def closes_all_files_and_stays() -> None:
    closes_all_files()
    time.sleep(1000)


def writes_everywhere() -> None:
    for descriptor in range(3, 1024):  # its socket has the number it has in the process of the executor
        with suppress(OSError):
            os.write(descriptor, b"\0garbage\0" * 8)


DEADLY = {
    "exits": (exits, "ended with exit code 3"),
    "segfaults": (segfaults, "was killed by signal 11 (SIGSEGV)"),
    "kills itself": (kills_itself, "was killed by signal 9 (SIGKILL), as the system does when memory runs out"),
    "needs too much": (needs_too_much, "was killed by signal 11 (SIGSEGV)"),
    "closes all files": (closes_all_files, "ended with exit code 97, as a worker does that cannot hear or speak"),
    "closes all files and stays": (closes_all_files_and_stays, "ended with exit code 97"),
    "writes everywhere": (writes_everywhere, "sent what cannot be read"),
}
"""What is done, and what is said of the worker."""

# What a run survives, or fails of


def is_refused_memory() -> None:
    with little_memory():
        bytearray(100 * MEGABYTE)


def raises(error: BaseException) -> Callable[[], None]:
    def behave() -> None:
        raise error

    return behave


def starts_others() -> str:
    """Leave a process, a fork and a thread behind."""
    subprocess.Popen(["sleep", "1000"])
    if os.fork() == 0:
        time.sleep(1000)
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return "started"


def forks() -> str:
    """Leave the child, which comes back, to itself."""
    return "child" if os.fork() == 0 else "parent"


def changes_directory() -> str:
    place = Path(os.environ["NOTES"], f"place {os.getpid()}")
    place.mkdir()
    os.chdir(place)
    place.rmdir()
    return "changed"


FAILING: dict[str, tuple[Callable[[], object], str]] = {
    "is refused memory": (is_refused_memory, "MemoryError"),
    "calls sys.exit": (lambda: sys.exit(3), "SystemExit"),
    "raises KeyboardInterrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
    "raises GeneratorExit": (raises(GeneratorExit()), "GeneratorExit"),
}
ODD: dict[str, Callable[[], object]] = {
    "starts others": starts_others,
    "forks": forks,
    "changes directory": changes_directory,
    "returns a lock": threading.Lock,
    "returns a lambda": lambda: lambda: 1,
    "returns a generator": lambda: (letter for letter in "abc"),
    "returns what is hostile": Hostile,
    "returns 50 MB": lambda: "x" * (50 * MEGABYTE),
}


def behave(text: str) -> Any:
    note(text[:30])
    if text in DEADLY:
        DEADLY[text][0]()
    elif text in FAILING:
        FAILING[text][0]()
    elif text in ODD:
        return ODD[text]()
    return len(text)


async def behave_async(text: str) -> Any:
    """Do it after a moment, with others in flight."""
    await asyncio.sleep(0.05)
    return behave(text)


# What does not end


@fluxloop.tool
def prepare(text: str) -> str:
    return text


def hangs() -> None:
    subprocess.Popen(["sleep", "1000"])
    threading.Thread(target=time.sleep, args=(1000,)).start()
    time.sleep(1000)  # hangs here


def hangs_deaf() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(1000)  # hangs deaf here


def holds_the_interpreter() -> None:
    re.match(r"(a|a)+$", "a" * 100 + "b")


HANGING = {"hangs": hangs, "hangs deaf": hangs_deaf, "holds the interpreter": holds_the_interpreter}


def dawdle(text: str) -> str:
    note(text)
    prepare(text)
    HANGING.get(text, str)()
    return text


async def dawdle_async(text: str) -> str:
    prepare(text)
    if text == "waits":
        await asyncio.Event().wait()  # waits here
    while text == "is stubborn":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)  # is stubborn here
    await asyncio.sleep(0.05)
    HANGING.get(text, str)()
    await asyncio.sleep(0)
    return text


# What is counted


def crashes_and_fails(text: str) -> str:
    """Crash, fail, crash, fail, and so on."""
    run = fluxloop.current_run()
    assert run is not None
    if text == "unlucky":
        if run.attempt % 2:
            os._exit(4)
        raise ConnectionError("come again")
    return text


def crashes_unless_well(text: str) -> str:
    if text == "crashes" and "IS_WELL" not in os.environ:
        os._exit(5)
    return text


def dies_idle(text: str) -> str:
    """Die after the run, before the next of this worker."""
    notes = Path(os.environ["NOTES"])
    if text == "dies later":
        wait_for(notes / "began")  # on another worker

        def die() -> None:
            wait_for(notes / "recorded")
            os._exit(6)

        note("dying")
        threading.Thread(target=die).start()
        return text
    run = fluxloop.current_run()
    assert run is not None
    if run.attempt == 1:
        (notes / "began").touch()
        while not any(path.stat().st_size for path in notes.parent.glob("experiments/*/trace_summary.jsonl")):
            time.sleep(0.01)
        (notes / "recorded").touch()
        (dying,) = notes.glob("dying-*")
        with suppress(ProcessLookupError):
            while True:
                os.kill(int(dying.read_text()), 0)
                time.sleep(0.01)
        raise ConnectionError("come again")
    return text


# What is left at the end


class LeavesThings:
    """Leave a thread that never ends, and something to be done at the end."""

    def __exit__(self, *error: object) -> None:
        note("left")

    def __enter__(self) -> LeavesThings:
        import atexit

        atexit.register(note, "atexit")
        return self

    def run(self, text: str) -> str:
        if text == "leaves a thread":
            threading.Thread(target=time.sleep, args=(1000,)).start()
        return text


# What goes on while the experiment is killed


def endless(text: str) -> None:
    subprocess.Popen(["sleep", "1000"])
    note(text)
    while text == "computes":
        sum(range(1000))
    if text == "sleeps":
        time.sleep(1000)
    holds_the_interpreter()
