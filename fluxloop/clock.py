"""The clocks that all of fluxloop goes by, and times as the files hold them.

Agents, and the tests they come from, freeze and patch Python's `time` (freezegun, time-machine,
`mock.patch`) while other runs go on in the same process. What is measured must not follow them. So
these are the functions of a `time` module of our own, which nobody else can get at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.machinery import BuiltinImporter
from typing import Any


def _own_time() -> Any:
    """Python's `time`, made once more: patchers know the functions of the first by name and identity."""
    spec = BuiltinImporter.find_spec("time")
    module = None if spec is None else BuiltinImporter.create_module(spec)
    if module is None:  # a Python that has it not built in
        import time

        return time
    BuiltinImporter.exec_module(module)
    return module


_time = _own_time()

monotonic: Callable[[], float] = _time.monotonic
"""Seconds from any fixed moment, for limits and waits."""
perf_counter_ns: Callable[[], int] = _time.perf_counter_ns
"""Nanoseconds from any fixed moment, for durations."""
process_time: Callable[[], float] = _time.process_time
"""Seconds for which this process has had a processor."""
sleep: Callable[[float], None] = _time.sleep
"""Wait for some seconds."""


def _steady_ns() -> Callable[[], int]:
    """A clock that also counts while the machine is asleep."""
    if not hasattr(_time, "clock_gettime_ns"):  # Windows, whose performance counter does
        return perf_counter_ns
    # Linux's monotonic clock stands still meanwhile; others have one clock for both.
    return partial(_time.clock_gettime_ns, getattr(_time, "CLOCK_BOOTTIME", _time.CLOCK_MONOTONIC))


_since_boot_ns = _steady_ns()
_boot = 0
"""Nanoseconds since the epoch at which the steady clock was at 0."""


def adjust() -> None:
    """Read the system's clock, should it have been set meanwhile; while no agent runs.

    time-machine changes the functions of every `time` module, ours too, but only those that read
    the system's clock. Between two readings the time is told from the steady clock.
    """
    global _boot
    _boot = _time.time_ns() - _since_boot_ns()


adjust()


def time_ns() -> int:
    """Return the nanoseconds since the epoch."""
    return _boot + _since_boot_ns()


_second: tuple[int, str] = (-1_000_000_000, "")
"""When the second began that was last formatted, in nanoseconds, and its text."""
# Six times are formatted in each run; looking digits up takes half the time of making them.
_THOUSANDS = [f"{number:03d}" for number in range(1000)]


def timestamp(nanoseconds: int) -> str:
    """Format a time since the epoch as UTC ISO 8601 with microseconds and `Z`."""
    global _second
    began, text = _second
    rest = nanoseconds - began
    if not 0 <= rest < 1_000_000_000:
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        text = formatted(seconds, "%Y-%m-%dT%H:%M:%S.")
        _second = (nanoseconds - rest, text)
    micros = rest // 1000
    return text + _THOUSANDS[micros // 1000] + _THOUSANDS[micros % 1000] + "Z"


def formatted(seconds: float, form: str) -> str:
    """Format a time since the epoch as UTC, by the directives of `strftime`."""
    return str(_time.strftime(form, _time.gmtime(seconds)))


def milliseconds(nanoseconds: int) -> float:
    """Convert a duration in nanoseconds to milliseconds, to the microsecond."""
    return nanoseconds // 1000 / 1000
