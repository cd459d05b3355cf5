"""A process beside the command's own, which hears and writes what this one cannot while C code holds its interpreter.

Only the command has one: a script or a notebook may have plans of its own for its signals and its children.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from fluxloop import lookout_process
from fluxloop.clock import monotonic
from fluxloop.system import System

HELD_SECONDS = 10.0
"""How long the interpreter may be held before it is written down where."""
ARMING_SECONDS = 0.5

_wanted: ContextVar[bool] = ContextVar("fluxloop_lookout", default=False)


@contextmanager
def with_lookout() -> Iterator[None]:
    """Have experiments within this context looked after from outside."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


class Lookout:
    """What this process tells the one beside it; without one, nothing.

    Args:
        channel: the pipe to it, or None.
        stacks: the pipe that stacks go through.
        held_seconds: how long the interpreter may be held; 0 for as long as it likes.
    """

    def __init__(self, channel: int | None, stacks: IO[bytes] | None, held_seconds: float = 0) -> None:
        self._channel = channel
        self._stacks = stacks
        self._held_seconds = held_seconds
        self._armed = 0.0

    @property
    def is_there(self) -> bool:
        """Whether there is a process beside this one."""
        return self._channel is not None

    def heard(self) -> None:
        """Say that Ctrl-C has been heard here; called from the signal's handler."""
        self._say(b"h")

    def next_ends(self) -> None:
        """Say that the next Ctrl-C is to end this process, whoever has taken it."""
        self._say(b"n")

    def alive(self) -> None:
        """Note that the interpreter is free; called again and again."""
        now = monotonic()
        if self._stacks is not None and self._held_seconds and now - self._armed > ARMING_SECONDS:
            self._armed = now
            # Written by a thread that needs no interpreter, unless this is called again in time.
            faulthandler.dump_traceback_later(self._held_seconds, file=self._stacks)

    def _say(self, text: bytes) -> None:
        if self._channel is not None:
            with suppress(OSError):
                System.write(self._channel, text)


@contextmanager
def lookout_for(path: Path, *, stall_seconds: float) -> Iterator[Lookout]:
    """Start a process that looks after this one, where that is wanted and can be.

    Args:
        path: the experiment's directory.
        stall_seconds: how long nothing may finish; 0 for as long as it likes.
    """
    can = hasattr(signal, "pthread_sigmask") and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if not (_wanted.get() and can):
        yield Lookout(None, None)
        return
    with ExitStack() as open_files:
        reads, writes = os.pipe()
        stacks = os.fdopen(writes, "wb", 0)
        open_files.callback(_close, stacks)
        command = [sys.executable, "-I", "-S", str(lookout_process.__file__)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until it is ready for it
        try:
            process = subprocess.Popen(
                [*command, str(System.getpid()), str(path), str(reads)], stdin=subprocess.PIPE, pass_fds=[reads]
            )
        except OSError:  # no room for one more process: the experiment goes on without
            yield Lookout(None, None)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(reads)
        assert process.stdin is not None
        try:
            lookout = Lookout(process.stdin.fileno(), stacks, min(HELD_SECONDS, stall_seconds))
            lookout.alive()  # the first run may be the one that holds it
            yield lookout
        finally:
            faulthandler.cancel_dump_traceback_later()
            _close(process.stdin)
            process.wait()  # it has left a child behind, which ends with the pipe


def _close(pipe: IO[bytes]) -> None:
    with suppress(OSError):  # an agent may have closed all files of its process
        pipe.close()
