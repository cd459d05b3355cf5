"""What may start next, and what an attempt's end means."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fluxloop.records import Attempt, Observation, PlannedRun, Trace, Usage


class Schedule:
    """Hand out planned runs to an executor and make traces of what comes back."""

    def __init__(self, plan: Iterable[PlannedRun], stopped: Callable[[], bool] = lambda: False) -> None:
        self._runs = iter(plan)
        self._stopped = stopped
        self._in_flight: set[str] = set()

    def take(self) -> tuple[PlannedRun, int] | None:
        """Return the next run to start and the number of its attempt, or None when none is left."""
        if self._stopped():
            return None
        planned = next(self._runs, None)
        if planned is None:
            return None
        self._in_flight.add(planned.trace_id)
        return planned, 1

    def settle(self, attempt: Attempt) -> Trace | None:
        """Return the finished trace, or None when the run is to be tried again.

        Raises:
            ValueError: the run was not given out, or has come back already.
        """
        try:
            self._in_flight.remove(attempt.planned.trace_id)
        except KeyError:
            told = f"the executor gave back {attempt.planned.trace_id}, which is not in flight"
            raise ValueError(told) from None
        case = attempt.planned.case
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


def total_usage(observations: Iterable[Observation]) -> Usage | None:
    """Add up the tokens of all observations that tell them; None when none does."""
    total: Usage | None = None
    for observation in observations:
        if observation.usage is not None:
            total = observation.usage if total is None else total + observation.usage
    return total
