"""What may start next, and what an attempt's end means: retries, rates and stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Literal

from attrs import define, frozen

from fluxloop.pace import Pace
from fluxloop.records import Attempt, Observation, PlannedRun, Trace, Usage
from fluxloop.verdict import is_own

HEARTBEAT = 0.1
"""Seconds an executor may wait before it yields again, so that nobody waits long for Ctrl-C."""
MAX_DELAY = 60.0
"""Seconds a retry waits at most, unless the service asks for more."""
MAX_WAITING = 1_000
"""While so many retries wait, no new run starts: a service that is down is not thrown all of them."""

Urgency = Literal[0, 1, 2]
"""0: go on; 1: start nothing more; 2: leave what is in flight."""


@frozen(kw_only=True)
class Limits:
    """What bounds the attempts of an experiment; by default nothing."""

    max_retries: int = 0
    """Further attempts at a run that has failed."""
    max_crash_retries: int = 0
    """Further attempts at a run whose worker has died."""
    retry_delay: float = 1.0
    """Seconds before the first retry; each further one waits twice as long."""
    start_gap: float = 0.0
    """Least seconds between two starts."""
    max_failures: int | None = None
    """Failed runs after which nothing more starts."""
    stop_when_all_fail: int = 0
    """Finished runs after which nothing more starts when none of them has passed; 0 for never."""
    max_seconds: float | None = None
    """Time after which nothing more starts."""
    grace: float = math.inf
    """Seconds that attempts in flight have to end once nothing more starts."""


@define
class _Given:
    """A run that has been given out, or waits for its next attempt."""

    planned: PlannedRun
    number: int
    since: float
    """When this attempt was given out."""
    began: float
    """When its first was."""
    earlier: tuple[Attempt, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the agent has failed in an earlier attempt."""
        return any(attempt.error is not None and is_own(attempt.error) for attempt in self.earlier)


class Schedule:
    """Hand out planned runs to an executor and make traces of what comes back.

    One thread takes and settles. An executor asks in turn:

        >>> schedule = Schedule([])
        >>> while not schedule.finished:
        ...     taken = schedule.take()  # None: nothing may start now; wait, and ask again

    Args:
        plan: the runs in order.
        limits: what bounds them.
        clock: seconds from any fixed moment, for limits and retries.
        urgency: asked before each start and at each look at `finished`.
    """

    def __init__(
        self,
        plan: Iterable[PlannedRun],
        limits: Limits = Limits(),
        *,
        clock: Callable[[], float] = lambda: 0.0,
        urgency: Callable[[], Urgency] = lambda: 0,
    ) -> None:
        self._runs = iter(plan)
        self._next = next(self._runs, None)
        self.limits = limits
        self._clock = clock
        self._urgency = urgency
        self._in_flight: dict[str, _Given] = {}
        self._waiting: list[tuple[float, int, _Given]] = []
        self._pace = Pace(limits.start_gap)
        self._paused = -math.inf
        self._began = clock()
        self._stopped: float | None = None
        self._order = 0
        self._failures = 0
        self._dropped_failures = 0
        self._failures_at_first = 0
        self._has_passed = False
        self.is_known_to_be_over = False
        """True once an executor has been told that it is to leave what is in flight."""
        self.stop_reason: str | None = None
        """Which limit ended the experiment early, or None."""

    def take(self) -> tuple[PlannedRun, int] | None:
        """Return the next run to start and the number of its attempt, or None when none may start now."""
        if self._has_stopped():
            return None
        now = self._clock()
        if now < self._paused or now < self._pace.next:
            return None
        if self._waiting and self._waiting[0][0] <= now:
            flight = heappop(self._waiting)[2]
            flight.number += 1
            flight.since = now
        elif self._next is not None and len(self._waiting) < MAX_WAITING:
            flight = _Given(self._next, 1, now, now)
            self._next = next(self._runs, None)
        else:
            return None
        self._pace.reserve(now)
        self._in_flight[flight.planned.trace_id] = flight
        return flight.planned, flight.number

    def drop(self, planned: PlannedRun) -> None:
        """Take back what was given out and is not to run, once nothing more starts: it counts as not run."""
        self._dropped_failures += self._in_flight.pop(planned.trace_id).has_failed

    def wait_seconds(self) -> float:
        """Return how long an executor with room may wait for an attempt to end before it asks again."""
        return min(self.due_in, HEARTBEAT)

    @property
    def due_in(self) -> float:
        """Seconds until an attempt may start; infinite when that depends on those in flight."""
        if self._has_stopped():
            return math.inf
        now = self._clock()
        due = self._waiting[0][0] if self._waiting else math.inf
        if self._next is not None and len(self._waiting) < MAX_WAITING:
            due = now
        return max(due, self._paused, self._pace.next, now) - now

    @property
    def finished(self) -> bool:
        """True when no attempt is in flight and none will start, or those in flight are to be left."""
        if self._has_stopped():
            self.is_known_to_be_over = self.is_over
            return not self._in_flight or self.is_known_to_be_over
        return self._is_done

    @property
    def stopping(self) -> bool:
        """True once nothing more will start, though runs are left."""
        return self._has_stopped()

    @property
    def is_over(self) -> bool:
        """True when what is in flight is to be left: by the second signal, or because its grace is over."""
        if self._stopped is None:
            return False
        return self._urgency() == 2 or self._clock() >= self._stopped + self.limits.grace

    @property
    def grace_left(self) -> float:
        """Seconds that attempts in flight still have."""
        return math.inf if self._stopped is None else self._stopped + self.limits.grace - self._clock()

    @property
    def in_flight(self) -> list[tuple[PlannedRun, int, float]]:
        """The runs given out, the number of the attempt, and for how many seconds."""
        now = self._clock()
        return [(flight.planned, flight.number, now - flight.since) for flight in self._in_flight.copy().values()]

    @property
    def waiting(self) -> int:
        """How many runs wait for their next attempt."""
        return len(self._waiting)

    @property
    def failures_left(self) -> int:
        """How many runs have no result yet, although the agent has failed in an attempt at them."""
        left = [*self._in_flight.copy().values(), *(flight for _, _, flight in self._waiting)]
        return self._dropped_failures + sum(flight.has_failed for flight in left)

    @property
    def paused_for(self) -> float:
        """Seconds until a service that asked to be left alone may be called again."""
        return max(0.0, self._paused - self._clock())

    @property
    def _is_done(self) -> bool:
        return not self._in_flight and not self._waiting and self._next is None

    def _has_stopped(self) -> bool:
        """Notice, and remember since when."""
        if self._stopped is not None:
            return True
        limits = self.limits
        if self._urgency():
            pass
        elif self._is_done:  # a limit reached by the last run stops nothing
            return False
        elif limits.max_failures is not None and self._failures >= limits.max_failures:
            failed = "1 failed run" if self._failures == 1 else f"{self._failures} failed runs"
            self.stop_reason = f"{failed} (runner.max_failures)"
        elif 0 < limits.stop_when_all_fail <= self._failures_at_first:
            first = limits.stop_when_all_fail
            failed = "the first run has failed" if first == 1 else f"the first {first} runs have all failed"
            self.stop_reason = f"{failed} (runner.stop_when_all_fail)"
        elif limits.max_seconds is not None and self._clock() - self._began >= limits.max_seconds:
            self.stop_reason = f"{limits.max_seconds:g} s are over (runner.max_time)"
        else:
            return False
        self._stopped = self._clock()
        return True

    def settle(self, attempt: Attempt) -> Trace | None:
        """Return the finished trace, or None when the run is to be tried again.

        Raises:
            ValueError: the run was not given out, or has come back already.
        """
        flight = self._in_flight.get(attempt.planned.trace_id)
        if flight is None or flight.number != attempt.number:
            told = (
                f"the executor gave back {attempt.planned.trace_id}, attempt {attempt.number}, which is not in flight"
            )
            raise ValueError(told)
        del self._in_flight[attempt.planned.trace_id]
        if attempt.retry_after is not None and attempt.is_overload:
            self._paused = max(self._paused, self._clock() + attempt.retry_after)
        if self._may_retry(flight, attempt):
            self._retry(flight, attempt)
            return None
        if attempt.status == "ok":
            self._has_passed = True
        else:
            self._failures += 1
            self._failures_at_first += not self._has_passed
        trace = _trace(attempt)
        if flight.earlier:
            _include(trace, flight.earlier, flight.since - flight.began)
        return trace

    def _may_retry(self, flight: _Given, attempt: Attempt) -> bool:
        crashes = sum(earlier.status == "crashed" for earlier in flight.earlier)
        if attempt.status == "crashed":
            return crashes < self.limits.max_crash_retries
        return attempt.retry and len(flight.earlier) - crashes < self.limits.max_retries

    def _retry(self, flight: _Given, attempt: Attempt) -> None:
        flight.earlier = (*flight.earlier, attempt)
        delay = min(self.limits.retry_delay * 2.0 ** min(attempt.number - 1, 60), MAX_DELAY)
        jitter = _fraction(attempt.planned.seed, attempt.number)
        wait = delay * (0.5 + 0.5 * jitter)
        if attempt.retry_after is not None:  # no sooner than asked, but not all at the same moment
            wait = max(wait, attempt.retry_after + jitter * min(self.limits.retry_delay, MAX_DELAY))
        self._order += 1
        heappush(self._waiting, (self._clock() + wait, self._order, flight))


def _fraction(seed: int, number: int) -> float:
    """A number from 0 to 1 that is the run's own, so that a repeated experiment waits the same."""
    return int.from_bytes(blake2b(f"{seed}\0{number}".encode(), digest_size=4).digest()) / 2**32


def _trace(attempt: Attempt) -> Trace:
    case = attempt.told or attempt.planned.case
    observations = attempt.observations
    return Trace(
        attempt.planned.trace_id,
        case.id,
        case.index,
        attempt.planned.iteration,
        case.persona,
        attempt.input,
        attempt.output,
        attempt.status,
        attempt.status == "ok",
        attempt.error,
        attempt.duration_ms,
        attempt.start_time,
        attempt.number,
        attempt.planned.seed,
        len(observations),
        total_usage(observations) if observations else None,
        attempt.end_time,
        attempt.duration_ms,
        case.metadata,
        case.expected,
        (),
        attempt.stdout,
        attempt.stderr,
        observations,
    )


def _include(trace: Trace, earlier: tuple[Attempt, ...], waited: float) -> None:
    """Add what came before the last attempt: nothing the others did or cost is lost.

    Args:
        waited: seconds from the start of the first attempt to that of the last.
    """
    observed = [observation for attempt in earlier for observation in attempt.observations]
    trace.observations = (*observed, *trace.observations)
    trace.observation_count = len(trace.observations)
    trace.usage = total_usage(trace.observations)
    trace.start_time = earlier[0].start_time
    trace.total_ms = round(waited * 1000 + trace.duration_ms, 3)
    trace.errors = tuple(attempt.error for attempt in earlier if attempt.error is not None)
    trace.stdout = _joined([*(attempt.stdout for attempt in earlier), trace.stdout])
    trace.stderr = _joined([*(attempt.stderr for attempt in earlier), trace.stderr])


def _joined(texts: Iterable[str | None]) -> str | None:
    told = [text for text in texts if text is not None]
    return "".join(told) if told else None


def total_usage(observations: Iterable[Observation]) -> Usage | None:
    """Add up the tokens of all observations that tell them; None when none does."""
    total: Usage | None = None
    for observation in observations:
        if observation.usage is not None:
            total = observation.usage if total is None else total + observation.usage
    return total
