"""A recording of calls, read back: which of them are replayed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from attrs import field, frozen

from fluxloop.exceptions import ConfigError, Problem
from fluxloop.recording.markers import OLD_VERSION, VERSION

MAX_LISTED = 5
"""Targets or iterations a message lists."""
_START = b'{"_version":'


class _Line(msgspec.Struct, rename={"version": "_version"}):
    target: str
    version: str | int | None = None
    iteration: int | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    timestamp: str | float | None = None


class _Head(msgspec.Struct):
    """What decides whether a line is wanted; the rest is not even built for the others."""

    target: str
    iteration: int | None = None


@frozen(kw_only=True)
class RecordedCall:
    """One line of a recording."""

    line: int
    target: str
    version: str
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    timestamp: str | None = None


@frozen(kw_only=True)
class Recordings:
    """The recorded calls that are replayed."""

    path: Path
    calls: tuple[RecordedCall, ...]
    choice: str
    """Which of the file's calls they are, in words."""
    crosses: bool
    """Whether each input is run with each of them, be there one or many."""
    digest: str
    """Of these calls alone: others may be added to the file."""
    lines: int
    """How many lines the file had."""
    remark: str | None
    """What of the file could not be read."""


def read_recordings(path: Path, select: Any, names: Sequence[str], lines: int | None = None) -> Recordings:
    """Read the calls that are to be replayed.

    Args:
        path: a file that `fluxloop.record` or the earlier fluxloop has written.
        select: `last`, `first`, `all`, or a mapping of `target` and `iteration`.
        names: what the target may be called there, the one it is known by first.
        lines: read so many of the file, as a resume does, because a service may go on recording.

    Raises:
        ConfigError: the file cannot be read, or holds no such call.
    """
    wanted = select if isinstance(select, Mapping) else {}
    targets = (str(wanted["target"]),) if "target" in wanted else tuple(names)
    scan = _Scan(path, targets, wanted.get("iteration"), select if isinstance(select, str) else "last")
    try:
        with path.open("rb") as file:
            scan.all(islice(file, lines))
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        told = f"{what}; fluxloop.enable_recording(path) in your service makes one"
        raise ConfigError([Problem(str(path), told, "replay_args.recording_file")]) from None
    if not scan.chosen:
        raise ConfigError([Problem(str(path), scan.lacking(), "replay_args.select")])
    try:
        calls = tuple(_call(number, line) for number, line in scan.chosen)
    except _UnreadableError as error:
        raise ConfigError([Problem(f"{path}:{error.line}", str(error), "replay_args.recording_file")]) from None
    digest = blake2b(digest_size=16)
    for _, line in scan.chosen:
        digest.update(line + b"\n")
    return Recordings(
        path=path,
        calls=calls,
        choice=scan.choice(),
        crosses=select == "all",
        digest=digest.hexdigest(),
        lines=scan.lines,
        remark=scan.remark(),
    )


class _Scan:
    """One pass over the lines."""

    def __init__(self, path: Path, targets: tuple[str, ...], iteration: int | None, which: str) -> None:
        self._path = path
        self._targets = targets
        self._iteration = iteration
        self._which = which
        self._decode = msgspec.json.Decoder(_Head).decode
        self._seen: Counter[str] = Counter()
        self._iterations: dict[int | None, None] = {}
        self._matching = 0
        self._unread: list[int] = []
        self.lines = 0
        self.chosen: list[tuple[int, bytes]] = []
        """The lines that are replayed, with their numbers."""

    def all(self, lines: Iterator[bytes]) -> None:
        for number, line in enumerate(lines, 1):
            self.lines = number
            if not line.strip():
                continue
            found = self._head(line)
            if found is None:
                self._unread.append(number)
            else:
                self._one(number, *found)

    def _head(self, line: bytes) -> tuple[_Head, bytes] | None:
        for text in (line, line[line.rfind(_START) :]):  # a line may follow one that was cut short
            try:
                return self._decode(text), text.strip()
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
        return None

    def _one(self, number: int, head: _Head, line: bytes) -> None:
        self._seen[head.target] += 1
        if head.target not in self._targets:
            return
        if len(self._iterations) < 1000:
            self._iterations[head.iteration] = None
        if self._iteration is not None and head.iteration != self._iteration:
            return
        self._matching += 1
        if self._which == "last":
            self.chosen = [(number, line)]
        elif self._which == "all" or not self.chosen:
            self.chosen.append((number, line))

    def lacking(self) -> str:
        """Say why nothing was chosen, and what there is."""
        if not self._seen:
            return "no call is recorded in it" + (f"; {self.remark()}" if self._unread else "")
        wanted = self._targets[0]
        if any(target in self._seen for target in self._targets):
            there = [str(iteration) for iteration in self._iterations if iteration is not None]
            more = ", …" if len(there) > MAX_LISTED else ""
            told = f"no call of {wanted} with iteration {self._iteration} is recorded in it"
            return f"{told}; it has {', '.join(there[:MAX_LISTED])}{more}" if there else f"{told}; its calls have none"
        by_name = {target.rpartition(":")[2]: target for target in self._seen}
        close = difflib.get_close_matches(wanted.rpartition(":")[2], by_name, 1)
        listed = ", ".join(f"{target} ({count})" for target, count in self._seen.most_common(MAX_LISTED))
        hint = f"; did you mean {by_name[close[0]]}?" if close else ""
        told = f"no call of {wanted} is recorded in it; it has {listed}{hint}"
        return f"{told}; what was recorded under another name is replayed with select: {{target: …}}"

    def choice(self) -> str:
        if self._which == "all":
            return f"all {self._matching} calls" if self._matching > 1 else "the only call"
        return f"the {self._which} of {self._matching} calls" if self._matching > 1 else "the only call"

    def remark(self) -> str | None:
        if not self._unread:
            return None
        count, first = len(self._unread), self._unread[0]
        which = f"line {first} is" if count == 1 else f"{count} lines are, the first of them line {first},"
        return f"{self._path}: {which} no recorded call and left out"


class _UnreadableError(Exception):
    def __init__(self, line: int, told: str) -> None:
        super().__init__(told)
        self.line = line


def _call(number: int, line: bytes) -> RecordedCall:
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _UnreadableError(number, f"not a recorded call: {error}") from None
    version = OLD_VERSION if found.version is None else str(found.version)
    if version not in (OLD_VERSION, VERSION):
        told = f"recorded by a newer fluxloop, in version {version} of the format; this one reads up to {VERSION}"
        raise _UnreadableError(number, told)
    return RecordedCall(
        line=number,
        target=found.target,
        version=version,
        args=found.args or [],
        kwargs=found.kwargs or {},
        timestamp=None if found.timestamp is None else str(found.timestamp),
    )
