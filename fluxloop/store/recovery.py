"""An experiment directory made ready for its next writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from fluxloop.exceptions import OutputError
from fluxloop.records import RunError
from fluxloop.store.codec import UNREADABLE
from fluxloop.store.files import regular, require_regular
from fluxloop.store.layout import CONFIG, FILES, OBSERVATIONS, RESERVE, SUMMARY, SUPERSEDED, TRACE_SUMMARY, TRACES
from fluxloop.store.lines import sync
from fluxloop.store.modes import result_file
from fluxloop.store.rewriting import current_file, finish_rewrite, rewriting
from fluxloop.store.runs import StoredRuns, StoredTrace, Tail
from fluxloop.verdict import has_failed


def tidy(path: Path) -> None:
    """Finish what a crash left half done, and take away its temporary files.

    Raises:
        OutputError: the directory cannot be written to, or holds links; nothing is lost.
    """
    for name in FILES:
        try:
            require_regular(path / name)
        except OSError as error:
            raise OutputError(path / name, str(error.strerror)) from None
    try:
        finish_rewrite(path)
        for name in (SUMMARY, CONFIG):
            for left in path.glob(f".{name}.*"):
                left.unlink(missing_ok=True)
        (path / RESERVE).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(path, f"cannot be made ready to go on: {error.strerror or error}") from None


def cut_back(tails: Sequence[Tail]) -> tuple[Tail, ...]:
    """Cut files back to the last run that is whole in all three; return what was cut off.

    Raises:
        OutputError: a file cannot be cut.
    """
    for tail in tails:
        try:
            handle = regular(tail.path, os.O_RDWR)
            try:
                os.ftruncate(handle, tail.offset)
                sync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise OutputError(tail.path, f"its torn end cannot be cut off: {error.strerror or error}") from None
    return tuple(tails)


def supersede(path: Path, is_owed: Callable[[StoredTrace], bool]) -> None:
    """Take runs out of the three line files and add their traces to `superseded.jsonl`, all at once.

    Args:
        path: an experiment directory whose line files end with a whole run.
        is_owed: tells which runs are to be run again, beside those that the files tell differently.

    Raises:
        OutputError: a file cannot be written; all is as it was, or `tidy` will bring it to its end.
    """
    names = (OBSERVATIONS, TRACES, TRACE_SUMMARY, SUPERSEDED)
    try:
        with rewriting(path) as folder, ExitStack() as stack:
            if (path / SUPERSEDED).exists():
                shutil.copy(path / SUPERSEDED, folder / SUPERSEDED)
            files = [stack.enter_context(open(folder / name, "ab", opener=result_file)) for name in names]
            observations, traces, summaries, superseded = files
            for run in StoredRuns(path).every():
                if run.difference is not None or is_owed(run.trace):
                    superseded.write(run.trace_line)
                    continue
                observations.write(run.observations)
                traces.write(run.trace_line)
                summaries.write(run.summary_line)
            for file in files:
                file.flush()
                sync(file.fileno())
    except OSError as error:
        raise OutputError(path, f"its files cannot be rewritten: {error.strerror or error}") from None


class SupersededTrace(msgspec.Struct):
    """What is counted of a line of `superseded.jsonl`."""

    passed: bool
    error: RunError | None
    errors: list[RunError]


def count_superseded(path: Path) -> tuple[int, int]:
    """Return how many runs have been superseded, and in how many of them the agent had failed: re-rolls.

    Raises:
        OutputError: `superseded.jsonl` cannot be read.
    """
    decode = msgspec.json.Decoder(SupersededTrace).decode
    count = rerolled = 0
    file = current_file(path, SUPERSEDED)
    try:
        with open(file, "rb", opener=regular) as lines:
            for line in lines:
                count += 1
                rerolled += has_failed(decode(line))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(file, str(error.strerror or error)) from None
    except UNREADABLE as error:
        raise OutputError(Path(f"{file}:{count}"), f"not a trace: {error}") from None
    return count, rerolled
