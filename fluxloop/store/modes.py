"""Who may read results: their directory says it for all that is in it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from fluxloop.store.files import regular
from fluxloop.system import System

_FILE = 0o666
_SETGID = stat.S_ISGID


def directory_mode(mode: str) -> int:
    """Return the permissions of a directory whose files have those given in octal: it opens for who may read."""
    bits = int(mode, 8)
    return bits | (bits & 0o444) >> 2


def mode_of(directory: Path) -> int:
    """Return the permissions of a directory."""
    return stat.S_IMODE(os.stat(directory).st_mode) & 0o777


def make_directory(path: Path, mode: int) -> None:
    """Make a directory for results with just these permissions, whatever the umask is.

    Raises:
        OSError: it cannot be made, or is there.
    """
    os.mkdir(path, 0o700)
    with suppress(OSError):  # a file system without permissions
        # A folder that a group shares hands its group down by this bit.
        os.chmod(path, mode | os.stat(path).st_mode & _SETGID)


def result_file(path: str | Path, flags: int) -> int:
    """Open a file of results, for `open(..., opener=result_file)`; a new one has its directory's permissions.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    handle = regular(path, flags, 0o600)
    if flags & os.O_CREAT and hasattr(System, "fchmod"):
        with suppress(OSError):  # a file system without permissions
            if System.fstat(handle).st_size == 0:
                directory = System.stat(os.path.dirname(path) or ".")
                System.fchmod(handle, directory.st_mode & _FILE)
    return handle


def change_mode(directory: Path, mode: int) -> None:
    """Give a directory of results and its files other permissions, as far as they are ours."""
    with suppress(OSError):
        os.chmod(directory, mode | os.stat(directory).st_mode & _SETGID)
        for entry in os.scandir(directory):
            if entry.is_file(follow_symlinks=False):
                os.chmod(entry.path, mode & _FILE)
