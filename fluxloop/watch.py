"""What is looked after from beside the loop, whoever has its thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fluxloop.calling.loop import running
from fluxloop.clock import monotonic, time_ns, timestamp
from fluxloop.interrupt import HEED_SECONDS, Interrupt
from fluxloop.lookout import Lookout
from fluxloop.records import PlannedRun
from fluxloop.schedule import Schedule
from fluxloop.stacks import all_stacks
from fluxloop.store.modes import result_file
from fluxloop.system import new_thread

TICK_SECONDS = 0.2
CLOSING_SECONDS = 5.0
"""How long an executor may take to end what it has left in flight, and to leave the target."""


class Watch:
    """Say where everything hangs when nothing finishes, and make the loop heed what it does not hear.

    Args:
        schedule: what is in flight, and whether that is to be left.
        interrupt: how the loop is made to leave it.
        stall_seconds: how long nothing may finish; 0 for as long as it likes.
        file: where the stacks go.
        tell: called with one line about a stall, from the watching thread.
        lookout: the process beside this one.
        redact: masks what is secret in what is written down.
        elsewhere: tells where everything is in other processes.
    """

    def __init__(
        self,
        schedule: Schedule,
        interrupt: Interrupt,
        *,
        stall_seconds: float,
        file: Path,
        tell: Callable[[str], None],
        lookout: Lookout | None = None,
        redact: Callable[[str], str] = str,
        elsewhere: Callable[[], str] = str,
    ) -> None:
        self._schedule = schedule
        self._interrupt = interrupt
        self._stall_seconds = stall_seconds
        self._file = file
        self._tell = tell
        self._lookout = lookout or Lookout(None, None)
        self._insisted: float | None = None
        self._has_told_how_to_end = False
        self._redact = redact
        self._elsewhere = elsewhere
        self._heard = self._finished = monotonic()
        self._done = threading.Event()

    def heard(self, finished: bool) -> None:
        """Note that the loop has its thread, and whether any attempt has ended."""
        self._heard = monotonic()
        if finished:
            self._finished = self._heard

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for as long as the context lasts."""
        thread = new_thread(self._watch, "fluxloop-watch")
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()  # from here on nobody insists

    def _watch(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            now = monotonic()
            self._interrupt.look()
            self._lookout.alive()
            # Once the executor knows, it has a while to tidy up.
            patience = CLOSING_SECONDS if self._schedule.is_known_to_be_over else HEED_SECONDS
            if self._schedule.stopping and self._schedule.is_over and now - self._heard > patience:
                self._interrupt.insist()
                self._interrupt.catch_up()
                self._tell_how_to_end(now)
            if self._stall_seconds and now - self._finished > self._stall_seconds:
                in_flight = self._schedule.in_flight
                if any(seconds > self._stall_seconds for *_, seconds in in_flight):
                    self._finished = now
                    try:
                        self._report(in_flight)
                    except Exception as error:  # whatever it meets, the watch goes on
                        self._tell(f"Nothing finishes, and where it hangs cannot be told: {error!r}")

    def _tell_how_to_end(self, now: float) -> None:
        """Say which key ends the process, when an agent takes no notice of what has been pressed."""
        if self._insisted is None:
            self._insisted = now
        if self._has_told_how_to_end or self._interrupt.signal != signal.SIGINT:
            return
        if now - self._insisted > 2 * HEED_SECONDS:
            self._has_told_how_to_end = True
            self._lookout.next_ends()
            is_heard = self._interrupt.abandoned and not self._interrupt.is_deaf
            key = "Press Ctrl-C again" if is_heard or self._lookout.is_there else "Press Ctrl-\\"
            self._tell(f"The agent does not end. {key} to end the process; every run that has finished is on disk")

    def _report(self, in_flight: list[tuple[PlannedRun, int, float]]) -> None:
        listed = [
            f"{planned.trace_id} of {planned.case.id}, attempt {number}, for {seconds:.0f} s"
            for planned, number, seconds in in_flight
        ]
        told = f"Nothing has finished for {self._stall_seconds:g} s, {len(in_flight)} in flight"
        stacks = [all_stacks(running.copy()), self._elsewhere()]
        text = "\n".join([f"{timestamp(time_ns())} {told}:", *listed, "", *stacks])
        # A full disk is told by whoever writes the results.
        with (
            suppress(OSError),
            open(self._file, "a", encoding="utf-8", errors="backslashreplace", opener=result_file) as file,
        ):
            file.write(self._redact(text))
        self._tell(f"{told}; where each of them is stands in {self._file}")
