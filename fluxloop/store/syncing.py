"""Many writes, one sync: files follow to the disk within a second, without anybody waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fluxloop.store.lines import LineFile
from fluxloop.store.presence import Kept, TakenAwayError
from fluxloop.system import new_thread

SYNC_AFTER = 0.5
"""Seconds from a write to the sync that others share with it: half of what is promised, the rest is the disk's."""
LOOK_AFTER = 2.0
"""Seconds without a write after which it is looked whether all is there still."""


class SyncError(OSError):
    """The disk did not take what the system had taken; what `written` counted since may be lost."""

    def __init__(self, error: OSError, safe: int) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.safe = safe
        """How many writes are known to be on the disk."""


class GroupSync:
    """Put files on the disk soon after they were written, and see that they are there, in a thread of its own.

    Args:
        files: what is written.
        kept: what lies beside them and is to stay as it is.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> file = LineFile(Path(tempfile.mkdtemp()) / "lines")
        >>> group = GroupSync([file])
        >>> file.append(b"one\\n"); group.written(1)
        >>> group.close(); file.close()
    """

    def __init__(self, files: Sequence[LineFile], kept: Sequence[Kept] = ()) -> None:
        self._files = files
        self._kept = kept
        self._written = self._synced = 0
        self._is_due = False
        self._due = threading.Event()
        self._closing = threading.Event()
        self._failure: OSError | TakenAwayError | None = None
        self._thread: threading.Thread | None = None

    def written(self, count: int) -> None:
        """Note that `count` records more have been handed to the system."""
        self._written += count
        if not self._is_due:
            self._is_due = True
            self._due.set()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        thread = new_thread(self._follow, "fluxloop-sync")
        try:
            thread.start()
        except RuntimeError:  # the agents have taken all the system gives
            self._is_due = False
            self._sync()
        else:
            self._thread = thread

    def check(self) -> None:
        """Do nothing while all is well.

        Raises:
            SyncError: a sync has failed.
            TakenAwayError: somebody else has changed what was written.
        """
        if isinstance(self._failure, TakenAwayError):
            raise self._failure
        if self._failure is not None:
            raise SyncError(self._failure, self._synced)

    def look(self) -> None:
        """Hold what was written against what is there.

        Raises:
            TakenAwayError: somebody else has changed it.
            SyncError: a sync has failed.
        """
        self._look()
        self.check()

    def close(self) -> None:
        """End the thread and put the rest on the disk; nothing is asked of a disk that has failed.

        Raises:
            SyncError: this sync failed, or an earlier one.
            TakenAwayError: somebody else has changed what was written.
        """
        self._closing.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        if self._written > self._synced and not isinstance(self._failure, OSError):
            self._sync()
        self.look()

    def _follow(self) -> None:
        while self._failure is None:
            if not self._due.wait(LOOK_AFTER):
                self._look()
                continue
            if self._closing.wait(SYNC_AFTER):
                return
            self._due.clear()
            if self._closing.is_set():
                return  # the call came just now, and was cleared with the rest
            self._is_due = False  # from here on a write asks for the next sync
            self._sync()

    def _sync(self) -> None:
        written = self._written
        try:
            for file in self._files:
                file.sync()
        except OSError as error:
            self._failure = error
        else:
            self._synced = written
            self._look()

    def _look(self) -> None:
        if self._failure is not None:
            return
        try:
            for file in self._files:
                file.check()
            for kept in self._kept:
                kept.check()
        except TakenAwayError as error:
            self._failure = error
