"""Whole lines to the end of a file, and one file in the place of another."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class LineFile:
    """A file that grows by whole lines, each write handed to the system at once.

    Nothing waits in a buffer of ours, so a process killed between two writes loses neither.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lines"
        >>> file = LineFile(path); file.append(b"one\\n"); file.close()
        >>> path.read_bytes()
        b'one\\n'
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (closed by close)

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: the system did not take them all.
        """
        written = self._file.write(lines)
        while written < len(lines):
            # A nearly full disk takes a part; the next write says why it takes no more.
            lines = lines[written:]
            written = self._file.write(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file, so that a reader sees the old or the new, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
