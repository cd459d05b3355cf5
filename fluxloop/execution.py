"""One execution of a plan: the directory, the loop that settles every attempt, the summary."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field

from fluxloop.clock import monotonic, process_time, time_ns, timestamp
from fluxloop.exceptions import SinkError, UsageError
from fluxloop.executors.base import Elsewhere, Executor
from fluxloop.first_runs import FirstRuns
from fluxloop.interrupt import Abandoned, Interrupt
from fluxloop.lookout import Lookout, lookout_for
from fluxloop.notices import notices_to
from fluxloop.plan import Plan
from fluxloop.progress import Progress, clock, counted
from fluxloop.records import Attempt, PlannedRun, RunError, Trace
from fluxloop.runner import Task
from fluxloop.schedule import Limits, Schedule
from fluxloop.sinks.base import SinkContext
from fluxloop.sinks.group import SinkGroup
from fluxloop.store.documents import to_json, write_document
from fluxloop.store.layout import CONFIG, LOCK, STALLS, SUMMARY
from fluxloop.store.presence import Kept, TakenAwayError
from fluxloop.store.reserve import give_room, keep_room
from fluxloop.store.runs import count_whole
from fluxloop.store.syncing import SyncError
from fluxloop.summary import ExperimentStatus, Summary, SummaryBuilder
from fluxloop.tracing.capture import message, type_name
from fluxloop.tracing.context import Late
from fluxloop.visible import one_line
from fluxloop.watch import Watch

SUGGEST_AFTER = 10
"""Runs after which it is clear how long they take."""
SUGGESTED = 8
MAX_TOLD = 5
"""Runs named when they are left in flight."""


@define(kw_only=True)
class Execution:
    """Start, settle and write every run of a plan; the only place that writes results."""

    name: str
    path: Path
    """The experiment directory, locked; with its documents, and the runs that the summary counts already."""
    plan: Plan
    task: Task
    executor: Executor
    limits: Limits
    stall_seconds: float
    sinks: SinkGroup
    summary: SummaryBuilder
    progress: Progress
    interrupt: Interrupt
    may_suggest: bool = False
    """Whether more at a time is there for the asking."""
    is_new: bool = True
    """False for a directory that an earlier experiment has made."""
    left_running: int = field(default=0, init=False)
    """Attempts that nothing could end: they may go on in this process."""
    _doubt: SyncError | TakenAwayError | None = field(default=None, init=False)
    """What was first heard that leaves in doubt whether all that was written is there."""
    _claim: Kept | None = field(default=None, init=False)
    """The lock's file, by which the directory is known again."""
    _retried: RunError | None = field(default=None, init=False)
    _first: FirstRuns = field(factory=FirstRuns, init=False)
    _told: set[str] = field(factory=set, init=False)
    _masked: dict[str, set[str]] = field(factory=dict, init=False)
    """By trace id, what was masked in earlier attempts of runs that are tried again."""
    _earlier: int = field(init=False)
    """How many runs were done before."""
    _began: tuple[float, float] = field(factory=lambda: (monotonic(), process_time()), init=False)

    @_earlier.default
    def _count_earlier(self) -> int:
        return self.summary.total

    @property
    def _done(self) -> int:
        """How many runs have been done since."""
        return self.summary.total - self._earlier

    @property
    def _left(self) -> int:
        return len(self.plan) - self._done

    def _safe(self) -> str:
        """What became of the runs that had finished, by what is there."""
        total, found = self.summary.total, count_whole(self.path)
        if isinstance(self._doubt, SyncError):
            sure = min(found, self._earlier + self._doubt.safe)
            return f"of {total} finished runs, {sure} are known to be on the disk, in {self.path}"
        if found >= total:
            return f"the {total} runs finished before are safe in {self.path}"
        if found:
            return f"of {total} finished runs, {found} are still in {self.path}"
        return f"none of the {total} finished runs is in {self.path} any more"

    def _note_doubt(self, error: BaseException) -> None:
        cause = error.__cause__
        if self._doubt is None and isinstance(cause, SyncError | TakenAwayError):
            self._doubt = cause

    def run(self, config: dict[str, Any], config_yaml: bytes) -> Summary:
        """Run the plan and return what it came to.

        Args:
            config: the resolved configuration, for sinks.
            config_yaml: the same as the directory keeps it.

        Raises:
            UsageError: what the user can mend; nothing has run and the directory is gone.
            SinkError: the results could not be written, or were taken away; says what of them is there.
        """
        try:
            with self.interrupt.listening(), notices_to(self.progress.warn):
                self._begin(config, config_yaml)
                return self._finish(*self._run_all())
        except BaseException as error:
            self._give_up(error)
            if isinstance(error, SinkError) and self.summary.total:
                raise SinkError(f"{error}; {self._safe()}") from error
            raise

    def _begin(self, config: dict[str, Any], config_yaml: bytes) -> None:
        with suppress(FileNotFoundError):
            self._claim = Kept(self.path / LOCK)
        if not self.is_new:
            write_document(self.path / CONFIG, config_yaml)
            write_document(self.path / SUMMARY, to_json(self.summary.build("running", completed_at=None)))
        keep_room(self.path)
        self.sinks.open(
            SinkContext(name=self.name, path=self.path, planned=self.summary.planned, done=self._earlier, config=config)
        )

    def _run_all(self) -> tuple[ExperimentStatus, str | None]:
        if not len(self.plan):
            return "completed", None  # the agent is not entered for nothing
        schedule = Schedule(self.plan, self.limits, clock=monotonic, urgency=lambda: self.interrupt.urgency)
        self.interrupt.announce = lambda hint: self.progress.signal(_stopping(schedule) + hint)
        self.interrupt.last_words = lambda held: self._last_words(schedule, held)
        self.progress.start(len(self.plan))
        ended_by: UsageError | None = None
        try:
            with (
                self._looked_after() as lookout,
                (watch := self._watch(schedule, lookout)).watching(),
                closing(_closable(self.executor.run(self.task, schedule))) as batches,
            ):
                self.interrupt.release()
                for attempts in batches:
                    self.interrupt.hold()
                    if self.interrupt.abandoned:
                        break  # what an agent makes of being left is no answer of its own
                    watch.heard(bool(attempts))
                    self._settle(attempts, schedule)
                    self.interrupt.release()
        except Abandoned:
            pass  # nothing else ended what was in flight; what is done is written
        except UsageError as error:
            if not self._done:
                raise
            ended_by = error  # a target that cannot be entered again takes nothing back of what is done
        finally:
            self.interrupt.hold()
            self.progress.stop()
            self.summary.failures_left = schedule.failures_left
        if ended_by is not None and self._left:
            self._tell_once("stopped", f"Stopping. Reason: {ended_by}.")
            return "stopped", str(ended_by)
        return self._outcome(schedule)

    @contextmanager
    def _looked_after(self) -> Iterator[Lookout]:
        """Have Ctrl-C heard and stacks written whatever holds this interpreter, if runs have it."""
        if isinstance(self.executor, Elsewhere):
            yield Lookout(None, None)
            return
        with lookout_for(self.path, stall_seconds=self.stall_seconds) as lookout:
            self.interrupt.heard = lookout.heard
            try:
                yield lookout
            finally:
                self.interrupt.heard = lambda: None

    def _watch(self, schedule: Schedule, lookout: Lookout) -> Watch:
        return Watch(
            schedule,
            self.interrupt,
            stall_seconds=self.stall_seconds,
            file=self.path / STALLS,
            tell=self.progress.warn,
            lookout=lookout,
            redact=self.task.redaction.text,
            elsewhere=self.executor.stacks if isinstance(self.executor, Elsewhere) else str,
        )

    def _settle(self, attempts: Sequence[Attempt], schedule: Schedule) -> None:
        """Write what has ended, then count it, then share it."""
        settled = [(attempt, schedule.settle(attempt)) for attempt in attempts]
        traces = [trace for _, trace in settled if trace is not None]
        if traces:
            self.sinks.write(traces)
            for trace in traces:
                self.progress.update(trace, self.summary.add(trace))
                if trace.error is not None:
                    _heed(trace.error, self.interrupt)
            self.sinks.share(traces)
            if not self._first.is_over:
                self._look_at_first(settled, schedule)
        else:  # who writes looks, too
            self.sinks.check()
        for attempt, done in settled:
            if attempt.left_running:
                self.left_running += 1
                self._tell_once("left", _left(attempt))
            if done is None and attempt.error is not None:
                self._retried = attempt.error
                again = f"{attempt.planned.trace_id} is tried again after {_told_error(attempt.error)}"
                self._tell_once("retried", f"{again}. Further retries are not announced.")
            if attempt.masked or self._masked:
                self._count_masked(attempt, is_done=done is not None)
            if attempt.exposed:
                self._tell_once("exposed", _exposed(attempt))
            if attempt.is_overload and attempt.retry_after and attempt.retry_after >= 1:
                asked = f"A service asks to be left alone for {clock(attempt.retry_after)}"
                self._tell_once("asked", f"{asked}; nothing starts until then.")
        if schedule.stop_reason is not None and self._left:
            self._tell_once("stopped", f"{_stopping(schedule)} Reason: {schedule.stop_reason}.")
        if self.may_suggest and self._done >= SUGGEST_AFTER:
            self.may_suggest = False
            self._suggest()
        self.progress.tick(schedule)

    def _count_masked(self, attempt: Attempt, *, is_done: bool) -> None:
        """Count a run that is done for each secret that was masked in it, in whichever of its attempts."""
        names = self._masked.pop(attempt.planned.trace_id, set()).union(attempt.masked)
        if is_done:
            self.summary.count_masked(names)
        else:
            self._masked[attempt.planned.trace_id] = names

    def _look_at_first(self, settled: Sequence[tuple[Attempt, Trace | None]], schedule: Schedule) -> None:
        """Say that all fail alike, while there are runs left to save."""
        for attempt, trace in settled:
            if self._first.is_over:
                return
            if trace is not None and (fault := self._first.add(trace.error, attempt.is_refusal)) and self._left:
                self.progress.warn(f"{fault} {_how_to_stop(schedule)}".rstrip())

    def _suggest(self) -> None:
        """Say what running more at a time would save, when the agent mostly waits."""
        elapsed, busy = monotonic() - self._began[0], process_time() - self._began[1]
        left = elapsed / self._done * self._left
        faster = left / min(SUGGESTED, max(1, self._left))
        if busy < elapsed / 2 and left - faster >= 1:
            self.progress.info(f"The rest will take {clock(left)}; with --parallel {SUGGESTED} about {clock(faster)}")

    def _tell_once(self, topic: str, line: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            self.progress.warn(line)

    def _outcome(self, schedule: Schedule) -> tuple[ExperimentStatus, str | None]:
        if in_flight := schedule.in_flight:
            if not isinstance(self.executor, Elsewhere):  # else they have ended with their workers
                self.left_running += len(in_flight)
            self._tell_once("in flight", _left_in_flight(in_flight, self.task.redaction.text))
        if schedule.waiting and self._retried is not None:
            waited = f"{counted(schedule.waiting, 'run')} waited for another attempt"
            self._tell_once("waiting", f"{waited}; the last error was {_told_error(self._retried)}.")
        if self.task.late.first is not None:
            self._tell_once("late", _not_kept(self.task.late, self.task.late.first))
        left = self._left
        if not left:
            return "completed", None
        if self.interrupt.requested:
            if self.interrupt.signal is None:
                not_run = f"{counted(left, 'run')} of {self.summary.planned} not run"
                self.progress.warn(f"Cancelled; {not_run}. What is done is in {self.path}")
                return "interrupted", "cancelled"
            return "interrupted", signal.Signals(self.interrupt.signal).name
        if schedule.stop_reason is not None:
            return "stopped", schedule.stop_reason
        gave = f"the executor {type_name(self.executor)} gave back {self._done} of {len(self.plan)} runs"
        return "stopped", gave

    def _finish(self, status: ExperimentStatus, reason: str | None, *, sinks_hang: bool = False) -> Summary:
        """Say what it came to, once what it says is on the disk."""
        completed = timestamp(time_ns())
        redact = self.task.redaction.text
        reason = None if reason is None else redact(reason)
        final = self.summary.build(status, completed_at=completed, stop_reason=reason)
        failed: SinkError | None = None
        try:
            if sinks_hang:
                self.sinks.look()
            else:
                self.sinks.close_results(final)
        except SinkError as error:
            failed = error
            self._note_doubt(error)
            if status != "failed":  # else what went wrong first is the reason
                final = self.summary.build("failed", completed_at=completed, stop_reason=redact(str(error)))
        try:
            if self._is_ours:
                give_room(self.path)
            if not isinstance(self._doubt, TakenAwayError):  # else it would count what is not there
                write_document(self.path / SUMMARY, to_json(final))
        except SinkError as error:
            failed = failed or error  # what went wrong first decides what may be claimed
        finally:
            if not sinks_hang:
                self.sinks.close_others(final)
        if failed is not None:
            raise failed
        self._look_at_end()
        return final

    def _look_at_end(self) -> None:
        """See that all is there, after other sinks have taken their time."""
        try:
            self.sinks.look()
            Kept(self.path / SUMMARY)
        except SinkError as error:
            self._note_doubt(error)
            raise
        except OSError as error:
            raise SinkError(f"{self.path / SUMMARY}: {error.strerror or error}") from error

    def _last_words(self, schedule: Schedule, sinks_hang: bool) -> None:
        """Leave honest files behind when the process is about to end."""
        self.summary.failures_left = schedule.failures_left
        where = f"the results are in {self.path}, and a resume goes on from there"
        try:
            self._finish(*self._outcome(schedule), sinks_hang=sinks_hang)
        except (SinkError, OSError) as error:
            where = f"{error}; {self._safe()}"
        self.progress.stop()
        self.progress.signal(f"{self._left} of {self.summary.planned} runs were not run; {where}")

    def _give_up(self, error: BaseException) -> None:
        """Leave nothing behind when nothing has run and the user can mend it, else all that is done."""
        self._note_doubt(error)
        is_empty = self.is_new and not self.summary.total
        if is_empty and isinstance(error, UsageError | SinkError | KeyboardInterrupt):
            nothing = self.summary.build("failed", completed_at=None)
            with suppress(SinkError):
                self.sinks.close_results(nothing)
            self.sinks.close_others(nothing)
            if self._is_ours:
                shutil.rmtree(self.path, ignore_errors=True)
            return
        reason = str(error) if isinstance(error, SinkError) else f"{type_name(error)}: {message(error)}"
        try:
            self._finish("failed", reason)
        except SinkError as later:  # what went wrong first is what is raised
            if not isinstance(error, SinkError):
                self.progress.warn(f"{later}; {self._safe()}")

    @property
    def _is_ours(self) -> bool:
        """Whether the directory under the name is still the one that was locked."""
        try:
            if self._claim is not None:
                self._claim.check()
        except TakenAwayError:
            return False
        return True


def _left(attempt: Attempt) -> str:
    """That an attempt was given up, told for the first of them."""
    seconds = attempt.duration_ms / 1000
    return (
        f"{attempt.planned.trace_id} was given up after {seconds:.3g} s. Nothing can end it, so it may still be"
        " running, unseen. Others like it are not announced."
    )


def _exposed(attempt: Attempt) -> str:
    """That a secret became known which stands in an id, told for the first of them."""
    return (
        f"{attempt.planned.trace_id}: an id of its input holds a secret ({', '.join(attempt.exposed)}), and ids are"
        " never masked; give the input another. Others like it are not announced."
    )


def _left_in_flight(in_flight: list[tuple[PlannedRun, int, float]], redact: Callable[[str], str]) -> str:
    """Which runs did not come to their end, so that one that hangs can be found."""
    told = [
        f"{run.trace_id} ({one_line(redact(run.case.id), 40)}) after {clock(since)}"
        for run, _, since in in_flight[:MAX_TOLD]
    ]
    more = f" and {len(in_flight) - MAX_TOLD} more" if len(in_flight) > MAX_TOLD else ""
    return f"Left unfinished: {', '.join(told)}{more}."


def _not_kept(late: Late, first: str) -> str:
    """What came of runs that were closed."""
    calls = f"{late.calls:,} recorded call{'' if late.calls == 1 else 's'}" if late.calls else ""
    text = f"{late.characters:,} character{'' if late.characters == 1 else 's'} of output" if late.characters else ""
    told = " and ".join(part for part in (calls, text) if part)
    return f"Not kept: {told} that came after their runs had ended, first in {first}."


def _told_error(error: RunError) -> str:
    """Type and message in one line."""
    return f"{error.type}: {one_line(error.message, 200)}" if error.message else error.type


def _stopping(schedule: Schedule) -> str:
    """What a stop means for the attempts in flight."""
    in_flight = len(schedule.in_flight)
    if not in_flight:
        return "Stopping."
    return f"Stopping: {counted(in_flight, 'run')} in flight may take another {clock(schedule.limits.grace)}."


def _how_to_stop(schedule: Schedule) -> str:
    """What a user may do whose runs all fail."""
    if schedule.stopping:
        return ""
    stop = "Press Ctrl-C to stop"
    return stop + ("." if schedule.limits.stop_when_all_fail else "; runner.stop_when_all_fail: 10 stops by itself.")


def _heed(error: RunError, interrupt: Interrupt) -> None:
    """Take from a run's error what it says about the experiment."""
    if error.type == "bdb.BdbQuit":  # who quits the debugger has seen enough
        interrupt.request()
    elif error.type == "KeyboardInterrupt":  # it may have been Ctrl-C, come to a handler of the agent's
        interrupt.retake()


def _closable(batches: Iterable[Sequence[Attempt]]) -> Generator[Sequence[Attempt], None, None]:
    """The executor's batches as a generator, whose `close` reaches the executor's own."""
    yield from batches
