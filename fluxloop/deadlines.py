"""When the attempts on a loop are over their time."""

from __future__ import annotations

import asyncio
from contextvars import Context

from fluxloop.attempt import OpenAttempt
from fluxloop.clock import monotonic
from fluxloop.stacks import task_stack


class Deadlines:
    """Cancel the attempts on a loop that are over their time, with one timer for all.

    Each has the same time, so the oldest's is over first; a timer for each would cost as much as
    the rest of its scheduling.

    Args:
        limit: the seconds an attempt may take.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._due: dict[OpenAttempt, float] = {}
        self._armed = False

    def begin(self, opened: OpenAttempt) -> None:
        """Watch an attempt, from its own task."""
        self._due[opened] = monotonic() + self._limit
        if not self._armed:
            self._arm(asyncio.get_running_loop(), self._limit)

    def end(self, opened: OpenAttempt) -> None:
        """Let an attempt be."""
        self._due.pop(opened, None)

    def _arm(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._armed = True
        # In a context of its own: that of the attempt would be kept until then, with all that it recorded.
        loop.call_later(seconds, self._expire, loop, context=Context())

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._armed = False
        for opened, due in list(self._due.items()):
            # By our clock: that of a loop that is not ours may have been frozen, or set.
            if (left := due - monotonic()) > 0:
                self._arm(loop, left)
                return
            self.end(opened)
            if opened.task is not None:
                opened.task.cancel()
                opened.expired = task_stack(opened.task)
