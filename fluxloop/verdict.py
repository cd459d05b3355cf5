"""What a run says about the agent: the one place that decides what the pass rate counts.

The README has the same as a table, "What the pass rate counts", which a test holds against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

Verdict = Literal["passed", "failed", "left out"]


class Failure(Protocol):
    """What of an error decides."""

    @property
    def kind(self) -> str: ...


class Outcome(Protocol):
    """What of a finished run decides, in whichever record it stands."""

    @property
    def passed(self) -> bool: ...
    @property
    def error(self) -> Failure | None: ...


class RetriedOutcome(Outcome, Protocol):
    """The same with the errors of earlier attempts."""

    @property
    def errors(self) -> Sequence[Failure]: ...


def verdict(run: Outcome) -> Verdict:
    """Return what a finished run counts as in the pass rate.

    `passed` is in its numerator and its denominator, `failed` in the denominator alone, and `left out` in
    neither: such a run says nothing about the agent.
    """
    if run.error is not None and not is_own(run.error):
        return "left out"
    return "passed" if run.passed else "failed"


def is_own(error: Failure) -> bool:
    """Tell whether it was the agent that failed, by an error, a timeout or a crash, and no outage."""
    return error.kind != "infrastructure"


def failed_before(run: RetriedOutcome) -> bool:
    """Tell whether the agent failed in an attempt before the last, which a retry has replaced."""
    return any(map(is_own, run.errors))


def has_failed(run: RetriedOutcome) -> bool:
    """Tell whether the agent failed in any attempt: to run this again and keep the new result is a re-roll."""
    return verdict(run) == "failed" or failed_before(run)
