"""Opening the files of an experiment directory: regular ones, and never by a link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from fluxloop.system import System

_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Follow no link, and wait for nobody at the other end of a pipe."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class IrregularError(OSError):
    """A name in an experiment directory leads elsewhere, or to what is no file."""


def regular(path: str | Path, flags: int, mode: int = 0o666) -> int:
    """Open a regular file that stands at `path` itself; an `opener` for `open`.

    Somebody else may have made the directory: a link in it would have us read, cut or write
    what lies outside, and a pipe would have us wait.

    Raises:
        IrregularError: there is a link, a folder, a pipe, a socket or a device.
        OSError: it cannot be opened.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "traces.jsonl"
        >>> with open(path, "xb", opener=regular) as file:
        ...     file.write(b"{}\\n")
        3
    """
    if not _CAREFUL:  # Windows
        require_regular(Path(path))
    try:
        handle = System.open(path, flags | _CAREFUL, mode)
    except FileExistsError:
        raise
    except OSError:
        require_regular(Path(path))
        raise
    try:
        _require(Path(path), System.fstat(handle))
    except BaseException:
        System.close(handle)
        raise
    return handle


def read_regular(path: Path) -> bytes:
    """Return the content of a file, which `regular` opens."""
    with open(path, "rb", opener=regular) as file:
        return file.read()


def require_regular(path: Path) -> None:
    """Do nothing when the name is free, or a regular file's.

    Raises:
        IrregularError: there is a link, a folder, a pipe, a socket or a device.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return
    _require(path, found)


def _require(path: Path, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISLNK(found.st_mode):
        told = f"is a link to {os.readlink(path)!r}, and links in an experiment directory are not followed"
        raise IrregularError(errno.ELOOP, f"{told}; put the file itself there, or delete the link")
    kind = next((name for is_so, name in _KINDS if is_so(found.st_mode)), "something else")
    raise IrregularError(errno.EINVAL, f"is {kind} where a file belongs; move it away")
