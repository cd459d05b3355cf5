"""Shards of one experiment → the directory that one run of it all would have made."""

from __future__ import annotations

import heapq
import json
import os
import secrets
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any, BinaryIO

from attrs import field, frozen

from fluxloop.config.snapshot import to_yaml
from fluxloop.exceptions import MergeError, OutputError, Problem, SinkError, UsageError
from fluxloop.plan import Shard
from fluxloop.result import ExperimentResult
from fluxloop.resuming.earlier import Earlier, kept_remarks, read_earlier
from fluxloop.resuming.keys import at, flat
from fluxloop.resuming.sameness import DECIDING
from fluxloop.store.documents import to_json, write_document
from fluxloop.store.files import regular
from fluxloop.store.layout import CONFIG, LINE_FILES, SUMMARY, SUPERSEDED
from fluxloop.store.lines import sync, sync_directory
from fluxloop.store.litter import held, prefix, sweep
from fluxloop.store.lock import writer_of
from fluxloop.store.modes import make_directory, mode_of, result_file
from fluxloop.store.recovery import count_superseded
from fluxloop.store.rewriting import current_file
from fluxloop.store.runs import StoredRun, StoredRuns, StoredTrace
from fluxloop.summary import Summary, SummaryBuilder

TELLING = (
    *("fail_under", "runner.timeout_seconds", "runner.max_retries", "runner.retry_on"),
    "runner.infrastructure",
)
"""Keys that may differ between shards, and are then told."""
RAN_ON = ("fluxloop", "python", "git.commit", "git.diff_digest")

MAX_LISTED = 20
MAX_OPEN = 32
"""Shards read at a time, each by three open files."""
_BUFFER = 1 << 20


def merge(
    directories: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str], *, allow_partial: bool = False
) -> ExperimentResult:
    """Make of the shards of an experiment the directory that one run of it all would have made.

    Args:
        directories: of all shards, in any order; they stay as they are.
        output: the directory to make; it must not exist, or be empty.
        allow_partial: accept that shards, or some of their runs, are missing.

    Raises:
        MergeError: they are not the shards of one experiment, or not all of it; with every problem found.
        OutputError: the output directory is in use.
        SinkError: the results could not be written; nothing is left of them.

    Example:
        >>> import fluxloop
        >>> fluxloop.merge(["shards/demo_1of2", "shards/demo_2of2"], "merged")  # doctest: +SKIP
    """
    if isinstance(directories, str | os.PathLike):
        raise TypeError(f"directories: expected several, as a list, got {directories!r}")
    place = Path(os.path.abspath(output))
    _check_free(place)
    shards = _opened([Path(os.path.normpath(directory)) for directory in directories])
    found = _counted(shards)
    gaps = _gaps(shards, found)
    if gaps and not allow_partial:
        raise MergeError(gaps)
    builder = _builder(shards)
    with _building(place, _mode_for_all(shards)) as folder:
        _write_lines([one.path for one in shards], folder, builder.add)
        if builder.total != sum(one.runs for one in found):
            raise MergeError([Problem(str(place), "the shards changed while they were merged; merge them again")])
        _write_superseded([current_file(one.path, SUPERSEDED) for one in shards], folder / SUPERSEDED)
        builder.superseded, builder.rerolled = count_superseded(folder)
        summary = builder.build(
            "stopped" if gaps else "completed",
            completed_at=max(one.ended for one in found),
            stop_reason="; ".join(gap.message.partition(";")[0] for gap in gaps) or None,
        )
        first = shards[0].earlier.config
        config = {**first, "runner": {**first["runner"], "shard": None}}
        write_document(folder / CONFIG, to_yaml(config))
        write_document(folder / SUMMARY, to_json(summary))
    return ExperimentResult(place, summary)


@frozen(kw_only=True)
class _Directory:
    """A directory that holds a shard."""

    path: Path
    shard: Shard
    earlier: Earlier = field(repr=False)
    summary: Summary = field(repr=False)
    remarks: tuple[str, ...]
    iterations: int
    inputs: int
    id_digits: int

    @property
    def total(self) -> int:
        """Runs of all shards together."""
        return self.inputs * self.iterations

    @property
    def share(self) -> int:
        """Runs of this one."""
        return self.shard.share(self.total)

    def told(self, key: str) -> Any:
        """What it was begun with under a dotted key."""
        return self.earlier.told(key)

    def foreign(self, trace: StoredTrace) -> str | None:
        """Say why a run is none of the shard's, or None."""
        position = trace.number - 1
        if position >= self.total:
            return f"{trace.trace_id} is none of the {self.total} runs of the experiment"
        if not self.shard.takes(position):
            count = self.shard.count
            owner = next(k for k in range(1, count + 1) if Shard(k, count).takes(position))
            return f"{trace.trace_id} is a run of shard {owner}/{count}, not of {self.shard}"
        if trace.iteration != position // self.inputs:
            return f"{trace.trace_id} is of iteration {trace.iteration}, expected {position // self.inputs}"
        return None


def _check_free(place: Path) -> None:
    try:
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise OutputError(place, "is not a directory; name another with --output")
        if place.is_dir() and any(place.iterdir()):
            raise OutputError(place, "is not empty; name another with --output")
    except OSError as error:
        raise OutputError(place, f"cannot be read: {error.strerror or error}; name another with --output") from None


def _opened(paths: Sequence[Path]) -> list[_Directory]:
    """Read what each directory says of itself, and hold them against each other; in the shards' order."""
    if not paths:
        raise MergeError([Problem("shards", "expected the directories of an experiment's shards, got none")])
    opened: list[_Directory] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            opened.append(_open(path))
        except UsageError as error:
            problems.append(_told(path, error))
    by_shard: dict[Shard, _Directory] = {}
    for one in opened:
        if different := _difference(one, opened[0]):
            problems.append(Problem(str(one.path), f"not of the experiment of {opened[0].path}: {different}"))
        elif (other := by_shard.setdefault(one.shard, one)) is not one:
            problems.append(Problem(str(one.path), f"is shard {one.shard}, as {other.path} is; name one of them"))
    if problems:
        raise MergeError(problems)
    return sorted(opened, key=lambda one: one.shard.index)


def _open(path: Path) -> _Directory:
    if (writer := writer_of(path)) is not None:
        raise OutputError(path, f"is being written, by {writer}; wait for its end")
    earlier = read_earlier(path)
    summary, shard_text = earlier.summary, earlier.told("runner.shard")
    iterations = earlier.told("runner.iterations")
    if type(iterations) is not int:
        raise OutputError(path, f"{CONFIG}: not the configuration of an experiment")
    if shard_text is None:
        raise OutputError(path, f"is a whole experiment, not a shard of one: runner.shard in its {CONFIG} is null")
    try:
        shard = Shard.of(str(shard_text))
    except ValueError as error:
        raise OutputError(path, f"{CONFIG}: runner.shard: {error}") from None
    if summary is None:
        raise OutputError(path, f"{SUMMARY} is missing, or not a summary of an experiment")
    inputs, digits = (summary.ran_on.get(key) for key in ("inputs", "id_digits"))
    if not isinstance(inputs, int) or not isinstance(digits, int):
        raise OutputError(path, f"{SUMMARY} does not say how many inputs there were: ran_on.inputs")
    if summary.ran_on.get("renumbered"):
        raise OutputError(path, "was resumed by force with other inputs, so that its runs are none of one plan")
    return _Directory(
        path=path,
        shard=shard,
        earlier=earlier,
        summary=summary,
        remarks=kept_remarks(earlier),
        iterations=iterations,
        inputs=inputs,
        id_digits=digits,
    )


def _told(path: Path, error: UsageError) -> Problem:
    """A fault found in a directory, with the directory in front."""
    return Problem(str(path), str(error).removeprefix(f"{path}: ").removeprefix(f"{path}{os.sep}"))


def _difference(one: _Directory, other: _Directory) -> str:
    """What decides the runs and is not the same, with both values; empty when all is."""
    told = []
    for key in DECIDING:
        mine, theirs = flat({key: one.told(key)}), flat({key: other.told(key)})
        for name in sorted({*mine, *theirs}):
            if name not in mine or name not in theirs or mine[name] != theirs[name]:
                here, there = (_shown(side[name]) if name in side else "absent" for side in (mine, theirs))
                told.append(f"{name} is {here}, there {there}")
    digests = (("inputs_digest", "the digest of the inputs"), ("recordings_digest", "the digest of the recorded calls"))
    for key, text in (("inputs", "the number of inputs"), *digests):
        if (count := one.summary.ran_on.get(key)) != (counted := other.summary.ran_on.get(key)):
            told.append(f"{text} is {count}, there {counted}")
    if not told and one.summary.ran_on.get("arguments_digest") != other.summary.ran_on.get("arguments_digest"):
        told.append("a value of runner.args or runner.input_template that stands in the environment is another")
    if one.shard.count != other.shard.count:
        told.append(f"runner.shard is {one.shard}, there {other.shard}")
    return "; ".join(told)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


@frozen(kw_only=True)
class _Found:
    """What the files of a shard hold."""

    runs: int
    ended: str
    """When the shard came to its end, or was killed."""
    differences: tuple[Problem, ...]
    """The first runs that its files tell differently: none of those counts."""


def _counted(shards: Sequence[_Directory]) -> list[_Found]:
    """Pass over every run of every shard."""
    found = []
    problems = []
    for one in shards:
        runs, ended = 0, one.summary.completed_at or one.summary.started_at
        stored = StoredRuns(one.path)
        try:
            for run in stored:
                if foreign := one.foreign(run.trace):
                    raise OutputError(one.path, foreign)
                runs += 1
                ended = max(ended, run.trace.end_time)
        except UsageError as error:
            problems.append(_told(one.path, error))
        found.append(_Found(runs=runs, ended=ended, differences=tuple(stored.differences)))
    if problems:
        raise MergeError(problems)
    return found


def _gaps(shards: Sequence[_Directory], found: Sequence[_Found]) -> list[Problem]:
    """What is missing of the whole experiment."""
    first = shards[0]
    count, named = first.shard.count, {one.shard.index for one in shards}
    absent = [Shard(index, count) for index in range(1, count + 1) if index not in named]
    absent = [shard for shard in absent if shard.share(first.total)]  # one without runs is no gap
    gaps = []
    if absent:
        runs = sum(shard.share(first.total) for shard in absent)
        names = _listed(map(str, absent), len(absent))
        told = f"shard {names} is missing" if len(absent) == 1 else f"shards {names} are missing"
        hint = "name its directory too, or accept the gap with --allow-partial"
        gaps.append(Problem("", f"{told}, with {runs} of {first.total} runs; {hint}"))
    for one, there in zip(shards, found, strict=True):
        if there.runs < one.share:
            lacks = f"shard {one.shard} lacks {one.share - there.runs} of its {one.share} runs"
            if there.differences:
                lacks += f" ({there.differences[0]})"
            finish = f"fluxloop run experiment --resume {shlex.quote(str(one.path))}"
            gaps.append(
                Problem(str(one.path), f"{lacks}; finish it with: {finish}, or accept the gap with --allow-partial")
            )
    return gaps


def _builder(shards: Sequence[_Directory]) -> SummaryBuilder:
    summary = shards[0].summary
    forced = list(dict.fromkeys(key for one in shards for key in one.earlier.forced))
    masked: Counter[str] = Counter()
    for one in shards:
        masked.update(one.summary.masked)
    return SummaryBuilder(
        experiment_name=summary.experiment_name,
        planned=shards[0].total,
        started_at=min(one.summary.started_at for one in shards),
        ran_on={
            **summary.ran_on,
            "shard": None,
            "id_digits": min(one.id_digits for one in shards),
            **({"forced": forced} if forced else {}),
        },
        fail_under=summary.fail_under,
        remarks=_remarks(shards),
        masked=masked,
    )


def _listed(texts: Iterator[str], count: int) -> str:
    listed = ", ".join(text for _, text in zip(range(MAX_LISTED), texts, strict=False))
    return f"{listed} and {count - MAX_LISTED} more" if count > MAX_LISTED else listed


def _remarks(shards: Sequence[_Directory]) -> tuple[str, ...]:
    """What a reader must know of the shards: what each says of itself, and in what they differ."""
    remarks = []
    for one in shards:
        remarks += [f"shard {one.shard}: {remark}" for remark in one.remarks]
    for key in (*RAN_ON, *TELLING):
        values: dict[str, list[str]] = {}
        for one in shards:
            value = at(one.summary.ran_on, key) if key in RAN_ON else one.told(key)
            values.setdefault(_shown(value), []).append(str(one.shard))
        if len(values) > 1:
            told = "; ".join(f"{value} in {_listed(iter(where), len(where))}" for value, where in values.items())
            remarks.append(f"the shards differ in {key.replace('.', ' ') if key in RAN_ON else key}: {told}")
    return tuple(remarks)


def _mode_for_all(shards: Sequence[_Directory]) -> int:
    """Who may read the directories of all shards, and so what is made of them."""
    return reduce(and_, (mode_of(one.path) for one in shards))


@contextmanager
def _building(place: Path, mode: int) -> Iterator[Path]:
    """Give a folder beside the place, which takes the place when all is in it and on the disk."""
    folder = place.parent / f"{prefix(place.name)}{secrets.token_hex(4)}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place.parent, place.name)
        make_directory(folder, mode)
    except OSError as error:
        raise OutputError(place, f"cannot be made: {error.strerror or error}; name another with --output") from None
    try:
        with held(folder):
            yield folder
        sync_directory(folder)
        if place.is_dir():
            place.rmdir()
        folder.rename(place)
        sync_directory(place.parent)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise SinkError(f"{place} cannot be written: {error.strerror or error}; nothing is left of it") from error
        raise


def _write_lines(paths: Sequence[Path], folder: Path, each: Callable[[StoredTrace], object]) -> None:
    """Write the runs of all directories to the three line files of the folder, in the order they ended."""
    if len(paths) > MAX_OPEN:
        size = -(-len(paths) // MAX_OPEN)
        parts = []
        for begin in range(0, len(paths), size):
            parts.append(folder / f".part{begin}")
            make_directory(parts[-1], mode_of(folder))
            _write_lines(paths[begin : begin + size], parts[-1], lambda trace: None)
        _write_lines(parts, folder, each)
        for part in parts:
            shutil.rmtree(part)
        return
    with ExitStack() as stack:
        files: list[BinaryIO] = [
            stack.enter_context(open(folder / name, "xb", _BUFFER, opener=result_file)) for name in LINE_FILES
        ]
        observations, traces, summaries = files
        for run in heapq.merge(*map(StoredRuns, paths), key=_end):
            observations.write(run.observations)
            traces.write(run.trace_line)
            summaries.write(run.summary_line)
            each(run.trace)
        for file in files:
            file.flush()
            sync(file.fileno())


def _end(run: StoredRun) -> str:
    return run.trace.end_time


def _write_superseded(sources: Sequence[Path], place: Path) -> None:
    """Put together what resumes of the shards have replaced, where one has."""
    there = [source for source in sources if source.exists()]
    if not there:
        return
    with open(place, "xb", opener=result_file) as file:
        for source in there:
            with open(source, "rb", opener=regular) as lines:
                file.writelines(line for line in lines if line.endswith(b"\n"))
        file.flush()
        sync(file.fileno())
