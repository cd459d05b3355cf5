"""Where threads and tasks are, as tracebacks tell it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

_PACKAGE = str(Path(__file__).parent) + os.sep


def thread_stack(ident: int | None) -> str | None:
    """Return where a thread is, without fluxloop's own frames, or None when it has ended."""
    frame = sys._current_frames().get(ident) if ident is not None else None
    if frame is None:
        return None
    try:
        return _told(_from_ours(traceback.extract_stack(frame)))
    except Exception as error:  # to show a line, Python asks the loader of its module, which may be anybody's
        return f"unreadable: {error!r}\n"


def _from_ours(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """Leave out how the thread came to us, which is the same for all."""
    ours = [index for index, frame in enumerate(frames) if frame.filename.startswith(_PACKAGE)]
    return frames[ours[0] :] if ours else frames


def task_stack(task: asyncio.Task[Any]) -> str:
    """Return where a task waits, from its coroutine to what that awaits in the end, other tasks included."""
    frames: list[tuple[FrameType, int]] = []
    try:
        _follow(task.get_coro(), frames)
        return _told(traceback.StackSummary.extract(iter(frames)))
    except Exception as error:  # what an agent awaits may be as hostile as any object
        return f"unreadable: {type(error).__name__}\n"


def _follow(waiting: Any, frames: list[tuple[FrameType, int]]) -> None:
    while waiting is not None and len(frames) < 1000:
        # A coroutine, a generator, or an asynchronous generator: each names its parts in its own way.
        for kind, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(waiting, f"{kind}_frame", None)
            if frame is not None:
                frames.append((frame, frame.f_lineno))
                waiting = getattr(waiting, inner)
                break
        else:
            waiting = _behind(waiting)


def _behind(waiting: Any) -> Any:
    """Whose step an awaitable is that has no frame: of an asynchronous generator, a task, the first of a gathering."""
    for part in gc.get_referents(waiting):
        if isinstance(part, CoroutineType | GeneratorType | AsyncGeneratorType):
            return part
        if isinstance(part, asyncio.Future):
            left = [child for child in getattr(part, "_children", (part,)) if not child.done()]
            return left[0].get_coro() if left and isinstance(left[0], asyncio.Task) else None
    return None


def _told(frames: Iterable[traceback.FrameSummary]) -> str:
    own = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    return "".join(["Traceback (most recent call last):\n", *traceback.StackSummary.from_list(own).format()])


def all_stacks(loops: Iterable[asyncio.AbstractEventLoop]) -> str:
    """Return where every thread is, and every task of the loops."""
    parts = []
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and (stack := thread_stack(thread.ident)):
            parts.append(f"Thread {thread.name}\n{stack}")
    for loop in loops:
        for task in _tasks(loop):
            parts.append(f"Task {task.get_name()}\n{task_stack(task)}")
    return "\n".join(parts)


def _tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    try:
        return sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    except RuntimeError:  # they change faster than they can be listed
        return []
