"""The runs of an experiment directory that are whole in all three line files, and what stands behind them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from attrs import define, frozen

from fluxloop.exceptions import OutputError, Problem
from fluxloop.plan import Positions
from fluxloop.records import RunError, Status, TraceSummary, Usage
from fluxloop.store.codec import UNREADABLE, decode_observation, decode_trace_summary
from fluxloop.store.files import read_regular, regular
from fluxloop.store.layout import CONFIG, LINE_FILES, SUMMARY, TRACES
from fluxloop.store.rewriting import current_file

MAX_DIFFERENCES = 20
"""Runs named that the files tell differently; whatever made them differ may have done so a thousand times."""
_BUFFER = 1 << 20
_PREFIX = "trace_"
_MAX_DIGITS = 9
"""Of the number in a trace id."""
_MAX_INDEX = 10**9
_MAX_WHOLE = 1 << 63
_MAX_MS = 1e15
"""What no run has; a damaged figure must not fill the memory, or be more than a file can hold in sum."""


_NO_USAGE = Usage(None, None)


class DamageError(OutputError):
    """A line file holds what no writer of ours left there; `path`, `line` and `offset` say where."""

    def __init__(self, path: Path, line: int, offset: int, message: str) -> None:
        cure = (
            f"no crash leaves this; to give up what stands from there on: truncate -s {offset} {shlex.quote(str(path))}"
        )
        super().__init__(Path(f"{path}:{line}"), f"{message}; {cure}")
        self.path = path
        self.line = line
        self.offset = offset
        """Bytes before the line."""


class StoredTrace(msgspec.Struct):
    """A line of `traces.jsonl`, of which only what is counted is decoded."""

    trace_id: str
    input_id: str
    input_index: int
    iteration: int
    persona: str | None
    raw_input: msgspec.Raw = msgspec.field(name="input")
    raw_output: msgspec.Raw = msgspec.field(name="output")
    status: Status
    passed: bool
    error: RunError | None
    duration_ms: float
    start_time: str
    attempts: int
    seed: int
    observation_count: int
    usage: Usage | None
    end_time: str
    total_ms: float
    raw_metadata: msgspec.Raw = msgspec.field(name="metadata")
    expected: msgspec.Raw
    errors: list[RunError]
    stdout: msgspec.Raw
    stderr: msgspec.Raw
    observations: list[msgspec.Raw]

    @property
    def output(self) -> msgspec.Raw | None:
        """The output as JSON, or None."""
        return None if bytes(self.raw_output) == b"null" else self.raw_output

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What belongs to the input."""
        return None if bytes(self.raw_metadata) == b"null" else msgspec.json.decode(self.raw_metadata, type=dict)

    @property
    def number(self) -> int:
        """The number in the trace id, from 1; 0 for an id that is none of ours."""
        digits = self.trace_id.removeprefix(_PREFIX)
        is_ours = self.trace_id.startswith(_PREFIX) and digits.isdecimal() and digits.isascii()
        return int(digits) if is_ours and len(digits) <= _MAX_DIGITS else 0


@frozen
class StoredRun:
    """One run, whole in all three files."""

    trace: StoredTrace
    line: int
    """Of its trace, from 1."""
    observations: bytes
    """Its lines in `observations.jsonl`."""
    trace_line: bytes
    summary_line: bytes
    difference: Problem | None = None
    """Where another file tells the run otherwise than its trace does."""


@define
class Tail:
    """What stands in a file behind the last run that is whole in all three."""

    path: Path
    line: int
    """The first line of it, from 1."""
    offset: int
    """Bytes before it."""
    size: int
    """Bytes of it."""

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.path.name} from line {self.line}"


class StoredRuns:
    """Pass over the runs of an experiment directory, in memory that does not grow with them.

    Example:
        >>> runs = StoredRuns("experiments/quickstart_20261123_120000")  # doctest: +SKIP
        >>> sum(run.trace.passed for run in runs)  # doctest: +SKIP
        170
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.numbers = Positions()
        """Of the runs passed so far, the numbers in their trace ids."""
        self.least_digits: int | None = None
        """How many digits the shortest of their ids has."""
        self.tails: list[Tail] = []
        """After the last run: where each file is to be cut, for the files that are longer."""
        self.differing = 0
        """How many runs the files tell differently."""
        self.differences: list[Problem] = []
        """Where, for the first twenty of them."""

    def __iter__(self) -> Iterator[StoredRun]:
        """Yield the runs in the order they finished; those that the files tell differently are passed over.

        Raises:
            DamageError, OutputError: as from `every`.
        """
        return (run for run in self.every() if run.difference is None)

    def every(self) -> Iterator[StoredRun]:
        """Yield the runs in the order they finished, also those that the files tell differently.

        Raises:
            DamageError: a line before the last whole run is not as it was written.
            OutputError: a file is missing, or cannot be read.
        """
        if _is_unwritten(self.path):
            return
        with ExitStack() as stack:
            # The last to be written is opened first: a run that is whole in it is whole in all, also while
            # its writer goes on.
            summaries, traces, observations = files = [
                stack.enter_context(_Lines(current_file(self.path, name))) for name in reversed(LINE_FILES)
            ]
            while (trace := _next_trace(traces)) is not None:
                found = _next_observations(observations, trace)
                if found is None:
                    _tell_observation(observations, trace, traces, summaries)
                    break
                observed, difference = found
                is_there, other = _next_summary(summaries, trace, traces, self.numbers)
                if not is_there:
                    break
                difference = difference or other
                if difference is None:
                    self._note(trace, traces)
                else:
                    self._note_difference(difference)
                for file in files:
                    file.keep()
                yield StoredRun(trace, traces.line, observed, traces.last, summaries.last, difference)
            self.tails = [tail for file in reversed(files) if (tail := file.tail())]

    def _note_difference(self, difference: Problem) -> None:
        self.differing += 1
        if self.differing <= MAX_DIFFERENCES:
            self.differences.append(difference)

    def _note(self, trace: StoredTrace, traces: _Lines) -> None:
        number = trace.number
        if not number:
            raise traces.damage(f"expected a trace id as trace_001, got {trace.trace_id!r}")
        if not self.numbers.add(number):
            raise traces.damage(_again(trace))
        digits = len(trace.trace_id) - len(_PREFIX)
        if self.least_digits is None or digits < self.least_digits:
            self.least_digits = digits


def count_whole(path: Path) -> int:
    """Return how many runs can be read from an experiment directory, up to the first damage."""
    count = 0
    with suppress(OutputError, OSError):
        for _ in StoredRuns(path):
            count += 1
    return count


def _is_unwritten(path: Path) -> bool:
    """Tell whether a crash came before the last of the line files was made: those that were are empty still."""
    files = [current_file(path, name) for name in LINE_FILES]
    made = [file for file in files if file.exists()]
    is_begun = len(made) < len(files) and made == files[: len(made)] and (path / CONFIG).exists()
    return is_begun and not any(file.stat().st_size for file in made) and not _has_counted(path)


class _Counted(msgspec.Struct):
    total_traces: int


def _has_counted(path: Path) -> bool:
    """Tell whether the summary counts runs, so that files that are missing were taken away."""
    try:
        return msgspec.json.decode(read_regular(path / SUMMARY), type=_Counted).total_traces > 0
    except (OSError, *UNREADABLE):
        return False


class _Lines:
    """A file read line by line, as long as it was when opened, with the place of what belongs to whole runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = b""
        self._file: BinaryIO
        self.line = self._offset = self._size = 0
        self._kept_line = self._kept_offset = 0

    def __enter__(self) -> _Lines:
        try:
            self._file = open(self.path, "rb", buffering=_BUFFER, opener=regular)
            self._size = self._file.seek(0, 2)
            self._file.seek(0)
        except OSError as error:
            raise OutputError(self.path, str(error.strerror or error)) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def next(self) -> bytes:
        """Return the next line, empty at the end."""
        try:
            line = self._file.readline()
        except OSError as error:
            raise OutputError(self.path, str(error.strerror or error)) from None
        if self._offset + len(line) > self._size:  # it grew since
            line = line[: self._size - self._offset]
        self.last = line
        self.line += 1
        self._offset += len(line)
        return line

    def following(self) -> bytes:
        """Return the line after the last one, without taking it."""
        place = self._file.tell()
        line = self._file.readline()
        self._file.seek(place)
        return line

    def keep(self) -> None:
        """Take what was read as a whole run's."""
        self._kept_line, self._kept_offset = self.line, self._offset

    def difference(self, message: str) -> Problem:
        """Return what of the last line another file tells otherwise."""
        return Problem(f"{self.path}:{self.line}", message)

    def damage(self, message: str) -> DamageError:
        """Return what is wrong with the last line."""
        return DamageError(self.path, self.line, self._offset - len(self.last), message)

    def end_here(self, message: str, is_whole: Any) -> None:
        """Take the last line for the torn end of the file.

        Raises:
            DamageError: a whole line follows, so that no crash has torn this one.
        """
        damage = self.damage(message)
        while line := self.next():
            if _decoded(is_whole, line) is not None:
                raise damage

    def tail(self) -> Tail | None:
        """Return what follows the last whole run, if anything does."""
        size = self._size - self._kept_offset
        return Tail(self.path, self._kept_line + 1, self._kept_offset, size) if size else None


def is_whole(line: bytes, decode: Any) -> bool:
    """Tell whether a line is a whole record."""
    return _decoded(decode, line) is not None


_decode_stored = msgspec.json.Decoder(StoredTrace).decode


def _decoded(decode: Any, line: bytes) -> Any:
    """The record of a line, None for a line that is not whole."""
    if not line.endswith(b"}\n"):
        return None
    try:
        line.decode()  # what the decoder passes over is not looked at for this
        return decode(line)
    except UNREADABLE:
        return None


def _next_trace(traces: _Lines) -> StoredTrace | None:
    line = traces.next()
    if not line:
        return None
    trace: StoredTrace | None = _decoded(_decode_stored, line)
    if trace is None:
        traces.end_here(_broken(line), _decode_stored)
    elif trace.observation_count != len(trace.observations):
        counted = f"observation_count is {trace.observation_count} beside {len(trace.observations)} observations"
        raise traces.damage(counted)
    elif absurd := _absurd(trace):
        raise traces.damage(absurd)
    return trace


def _absurd(trace: StoredTrace) -> str | None:
    """Say which figure of a run no run can have, or None."""
    if not 0 <= trace.input_index < _MAX_INDEX:
        return f"input_index is {trace.input_index}, expected the place of an input, from 0 to {_MAX_INDEX - 1}"
    usage = trace.usage or _NO_USAGE
    for name, value, least in (
        ("iteration", trace.iteration, 0),
        ("attempts", trace.attempts, 1),
        ("seed", trace.seed, 0),
        ("usage.input_tokens", usage.input_tokens or 0, -_MAX_WHOLE),
        ("usage.output_tokens", usage.output_tokens or 0, -_MAX_WHOLE),
    ):
        if not least <= value < _MAX_WHOLE:
            return f"{name} is {value}, expected a whole number from {least}"
    for name, duration in (("duration_ms", trace.duration_ms), ("total_ms", trace.total_ms)):
        if not -_MAX_MS < duration < _MAX_MS:
            return f"{name} is {duration}, expected milliseconds"
    return None


def _next_observations(observations: _Lines, trace: StoredTrace) -> tuple[bytes, Problem | None] | None:
    """The lines of a run with the first difference, or None when the last line read is none of its."""
    found: list[bytes] = []
    difference: Problem | None = None
    damage: DamageError | None = None
    for expected in trace.observations:
        line = observations.next()
        if line[:-1] != bytes(expected) or not line.endswith(b"\n"):
            if _is_of(trace, line) and damage is None:
                told = f"an observation of {trace.trace_id} that differs from the one in {TRACES}"
                difference, damage = observations.difference(told), observations.damage(told)
            elif damage is None:
                return None
            elif not _is_of(trace, line):
                raise damage
        found.append(line)
    # As many as its trace has, and no more: else lines are missing, and which is whose cannot be told.
    if damage is not None and _is_of(trace, observations.following()):
        raise damage
    return b"".join(found), difference


def _is_of(trace: StoredTrace, line: bytes) -> bool:
    observation = _decoded(decode_observation, line)
    return observation is not None and observation.trace_id == trace.trace_id


def _tell_observation(observations: _Lines, trace: StoredTrace, traces: _Lines, summaries: _Lines) -> None:
    """Say what is wrong with the last line, unless it is torn; where files disagree, the third one decides."""
    line = observations.last
    if not line:
        return
    observation = _decoded(decode_observation, line)
    if observation is None:
        observations.end_here(_broken(line), decode_observation)
        return
    summary = _decoded(decode_trace_summary, summaries.next())
    if summary is not None and summary.trace_id == observation.trace_id:
        raise traces.damage(f"{trace.trace_id} where {summary.trace_id} belongs, as the other files have it")
    raise observations.damage(f"an observation of {observation.trace_id} where one of {trace.trace_id} belongs")


def _next_summary(
    summaries: _Lines, trace: StoredTrace, traces: _Lines, earlier: Positions
) -> tuple[bool, Problem | None]:
    """Whether the short form of a run is there, and in what it differs."""
    line, trace_line = summaries.next(), traces.last
    if not line:
        return False, None
    # The short form is the beginning of the long one, but for the traceback.
    is_beginning = trace_line.startswith(line[:-2]) and trace_line.startswith(b',"end_time":', len(line) - 2)
    if is_beginning and line.endswith(b"}\n"):
        return True, None
    summary: TraceSummary | None = _decoded(decode_trace_summary, line)
    if summary is None:
        summaries.end_here(_broken(line), decode_trace_summary)
        return False, None
    if summary.trace_id != trace.trace_id:
        if trace.number in earlier:
            raise traces.damage(_again(trace))
        raise summaries.damage(f"{summary.trace_id} where {trace.trace_id} belongs, as {TRACES} has it")
    if field := _difference(summary, trace):
        return True, summaries.difference(f"{trace.trace_id} differs from the line in {TRACES}, in {field}")
    return True, None


def _difference(summary: TraceSummary, trace: StoredTrace) -> str | None:
    """The first field that the two tell differently, or None."""
    error = None if trace.error is None else trace.error.summary()
    pairs = {
        "input_id": (summary.input_id, trace.input_id),
        "input_index": (summary.input_index, trace.input_index),
        "iteration": (summary.iteration, trace.iteration),
        "persona": (summary.persona, trace.persona),
        "input": (summary.input, msgspec.json.decode(trace.raw_input)),
        "output": (summary.output, msgspec.json.decode(trace.raw_output)),
        "status": (summary.status, trace.status),
        "passed": (summary.passed, trace.passed),
        "error": (summary.error, error),
        "duration_ms": (summary.duration_ms, trace.duration_ms),
        "start_time": (summary.start_time, trace.start_time),
        "attempts": (summary.attempts, trace.attempts),
        "seed": (summary.seed, trace.seed),
        "observation_count": (summary.observation_count, trace.observation_count),
        "usage": (summary.usage, trace.usage),
    }
    return next((name for name, (one, other) in pairs.items() if one != other), None)


def _again(trace: StoredTrace) -> str:
    return f"{trace.trace_id} stands here a second time"


def _broken(line: bytes) -> str:
    if b"\0" in line:
        return "NUL bytes where a record belongs"
    if not line.endswith(b"\n"):
        return "a record without its end"
    return "not a record"
