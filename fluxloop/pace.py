"""Rates: so many in so long, evenly spaced."""

from __future__ import annotations

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "m": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}


def spacing(rate: str) -> float:
    """Return the seconds between two events of a rate such as `60/min`, `5/s` or `1000/h`.

    Raises:
        ValueError: the text is no rate.
    """
    count, _, unit = (part.strip() for part in str(rate).partition("/"))
    seconds = _SECONDS.get(unit)
    try:
        number = float(count)
    except ValueError:
        number = 0.0
    if seconds is None or not number > 0 or not 0 < seconds / number < float("inf"):
        raise ValueError(f"expected a rate such as 60/min, 5/s or 1000/h, got {rate!r}")
    return seconds / number


class Pace:
    """Keep events a least time apart; the clock is the caller's.

    Events are spaced evenly rather than let through in bursts: then no stretch of time, however
    short, sees more of them than the rate allows, and a service that counts by the second is as
    content as one that counts by the minute.

    Example:
        >>> pace = Pace(spacing("60/min"))
        >>> pace.reserve(10.0), pace.reserve(10.0), pace.reserve(15.0)
        (10.0, 11.0, 15.0)
    """

    __slots__ = ("gap", "next")

    def __init__(self, gap: float) -> None:
        self.gap = gap
        """Seconds."""
        self.next = float("-inf")
        """When the next event may happen."""

    def reserve(self, now: float, shares: int = 1) -> float:
        """Take the next free moment, now or later, and return it; of so many shares of the rate, one."""
        moment = max(now, self.next)
        self.next = moment + self.gap * shares
        return moment
