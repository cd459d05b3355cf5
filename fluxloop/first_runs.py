"""What the first runs of an experiment have in common, where all of them fail."""

from __future__ import annotations

from attrs import define

from fluxloop.progress import shown_place
from fluxloop.records import ErrorKind, RunError
from fluxloop.tracebacks import place
from fluxloop.visible import one_line

ENOUGH = 10
"""Runs that all fail alike, after which the others may be expected to."""
ENOUGH_REFUSED = 3
"""The same, where a service refuses its caller."""

_ADVICE: dict[ErrorKind, str] = {
    "agent": "Correct the agent, its arguments or its inputs.",
    "infrastructure": "Check the service, its address and the network.",
    "timeout": "Check what the agent waits for, or raise runner.timeout_seconds.",
}


@define
class FirstRuns:
    """Look at runs as they end until one passes, or it is clear what all of them fail by.

    Example:
        >>> first = FirstRuns()
        >>> first.add(None, is_refusal=False), first.is_over
        (None, True)
    """

    is_over: bool = False
    """True when nothing can follow from further runs."""
    _count: int = 0
    _refused: int = 0
    _first: RunError | None = None
    _place: str | None = None
    _same_place: bool = True
    _same_message: bool = True

    def add(self, error: RunError | None, is_refusal: bool) -> str | None:
        """Take the next run that has ended; return what all of them fail by and what to do, once.

        Args:
            error: what it failed by, None for one that passed.
            is_refusal: whether a service has refused its caller.
        """
        if self.is_over:
            return None
        if error is None:
            self.is_over = True
            return None
        self._count += 1
        self._refused += is_refusal
        self._compare(error)
        if self._count == self._refused == ENOUGH_REFUSED:
            self.is_over = True
            return (
                f"The first {ENOUGH_REFUSED} runs all failed because a service refused the caller"
                f" ({one_line(error.type, 60)}). Check the API key and what it may do."
            )
        if self._count < ENOUGH:
            return None
        self.is_over = True
        return self._fault(error) if self._same_place or self._same_message else None

    def _compare(self, error: RunError) -> None:
        where = place(error)
        if self._first is None:
            self._first, self._place = error, where
        is_same = error.type == self._first.type
        self._same_place &= is_same and where is not None and where == self._place
        self._same_message &= is_same and error.message == self._first.message

    def _fault(self, error: RunError) -> str:
        where = f"{one_line(shown_place(self._place), 200)}: " if self._same_place and self._place else ""
        text = one_line(error.message, 200)
        failed = f"{where}{one_line(error.type, 60)}{': ' if text else ''}{text}"
        return f"The first {ENOUGH} runs all failed with the same error: {failed.rstrip('.')}. {_ADVICE[error.kind]}"
