"""Whole lines to the end of a file, one file in the place of another, and both down to the disk."""

from __future__ import annotations

import errno
import importlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fluxloop.store.files import regular
from fluxloop.store.modes import result_file
from fluxloop.store.presence import changed, look
from fluxloop.system import System

_UNKNOWN = (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL, errno.EBADF)
"""What a file system says that knows no such thing."""


def _full_sync() -> Callable[[int], object] | None:
    """macOS's own, because its fsync leaves the data in the drive's cache; None elsewhere."""
    try:
        fcntl: Any = importlib.import_module("fcntl")
        command = fcntl.F_FULLFSYNC
    except (ImportError, AttributeError):
        return None
    return lambda handle: fcntl.fcntl(handle, command)


_FULL_SYNC = _full_sync()


def sync(handle: int) -> None:
    """Put what was written to an open file on the disk itself.

    Raises:
        OSError: it may be lost; to ask again proves nothing, because the system forgets what failed.
    """
    if _FULL_SYNC is not None:
        try:
            _FULL_SYNC(handle)
            return
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
    System.fdatasync(handle)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on the disk, where the system lets us."""
    try:
        handle = System.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no directories
        return
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        System.close(handle)


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

    def __init__(self, path: Path, opener: Callable[[str, int], int] = regular) -> None:
        self.path = path
        self._file = open(path, "ab", buffering=0, opener=opener)  # noqa: SIM115  (closed by close)
        self._opened = System.fstat(self._file.fileno())
        self.size = self._opened.st_size
        """Bytes of whole lines."""
        self._most = self.size
        """Bytes that are there at most: a write may be under way."""

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: the system did not take them all; `cut` takes away what it did take.
        """
        left = len(lines)
        self._most = end = self.size + left
        try:
            # A nearly full disk takes a part; the next write says why it takes no more.
            while left:
                written = self._file.write(lines)
                if not written:
                    raise OSError(errno.EIO, "the system takes nothing and does not say why")
                left -= written
                if left:
                    lines = lines[written:]
        except OSError as error:
            raise _named(error) from None
        self.size = end

    def cut(self, size: int) -> None:
        """Take away all that stands after the first `size` bytes, as far as the system lets us."""
        with suppress(OSError):
            self.size = min(self.size, size)
            System.ftruncate(self._file.fileno(), size)
            self._most = size

    def sync(self) -> None:
        """Put what was written on the disk itself; from any thread.

        Raises:
            OSError: it may be lost.
        """
        handle = self._file.fileno()
        try:
            if not os.path.samestat(System.fstat(handle), self._opened):  # the number is another file's by now
                raise OSError(errno.EBADF, "")
            sync(handle)
        except OSError as error:
            raise _named(error) from None

    def check(self) -> None:
        """Do nothing while the name leads to this file and it is as long as was written; from any thread.

        Raises:
            TakenAwayError: somebody else has deleted, replaced, cut or written it.
        """
        while True:
            least = self.size
            found = look(self.path)
            if not os.path.samestat(found, self._opened):
                raise changed(self.path, "is another file than the one that was written")
            if least <= found.st_size <= self._most:
                return
            if self.size >= least:  # else it was cut meanwhile, by us
                raise changed(self.path, f"has {found.st_size:,} bytes where {least:,} were written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _named(error: OSError) -> OSError:
    """Say what no system call can: our files are closed by what closes all of a process, as daemons do."""
    if error.errno != errno.EBADF:
        return error
    told = "the agent has closed the files of its process; run it with executor processes"
    return OSError(errno.EBADF, told)


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file, so that a reader sees the old or the new, never a part.

    Both the content and the new name are on the disk when this returns. A file that was there keeps its
    permissions, a new one has those of its directory.
    """
    temporary = path.parent / f".{path.name}.{System.urandom(6).hex()}"
    handle = result_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0))
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[System.write(handle, rest) :]
            sync(handle)
        finally:
            System.close(handle)
        with suppress(FileNotFoundError):
            System.chmod(temporary, stat.S_IMODE(System.stat(path).st_mode))
        System.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            System.unlink(temporary)
        raise
    sync_directory(path.parent)
