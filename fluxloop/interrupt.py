"""Signals as a flag the loop reads, so that none tears a record."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

from fluxloop.clock import monotonic
from fluxloop.system import System

# SIGHUP: the terminal was closed, or the connection to it was lost.
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

HEED_SECONDS = 0.5
"""How long the loop, or the agent that has its thread, may take to heed a signal."""


class Abandoned(BaseException):
    """Raised in the main thread to leave a run, or an end, that takes too long."""


class Interrupt:
    """Whether to stop, asked by a signal or by a caller.

    The first signal asks to start nothing more, the second to leave what is in flight: a loop
    that looks in time heeds both. One that does not, because an agent has its thread, is made to
    by `insist`, which raises `Abandoned` there, but only between `release` and `hold`: whoever
    writes is not torn away. An agent that swallows even that, or a sink that hangs, is ended with
    the process, by one more signal.
    """

    def __init__(self) -> None:
        self.announce: Callable[[str], None] = lambda hint: None
        """Told that the first signal has come, and what the next will do; called from the signal handler."""
        self.heard: Callable[[], None] = lambda: None
        """Called from the signal handler, whatever the signal does."""
        self.last_words: Callable[[bool], None] = lambda held: None
        """Called before the process is ended; told whether the loop hangs between `hold` and `release`."""
        self.signal: int | None = None
        """The signal that asked, or None."""
        self.urgency: Literal[0, 1, 2] = 0
        """0: nobody has asked; 1: start nothing more; 2: leave what is in flight."""
        self._held = True
        self._postponed = False
        self._insisting = False
        self._raised: float | None = None
        self._urged = 0.0
        """When the last thing was done that should have ended it: the second signal, or `Abandoned`."""
        self._taken: tuple[signal.Signals, ...] = ()
        self._early: int | None = None
        """The signal that came when it was too early to end the process."""
        self._is_deaf = False
        """True when an agent has put handlers of its own in the place of ours."""

    @property
    def requested(self) -> bool:
        """True once anybody has asked."""
        return self.urgency > 0

    @property
    def is_deaf(self) -> bool:
        """True when an agent has put handlers of its own in the place of ours, as far as `look` has seen."""
        return self._is_deaf

    @property
    def abandoned(self) -> bool:
        """True once `Abandoned` has been raised, whatever became of it."""
        return self._raised is not None

    def request(self, number: int | None = None) -> None:
        """Ask the experiment to start nothing more."""
        self.urgency = self.urgency or 1
        self.signal = self.signal or number

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP, from the main thread; elsewhere do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: dict[signal.Signals, Any] = {
            number: signal.signal(number, self._receive)
            for number in _STOPPING
            if signal.getsignal(number) is not signal.SIG_IGN  # as under nohup
        }
        self._taken = tuple(previous)
        try:
            yield
        finally:
            self._taken = ()
            for number, handler in previous.items():
                # None: a handler that was not installed from Python cannot be put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def hold(self) -> None:
        """Let `insist` wait, and take back what an agent has kept of the signals."""
        self._held = True
        if self._is_deaf:
            self._is_deaf = False
            self.retake()

    def retake(self) -> None:
        """Take the signals again, should the agent have put handlers of its own in their place."""
        for number in self._taken:
            signal.signal(number, self._receive)

    def look(self) -> None:
        """Notice that the signals do not come here; from any thread, which cannot take them itself."""
        self._is_deaf = any(signal.getsignal(number) != self._receive for number in self._taken)

    def release(self) -> None:
        """Let `insist` through, at once if it has been called already."""
        self._held = False
        if self._postponed:
            self._postponed = False
            self._abandon()

    def insist(self) -> None:
        """Raise `Abandoned` in the main thread, also out of a call that waits; from any other thread."""
        if self._taken and self._raised is None and hasattr(signal, "pthread_kill"):
            self._insisting = True
            signal.pthread_kill(threading.main_thread().ident or 0, self._taken[0])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._insisting:
            self._insisting = False
            if self._held:
                self._postponed = True
            else:
                self._abandon()
            return
        self.heard()
        if self.urgency == 0:
            self.request(number)
            self.announce(" Press Ctrl-C again to stop at once." if number == signal.SIGINT else "")
        elif self.urgency == 1 and self._raised is None:
            self.urgency = 2
            self._urged = monotonic()
        elif monotonic() - self._urged > 2 * HEED_SECONDS:
            self.last_words(self._held)
            System.exit(128 + number)
        else:
            self._early = number

    def catch_up(self) -> None:
        """Let a signal count that came too early to end the process, once it is late enough; from any thread."""
        number = self._early
        if number is not None and monotonic() - self._urged > 2 * HEED_SECONDS and hasattr(signal, "pthread_kill"):
            self._early = None
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def _abandon(self) -> None:
        self._raised = self._urged = monotonic()
        raise Abandoned


# A process an agent forks is ended by what would end any other. A signal that comes just after the
# fork would be lost: Python notes it, and then forgets what was noted before the fork. So signals
# wait until the child is ready for them.
_masks = threading.local()


def _ours() -> list[signal.Signals]:
    return [
        number for number in _STOPPING if isinstance(getattr(signal.getsignal(number), "__self__", None), Interrupt)
    ]


def _before_fork() -> None:
    _masks.previous = signal.pthread_sigmask(signal.SIG_BLOCK, ours) if (ours := _ours()) else None


def _after_fork_in_parent() -> None:
    if _masks.previous is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.previous)


def _after_fork_in_child() -> None:
    for number in _ours():
        signal.signal(number, signal.SIG_DFL)
    _after_fork_in_parent()


if hasattr(os, "register_at_fork") and hasattr(signal, "pthread_sigmask"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
