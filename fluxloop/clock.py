"""Times as the files hold them."""

from __future__ import annotations

import time

_second: tuple[int, str] = (-1, "")


def timestamp(nanoseconds: int) -> str:
    """Format a time since the epoch as UTC ISO 8601 with microseconds and `Z`."""
    global _second
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    known, text = _second
    if seconds != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = (seconds, text)
    return f"{text}.{rest // 1000:06d}Z"


def milliseconds(nanoseconds: int) -> float:
    """Convert a duration in nanoseconds to milliseconds, to the microsecond."""
    return nanoseconds // 1000 / 1000
