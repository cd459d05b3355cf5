"""What may start next, and what an attempt's end means."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fluxloop.records import Attempt, Observation, PlannedRun, Trace, Usage


class Schedule:
    """Hand out planned runs to an executor and make traces of what comes back."""

    def __init__(self, plan: Iterable[PlannedRun], stopped: Callable[[], bool] = lambda: False) -> None:
        self._runs = iter(plan)
        self._stopped = stopped

    def take(self) -> tuple[PlannedRun, int] | None:
        """Return the next run to start and the number of its attempt, or None when none is left."""
        if self._stopped():
            return None
        planned = next(self._runs, None)
        return None if planned is None else (planned, 1)

    def settle(self, attempt: Attempt) -> Trace | None:
        """Return the finished trace, or None when the run is to be tried again."""
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
            total = add_usage(total, observation.usage)
    return total


def add_usage(total: Usage | None, more: Usage) -> Usage:
    """Return the sum, in which a figure is None only when no part tells it."""
    if total is None:
        return Usage(more.input_tokens, more.output_tokens)
    return Usage(_add(total.input_tokens, more.input_tokens), _add(total.output_tokens, more.output_tokens))


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
