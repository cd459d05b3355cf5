"""What of an experiment is done, what is left, and its directory made ready to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
from attrs import frozen

from fluxloop.exceptions import ConfigError, OutputError, Problem
from fluxloop.plan import Plan, Positions
from fluxloop.progress import counted, shown_place
from fluxloop.provenance import RAN_ON
from fluxloop.resuming.earlier import Earlier, kept_remarks
from fluxloop.resuming.sameness import Changes, compare, forced, refuse
from fluxloop.store.documents import to_json, write_document
from fluxloop.store.layout import SUMMARY, SUPERSEDED, TRACES
from fluxloop.store.recovery import count_superseded, cut_back, supersede, tidy
from fluxloop.store.runs import StoredRuns, StoredTrace, Tail
from fluxloop.summary import Summary, SummaryBuilder
from fluxloop.tracing.redaction import Redaction
from fluxloop.verdict import has_failed, verdict

RetryFailed = Literal["infrastructure", "failed", "all"]
"""Which failed runs are run again: what infrastructure ended; that and timeouts and crashes; or all of them.

All but the first are failures of the agent, too: repeating these biases the pass rate upwards.
"""


@frozen(kw_only=True)
class Continuation:
    """How an experiment goes on."""

    plan: Plan
    """The runs that are left."""
    told: tuple[str, ...]
    """What is done and what has changed, line by line."""
    warned: tuple[str, ...]
    final: Summary | None
    """The summary as it stands, where nothing is left to run and nothing was changed."""


def check_options(resume: object, retry_failed: object, force: bool) -> None:
    """Refuse options that mean nothing without another.

    Raises:
        ConfigError: with each of them.
    """
    problems = []
    if retry_failed not in (None, *get_args(RetryFailed)):
        told = f"expected 'infrastructure', 'failed' or 'all', got {retry_failed!r}"
        problems.append(Problem("retry_failed", told))
    if resume is None and (retry_failed is not None or force):
        option = "--force" if retry_failed is None else "--retry-failed"
        problems.append(Problem(option, "goes with --resume, which names the experiment to go on with"))
    if problems:
        raise ConfigError(problems)


def accept(
    earlier: Earlier,
    plan: Plan,
    config: Mapping[str, Any],
    builder: SummaryBuilder,
    redaction: Redaction,
    *,
    force: bool,
) -> Changes:
    """Compare an experiment with what it is to go on as, and note in its summary what is accepted by force.

    Args:
        earlier: what its directory tells.
        plan: all its runs.
        config: the snapshot of the configuration now.
        builder: its summary to be.
        redaction: what is masked in what is told of the inputs.
        force: accept what makes runs that are not alike.

    Raises:
        ResumeError: something of that kind differs.
    """
    builder.ran_on["seed"] = plan.seed
    changes = compare(earlier, config, builder.ran_on, plan, redaction)
    if not force:
        refuse(changes, earlier.path)
    builder.remarks = (*kept_remarks(earlier), *forced(changes))
    if keys := dict.fromkeys((*earlier.forced, *(str(problem.key) for problem in changes.unsafe))):
        builder.ran_on["forced"] = list(keys)
    return changes


def go_on(
    earlier: Earlier, plan: Plan, changes: Changes, builder: SummaryBuilder, *, retry: RetryFailed | None
) -> Continuation:
    """Make the directory ready to go on, and say how it does.

    Args:
        earlier: the experiment, whose directory is locked.
        plan: all its runs.
        changes: what is not as it was, and accepted.
        builder: gets the runs that are done.
        retry: which failed runs are run again; None for none.

    Raises:
        OutputError: the files are damaged, or cannot be written to.
    """
    if earlier.summary is not None:
        builder.started_at = earlier.summary.started_at
        builder.masked = dict(earlier.summary.masked)
    taken = take_up(earlier, plan, builder, retry=retry, is_same=changes.has_same_inputs)
    surroundings = changes.surroundings
    if len(taken.plan):
        builder.remarks = tuple(dict.fromkeys((*builder.remarks, *changes.remarks)))
    else:
        surroundings = ()  # nothing runs in them
        builder.ran_on.update({key: earlier.ran_on[key] for key in RAN_ON if key in earlier.ran_on})
    done = f"{builder.total} of {counted(builder.planned, 'run')} are done"
    told = [f"Resuming {shown_place(str(earlier.path))}: {done}, {len(taken.plan)} are left"]
    unsafe = (f"{problem.key} {problem.message}" for problem in changes.unsafe)
    told += [f"Changed: {line}" for line in (*changes.safe, *unsafe, *surroundings)]
    if changes.lifted and len(taken.plan):
        limits = ", ".join(changes.lifted)
        told.append(f"The limits of the session before do not bind this one: {limits}; give them again to keep them")
    if taken.again:
        what = "that had failed are run again; their records are in superseded.jsonl"
        told.append(f"{counted(taken.again, 'run')} {what}")
    warned = []
    if torn := "; ".join(map(str, taken.torn)):
        warned.append(f"Cut off what was left of unfinished runs: {torn}")
    if taken.differing:
        them = f"{counted(taken.differing, 'run')} that the files tell differently"
        warned.append(f"Running again {them} ({SUPERSEDED} keeps what {TRACES} has): {_listed(taken)}")
    if taken.rerolled:
        failures = f"{taken.rerolled} of the runs that are run again failed by the agent"
        warned.append(f"{failures} (errors, timeouts, crashes), so the pass rate will be biased upwards")
    is_changed = changes.safe or changes.unsafe or taken.torn or taken.again or taken.differing
    return Continuation(
        plan=taken.plan,
        told=tuple(told),
        warned=tuple(warned),
        final=earlier.summary if not is_changed and _is_final(earlier, builder) else None,
    )


def preview_going_on(
    earlier: Earlier, plan: Plan, changes: Changes, builder: SummaryBuilder, *, retry: RetryFailed | None
) -> str:
    """Return how much is done and how much is left; nothing is written.

    Raises:
        OutputError: the files are damaged.
    """
    again = sum(_is_owed(run.trace, retry) for run in StoredRuns(earlier.path)) if retry else 0
    left, runs = what_is_left(earlier, plan, builder, is_same=changes.has_same_inputs)
    told = f"{builder.total - again} of {counted(builder.planned, 'run')} are done, {len(left) + again} are left"
    again += runs.differing
    return f"{told}, {again} of them again" if again else told


@frozen(kw_only=True)
class TakenUp:
    """What of an experiment is done, and what is left."""

    plan: Plan
    """The runs that are left."""
    torn: tuple[Tail, ...]
    """What was cut off behind the last whole run."""
    again: int
    """How many failed runs are run again."""
    rerolled: int
    """In how many of them the agent had failed."""
    differing: int
    """How many runs are run again because the files tell them differently."""
    differences: tuple[Problem, ...]
    """Where, for the first of them."""


def take_up(
    earlier: Earlier, plan: Plan, builder: SummaryBuilder, *, retry: RetryFailed | None, is_same: bool
) -> TakenUp:
    """Make the directory ready to go on, count what is done, and return what is left.

    Args:
        earlier: the experiment, whose directory is locked.
        plan: all its runs.
        builder: gets the runs that are done.
        retry: which failed runs are run again; None for none.
        is_same: False when its inputs are not as they were, so that a trace id no longer tells which run it is.

    Raises:
        OutputError: the files are damaged, or cannot be written to.
    """
    path, again, rerolled = earlier.path, 0, 0
    torn: tuple[Tail, ...] = ()
    differing = 0
    differences: list[Problem] = []
    tidy(path)
    count_superseded(path)  # what is damaged there is refused before anything is replaced
    if retry:
        runs = StoredRuns(path)
        for run in runs:
            if _is_owed(run.trace, retry):
                again += 1
                rerolled += has_failed(run.trace)
        torn = cut_back(runs.tails)
        if again:
            differing, differences = runs.differing, runs.differences
            _supersede(earlier, retry)
    left, runs = what_is_left(earlier, plan, builder, is_same=is_same)
    torn += cut_back(runs.tails)
    if runs.differing:
        differing, differences = runs.differing, runs.differences
        _supersede(earlier, None)
    builder.superseded, builder.rerolled = count_superseded(path)
    return TakenUp(
        plan=left, torn=torn, again=again, rerolled=rerolled, differing=differing, differences=tuple(differences)
    )


def _supersede(earlier: Earlier, retry: RetryFailed | None) -> None:
    """Take out the runs that are to be run again."""
    if earlier.summary is not None:  # it counts runs that are about to go, and a crash may follow
        now = attrs.evolve(earlier.summary, status="running", stop_reason=None, completed_at=None)
        write_document(earlier.path / SUMMARY, to_json(now))
    supersede(earlier.path, lambda trace: _is_owed(trace, retry))


def what_is_left(earlier: Earlier, plan: Plan, builder: SummaryBuilder, *, is_same: bool) -> tuple[Plan, StoredRuns]:
    """Count what is done in a directory; return what is left, and the runs passed; nothing is written.

    Raises:
        OutputError: the files are damaged.
    """
    runs = StoredRuns(earlier.path)
    by_number = is_same and not earlier.ran_on.get("renumbered")
    done, beyond = (_by_number if by_number else _by_identity)(runs, plan, builder)
    builder.planned = plan.planned + beyond
    digits = earlier.ran_on.get("id_digits") or runs.least_digits
    left = attrs.evolve(plan, done=done, id_digits=digits)
    if not by_number:
        builder.ran_on["renumbered"] = True
        left = attrs.evolve(left, first_number=max(1, runs.numbers.end))
    return left, runs


def _by_number(runs: StoredRuns, plan: Plan, builder: SummaryBuilder) -> tuple[Positions, int]:
    """The runs of the plan that are done, and how many others are: by the number in the trace id."""
    done, beyond, inputs = Positions(), 0, len(plan.cases)
    for run in runs:
        trace = run.trace
        position = trace.number - 1
        builder.add(trace)
        if position >= plan.total or (plan.shard is not None and not plan.shard.takes(position)):
            beyond += 1
            continue
        done.add(position)
        if position // inputs != trace.iteration:
            told = f"{trace.trace_id} is of iteration {trace.iteration}, where the plan has {position // inputs}"
            raise OutputError(Path(f"{runs.path / TRACES}:{run.line}"), told)
    return done, beyond


def _by_identity(runs: StoredRuns, plan: Plan, builder: SummaryBuilder) -> tuple[Positions, int]:
    """The same by input and iteration, for inputs that have changed since; memory grows with the runs."""
    identities = set()
    for run in runs:
        builder.add(run.trace)
        identities.add((run.trace.input_id, run.trace.iteration))
    done, position = Positions(), -1
    for iteration in range(plan.iterations):
        for case in plan.cases:
            position += 1
            if (case.id, iteration) in identities and (plan.shard is None or plan.shard.takes(position)):
                done.add(position)
    return done, len(runs.numbers) - len(done)


def _listed(taken: TakenUp) -> str:
    shown = "; ".join(f"{Path(one.where).name}: {one.message}" for one in taken.differences)
    others = taken.differing - len(taken.differences)
    return f"{shown}; and {others} more" if others else shown


def _is_owed(trace: StoredTrace, retry: RetryFailed | None) -> bool:
    if retry is None or trace.passed:
        return False
    is_cut_short = trace.status in ("timeout", "crashed")
    return retry == "all" or verdict(trace) == "left out" or (retry == "failed" and is_cut_short)


def _is_final(earlier: Earlier, builder: SummaryBuilder) -> bool:
    """Tell whether all runs are done and the summary says so already."""
    told = earlier.summary
    if told is None or told.status != "completed" or builder.total < builder.planned:
        return False
    found = builder.build("completed", completed_at=None)
    names = ("total_traces", "passed", "planned", "rerolled", "passed_after_failure", "left_out_after_failure")
    rates = told.pass_rate, found.pass_rate
    clusters = {None if rate is None else rate.clusters for rate in rates}
    return len(clusters) == 1 and all(getattr(told, name) == getattr(found, name) for name in names)


def is_of_plan(earlier: Earlier, changes: Changes, plan: Plan) -> bool:
    """Tell whether an experiment has the very runs of a plan."""
    return not changes.unsafe and earlier.iterations in (None, plan.iterations)


def check_files(earlier: Earlier, plan: Plan) -> None:
    """Read all that going on reads; nothing is written.

    Raises:
        OutputError: the files are damaged.
    """
    count_superseded(earlier.path)
    what_is_left(earlier, plan, SummaryBuilder(experiment_name="", planned=0, started_at="", ran_on={}), is_same=True)
