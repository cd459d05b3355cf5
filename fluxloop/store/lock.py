"""One writer for an experiment directory."""

from __future__ import annotations

import errno
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from fluxloop.clock import sleep
from fluxloop.exceptions import OutputError
from fluxloop.store.files import IrregularError, read_regular, regular
from fluxloop.store.layout import LOCK
from fluxloop.store.modes import result_file
from fluxloop.system import System

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second writer out
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)

_TRIES, _PAUSE = 10, 0.02
"""Whoever only asks who the writer is has the lock for a moment, too."""

_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


class LockedError(OutputError):
    """Another writer has the directory."""


class DirectoryLock:
    """Hold an experiment directory for as long as the context lasts.

    The system lets go of it when the process ends, however it ends. The file that carries it says
    who the writer is; after a crash it stays, and means nothing.

    Example:
        >>> import tempfile
        >>> with DirectoryLock(Path(tempfile.mkdtemp())):
        ...     pass
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self.is_supported = fcntl is not None
        """False where the file system knows no locks."""

    def __enter__(self) -> DirectoryLock:
        """Take the lock.

        Raises:
            LockedError: another writer has it; says which.
            OutputError: the directory cannot be written to.
        """
        try:
            for _ in range(_TRIES):
                if self._take():
                    break
                sleep(_PAUSE)
            else:
                told = f"another process writes to it ({_who(self._path)}); wait for its end, or stop it"
                raise LockedError(self._path, told)
        except IrregularError as error:
            raise OutputError(self._path / LOCK, str(error.strerror)) from None
        except OSError as error:
            raise OutputError(self._path, f"cannot be written to: {error.strerror or error}") from None
        _held.add(self)
        return self

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def follow(self, path: Path) -> None:
        """Go on holding the directory under another name, which it was given meanwhile."""
        self._path = path

    def _take(self) -> bool:
        """Take the lock; False while another has it, or when its file was deleted meanwhile."""
        file = self._path / LOCK
        handle = result_file(file, os.O_RDWR | os.O_CREAT)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(handle)
                raise
            self.is_supported = False
        try:
            found = os.fstat(handle)
            is_there = os.path.samestat(found, os.lstat(file))
        except FileNotFoundError:
            is_there = False
        if not is_there:
            os.close(handle)
            return False
        try:
            if found.st_nlink > 1:
                raise OSError(errno.EMLINK, f"{LOCK} has another name elsewhere; delete it here")
            os.ftruncate(handle, 0)
            os.write(handle, f"pid {System.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _held.discard(self)
        if self._handle is not None:
            file = self._path / LOCK
            with suppress(OSError):
                if os.path.samestat(System.fstat(self._handle), os.lstat(file)):  # the directory may be another by now
                    System.unlink(file)  # while it is held, so that nobody's but ours goes
            self.let_go()

    def let_go(self) -> None:
        """Close the file, and leave it where it is."""
        if self._handle is not None:
            with suppress(OSError):  # closed by an agent, as what closes all files does
                System.close(self._handle)
            self._handle = None


def writer_of(path: Path) -> str | None:
    """Return who writes to an experiment directory now, or None."""
    try:
        handle = regular(path / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _who(path)
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)


def _who(path: Path) -> str:
    try:
        return read_regular(path / LOCK).decode(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


def _leave_to_the_parent() -> None:
    # A child shares the lock with its parent, and would keep it beyond the parent's death.
    for lock in list(_held):
        lock.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
