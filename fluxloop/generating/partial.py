"""What an unfinished generation has, beside the file it is to become."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from fluxloop.exceptions import GenerationError, OutputError
from fluxloop.store.files import read_regular, regular
from fluxloop.store.lines import LineFile

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second writer out
    fcntl = None  # type: ignore[assignment]


def partial_path(output: Path) -> Path:
    """Return where the parts of an output are kept until it is whole."""
    return output.with_name(output.name + ".partial")


class Partial:
    """Entries by number, each a whole line of its file as soon as it is there.

    Args:
        output: what they are to become.
        digest: of all that decides what the entries are; those of another are not gone on with.
        overwrite: discard those of another.
    """

    def __init__(self, output: Path, digest: str, *, overwrite: bool) -> None:
        self.path = partial_path(output)
        self.entries: dict[int, dict[str, Any]] = {}
        self._digest = digest
        self._overwrite = overwrite
        self._file: LineFile
        self._lock: int

    def __enter__(self) -> Partial:
        """Open the file and read what it has.

        Raises:
            OutputError: another process writes to it, or it is of another generation.
            GenerationError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = regular(self.path, os.O_RDWR | os.O_CREAT)
            try:
                self._take_lock()
                size = self._read()
                self._file = LineFile(self.path)
                self._file.cut(size)
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise GenerationError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.entries:
            self.discard()
        os.close(self._lock)

    def add(self, number: int, entry: dict[str, Any]) -> None:
        """Keep an entry.

        Raises:
            GenerationError: it cannot be written; those before it are kept.
        """
        line = msgspec.json.encode({"of": self._digest, "number": number, "entry": entry}) + b"\n"
        size = self._file.size
        try:
            self._file.append(line)
        except OSError as error:
            self._file.cut(size)
            raise GenerationError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        self.entries[number] = entry

    def discard(self) -> None:
        """Take the file away, once what it has is elsewhere."""
        with suppress(OSError):
            self.path.unlink()

    def _take_lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(self.path, "another process writes to it; wait for its end, or stop it") from None
        except OSError:  # a file system without locks
            pass

    def _read(self) -> int:
        """Read the whole lines and return their size."""
        content = read_regular(self.path)
        size = content.rfind(b"\n") + 1  # what follows was torn by a crash
        for number, line in enumerate(content[:size].splitlines(), 1):
            try:
                self._one(msgspec.json.decode(line))
            except (msgspec.DecodeError, KeyError, TypeError):
                what = "is no line of an unfinished generation; --overwrite begins anew"
                if not self._overwrite:
                    raise OutputError(self.path, f"line {number} {what}") from None
            except _OtherError:
                what = "holds a generation begun with other inputs, personas, strategies, model or seed"
                if not self._overwrite:
                    raise OutputError(self.path, f"{what}; --overwrite begins anew") from None
            else:
                continue
            self.entries.clear()
            return 0
        return size

    def _one(self, line: Mapping[str, Any]) -> None:
        if line["of"] != self._digest:
            raise _OtherError
        self.entries[int(line["number"])] = line["entry"]


class _OtherError(Exception):
    """A line is of another generation."""
