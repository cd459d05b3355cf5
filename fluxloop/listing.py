"""The experiments in a folder, the newest first, without reading their traces."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from attrs import frozen

from fluxloop.clock import timestamp
from fluxloop.exceptions import OutputError
from fluxloop.store.codec import UNREADABLE
from fluxloop.store.files import regular
from fluxloop.store.layout import CONFIG, LOCK, SUMMARY, SUPERSEDED, TRACE_SUMMARY, is_being_made
from fluxloop.store.lock import writer_of
from fluxloop.store.recovery import count_superseded
from fluxloop.store.rewriting import current_file
from fluxloop.summary import ExperimentStatus
from fluxloop.verdict import verdict

MAX_SUMMARY_BYTES = 64 << 20
"""What is larger is no summary, which has a bounded list of errors."""
_UNREADABLE = (OSError, ValueError, RecursionError)
"""What reading a file raises that is none of ours; msgspec's errors are values', and JSON may be too deep."""

ListedStatus = Literal["running", "killed", "completed", "interrupted", "stopped", "failed", "damaged"]


@frozen(kw_only=True)
class ListedExperiment:
    """One experiment of a folder, told in a line."""

    path: Path
    name: str
    status: ListedStatus
    """As in `summary.json`; `running` only while somebody writes, `killed` when its writer has gone without a word,
    `damaged` when the summary cannot be read, or something else stands in the place of a file."""
    writer: str | None
    """Who writes to it now."""
    started_at: str
    completed_at: str | None
    runs: int | None
    planned: int | None
    passed: int | None
    pass_rate: float | None
    """The share of the judged runs that passed."""
    is_biased: bool
    """True when failures of the agent were replaced by later results; of retries that is known at the end."""
    size_bytes: int
    """Everything in its directory."""


_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Rate(msgspec.Struct):
    value: Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Told(msgspec.Struct):
    """What is wanted of `summary.json`."""

    experiment_name: str
    status: ExperimentStatus
    total_traces: _Count
    planned: _Count
    passed: _Count
    pass_rate: _Rate | None
    started_at: str
    completed_at: str | None
    rerolled: _Count = 0
    passed_after_failure: _Count = 0
    left_out_after_failure: _Count = 0

    def __post_init__(self) -> None:
        if self.passed > self.total_traces:
            raise ValueError("more runs passed than there are")

    @property
    def is_biased(self) -> bool:
        return any((self.rerolled, self.passed_after_failure, self.left_out_after_failure))


class _Kind(msgspec.Struct):
    kind: str


class _Run(msgspec.Struct):
    """What is counted of a line of `trace_summary.jsonl`."""

    passed: bool
    error: _Kind | None


_decode_told = msgspec.json.Decoder(_Told).decode
_decode_run = msgspec.json.Decoder(_Run).decode


@frozen
class _Found:
    path: Path
    started_at: str
    told: _Told | None


def experiments_folder(config: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder in which a project's experiments are: `experiments`, where no configuration says otherwise.

    Args:
        config: the project's configuration, by default `configs/simulation.yaml` if it is there.

    Raises:
        ConfigError: it cannot be read, or its `output.directory` is no folder's name.
    """
    # Of the rest nothing is asked: to look at results takes no key that an agent needs.
    from fluxloop.config.document import read_document
    from fluxloop.config.load import default_config, load_config, project_root

    chosen = default_config(optional=not os.path.lexists("configs/simulation.yaml")) if config is None else Path(config)
    output = None if chosen is None else read_document(chosen).data.get("output")
    directory = output.get("directory") if isinstance(output, dict) else None
    given = {} if directory is None else {"output": {"directory": directory}}
    return project_root(chosen) / load_config(given).config.output.directory


def list_experiments(
    directory: str | os.PathLike[str] = "experiments", *, limit: int | None = None
) -> list[ListedExperiment]:
    """Return the experiments of a folder, the newest first.

    Finished ones are told by their summaries; for one that runs, or was killed, its short records are counted.
    One that is damaged, in whatever way, takes none of the others away.

    Args:
        directory: the folder that holds the experiments, or one experiment.
        limit: the newest so many.

    Raises:
        OutputError: the folder cannot be read.
    """
    folder = Path(directory)
    found = _found(folder)
    newest = sorted(found, key=_age, reverse=True) if limit is None else heapq.nlargest(limit, found, key=_age)
    return [_listed(one) for one in newest]


def experiment_paths(directory: str | os.PathLike[str] = "experiments") -> list[Path]:
    """Return the directories of the experiments in a folder, the newest first, as `list_experiments` does.

    Raises:
        OutputError: the folder cannot be read.
    """
    return [one.path for one in sorted(_found(Path(directory)), key=_age, reverse=True)]


def _age(one: _Found) -> tuple[str, str]:
    return one.started_at, one.path.name


def _found(folder: Path) -> Iterator[_Found]:
    try:
        paths = [folder] if (folder / SUMMARY).exists() else [Path(entry.path) for entry in os.scandir(folder)]
    except FileNotFoundError:
        cure = "fluxloop run experiment makes it, --output-dir names another"
        raise OutputError(folder, f"there is no such folder; {cure}") from None
    except OSError as error:
        raise OutputError(folder, f"no folder of experiments: {error.strerror or error}") from None
    for path in paths:
        if is_being_made(path.name):
            continue
        told: _Told | None
        try:
            told = _decode_told(_read(path / SUMMARY))
        except (FileNotFoundError, NotADirectoryError):
            if not (path / CONFIG).is_file() or not _is_experiment(path):
                continue
            told = None
        except _UNREADABLE:
            told = None
        yield _Found(path, _modified(path) if told is None else told.started_at, told)


def _read(path: Path) -> bytes:
    """The content of a small file."""
    with open(path, "rb", opener=regular) as file:
        if os.fstat(file.fileno()).st_size > MAX_SUMMARY_BYTES:
            raise ValueError("not a small file")
        return file.read()


def _has_only_files(path: Path) -> bool:
    """Tell whether all that would be opened in a directory is a file, or is not there."""
    for name in (LOCK, SUMMARY, TRACE_SUMMARY, SUPERSEDED):
        try:
            if not stat.S_ISREG(current_file(path, name).stat().st_mode):
                return False
        except FileNotFoundError:
            continue
        except OSError:  # a link to itself
            return False
    return True


def _is_experiment(path: Path) -> bool:
    """Tell the directory of an experiment that had no time for a summary from other folders with a `config.yaml`."""
    if current_file(path, TRACE_SUMMARY).exists() or _looks_so(path.name):
        return True
    return _has_only_files(path) and writer_of(path) is not None


def _looks_so(name: str) -> bool:
    try:
        return bool(datetime.strptime(name[-15:], "%Y%m%d_%H%M%S"))
    except ValueError:
        return False


def _modified(path: Path) -> str:
    try:
        return timestamp(path.stat().st_mtime_ns)
    except OSError:
        return timestamp(0)


def _listed(found: _Found) -> ListedExperiment:
    path, told = found.path, found.told
    if not _has_only_files(path):
        return _unread(found, "damaged", None)
    writer = writer_of(path)
    if told is None:
        is_there = os.path.lexists(path / SUMMARY)
        return _unread(found, "damaged" if is_there else "killed" if writer is None else "running", writer)
    status: ListedStatus = "running" if writer is not None else "killed" if told.status == "running" else told.status
    runs, passed = told.total_traces, told.passed
    rate = None if told.pass_rate is None else told.pass_rate.value
    is_biased = told.is_biased
    if status in ("running", "killed"):
        runs, passed, judged = _counted(current_file(path, TRACE_SUMMARY))
        rate = passed / judged if judged else None
        is_biased |= _is_rerolled(path)
    return ListedExperiment(
        path=path,
        name=told.experiment_name,
        status=status,
        writer=writer,
        started_at=told.started_at,
        completed_at=told.completed_at if status != "running" else None,
        runs=runs,
        planned=told.planned,
        passed=passed,
        pass_rate=rate,
        is_biased=is_biased,
        size_bytes=_size(path),
    )


def _unread(found: _Found, status: ListedStatus, writer: str | None) -> ListedExperiment:
    """An experiment of which no more is known than that it is there."""
    return ListedExperiment(
        path=found.path,
        name=found.path.name,
        status=status,
        writer=writer,
        started_at=found.started_at,
        completed_at=None,
        runs=None,
        planned=None,
        passed=None,
        pass_rate=None,
        is_biased=False,
        size_bytes=_size(found.path),
    )


def _counted(path: Path) -> tuple[int, int, int]:
    """How many runs are recorded, how many of them passed, and how many are judged."""
    runs = passed = judged = 0
    try:
        with open(path, "rb", buffering=1 << 20, opener=regular) as lines:
            for line in lines:
                try:
                    run = _decode_run(line)
                except UNREADABLE:
                    continue  # being written, or torn; `fluxloop verify` tells
                runs += 1
                counts_as = verdict(run)
                passed += counts_as == "passed"
                judged += counts_as != "left out"
    except OSError:
        pass
    return runs, passed, judged


def _is_rerolled(path: Path) -> bool:
    try:
        return count_superseded(path)[1] > 0
    except (OutputError, *_UNREADABLE):  # `fluxloop verify` tells
        return False


def _size(path: Path) -> int:
    total = 0
    waiting = [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:  # gone meanwhile
            continue
    return total
