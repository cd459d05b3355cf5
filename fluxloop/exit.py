"""The end of a process whose last word is said: it comes soon, whatever an agent has left running."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

from fluxloop.progress import shown_place
from fluxloop.system import System, new_thread
from fluxloop.tracing.redaction import without_secrets
from fluxloop.visible import one_line

SILENT_SECONDS = 1.0
"""How long nothing is said about it: most that is left ends by then."""
PATIENCE_SECONDS = 2.0
"""How long threads may take to end, after which Python calls what is registered with `atexit`."""
ENDING_SECONDS = 3.0
"""How long all of it may take."""
FLUSH_SECONDS = 0.2
MAX_NAMED = 3
"""How many of those that are waited for are named."""

_PACKAGE = os.path.dirname(__file__) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep
_INSTALLED = os.sep + "site-packages" + os.sep


class _TakesTooLong(BaseException):
    """Raised in the main thread to leave what Python waits for, and go on to what comes after."""


def exit_soon(code: int) -> None:
    """See to it that the process ends in a few seconds; to be called from the main thread just before its end.

    Threads that end, and handlers of `atexit`, have their time: first whatever Python waits for, then,
    where that does not end, what comes after it. Who is waited for is told. Ctrl-C ends it at once.

    Args:
        code: the exit code, if the process does not end by itself.
    """
    main = threading.get_ident()
    over = threading.Event()
    leaves = False
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal leaves
        if leaves:
            leaves = False
            raise _TakesTooLong
        if not ignored:
            _end_children()
            _end(code)

    def end() -> None:
        nonlocal leaves
        over.wait(SILENT_SECONDS)
        _say(main)
        over.wait(PATIENCE_SECONDS - SILENT_SECONDS)
        _end_children()
        leaves = True
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, signal.SIGINT)
        over.wait(ENDING_SECONDS - PATIENCE_SECONDS)
        _end(code)

    signal.signal(signal.SIGINT, receive)
    _hide_own_interrupts()
    new_thread(end, "fluxloop-exit").start()


def _hide_own_interrupts() -> None:
    """Python tells of every exception in its last steps; that of ours is meant."""
    tell = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is not _TakesTooLong:
            tell(unraisable)

    sys.unraisablehook = hook


def _say(main: int) -> None:
    """Name what the process waits for."""
    with suppress(Exception):  # names of threads, and files, are the agent's
        waited_for = [one_line(without_secrets(text)) for text in _waited_for(main)]
        if not waited_for:
            return  # the loop is being closed, which takes a while of its own where tasks do not end
        named = ", ".join(waited_for[:MAX_NAMED])
        more = f" and {len(waited_for) - MAX_NAMED} more" if len(waited_for) > MAX_NAMED else ""
        seconds = ENDING_SECONDS - SILENT_SECONDS
        told = f"Still running: {named}{more}. The command ends in {seconds:g} s at the latest; Ctrl-C ends it now."
        _write(f"[WARN] {told}\n")


def _waited_for(main: int) -> Iterator[str]:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.ident != main and not thread.daemon and thread.ident in frames:
            yield f"thread {thread.name}{_place(frames[thread.ident])}"
    for child in _children():
        if not child.daemon:
            yield f"process {child.pid}, {child.name}"
    if place := _place(frames[main]):  # else it waits for one of those
        yield f"the main thread{place}"


def _children() -> list[Any]:
    """The processes of `multiprocessing` that have not been waited for."""
    return list(getattr(sys.modules.get("multiprocessing.process"), "_children", ()))


def _place(frame: FrameType | None) -> str:
    """Where a thread is: its innermost line outside of Python's own library, if there is one."""
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith((_STDLIB, _PACKAGE, "<frozen")) or _INSTALLED in code.co_filename:
            return f" in {code.co_name} at {shown_place(f'{code.co_filename}:{frame.f_lineno}')}"
        frame = frame.f_back
    return ""


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))


def _end(code: int) -> None:
    flushing = new_thread(_flush, "fluxloop-flush")  # whoever hangs may hold the lock of a stream
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    System.exit(code)


def _end_children() -> None:
    """End those that Python would have waited for: they are of no use without the process they belong to."""
    for child in _children():
        with suppress(Exception):
            child.terminate()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
