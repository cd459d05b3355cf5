"""Whole lines to the end of a file, and one file in the place of another."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
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
        self.size = os.fstat(self._file.fileno()).st_size
        """Bytes of whole lines."""

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: the system did not take them all; `cut` takes away what it did take.
        """
        rest = lines
        # A nearly full disk takes a part; the next write says why it takes no more.
        while written := self._file.write(rest):
            if written == len(rest):
                break
            rest = rest[written:]
        self.size += len(lines)

    def cut(self, size: int) -> None:
        """Take away all that stands after the first `size` bytes, as far as the system lets us."""
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), size)
            self.size = size

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
