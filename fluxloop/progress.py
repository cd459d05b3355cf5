"""What the user sees while an experiment runs."""

from __future__ import annotations

import importlib
import io
import math
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from fluxloop.clock import monotonic
from fluxloop.records import Trace
from fluxloop.schedule import Schedule
from fluxloop.summary import ErrorGroup
from fluxloop.verdict import verdict
from fluxloop.visible import encodable, encoding_of, one_line, visible

LOG_SECONDS = 5.0
"""The least time between two lines where there is no terminal."""
REDRAW_SECONDS = 0.1
LOG_IDLE_SECONDS = 30.0
REDRAW_IDLE_SECONDS = 1.0
"""After how long something is shown although nothing has finished."""
MAX_ANNOUNCED = 5
"""Kinds of failure told while the experiment runs."""

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Colours and the like, which a terminal does not show."""


def counted(number: int, noun: str) -> str:
    """Return `1 run` or `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(seconds: float) -> str:
    """Format a duration as `45s`, `2m 15s` or `3h 05m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def told_error(group: ErrorGroup, width: int) -> str:
    """Return place, type and message of an error in one line."""
    where = f"{one_line(shown_place(group.place), 200)}: " if group.place else ""
    text = one_line(group.message, width)
    return f"{where}{one_line(group.type, 60)}{': ' if text else ''}{text}"


def shown_place(place: str) -> str:
    """Return a path, or `file:line`, as seen from here, which is shorter below the working directory."""
    try:
        relative = os.path.relpath(place)
    except OSError:  # the working directory is gone
        return place
    return place if relative.startswith("..") else relative


class Screen:
    """A text stream that may go away: a closed terminal or pipe ends the showing and nothing else.

    Args:
        stream: where the text goes.
        redact: masks what is secret in it.
    """

    def __init__(self, stream: TextIO | None, redact: Callable[[str], str] = str) -> None:
        self._stream = stream
        self._redact = redact
        self.encoding = encoding_of(stream)

    def shares_lines_with(self, stream: Any) -> bool:
        """Tell whether what is written to a stream stands on the same lines."""
        own = self._stream
        if own is None or stream is own:
            return own is not None
        with suppress(OSError, ValueError):  # closed
            return bool(stream.isatty() and own.isatty())
        return False

    def write(self, text: str) -> int:
        """Write what the stream's encoding has, and marks for the rest."""
        with self._open() as stream:
            stream.write(encodable(self._redact(text), self.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._open() as stream:
            stream.flush()

    def fileno(self) -> int:
        """Return the stream's file number, by which tqdm asks how wide the terminal is."""
        return -1 if self._stream is None else self._stream.fileno()

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        try:
            yield self._stream or io.StringIO()
        except (OSError, ValueError):
            self._stream = None


class Progress:
    """Show nothing but what the user must know; the base of what shows more."""

    has_bar = False

    def __init__(self, stream: TextIO | None, *, redact: Callable[[str], str] = str) -> None:
        self._redact = redact
        self._screen = Screen(stream, redact)
        self._lock = threading.RLock()
        self._is_mid_line = False
        """Whether the screen's last line is somebody else's, who has not ended it."""

    def info(self, line: str) -> None:
        """Tell something about the whole experiment."""

    def warn(self, line: str) -> None:
        """Tell something the user must know."""
        self._line(f"[WARN] {one_line(self._redact(line), 1000)}")

    def _line(self, line: str) -> None:
        with self._lock:  # a stall is told from a thread of its own
            self._begin_line()
            self._screen.write(visible(line) + "\n")
            self._screen.flush()

    def _begin_line(self) -> None:
        if self._is_mid_line:
            self._is_mid_line = False
            self._screen.write("\n")

    def signal(self, line: str) -> None:
        """Tell what a signal does, from inside its handler."""
        # The handler may have interrupted a write of the stream's own, which takes no second.
        text = f"\n[WARN] {visible(self._redact(line))}\n"
        with suppress(OSError):
            os.write(2, text.encode(self._screen.encoding, "replace"))

    def start(self, total: int) -> None:
        """Begin to count towards `total` runs."""

    def update(self, trace: Trace, first: ErrorGroup | None) -> None:
        """Count a finished run; `first` is given with the first failure of its kind."""

    def tick(self, schedule: Schedule) -> None:
        """Show that time passes, and what is waited for."""

    def stop(self) -> None:
        """Take the bar away."""

    def stand_aside(self) -> None:
        """Leave the terminal to a debugger until its run has ended."""

    @contextmanager
    def aside(self, stream: Any, text: str) -> Iterator[None]:
        """Make room for a text that somebody else writes to a stream."""
        yield
        self._has_written(stream, text)

    def _has_written(self, stream: Any, text: str) -> None:
        visible = _ESCAPES.sub("", text)
        if visible and self._screen.shares_lines_with(stream):
            self._is_mid_line = not visible.endswith("\n")
            if self._is_mid_line:
                with suppress(OSError, ValueError):  # it goes away
                    stream.flush()  # else it stands below what is shown next


class LogProgress(Progress):
    """Plain lines, at most one every few seconds: for log files and CI.

    Example:
        >>> progress = LogProgress(sys.stdout)
        >>> progress.info("Loaded 50 inputs")
        [INFO] Loaded 50 inputs
    """

    def __init__(self, stream: TextIO | None, *, redact: Callable[[str], str] = str) -> None:
        super().__init__(stream, redact=redact)
        self._total = self._done = self._failed = self._infrastructure = self._announced = 0
        self._began = self._last = self._noted = 0.0
        self._note = ""
        self._ended = False

    def info(self, line: str) -> None:
        """Write an `[INFO]` line."""
        self._line(f"[INFO] {line}")

    def start(self, total: int) -> None:
        """Begin to count."""
        self._total = total
        self._began = self._last = monotonic()

    def update(self, trace: Trace, first: ErrorGroup | None) -> None:
        """Count, and write a line when it is time for one."""
        self._done += 1
        counts_as = verdict(trace)
        self._failed += counts_as == "failed"
        self._infrastructure += counts_as == "left out"
        if first is not None:
            self._announce(first)
        now = monotonic()
        if now - self._last >= self._pause():
            self._last = now
            self._show(now)

    def tick(self, schedule: Schedule) -> None:
        """Write a line when there has been none for long."""
        now = monotonic()
        if now - self._noted < REDRAW_IDLE_SECONDS / 2:
            return
        self._noted = now
        self._note = _waited_for(schedule)
        if now - self._last >= self._idle():
            self._last = now
            self._show(now)

    def _idle(self) -> float:
        return LOG_IDLE_SECONDS

    def _announce(self, group: ErrorGroup) -> None:
        self._announced += 1
        if self._announced > MAX_ANNOUNCED:
            return
        self.warn(f"{group.trace_id} ({one_line(group.input_id, 40)}) failed: {told_error(group, 200)}")
        if self._announced == MAX_ANNOUNCED:
            self.warn("Further kinds of failure are told at the end.")

    def _pause(self) -> float:
        return LOG_SECONDS

    def _show(self, now: float) -> None:
        self.info(self._state(now))

    def _state(self, now: float) -> str:
        share = 100 * self._done / self._total if self._total else 100
        failed = f" - {self._failed} failed" if self._failed else ""
        if self._infrastructure:
            failed += f" - {self._infrastructure} infrastructure"
        return f"{self._done}/{self._total} ({share:.0f}%){failed}{self._note or self._time(now - self._began)}"

    def _time(self, elapsed: float) -> str:
        if self._ended:
            return f" - {clock(elapsed)}"
        if not self._done:
            return ""
        left = self._total - self._done
        return f" - ETA: {clock(elapsed / self._done * left)}" if left else f" - {clock(elapsed)}"


def _waited_for(schedule: Schedule) -> str:
    """What keeps the experiment from going on, if anything does."""
    if schedule.stopping:
        left = "" if schedule.grace_left == math.inf else f", {clock(schedule.grace_left)} left"
        return f" - stopping, {len(schedule.in_flight)} in flight{left}"
    if (pause := schedule.paused_for) > 1:
        return f" - paused for {clock(pause)}, as a service asked"
    if 1 < schedule.due_in < math.inf and not schedule.in_flight:
        return f" - next start in {clock(schedule.due_in)}"
    return ""


class BarProgress(LogProgress):
    """A bar that stays on its line, for a terminal or a notebook."""

    has_bar = True

    def __init__(self, stream: TextIO | None, *, notebook: bool = False, redact: Callable[[str], str] = str) -> None:
        super().__init__(stream, redact=redact)
        self._notebook = notebook
        self._bar: Any = None
        self._debugging = False

    def _line(self, line: str) -> None:
        with self._beside_bar():
            super()._line(line)

    def start(self, total: int) -> None:
        """Draw the bar."""
        super().start(total)
        self._begin_line()
        self._bar = _bar_class(self._notebook)(self, total, self._screen)

    def update(self, trace: Trace, first: ErrorGroup | None) -> None:
        """Count, and draw the bar when it is time."""
        if self._debugging:
            self._debugging = self._is_mid_line = False
            self._bar.disable = False
        super().update(trace, first)

    def _pause(self) -> float:
        return REDRAW_SECONDS

    def _idle(self) -> float:
        return REDRAW_IDLE_SECONDS

    def _show(self, now: float) -> None:
        with self._lock:
            self._bar.n = self._done
            if not self._is_held(self._bar):
                self._bar.refresh()

    def _is_held(self, bar: Any) -> bool:
        """Whether a bar keeps off a line that is not ended."""
        return self._is_mid_line and not bar.is_widget

    def state(self) -> str:
        """Return what stands right of the bar."""
        return self._state(monotonic())

    def stop(self) -> None:
        """Draw the bar a last time and leave it."""
        self._note, self._ended = "", True
        if self._bar is not None:
            bar, self._bar = self._bar, None
            self._begin_line()
            bar.disable = False
            bar.n = self._done
            bar.refresh()
            bar.close()

    def stand_aside(self) -> None:
        """Take the bar away until the next run has ended."""
        if self._bar is not None and not self._debugging:
            self._bar.clear()
            self._bar.disable = True
            self._debugging = True

    @contextmanager
    def aside(self, stream: Any, text: str) -> Iterator[None]:
        """Clear the bar, and draw it again below the text once its last line is ended."""
        with self._beside_bar(), super().aside(stream, text):
            yield

    @contextmanager
    def _beside_bar(self) -> Iterator[None]:
        with self._lock:  # agents print from many threads
            bar = self._bar
            if bar is None or bar.disable:
                yield
                return
            if not self._is_held(bar):
                bar.clear()
            try:
                yield
            finally:
                if not self._is_held(bar):
                    bar.refresh()


def _bar_class(notebook: bool) -> Any:
    # tqdm costs 30 ms to import, which an experiment without a bar does not pay.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets the bar is text, which does as well
        base: Any = importlib.import_module("tqdm.auto" if notebook else "tqdm").tqdm
    widget = any(one.__module__ == "tqdm.notebook" for one in base.__mro__)

    class Bar(base):  # type: ignore[misc]
        """A tqdm bar that reads as `[▓▓▓▓▓░░░░░] 250/500 (50%) - ETA: 2m 15s`."""

        monitor_interval = 0  # no thread of tqdm's: the loop draws
        is_widget = widget

        def __init__(self, progress: BarProgress, total: int, screen: Screen) -> None:
            self._progress = progress
            options: dict[str, Any] = {"total": total, "miniters": 1, "mininterval": 0}
            if not widget:
                options.update(
                    file=screen,
                    ascii="░▓" if _can_write(screen, "░▓") else ".#",
                    bar_format="[{bar:10}] {state}",
                    dynamic_ncols=True,
                )
            else:
                options.update(bar_format="{bar} {state}")
            super().__init__(**options)

        @property
        def format_dict(self) -> dict[str, Any]:
            values: dict[str, Any] = dict(super().format_dict)
            values["state"] = self._progress.state()
            return values

    return Bar


def _can_write(screen: Screen, text: str) -> bool:
    try:
        text.encode(screen.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def in_notebook() -> bool:
    """Tell whether a notebook's kernel runs this code."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def progress_for(show: bool | None, stream: TextIO | None = None, *, redact: Callable[[str], str] = str) -> Progress:
    """Return the progress that fits where the output goes.

    Args:
        show: False for warnings alone; True for a bar in a terminal or notebook and lines elsewhere; None
            for a bar where there is a terminal or a notebook and warnings alone elsewhere.
        stream: `sys.stderr` by default.
        redact: masks what is secret in what is shown.
    """
    stream = sys.stderr if stream is None else stream
    if show is False or stream is None:
        return Progress(stream, redact=redact)
    if in_notebook():
        return BarProgress(stream, notebook=True, redact=redact)
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return BarProgress(stream, redact=redact)
    return LogProgress(stream, redact=redact) if show else Progress(stream, redact=redact)
