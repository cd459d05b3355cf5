"""Whether an experiment directory holds together, and what a resume would make of it."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
from attrs import frozen

from fluxloop.config.convert import structure
from fluxloop.config.document import read_document
from fluxloop.exceptions import ConfigError, OutputError, Problem
from fluxloop.plan import Shard, run_seed
from fluxloop.progress import counted
from fluxloop.store.codec import UNREADABLE, decode_observation, decode_trace, decode_trace_summary
from fluxloop.store.files import read_regular, regular, require_regular
from fluxloop.store.layout import CONFIG, LINE_FILES, OBSERVATIONS, SUMMARY, TRACE_SUMMARY, TRACES
from fluxloop.store.lock import writer_of
from fluxloop.store.recovery import count_superseded
from fluxloop.store.rewriting import current_file, is_rewriting
from fluxloop.store.runs import DamageError, StoredRun, StoredRuns, StoredTrace, is_whole
from fluxloop.summary import Summary, SummaryBuilder
from fluxloop.tracing.redaction import MASK
from fluxloop.visible import visible_line

MAX_FINDINGS = 20
"""Findings told; a damaged disk has thousands."""

_STRETCH = 64

_NOT_COUNTED = (
    *("status", "stop_reason", "started_at", "completed_at", "ran_on", "fail_under", "experiment_name", "remarks"),
    *("errors", "errors_not_grouped"),  # by place, which is told by what the machine has installed
    "masked",  # which no file tells
)
_RECOUNTED = tuple(field.name for field in attrs.fields(Summary) if field.name not in _NOT_COUNTED)


@frozen(kw_only=True)
class Verification:
    """What is wrong with an experiment directory, if anything, and what a resume would do.

    Example:
        >>> import fluxloop
        >>> print(fluxloop.load("experiments/quickstart_20261123_120000").verify())  # doctest: +SKIP
        190 runs are whole in all files
        resume would run nothing: all 190 runs are done
    """

    runs: int
    """How many runs are whole in all three line files."""
    findings: tuple[Problem, ...]
    """What is wrong, and where; the first twenty."""
    unlisted: int
    """How many findings there are beyond them."""
    resume: str
    """What a resume would do."""

    @property
    def is_sound(self) -> bool:
        """True when nothing is wrong; an experiment that was interrupted may well be sound."""
        return not self.findings

    def __str__(self) -> str:
        whole = f"{counted(self.runs, 'run')} {'is' if self.runs == 1 else 'are'} whole in all files"
        more = [f"and {counted(self.unlisted, 'finding')} more"] if self.unlisted else []
        return "\n".join([*map(str, self.findings), *more, whole, visible_line(f"resume would {self.resume}")])


def verify(path: str | os.PathLike[str]) -> Verification:
    """Check every line of an experiment directory, ids across its files, and its counts; in flat memory.

    Args:
        path: the directory, or its `summary.json`.

    Raises:
        OutputError: it is no experiment directory.
    """
    path = Path(path)
    if path.name in (CONFIG, SUMMARY) and path.is_file():
        path = path.parent
    if not any((path / name).exists() for name in (CONFIG, SUMMARY, *LINE_FILES)):
        raise OutputError(path, "not an experiment directory: none of its files is there")
    return _Check(path).verification()


class _Check:
    """One pass over a directory, and what was found on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._findings: list[Problem] = []
        self._unlisted = 0
        self._runs = 0
        self._is_damaged = False
        self._indices: dict[int, array[int]] = {}
        """The input each place in an iteration stands for, by stretches of places."""
        self._plan = _Plan()
        self._done = 0
        """Runs that are the plan's."""

    def verification(self) -> Verification:
        writer = writer_of(self._path)
        config, summary = self._config(), self._summary()
        if is_rewriting(self._path) and not writer:
            self._find(".rewrite", "a crash interrupted a resume that replaces failed runs")
        builder = SummaryBuilder(experiment_name="", planned=0, started_at="", ran_on={})
        stored = StoredRuns(self._path)
        self._plan = _plan(config, summary)
        for key in self._plan.differing:
            self._find(CONFIG, f"{key} is another than in {SUMMARY}")
        self._pass_over(stored, builder)
        try:
            builder.superseded, builder.rerolled = count_superseded(self._path)
        except OutputError as error:
            self._is_damaged = True
            self._find(str(error.path), error.message)
        if not writer:
            for tail in stored.tails:
                self._find(f"{tail.path}:{tail.line}", f"{tail.size} bytes of runs that are not whole in all files")
            if summary is not None and not self._is_damaged and not stored.differing:
                self._compare(summary, builder)
        return Verification(
            runs=self._runs,
            findings=tuple(self._findings),
            unlisted=self._unlisted,
            resume=self._resume(writer, stored, config, summary),
        )

    def _find(self, where: str, message: str) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Problem(where if "/" in where else str(self._path / where), message))
        else:
            self._unlisted += 1

    def _config(self) -> dict[str, Any] | None:
        try:
            require_regular(self._path / CONFIG)
            document = read_document(self._path / CONFIG)
        except OSError as error:
            self._find(CONFIG, str(error.strerror))
            return None
        except ConfigError as error:
            for problem in error.problems:
                self._find(problem.where, problem.message)
            return None
        config, faults = structure(_without_references(document.data))
        for key, message in faults:
            self._find(document.where(key), f"{'.'.join(map(str, key))}: {message}")
        return None if config is None else document.data

    def _summary(self) -> Summary | None:
        try:
            return msgspec.json.decode(read_regular(self._path / SUMMARY), type=Summary)
        except (OSError, *UNREADABLE) as error:
            self._find(SUMMARY, str(getattr(error, "strerror", None) or error))
            return None

    def _pass_over(self, stored: StoredRuns, builder: SummaryBuilder) -> None:
        """Look at every run; after damage, at every line that is left."""
        try:
            for run in stored.every():
                if run.difference is not None:
                    told = f"{run.difference.message}; a resume runs it again"
                    self._find(run.difference.where, told)
                    continue
                self._runs += 1
                builder.add(run.trace)
                self._look_at(run)
        except DamageError as error:
            self._is_damaged = True
            self._find(str(error.path) + f":{error.line}", error.message)
            self._look_at_lines(error)
        except OutputError as error:
            self._is_damaged = True
            self._find(str(error.path), error.message)

    def _look_at(self, run: StoredRun) -> None:
        for fault in (*_faults(run), *self._strangeness(run.trace)):
            where = f"{current_file(self._path, TRACES)}:{run.line}"
            self._find(where, f"{run.trace.trace_id}: {fault}")

    def _strangeness(self, trace: StoredTrace) -> Iterator[str]:
        """What of a run is not as the plan has it."""
        plan, position = self._plan, trace.number - 1
        if "runner.iterations" not in plan.forced and trace.iteration not in range(plan.iterations or 1 << 63):
            yield f"iteration {trace.iteration} of {plan.iterations}, from 0"
        if "seed" not in plan.forced and plan.seed is not None and MASK not in trace.input_id:
            seed = run_seed(plan.seed, trace.input_id, trace.iteration)
            if seed != trace.seed:
                yield f"seed {trace.seed}, where {CONFIG} gives {seed}"
        if plan.inputs is None:
            return
        iteration, place = divmod(position, plan.inputs)
        stretch, within = divmod(place, _STRETCH)
        indices = self._indices.setdefault(stretch, array("q"))
        if not indices:
            indices.extend([-1] * _STRETCH)
        if indices[within] not in (-1, trace.input_index):
            yield f"an input at {trace.input_index}, where its id is of another"
        indices[within] = trace.input_index
        is_taken = plan.shard is None or plan.shard.takes(position)
        if not is_taken and "runner.shard" not in plan.forced:
            yield f"not one of shard {plan.shard}"
        if is_taken and plan.iterations is not None and position < plan.inputs * plan.iterations:
            self._done += 1
        if iteration != trace.iteration:
            self._is_damaged = True
            yield f"iteration {trace.iteration}, where its id is of {iteration}"

    def _look_at_lines(self, first: DamageError) -> None:
        """Find every line that is no record; which belongs to which cannot be told any more."""
        kinds = {OBSERVATIONS: decode_observation, TRACES: decode_trace, TRACE_SUMMARY: decode_trace_summary}
        for name, decode in kinds.items():
            file = current_file(self._path, name)
            try:
                with open(file, "rb", opener=regular) as lines:
                    for number, line in enumerate(lines, 1):
                        if (file, number) != (first.path, first.line) and not is_whole(line, decode):
                            self._find(f"{file}:{number}", "not a record")
            except OSError as error:
                self._find(str(file), str(error.strerror or error))

    def _compare(self, summary: Summary, builder: SummaryBuilder) -> None:
        """Find what `summary.json` counts otherwise than the files."""
        if summary.status == "running":
            self._find(SUMMARY, "says running, though nobody writes here: a crash cut the experiment short")
            return
        builder.planned = summary.planned
        planned = self._plan.planned
        if planned not in (None, summary.planned) and not self._plan.forced:
            self._find(SUMMARY, f"planned is {summary.planned}, {CONFIG} gives {planned}")
        counts = builder.build(summary.status, completed_at=None)
        for name in _RECOUNTED:
            told, there = getattr(summary, name), getattr(counts, name)
            if not _are_alike(*map(msgspec.to_builtins, (told, there))):
                self._find(SUMMARY, f"{name} is {_shown(told)}, the files give {_shown(there)}")
        told, there = _count_errors(summary), _count_errors(counts)
        if told != there:
            self._find(SUMMARY, f"errors are {told} in all, the files give {there}")

    def _resume(self, writer: str | None, stored: StoredRuns, config: object, summary: Summary | None) -> str:
        if writer:
            return f"be refused while {writer} writes here"
        if self._is_damaged:
            return "refuse, because no crash leaves such files"
        if config is None or (summary is None and self._runs):
            return "refuse: it cannot tell what the experiment is"
        if differing := self._plan.differing:
            return f"refuse: {CONFIG} and {SUMMARY} are not of one experiment, in {', '.join(differing)}"
        cut = f"cut off {sum(tail.size for tail in stored.tails)} bytes, then " if stored.tails else ""
        asked = f"; to be given again: {', '.join(self._plan.asked)}" if self._plan.asked else ""
        if summary is None:
            return f"{cut}run all runs, for none is done{asked}"
        planned = self._plan.planned
        left = summary.planned - self._runs if planned is None else planned - self._done
        if left <= 0:
            return f"{cut}run nothing: all {counted(self._runs, 'run')} are done{asked}"
        return f"{cut}run {left} of {counted(self._runs + left, 'run')}{asked}"


@frozen(kw_only=True)
class _Plan:
    """What the runs should be, as far as it is known."""

    seed: int | None = None
    iterations: int | None = None
    inputs: int | None = None
    """None, too, where trace ids no longer tell which run they are of."""
    shard: Shard | None = None
    forced: tuple[str, ...] = ()
    """What was changed by force, so that earlier runs may have it otherwise."""
    differing: tuple[str, ...] = ()
    """What the two files tell so differently that the runs would not be alike."""
    asked: tuple[str, ...] = ()
    """What no file holds: masked secrets, and what a program gave."""

    @property
    def planned(self) -> int | None:
        """How many runs there are."""
        if self.inputs is None or self.iterations is None:
            return None
        total = self.inputs * self.iterations
        return total if self.shard is None else self.shard.share(total)


def _plan(config: dict[str, Any] | None, summary: Summary | None) -> _Plan:
    """Take from the configuration, or from the summary where that only names a variable, what the runs should be."""
    if config is None:
        return _Plan()
    ran_on = {} if summary is None else summary.ran_on
    runner = config.get("runner") or {}
    forced, from_python = ran_on.get("forced"), ran_on.get("from_python")
    shard = runner.get("shard")
    if _is_reference(shard):
        shard = ran_on.get("shard")

    def number(value: object) -> int | None:
        return value if type(value) is int else None

    seed, begun_seed = number(config.get("seed")), number(ran_on.get("seed"))
    iterations, begun = number(runner.get("iterations")), number(ran_on.get("iterations"))
    is_other = None not in (seed, begun_seed) and seed != begun_seed
    is_less = iterations is not None and begun is not None and iterations < begun
    return _Plan(
        seed=begun_seed if seed is None else seed,
        iterations=begun if iterations is None else iterations,
        inputs=None if ran_on.get("renumbered") else number(ran_on.get("inputs")) or None,
        shard=None if shard is None else Shard.of(shard),
        forced=tuple(map(str, forced)) if isinstance(forced, list) else (),
        differing=tuple(key for key, differs in (("seed", is_other), ("runner.iterations", is_less)) if differs),
        asked=(*_masked(config, ""), *(map(str, from_python) if isinstance(from_python, list) else ())),
    )


def _faults(run: StoredRun) -> Iterator[str]:
    """What is wrong inside one run whose files agree."""
    try:
        observations = decode_trace(run.trace_line).observations  # byte by byte those of their own file
    except UNREADABLE as error:
        yield str(error)
        return
    ids = {one.id for one in observations}
    if len(ids) < len(observations):
        yield "two observations have one id"
    for one in observations:
        if one.trace_id != run.trace.trace_id:
            yield f"its observation {one.id} says it is of {one.trace_id}"
        if one.parent_id is not None and one.parent_id not in ids:
            yield f"its observation {one.id} is below {one.parent_id}, which is not there"


def _without_references(data: Any) -> Any:
    """The same without values that only name a variable, whose kind is not told here."""
    if isinstance(data, dict):
        return {key: _without_references(value) for key, value in data.items() if not _is_reference(value)}
    return data


def _masked(value: Any, path: str) -> Iterator[str]:
    """Yield the keys whose values are masked."""
    if value == MASK:
        yield path
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _masked(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _masked(one, f"{path}.{index}")


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _count_errors(summary: Summary) -> int:
    return sum(group.count for group in summary.errors) + summary.errors_not_grouped


def _are_alike(one: Any, other: Any) -> bool:
    """Tell whether figures are the same, but for what another machine's arithmetic makes of the last digit."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_are_alike, one, other))
    return bool(one == other)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:79]}…"
