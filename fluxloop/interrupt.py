"""Signals as a flag the loop reads, so that none tears a record."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# SIGHUP: the terminal was closed, or the connection to it was lost.
_STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Abandoned(BaseException):
    """Raised in the main thread by the second signal, to leave a run that does not end."""


class Interrupt:
    """Whether to stop, asked by a signal or by a caller.

    The first signal lets the runs in flight finish. The second leaves them at once, by raising
    `Abandoned`, but only between `release` and `hold`: whoever writes is not torn away.
    """

    def __init__(self) -> None:
        self.announce: Callable[[str], None] = lambda line: None
        """Told in one line what a signal does; called from the signal handler."""
        self.signal: int | None = None
        """The signal that asked, or None."""
        self.requested = False
        self._held = True
        self._postponed = False
        self._taken: tuple[signal.Signals, ...] = ()

    def request(self, number: int | None = None) -> None:
        """Ask the experiment to start nothing more."""
        self.requested = True
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
        """Let a second signal wait."""
        self._held = True

    def retake(self) -> None:
        """Take the signals again, should the agent have put handlers of its own in their place."""
        for number in self._taken:
            signal.signal(number, self._receive)

    def release(self) -> None:
        """Let a second signal through, at once if one has come already."""
        self._held = False
        if self._postponed:
            self._postponed = False
            raise Abandoned

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.request(number)
            hint = " Press Ctrl-C again to stop at once." if number == signal.SIGINT else ""
            self.announce(f"Stopping after the run in flight.{hint}")
        elif self._held:
            self._postponed = True
        else:
            raise Abandoned
