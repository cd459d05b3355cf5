"""Agents that change for others what a process has in common, and leave it so; the input says what."""

from __future__ import annotations

import asyncio
import gc
import json
import locale
import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import time_machine
from freezegun import freeze_time

import fluxloop
from fluxloop import Experiment


def fails(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("spoiled")


def patch(module: str, *names: str, **options: Any) -> Callable[[], None]:
    """Put a test double in the place of each, for good."""

    def spoil() -> None:
        for name in names:
            mock.patch(f"{module}.{name}", **options).start()

    return spoil


def sets(owner: Any, **values: Any) -> Callable[[], None]:
    def spoil() -> None:
        for name, value in values.items():
            setattr(owner, name, value)

    return spoil


def in_turn(*spoils: Callable[[], object]) -> Callable[[], None]:
    def spoil() -> None:
        for one in spoils:
            one()

    return spoil


def on_loop(spoil: Callable[[asyncio.AbstractEventLoop], object]) -> Callable[[], None]:
    """Do it to the loop, where there is one."""

    def spoil_loop() -> None:
        with suppress(RuntimeError):
            spoil(asyncio.get_running_loop())

    return spoil_loop


def changes_its_run() -> None:
    run = fluxloop.current_run()
    for name in ("observations", "stdout", "stderr"):
        with suppress(AttributeError):
            getattr(run, name).clear()
    for name in ("attempt", "closed", "discarded", "observations", "offset", "redaction", "stdout", "uncaptured"):
        with suppress(AttributeError):
            setattr(run, name, None)


def leaves_no_directory() -> None:
    place = tempfile.mkdtemp()
    os.chdir(place)
    os.rmdir(place)


def calls_to_the_end() -> None:
    """Call tools until no frame is left, and bear it."""
    with suppress(RecursionError):
        helper("deeper")
        calls_to_the_end()


def leaves_few_frames() -> None:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    sys.setrecursionlimit(depth + 60)


def closes_all_files() -> None:
    os.closerange(3, 256)


def opens_others() -> None:
    """Close all files, and have their numbers for others."""
    closes_all_files()
    for _ in range(32):
        os.open(tempfile.mkstemp()[1], os.O_RDWR)


SPOILING: dict[str, Callable[[], object]] = {
    "freezes time": lambda: freeze_time("2020-01-01").start(),
    "travels in time": lambda: time_machine.travel("2020-01-01", tick=False).start(),
    "patches clocks": patch(
        "time",
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "gmtime", "strftime"),
        return_value=7,
    ),
    "patches sleeping": in_turn(patch("time", "sleep"), patch("asyncio", "sleep", "wait", "wait_for", "create_task")),
    "patches processes": in_turn(
        patch("os", "getpid", "getppid", return_value=4242),
        patch("os", "fork", "kill", "killpg", "_exit"),
        patch("subprocess", "Popen", "run"),
    ),
    "patches files": in_turn(
        patch("os", "open", "write", "close", "fsync", "fdatasync", "fstat", "ftruncate", "replace", "unlink", "chmod"),
        patch("builtins", "open"),
        patch("io", "open"),
        patch("pathlib.Path", "open", "write_bytes", "exists", "mkdir", "unlink"),
        patch("tempfile", "mkstemp", "mkdtemp"),
    ),
    "patches chance": in_turn(
        patch("uuid", "uuid4", "UUID"), patch("random", "random", "Random"), patch("os", "urandom")
    ),
    "patches threads": in_turn(patch("threading", "Thread"), patch("queue", "Queue", "SimpleQueue")),
    "patches connections": in_turn(patch("socket", "socket", "socketpair"), patch("select", "select", "poll")),
    "patches tracebacks": patch("traceback", "TracebackException", "extract_stack", "format_exc"),
    "patches json": patch("json", "dumps", "loads"),
    "clears the environment": in_turn(os.environ.clear, sets(os, environ={})),
    "has no hooks": in_turn(sets(threading, excepthook=None), sets(sys, excepthook=None, unraisablehook=None)),
    "has failing hooks": in_turn(sets(threading, excepthook=fails), sets(sys, excepthook=fails, unraisablehook=fails)),
    "makes errors of warnings": in_turn(lambda: warnings.simplefilter("error"), sets(warnings, showwarning=fails)),
    "disables logging": lambda: logging.disable(logging.CRITICAL),
    "has a failing task factory": on_loop(lambda loop: loop.set_task_factory(fails)),
    "has a failing handler": on_loop(lambda loop: loop.set_exception_handler(fails)),
    "debugs the loop": on_loop(lambda loop: loop.set_debug(True)),
    "stops the loop": on_loop(lambda loop: loop.stop()),
    "leaves few frames": leaves_few_frames,
    "calls to the end": calls_to_the_end,
    "collects no garbage": gc.disable,
    "leaves no directory": leaves_no_directory,
    "hides new files": lambda: os.umask(0o777),
    "has another locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "closes its streams": lambda: (sys.stdout.close(), sys.stderr.close(), os.closerange(0, 3)),
    "forgets modules": lambda: [sys.modules.pop(name) for name in [*sys.modules] if name not in ("sys", "builtins")],
    "imports nothing more": in_turn(sys.path.clear, sys.meta_path.clear),
    "changes its run": changes_its_run,
}
CLOSING: dict[str, Callable[[], object]] = {"closes all files": closes_all_files, "opens others": opens_others}
"""What the results cannot survive in the process that writes them."""


@fluxloop.tool
def helper(text: str) -> str:
    return text


def agent(text: str) -> str:
    helper(text)
    print("at", text)
    {**SPOILING, **CLOSING}.get(text, str)()
    helper(text)
    return text


async def async_agent(text: str) -> str:
    agent(text)
    await asyncio.tasks.sleep(0.001)  # by the loop's time, and not by a double of `asyncio.sleep`
    return text


def run(text: str, executor: str, kind: str, place: Path) -> Experiment:
    return Experiment(
        target=f"{__name__}:{kind}",
        inputs=[text, *"abcd"],
        executor=executor,
        parallel=1 if executor == "inline" else 2,
        name="spoiled",
        output_dir=place,
        capture_output=True,
        timeout_seconds=0 if (executor, kind) == ("inline", "agent") else 60,
    )


def _run_in_fork(text: str, executor: str, kind: str, place: Path) -> None:
    # What the agent spoils is not to be asked for afterwards.
    write, leave, finish = os.write, os._exit, str.encode
    told = os.open(place / "outcome", os.O_WRONLY | os.O_CREAT)
    told = os.dup2(told, 900)
    try:
        result = run(text, executor, kind, place).run()
        outcome = f"{result.summary.status}, {result.exit_code}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    write(told, finish(outcome))
    leave(0)


def main(executor: str, kind: str, folder: str) -> None:
    """Run every experiment in a process of its own, which is made in no time, some at a time."""
    under_way = 0
    for text in (*SPOILING, *CLOSING):
        place = Path(folder, text)
        place.mkdir()
        if not os.fork():
            _run_in_fork(text, executor, kind, place)
        under_way += 1
        if under_way == 6:
            os.wait()
            under_way -= 1
    for _ in range(under_way):
        os.wait()


if __name__ == "__main__":
    signal.alarm(300)  # a hung one is found by its missing outcome
    main(*json.loads(sys.argv[1]))
