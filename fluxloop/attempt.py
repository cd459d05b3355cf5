"""An attempt under way: its clock, what is seen inside it, and how it ends."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fluxloop.clock import milliseconds, perf_counter_ns, time_ns, timestamp
from fluxloop.failures import (
    OTHER_LOOP,
    RECOGNISED,
    Outages,
    infrastructure,
    is_named,
    is_of_another_loop,
    is_overload,
    is_refusal,
    retry_after,
    wants_retry,
)
from fluxloop.records import Attempt, Case, ErrorKind, Observation, ObservedError, PlannedRun, RunError, Status
from fluxloop.system import System
from fluxloop.tracing.capture import Unfinished, capture, describe
from fluxloop.tracing.context import Late, OpenRun, current, given_up, leave
from fluxloop.tracing.groups import first_leaf, printable
from fluxloop.tracing.redaction import Redaction, noted, noting

MAX_SHOWN = 100
"""Exceptions of a group, or groups within groups, that a traceback shows at most; Python by itself shows 15 and 10."""
_PACKAGE = str(Path(__file__).parent) + os.sep


class OpenAttempt:
    """One attempt between its start and its record.

    Whoever runs it begins it and makes the record of its end. Whoever watches it from another
    thread may give it up: what it does later is then seen by nobody.
    """

    __slots__ = (
        "_end",
        "_exposed",
        "_input",
        "_keeps_output",
        "_late",
        "_masked",
        "_needles",
        "_outages",
        "_process",
        "_redaction",
        "_retry_on",
        "_start",
        "_told",
        "expired",
        "number",
        "patience",
        "planned",
        "run",
        "task",
        "worker",
    )

    def __init__(
        self,
        planned: PlannedRun,
        number: int,
        retry_on: Sequence[str],
        keeps_output: bool,
        redaction: Redaction | None = None,
        late: Late | None = None,
        outages: Outages = RECOGNISED,
    ) -> None:
        self.planned = planned
        self.number = number
        self.expired: str | None = None
        """Where it was when its time was over, whatever it did afterwards."""
        self.patience = 0.0
        """Seconds after its time in which it may still end by itself; infinite when its runner waits for that."""
        self.task: asyncio.Task[Any] | None = None
        """The task it runs in, where it does."""
        self.worker: Any = None
        """Who runs it, as its executor knows."""
        self.run: OpenRun
        self._retry_on = retry_on
        self._keeps_output = keeps_output
        self._redaction = redaction
        self._masked: set[str] = set()
        """The names of the secrets that were masked in it."""
        self._late = late
        self._outages = outages
        self._start: int | None = None
        self._end: int | None = None

    def begin(self) -> OpenRun:
        """Start the clock and make this the run that the calling code is in."""
        noted.set(self._masked)
        run = self._open()
        current.set((run, None))
        return run

    def _open(self) -> OpenRun:
        self._process = System.process
        wall = time_ns()
        start = perf_counter_ns()
        self.run = run = OpenRun(self.planned, self.number, wall - start, self._redaction, self._late)
        run.uncaptured = not self._keeps_output
        # At the start, because an agent may change what it is given.
        run.redaction.refresh()
        self._input, self._told = _as_told(self.planned.case, run)
        self._exposed = _exposed(self.planned.case, run.redaction) if run.redaction.is_needed else ()
        self._needles = run.redaction.needles
        self._start = start
        return run

    @property
    def has_begun(self) -> bool:
        """True once its clock runs."""
        return self._start is not None

    def seconds(self) -> float:
        """Return for how long it has been under way."""
        return 0.0 if self._start is None else (perf_counter_ns() - self._start) / 1e9

    def plain(self, answer: object, unfinished: Unfinished | None, at_once: int | None = None) -> Any:
        """Return the answer as plain data, and stop the clock; what follows is fluxloop's time, not the agent's.

        Args:
            answer: what the agent gave.
            unfinished: notes what of it is still to come; once that has come, this is to be called again.
            at_once: how many items are captured here, by default all.

        Raises:
            TooLarge: there are more of them.
        """
        self._end = perf_counter_ns()
        if System.process is not self._process:
            System.exit(0)
        return capture(answer, self._known_by_now(), unfinished=unfinished, at_once=at_once)

    def succeeded(self, plain: Any) -> Attempt:
        """Return the record of an attempt that gave an answer, as plain data."""
        return self._attempt("ok", plain, None)

    def failed(self, error: BaseException) -> Attempt:
        """Return the record of an attempt that raised, or was cancelled before it began."""
        with noting(self._masked):
            return self._failed(error)

    def _failed(self, error: BaseException) -> Attempt:
        if self._start is None:
            self._open()
        if self._end is None:
            self._end = perf_counter_ns()
        if System.process is not self._process:
            # A process the agent has forked ends here: it must not go on with the parent's experiment.
            System.exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
        is_misplaced = is_of_another_loop(error)
        transient = None if is_misplaced else infrastructure(error, self._outages)
        kind: ErrorKind = "agent" if transient is None and not is_misplaced else "infrastructure"
        redact = self._known_by_now().text
        name, said = describe(error)
        if is_misplaced:
            said = f"{said} ({OTHER_LOOP})"
        told = RunError(kind, redact(name), redact(said), traceback_of(error, redact))
        attempt = self._attempt("error", None, told)
        attempt.retry = wants_retry(error, transient, self._retry_on)
        if transient is not None:
            attempt.retry_after = retry_after(transient)
            attempt.is_overload = is_overload(transient)
        else:
            attempt.is_refusal = is_refusal(error, self._outages.own)
        return attempt

    def timed_out(
        self, limit: float, where: str | None, remark: str = "", *, started_ago: float | None = None
    ) -> Attempt:
        """Return the record of an attempt whose time was over.

        Args:
            limit: the seconds it had.
            where: a traceback of what it was doing.
            remark: what else is to be said.
            started_ago: for how many seconds it was under way, where its clock ran elsewhere.
        """
        with noting(self._masked):
            return self._timed_out(limit, where, remark, started_ago)

    def _timed_out(self, limit: float, where: str | None, remark: str, started_ago: float | None) -> Attempt:
        self._open_late(started_ago)
        self._end = perf_counter_ns()
        if System.process is not self._process:
            System.exit(1)
        told = f"no answer within {limit:g} s (runner.timeout_seconds){remark}"
        stack = None if where is None else self._known_by_now().text(where)
        attempt = self._attempt("timeout", None, RunError("timeout", "TimeoutError", told, stack))
        attempt.retry = is_named(TimeoutError(), self._retry_on)
        return attempt

    def crashed(self, told: str, started_ago: float, kind: ErrorKind = "agent") -> Attempt:
        """Return the record of an attempt whose worker has died.

        Args:
            told: how it ended, and what is lost.
            started_ago: for how many seconds it was under way.
            kind: `infrastructure` when it was not the worker's own death, but its machine's.
        """
        with noting(self._masked):
            self._open_late(started_ago)
            self._end = perf_counter_ns()
            return self._attempt("crashed", None, RunError(kind, "WorkerDied", told))

    def _open_late(self, started_ago: float | None) -> None:
        if self._start is None:
            self._open()
            assert self._start is not None
            self._start -= round((started_ago or 0.0) * 1e9)

    def abandon(self, limit: float, where: str | None, remark: str = "") -> Attempt:
        """Return its record as it is now, as `timed_out` does; nothing it does later is seen."""
        attempt = self.timed_out(limit, where, remark)
        self.leave()
        attempt.left_running = True
        return attempt

    def leave(self) -> None:
        """Give up an attempt that may still be under way, with or without a record."""
        if self._start is not None:
            run = self.run
            run.closed = True
            given_up.add(run)
            for seen in (run.observations, run.stdout, run.stderr):
                seen.clear()  # it may go on for as long as the process

    def _known_by_now(self) -> Redaction:
        """What is to be masked: an agent may have loaded its environment while it ran."""
        redaction = self.run.redaction
        redaction.refresh()
        if redaction is not self._redaction and self._redaction is not None:
            self._redaction.refresh()  # what is shown on the screen, too
        return redaction

    def _mask_again(self, observations: Sequence[Observation], redaction: Redaction) -> None:
        """Mask what was seen before its secret was known."""
        scope = current.set(None)  # the run is closed, but this is still wanted
        try:
            self._mask_all(observations, redaction)
        finally:
            leave(scope)

    def _mask_all(self, observations: Sequence[Observation], redaction: Redaction) -> None:
        self._input = capture(self._input, redaction)
        case = self._told or self.planned.case
        self._told = _case_as_told(
            case, redaction, capture(case.expected, redaction), capture(case.metadata, redaction)
        )
        self._exposed = _exposed(case, redaction)
        for observation in observations:
            for part in ("name", "input", "output", "model", "metadata"):
                setattr(observation, part, capture(getattr(observation, part), redaction))
            if (error := observation.error) is not None:
                observation.error = ObservedError(redaction.text(error.type), redaction.text(error.message))

    def _attempt(self, status: Status, output: object, error: RunError | None) -> Attempt:
        run = self.run
        if run.streams:
            run.end_streams(self._end or 0)
        run.closed = True
        # The agent's threads may go on, and end calls that are recorded as open here; what has ended is final.
        observations = tuple(run.observations)
        for one in observations:
            if one.end_time is None:
                observations = tuple([one.copy() if one.end_time is None else one for one in observations])
                break
        if run.redaction.needles is not self._needles:
            self._mask_again(observations, run.redaction)
        start = self._start or 0
        end = self._end or start
        attempt = Attempt(
            self.planned,
            self.number,
            status,
            self._input,
            output,
            error,
            timestamp(start + run.offset),
            timestamp(end + run.offset),
            milliseconds(end - start),
            observations,
            capture("".join(run.stdout), run.redaction) if run.stdout else None,
            capture("".join(run.stderr), run.redaction) if run.stderr else None,
        )
        if self._told is not None:
            attempt.told = self._told
        if self._masked:
            attempt.masked = tuple(sorted(self._masked))
        attempt.exposed = self._exposed
        return attempt


def _as_told(case: Case, run: OpenRun) -> tuple[Any, Case | None]:
    """The input as the records show it, and the case when these show it otherwise than it is."""
    redaction = run.redaction
    if not redaction.by_name:
        return capture(case.input, redaction), None
    if type(case.input) is str and case.expected is None and case.metadata is None:
        persona = case.persona if case.persona is None else capture(case.persona, redaction)
        told = None if persona == case.persona else Case(case.index, case.id, None, persona)
        return capture(case.input, redaction), told
    secrets: list[str] = []
    parts = [capture(part, redaction, secrets) for part in (case.input, case.expected, case.metadata)]
    if secrets:
        run.redaction = redaction = redaction.also(secrets)
        parts = [capture(part, redaction) for part in parts]
    value, expected, metadata = parts
    return value, _case_as_told(case, redaction, expected, metadata)


def _case_as_told(case: Case, redaction: Redaction, expected: Any, metadata: dict[str, Any] | None) -> Case:
    """The case as the records show it, its persona masked and its ids as they are.

    Args:
        case: as it is.
        redaction: what is masked.
        expected: what it expects, as captured; `metadata` likewise.
    """
    if metadata is not None and case.metadata is not None and "source_id" in case.metadata:
        metadata["source_id"] = case.metadata["source_id"]
    return Case(case.index, case.id, None, capture(case.persona, redaction), expected, metadata)


def _exposed(case: Case, redaction: Redaction) -> tuple[str, ...]:
    """The names of the secrets that stand in the ids of a case, where they are not masked."""
    found = redaction.masks_in(case.id)
    if case.metadata is not None and (source := case.source_id) is not None:
        found = tuple(dict.fromkeys((*found, *redaction.masks_in(source))))
    return found


def traceback_of(error: BaseException, redact: Callable[[str], str] = str) -> str | None:
    """The traceback as Python prints it, without fluxloop's own frames; of a group with the leaf it is described by."""
    try:
        shown = min(first_leaf(error).before + 1, MAX_SHOWN)
        told = traceback.TracebackException.from_exception(
            printable(error), max_group_width=max(15, shown), max_group_depth=max(10, shown)
        )
        _trim(told)
        return redact(str(capture("".join(told.format()))))
    except BaseException:  # an exception may be as hostile as any object
        return None


def _trim(told: traceback.TracebackException) -> None:
    waiting: list[traceback.TracebackException | None] = [told]
    while waiting:
        one = waiting.pop()
        if one is not None:
            one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_PACKAGE)]
            waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
